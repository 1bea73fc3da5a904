"""Texts × teachers × samples → annotated shards."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import tee
from pathlib import Path
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch
from spacy_llm.pipeline.llm import LLMWrapper
from spacy_llm.ty import ModelWithContextLength, supports_sharding
from tqdm import tqdm

from .corpus import PROVENANCE, Text, read_texts, write_shards
from .errors import InstaNERError
from .files import write_whole
from .llm.replay import hash_prompt
from .pipeline import get_llms, sets_ents
from .tasks.grounding import Reading, Status, load_readings
from .tasks.ner import adopt
from .vote import Offsets, set_ents, vote

GENERATOR = "generator"  # the voter that stands for the marks of a text's writer

_BATCH = 200  # texts in memory while the teacher's samples are asked for


class Answer(NamedTuple):
    """What a teacher said about a doc.

    doc (Doc): The doc, with the entities that the task read from the answer.
    prompts (List[str]): The prompt for each of the doc's shards.
    readings (Optional[List[Reading]]): What became of each mention and line, or None
        if the task keeps no account of it.
    """

    doc: Doc
    prompts: list[str]
    readings: list[Reading] | None


@dataclass
class Summary:
    """What came of an annotation.

    voters (List[str]): All that could vote.
    texts (int): Texts annotated.
    held_out (int): Texts left out because they are kept for testing.
    unanswered (List[str]): Ids of texts left out because no answer could be read.
    readings (Counter[Tuple[str, str, str]]): Mentions and lines by voter, status and
        label.
    unread (List[Dict[str, str]]): Each mention and line that made no span: the text's
        id, voter, status, surface or line, and label.
    standings (Counter[Tuple[str, str]]): Spans by label and standing.
    unaccounted (Set[str]): Voters whose task keeps no account of what it cannot read.
    """

    voters: list[str] = field(default_factory=list)
    texts: int = 0
    held_out: int = 0
    unanswered: list[str] = field(default_factory=list)
    readings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unread: list[dict[str, str]] = field(default_factory=list)
    standings: Counter[tuple[str, str]] = field(default_factory=Counter)
    unaccounted: set[str] = field(default_factory=set)

    def add_readings(
        self, text_id: str, voter: str, readings: list[Reading] | None
    ) -> None:
        """Count what became of an answer."""
        if readings is None:
            self.unaccounted.add(voter)
        for status, surface, label in readings or []:
            self.readings[voter, status.value, label] += 1
            if status.is_loss:
                self.unread.append(
                    {
                        "id": text_id,
                        "voter": voter,
                        "status": status.value,
                        "text": surface,
                        "label": label,
                    }
                )

    def to_json(self) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): The summary as JSON values."""
        keys = ("voter", "status", "label", "count")
        return {
            **asdict(self),
            "readings": [
                dict(zip(keys, (*key, count), strict=True))
                for key, count in sorted(self.readings.items())
            ],
            "standings": [
                {"label": label, "standing": standing, "count": count}
                for (label, standing), count in sorted(self.standings.items())
            ],
            "unaccounted": sorted(self.unaccounted),
        }


def annotate(
    nlp: Language,
    texts: Path,
    output: Path,
    *,
    samples: int = 1,
    progress: bool = False,
) -> Summary:
    """Have a teacher annotate texts, let its samples and the marks of the texts'
    writer vote, and write the docs to shards: trusted spans are entities, disputed
    ones missing annotation, and who voted what is in user_data["instaner"].

    nlp (Language): Pipeline with one or more llm components that set entities.
    texts (Path): JSONL of texts; see corpus.read_texts.
    output (Path): Folder for the shards.
    samples (int): Number of answers to ask each llm component for.
    progress (bool): Show a progress bar.
    RETURNS (Summary): What came of it.
    RAISES (InstaNERError): When the teacher cannot answer, or no text is annotated.
    """
    llms = [
        (name, llm) for name, llm in get_llms(nlp) if sets_ents(adopt(llm.task), nlp)
    ]
    if not llms:
        raise InstaNERError(
            "No llm component of the teacher sets entities, so none can annotate."
        )
    total = sum(1 for _ in read_texts(texts))
    summary = Summary([f"{name}/{k}" for name, _ in llms for k in range(samples)])
    with (
        write_whole(output, holds=["*.spacy"]) as part,
        tqdm(total=total, desc="Annotating", unit="text", disable=not progress) as bar,
    ):
        rows = _hold_out(read_texts(texts), summary)
        docs = _annotate(nlp, llms, rows, samples, summary)
        write_shards(_count(docs, summary, bar), part)
        if not summary.texts:
            raise InstaNERError(
                f"None of the {total} texts in {texts} was annotated "
                f"({summary.held_out} are kept for testing, to "
                f"{len(summary.unanswered)} no answer could be read). Give texts, and "
                "check the teacher's answers."
            )
    return summary


def ask(llm: LLMWrapper, docs: Iterable[Doc], *, sample: int = 0) -> Iterator[Answer]:
    """Ask a teacher about docs, one request after the other.

    llm (LLMWrapper): The llm component.
    docs (Iterable[Doc]): The docs; their entities are overwritten.
    sample (int): Which of several answers to ask for, from 0.
    YIELDS (Answer): Answers in the order of the docs.
    """
    task, model = llm.task, llm._model
    if hasattr(model, "sample"):
        model.sample = sample
    if supports_sharding(task):
        length = (
            model.context_length if isinstance(model, ModelWithContextLength) else None
        )
        prompted = ((list(p), list(s)) for p, s in task.generate_prompts(docs, length))
    else:
        docs, own = tee(docs)
        prompts = task.generate_prompts(docs)
        prompted = (([p], [doc]) for p, doc in zip(prompts, own, strict=True))
    for shard_prompts, shards in prompted:
        responses = [list(response) for response in model([shard_prompts])]
        inputs = [shards] if supports_sharding(task) else shards
        (doc,) = task.parse_responses(inputs, responses)
        yield Answer(doc, [str(p) for p in shard_prompts], load_readings(doc))


def _hold_out(texts: Iterable[Text], summary: Summary) -> Iterator[Text]:
    for text in texts:
        if text.split == "test":
            summary.held_out += 1
        else:
            yield text


def _annotate(
    nlp: Language,
    llms: list[tuple[str, LLMWrapper]],
    texts: Iterable[Text],
    samples: int,
    summary: Summary,
) -> Iterator[Doc]:
    before = _get_before(nlp, llms[0][0])
    for batch in minibatch(texts, _BATCH):
        ballots: list[dict[str, list[Offsets]]] = [{} for _ in batch]
        keys: list[dict[str, list[str]]] = [{} for _ in batch]
        for text, ballot in zip(batch, ballots, strict=True):
            if text.marks is not None:
                doc = nlp.make_doc(text.text)
                ballot[GENERATOR], readings = _ground_marks(doc, text.marks)
                summary.add_readings(text.id, GENERATOR, readings)
        for name, llm in llms:
            for sample in range(samples):
                voter = f"{name}/{sample}"
                docs = (before(nlp.make_doc(text.text)) for text in batch)
                answers = _name_text(ask(llm, docs, sample=sample), batch)
                for number, answer in enumerate(answers):
                    keys[number][voter] = [hash_prompt(p) for p in answer.prompts]
                    summary.add_readings(batch[number].id, voter, answer.readings)
                    if _has_opinion(answer):
                        ballots[number][voter] = [
                            (ent.start_char, ent.end_char, ent.label_)
                            for ent in answer.doc.ents
                        ]
        for text, ballot, key in zip(batch, ballots, keys, strict=True):
            if not any(voter != GENERATOR for voter in ballot):
                summary.unanswered.append(text.id)
                continue
            doc = nlp.make_doc(text.text)
            candidates = vote(ballot)
            set_ents(doc, candidates)
            for candidate in candidates:
                summary.standings[candidate.label, candidate.standing.value] += 1
            doc.user_data[PROVENANCE] = {
                "id": text.id,
                "brief": text.brief,
                "voters": list(ballot),
                "prompts": key,
                "spans": [
                    {
                        **c._asdict(),
                        "voters": list(c.voters),
                        "standing": c.standing.value,
                    }
                    for c in candidates
                ],
            }
            yield doc


def _get_before(nlp: Language, llm_name: str) -> Callable[[Doc], Doc]:
    """What comes before the first llm component that is asked, other ones aside."""
    place = nlp.pipe_names.index(llm_name)
    pipes = [
        pipe for _, pipe in nlp.pipeline[:place] if not isinstance(pipe, LLMWrapper)
    ]

    def before(doc: Doc) -> Doc:
        for pipe in pipes:
            doc = pipe(doc)
        return doc

    return before


def _name_text(answers: Iterator[Answer], batch: list[Text]) -> Iterator[Answer]:
    """Say which text an error is about."""
    for text in batch:
        try:
            answer = next(answers)
        except InstaNERError as err:
            raise InstaNERError(f"Text {text.id}: {err}") from err
        yield answer


def _ground_marks(
    doc: Doc, marks: Iterable[Offsets]
) -> tuple[list[Offsets], list[Reading]]:
    spans: list[Offsets] = []
    readings = []
    for start, end, label in sorted(marks):
        surface = doc.text[start:end]
        if doc.char_span(start, end) is None or surface != surface.strip():
            status = Status.OFF_TOKEN  # white space at an edge is no part of a name
        elif spans and spans[-1][1] > start:
            status = Status.OVERLAP
        else:
            status = Status.EXACT
            spans.append((start, end, label))
        readings.append(Reading(status, surface, label))
    return spans, readings


def _has_opinion(answer: Answer) -> bool:
    # An answer of which no line could be read says nothing, not even "no entities".
    readings = answer.readings
    return readings is None or any(
        reading.status is not Status.UNREADABLE for reading in readings
    )


def _count(docs: Iterable[Doc], summary: Summary, bar: tqdm) -> Iterator[Doc]:
    for doc in docs:
        summary.texts += 1
        bar.update(summary.texts + summary.held_out + len(summary.unanswered) - bar.n)
        yield doc
