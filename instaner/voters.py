"""Who says what about a text: whatever writes spans votes."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch
from spacy_llm.pipeline.llm import LLMWrapper

from .asking import Answer, Model
from .corpus import Text
from .errors import InstaNERError
from .llm.store import Failure, hash_prompt
from .pipeline import get_llms, sets_ents
from .tasks.grounding import Reading, Status
from .tasks.ner import adopt
from .vote import Offsets

_BATCH = 200  # texts in memory while the answers about them are read


class Opinions(NamedTuple):
    """What all voters say about a text.

    text (Text): The text.
    doc (Doc): Its doc, without entities.
    ballots (Dict[str, Dict[Offsets, str]]): Of each voter that has an opinion the
        spans, each with how it was found in the text (see tasks.grounding.Status; "" if
        the voter gives offsets itself).
    prompts (Dict[str, List[str]]): SHA-256 of each prompt that a voter answered.
    readings (Dict[str, Optional[List[Reading]]]): What became of each thing that a
        voter named; None if it keeps no account of what it cannot read.
    failures (Dict[str, Optional[Failure]]): Why the answer of a voter that was asked
        cannot be used, if so.
    """

    text: Text
    doc: Doc
    ballots: dict[str, dict[Offsets, str]]
    prompts: dict[str, list[str]]
    readings: dict[str, list[Reading] | None]
    failures: dict[str, Failure | None]


class Teacher:
    """The components of a pipeline that set entities, and say so (assigns "doc.ents"):
    each is a voter, an llm component one for each of its samples.

    nlp (Language): The pipeline.
    samples (int): Number of answers that each llm component is asked for.
    store (Path): Store for the answers of models that have none.
    models (List[Model]): The llm components' models, in order.
    RAISES (InstaNERError): If no llm component sets entities.
    """

    def __init__(self, nlp: Language, *, samples: int = 1, store: Path) -> None:
        self.nlp = nlp
        self.samples = samples
        self.models = [
            Model(nlp, name, llm, store=store)
            for name, llm in get_llms(nlp)
            if sets_ents(adopt(llm.task), nlp)
        ]
        if not self.models:
            raise InstaNERError(
                "No llm component of the teacher sets entities, so none can annotate."
            )
        # Rulers, older students: with what has to run before each of them.
        self._before: list[Any] = []
        self._others: dict[str, list[Any]] = {}
        before: list[Any] = []
        for name, pipe in nlp.pipeline:
            if name == self.models[0].name:
                self._before = list(before)
            if isinstance(pipe, LLMWrapper):
                continue
            if "doc.ents" in nlp.get_pipe_meta(name).assigns:
                self._others[name] = [*before, pipe]
            else:
                before.append(pipe)

    @property
    def voters(self) -> list[str]:
        """RETURNS (List[str]): Names of the voters that the pipeline has."""
        names = [f"{m.name}/{k}" for m in self.models for k in range(self.samples)]
        return [*names, *self._others]

    def make_docs(self, texts: Iterable[Text]) -> Iterator[tuple[str, Doc]]:
        """Make the docs that the models are asked about.

        texts (Iterable[Text]): Texts.
        YIELDS (Tuple[str, Doc]): Names, for messages, and docs.
        """
        for text in texts:
            doc = self.nlp.make_doc(text.text)
            for pipe in self._before:
                doc = pipe(doc)
            yield f"Text {text.id}", doc

    def read(self, texts: Iterable[Text]) -> Iterator[Opinions]:
        """Read what all voters say; the answers of models have to be fetched.

        texts (Iterable[Text]): Texts.
        YIELDS (Opinions): The opinions on each, in order.
        RAISES (InstaNERError): If an answer is not there, or a text brings the votes of
            a voter that the pipeline has.
        """
        for batch in minibatch(texts, _BATCH):
            opinions = [self._read_marks(text) for text in batch]
            for name, pipes in self._others.items():
                docs: Iterable[Doc] = (self.nlp.make_doc(text.text) for text in batch)
                for pipe in pipes:
                    docs = pipe.pipe(docs) if hasattr(pipe, "pipe") else map(pipe, docs)
                for opinion, doc in zip(opinions, docs, strict=True):
                    opinion.ballots[name] = dict.fromkeys(_get_ents(doc), "")
            for model in self.models:
                for sample in range(self.samples):
                    answers = model.read(self.make_docs(batch), sample=sample)
                    self._read_answers(f"{model.name}/{sample}", answers, opinions)
            yield from opinions

    def _read_marks(self, text: Text) -> Opinions:
        opinion = Opinions(text, self.nlp.make_doc(text.text), {}, {}, {}, {})
        for voter, marks in text.votes.items():
            if not voter or voter in (*self.voters, *self.nlp.pipe_names):
                raise InstaNERError(
                    f'Text {text.id} brings votes of "{voter}", which is the name of a '
                    "component, or none. Give them another."
                )
            ballot, readings = _ground_marks(opinion.doc, marks)
            opinion.ballots[voter] = ballot
            opinion.readings[voter] = readings
        return opinion

    def _read_answers(
        self, voter: str, answers: Iterable[Answer], opinions: Iterable[Opinions]
    ) -> None:
        for opinion, answer in zip(opinions, answers, strict=True):
            opinion.prompts[voter] = [hash_prompt(prompt) for prompt in answer.prompts]
            opinion.readings[voter] = answer.readings
            opinion.failures[voter] = answer.failure
            if answer.failure is None:
                found = {
                    (r.start, r.end, r.label): r.status.value
                    for r in answer.readings or []
                }
                opinion.ballots[voter] = {
                    span: found.get(span, "") for span in _get_ents(answer.doc)
                }


def _get_ents(doc: Doc) -> list[Offsets]:
    return [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]


def _ground_marks(
    doc: Doc, marks: Iterable[Offsets]
) -> tuple[dict[Offsets, str], list[Reading]]:
    ballot: dict[Offsets, str] = {}
    readings = []
    last = 0
    # Of two that begin together the longer.
    for start, end, label in sorted(
        marks, key=lambda mark: (mark[0], -mark[1], mark[2])
    ):
        surface = doc.text[start:end]
        if doc.char_span(start, end) is None or surface != surface.strip():
            status = Status.OFF_TOKEN  # white space at an edge is no part of a name
        elif start < last:
            status = Status.OVERLAP
        else:
            status = Status.EXACT
            ballot[start, end, label] = status.value
            last = end
        readings.append(Reading(status, surface, label))
    return ballot, readings
