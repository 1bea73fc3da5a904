"""Texts × teachers × samples → annotated shards."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch
from spacy_llm.pipeline.llm import LLMWrapper
from tqdm import tqdm

from .asking import STORE, Failures, Model, TooManyFailures
from .corpus import PROVENANCE, Text, read_texts, write_shards
from .errors import InstaNERError
from .files import write_whole
from .llm.store import hash_prompt
from .pipeline import get_llms, sets_ents
from .tasks.grounding import Reading, Status
from .tasks.ner import adopt
from .vote import Offsets, set_ents, vote

GENERATOR = "generator"  # the voter that stands for the marks of a text's writer

FAILED = "failed.jsonl"

_BATCH = 200  # texts in memory while the answers about them are read


@dataclass
class Summary:
    """What came of an annotation.

    voters (List[str]): All that could vote.
    texts (int): Texts annotated.
    held_out (int): Texts left out because they are kept for testing.
    unanswered (List[str]): Ids of texts left out because no teacher's answer about them
        can be used.
    failures (Failures): Answers that failed.
    bills (List[Dict[str, Any]]): What the answers took; see asking.Model.make_bill.
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
    failures: Failures = field(default_factory=Failures)
    bills: list[dict[str, Any]] = field(default_factory=list)
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
            "failures": dict(self.failures.count()),
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
    max_failures: float = 0.05,
    progress: bool = False,
    on_bills: Callable[[list[dict[str, Any]]], object] = lambda bills: None,
) -> Summary:
    """Have a teacher annotate texts, let its samples and the marks of the texts'
    writer vote, and write the docs to shards: trusted spans are entities, disputed
    ones missing annotation, and who voted what is in user_data["instaner"]. Answers are
    kept in the store of the teacher's config, else in responses.db beside the output:
    after a crash, or an error, a second run asks only for the others.

    nlp (Language): Pipeline with one or more llm components that set entities.
    texts (Path): JSONL of texts; see corpus.read_texts.
    output (Path): Folder for the shards, and for failed.jsonl, if an answer failed.
    samples (int): Number of answers to ask each llm component for.
    max_failures (float): Share of the answers that may fail, between 0 and 1.
    progress (bool): Show progress bars.
    on_bills (Callable[[List[Dict[str, Any]]], object]): Called with what the answers
        took when all are asked for, also if the run ends in an error.
    RETURNS (Summary): What came of it.
    RAISES (InstaNERError): When the teacher cannot answer, too many answers fail, or no
        text is annotated.
    """
    teacher = Teacher(nlp, store=output.with_name(STORE))
    voters = [f"{m.name}/{k}" for m in teacher.models for k in range(samples)]
    summary = Summary(voters)
    count = sum(1 for _ in _hold_out(read_texts(texts), summary))
    try:
        with write_whole(output, holds=["*.spacy", FAILED]) as part:
            try:
                for model in teacher.models:
                    with tqdm(
                        total=count * samples,
                        desc=f"Asking {model.name}",
                        unit="answer",
                        disable=not progress,
                    ) as bar:
                        docs = teacher.make_docs(texts)
                        model.fetch(docs, samples=samples, on_answer=bar.update)
            finally:
                summary.bills = [b for m in teacher.models if (b := m.make_bill())]
                on_bills(summary.bills)
            write_shards(
                tqdm(
                    _annotate(teacher, texts, samples, summary),
                    total=count,
                    desc="Reading",
                    unit="text",
                    disable=not progress,
                ),
                part,
            )
            summary.failures.check(max_failures, output / FAILED)
            summary.failures.check_some(output / FAILED)
            if not summary.texts:
                raise InstaNERError(
                    f"None of the {count + summary.held_out} texts in {texts} was "
                    f"annotated ({summary.held_out} are kept for testing, to "
                    f"{len(summary.unanswered)} no answer could be read). Give texts, "
                    "and check the teacher's answers."
                )
            if summary.failures.rows:
                summary.failures.write(part / FAILED)
    except TooManyFailures:
        summary.failures.write(output / FAILED)
        raise
    return summary


class Teacher:
    """The llm components of a pipeline that set entities.

    nlp (Language): The pipeline.
    store (Path): Store for the answers of models that have none.
    models (List[Model]): The components' models, in order.
    """

    def __init__(self, nlp: Language, *, store: Path) -> None:
        self.nlp = nlp
        self.models = [
            Model(nlp, name, llm, store=store)
            for name, llm in get_llms(nlp)
            if sets_ents(adopt(llm.task), nlp)
        ]
        if not self.models:
            raise InstaNERError(
                "No llm component of the teacher sets entities, so none can annotate."
            )
        # What comes before the first of them, other llm components aside.
        place = nlp.pipe_names.index(self.models[0].name)
        self._before = [
            pipe for _, pipe in nlp.pipeline[:place] if not isinstance(pipe, LLMWrapper)
        ]

    def make_docs(self, texts: Path) -> Iterator[tuple[str, Doc]]:
        """Make the docs that are asked about.

        texts (Path): JSONL of texts; those kept for testing are left out.
        YIELDS (Tuple[str, Doc]): Names, for messages, and docs.
        """
        for text in _hold_out(read_texts(texts), Summary()):
            yield self.make_doc(text)

    def make_doc(self, text: Text) -> tuple[str, Doc]:
        """RETURNS (Tuple[str, Doc]): A text's name, for messages, and its doc."""
        doc = self.nlp.make_doc(text.text)
        for pipe in self._before:
            doc = pipe(doc)
        return f"Text {text.id}", doc


def _hold_out(texts: Iterable[Text], summary: Summary) -> Iterator[Text]:
    for text in texts:
        if text.split == "test":
            summary.held_out += 1
        else:
            yield text


def _annotate(
    teacher: Teacher, texts: Path, samples: int, summary: Summary
) -> Iterator[Doc]:
    nlp = teacher.nlp
    for batch in minibatch(_hold_out(read_texts(texts), Summary()), _BATCH):
        ballots: list[dict[str, list[Offsets]]] = [{} for _ in batch]
        keys: list[dict[str, list[str]]] = [{} for _ in batch]
        for text, ballot in zip(batch, ballots, strict=True):
            if text.marks is not None:
                doc = nlp.make_doc(text.text)
                ballot[GENERATOR], readings = _ground_marks(doc, text.marks)
                summary.add_readings(text.id, GENERATOR, readings)
        for model in teacher.models:
            for sample in range(samples):
                voter = f"{model.name}/{sample}"
                answers = model.read(map(teacher.make_doc, batch), sample=sample)
                for number, (doc, prompts, read, failure) in enumerate(answers):
                    text_id = batch[number].id
                    keys[number][voter] = [hash_prompt(prompt) for prompt in prompts]
                    summary.add_readings(text_id, voter, read)
                    summary.failures.add(text_id, voter, failure)
                    if failure is None:
                        ballots[number][voter] = [
                            (ent.start_char, ent.end_char, ent.label_)
                            for ent in doc.ents
                        ]
        for text, ballot, key in zip(batch, ballots, keys, strict=True):
            if not any(voter != GENERATOR for voter in ballot):
                summary.unanswered.append(text.id)
                continue
            summary.texts += 1
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
