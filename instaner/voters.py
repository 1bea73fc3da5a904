"""Who says what about a text: whatever writes spans, or categories, votes."""

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
from .pipeline import get_llms, get_target
from .targets import Offsets, Target, is_category
from .tasks.adopting import adopt
from .tasks.grounding import Reading, Status

_BATCH = 200  # texts in memory while the answers about them are read


class Opinions(NamedTuple):
    """What all voters say about a text.

    text (Text): The text.
    doc (Doc): Its doc, without entities.
    ballots (Dict[str, Dict[Offsets, str]]): Of each voter that has an opinion the
        marks, each with how it was found in the text (see tasks.grounding.Status; "" if
        the voter gives it itself).
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
    """The components of a pipeline that set entities, and say so (assigns "doc.ents"),
    or categories ("doc.cats"), if no llm component sets entities: each is a voter, an
    llm component one for each of its samples.

    nlp (Language): The pipeline.
    samples (int): Number of answers that each llm component is asked for.
    store (Path): Store for the answers of models that have none.
    models (List[Model]): The llm components' models, in order.
    target (Target): What they annotate.
    left_out (List[str]): Names of the llm components that annotate something else.
    RAISES (InstaNERError): If no llm component sets entities or categories, or only
        some say that categories exclude each other.
    """

    def __init__(self, nlp: Language, *, samples: int = 1, store: Path) -> None:
        self.nlp = nlp
        self.samples = samples
        found = [
            (Model(nlp, name, llm, store=store), target)
            for name, llm in get_llms(nlp)
            if (target := get_target(adopt(llm.task), nlp)) is not None
        ]
        attrs = {target.attr for _, target in found}
        if not attrs:
            raise InstaNERError(
                "No llm component of the teacher sets entities or categories, so none "
                "can annotate."
            )
        attr = max(attrs)  # entities before categories
        self.left_out = [m.name for m, target in found if target.attr != attr]
        found = [(model, target) for model, target in found if target.attr == attr]
        self.models = [model for model, _ in found]
        if len({target.exclusive for _, target in found}) > 1:
            raise InstaNERError(
                "Some llm components of the teacher give a text one category, others "
                "several. Set exclusive_classes alike in all."
            )
        labels = [label for _, target in found for label in target.labels]
        # Rulers, older students: with what has to run before each of them.
        self._before: list[Any] = []
        self._others: dict[str, list[Any]] = {}
        before: list[Any] = []
        for name, pipe in nlp.pipeline:
            if name == self.models[0].name:
                self._before = list(before)
            if isinstance(pipe, LLMWrapper):
                continue
            if f"doc.{attr}" in nlp.get_pipe_meta(name).assigns:
                self._others[name] = [*before, pipe]
                labels += getattr(pipe, "labels", ()) if attr == "cats" else ()
            else:
                before.append(pipe)
        self.target = found[0][1]._replace(labels=tuple(dict.fromkeys(labels)))

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
                    marks = self.target.get_marks(doc)
                    opinion.ballots[name] = dict.fromkeys(marks, "")
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
            is_cats = self.target.attr == "cats"
            own = [mark for mark in marks if is_category(mark) == is_cats]
            if not own and (marks or is_cats):
                continue  # an opinion about something else
            ballot: dict[Offsets, str] | None
            if is_cats:
                ballot, readings = _place_marks(self.target, own)
            else:
                ballot, readings = _ground_marks(opinion.doc, own)
            if ballot is not None:
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
                    mark: r.status.value
                    for r in answer.readings or []
                    for mark in _find_marks(r, self.target)
                }
                opinion.ballots[voter] = {
                    mark: found.get(mark, "")
                    for mark in self.target.get_marks(answer.doc)
                }


def find_reasons(opinions: Opinions, target: Target) -> dict[Offsets, dict[str, str]]:
    """Find why voters named marks.

    opinions (Opinions): What they say about a text.
    target (Target): What is annotated.
    RETURNS (Dict[Offsets, Dict[str, str]]): Of each mark the reasons, by voter.
    """
    reasons: dict[Offsets, dict[str, str]] = {}
    for voter, readings in opinions.readings.items():
        for reading in readings or ():
            for mark in _find_marks(reading, target) if reading.reason else ():
                reasons.setdefault(mark, {})[voter] = reading.reason
    return reasons


def _find_marks(reading: Reading, target: Target) -> list[Offsets]:
    """The marks that a reading can have made: the span, or the category."""
    span = (reading.start, reading.end, reading.label)
    return [span, *target.make_marks([reading.label])]


def _place_marks(
    target: Target, marks: Iterable[Offsets]
) -> tuple[dict[Offsets, str] | None, list[Reading]]:
    """The same for categories, of which there is no more than one if they exclude each
    other. A ballot with none of them where there has to be one is no opinion."""
    ballot: dict[Offsets, str] = {}
    readings = []
    known = {label.casefold(): label for label in target.labels}
    said = dict.fromkeys(label for *_, label in marks if label)
    for label in said:
        found = target.make_marks([known.get(label.casefold(), label)])
        status = Status.EXACT if found else Status.UNKNOWN_LABEL
        if found and ballot and target.exclusive:
            status = Status.OVERLAP
        else:
            ballot.update(dict.fromkeys(found, status.value))
        readings.append(Reading(status, label, label))
    is_none = not ballot and (target.exclusive or bool(said))
    return None if is_none else ballot, readings


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
