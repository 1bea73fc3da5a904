"""From briefs to texts, with what their writer marked or was asked for."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import srsly
from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from .asking import STORE, Failures, Model, TooManyFailures
from .errors import InstaNERError
from .files import get_field, read_jsonl, write_whole
from .gold import read_bare
from .near import NearFinder
from .pipeline import get_llms
from .targets import Offsets
from .tasks.generate import BRIEF, FOCUS, LOOKALIKES, TEXTS, GenerateTask
from .tasks.grounding import Reading

_EARLIER = "an earlier text"
_BARREN = 10  # answers in a row that bring nothing new, before no more are asked for
_MOST = 100  # answers to ask for at a time, as none of them may bring anything


@dataclass
class Summary:
    """What came of a generation.

    briefs (int): Number of briefs.
    texts (int): Number of texts, those for testing included.
    task (str): What the labels are of: entities (ner) or texts (textcat).
    labels (Counter[str]): Entities of the texts for training, by label, or texts for
        training that were asked for, by category.
    readings (Counter[Reading]): What became of each mark, and of each line that could
        not be read.
    repeats (Counter[str]): Texts left out because they are, or nearly are, another: by
        what that is in, "an earlier text" or the path of a corpus.
    leaks (List[Tuple[str, str]]): Texts left out because they are, or nearly are, a
        gold text, each with that text.
    short (str): What there is too little of, and why, or "".
    failures (Failures): Answers that failed.
    bills (List[Dict[str, Any]]): What the answers took; see asking.Model.make_bill.
    """

    briefs: int = 0
    texts: int = 0
    task: str = "ner"
    labels: Counter[str] = field(default_factory=Counter)
    readings: Counter[Reading] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    leaks: list[tuple[str, str]] = field(default_factory=list)
    short: str = ""
    failures: Failures = field(default_factory=Failures)
    bills: list[dict[str, Any]] = field(default_factory=list)


def generate(
    nlp: Language,
    briefs: Path,
    output: Path,
    *,
    n: int | None = None,
    per_label: int | None = None,
    gold: Path | None = None,
    against: Iterable[Path] = (),
    max_failures: float = 0.05,
    progress: bool = False,
    on_bills: Callable[[list[dict[str, Any]]], object] = lambda bills: None,
) -> Summary:
    """Have a model write texts from briefs, and take the marks out of them. Texts that
    are, or nearly are, an earlier one are left out. Answers are kept in the store of
    the model's config, else in responses.db beside the output: after a crash, or an
    error, a second run asks only for the others.

    nlp (Language): Pipeline with an llm component whose task is instaner.Generate.v1.
    briefs (Path): JSONL with an id and what to write of each brief; see
        tasks.generate. A brief whose split is "test" makes texts for testing, which are
        not annotated; they are neither counted nor compared.
    output (Path): JSONL with id, brief, split, text and spans of each text, or, of one
        that was asked for, the category (cats). Answers that failed are listed beside
        it, in NAME.failed.jsonl.
    n (Optional[int]): How many texts are wanted: no more briefs are asked than that
        takes, and each of them again if need be. None: what one answer to each gives.
    per_label (Optional[int]): How many entities of each label, or texts of each
        category, are wanted: briefs are asked again, with the label as their focus.
    gold (Optional[Path]): Gold test set, of which no text is kept.
    against (Iterable[Path]): Corpora that texts are not to repeat; see
        gold.read_bare.
    max_failures (float): Share of the answers that may fail, between 0 and 1.
    progress (bool): Show a progress bar.
    on_bills (Callable[[List[Dict[str, Any]]], object]): Called with what the answers
        took when all are asked for, also if the run ends in an error.
    RETURNS (Summary): What came of it.
    RAISES (InstaNERError): On a broken brief, a pipeline that does not generate, when
        too many answers fail, or no text came of it.
    """
    for name, number in (("texts", n), ("of each label", per_label)):
        if number is not None and number < 1:
            raise InstaNERError(f"{number} {name} are wanted. Give 1 or more.")
    model = make_generator(nlp, store=output.with_name(STORE))
    rows = list(_read_briefs(briefs, model.llm.task))
    if per_label and not any(map(_asks_for_entities, rows)):
        raise InstaNERError(
            f"No brief in {briefs} has entities to train on, but --per-label wants "
            f"some. Give one without {LOOKALIKES} that is not for testing."
        )
    summary = Summary(len(rows), task=model.llm.task.task)
    writer = _Writer(nlp, model, rows, summary, n, per_label)
    if gold is not None:
        writer.add_gold(gold)
    for path in against:
        writer.add_corpus(path)
    failed = get_failed(output)
    try:
        with write_whole(output) as part:
            try:
                with tqdm(desc="Generating", unit="brief", disable=not progress) as bar:
                    srsly.write_jsonl(part, writer.write(bar))
            finally:
                summary.bills = [model.make_bill()]
                on_bills(summary.bills)
            summary.failures.check(max_failures, failed)
            summary.failures.check_some(failed)
            if not summary.texts:
                raise InstaNERError(
                    f"No text came of the {len(rows)} briefs in {briefs}. Check the "
                    "briefs and the model's answers."
                )
    except TooManyFailures:
        summary.failures.write(failed)
        raise
    if summary.failures.rows:
        summary.failures.write(failed)
    else:
        failed.unlink(missing_ok=True)
    return summary


def get_failed(output: Path) -> Path:
    """RETURNS (Path): Where the failures of a generation are listed."""
    return output.with_name(f"{output.stem}.failed.jsonl")


def make_generator(nlp: Language, *, store: Path) -> Model:
    """Find the llm component that generates.

    nlp (Language): The pipeline.
    store (Path): Store for the answers of a model that has none.
    RETURNS (Model): Its model.
    RAISES (InstaNERError): If there is not one.
    """
    llms = [pair for pair in get_llms(nlp) if isinstance(pair[1].task, GenerateTask)]
    if len(llms) != 1:
        raise InstaNERError(
            f"The generator has {len(llms)} llm components whose task is "
            "instaner.Generate.v1. It needs one."
        )
    return Model(nlp, *llms[0], store=store)


def make_brief_docs(nlp: Language, briefs: Path) -> Iterator[tuple[str, Doc]]:
    """Make the docs that stand for briefs.

    nlp (Language): The pipeline.
    briefs (Path): JSONL of briefs.
    YIELDS (Tuple[str, Doc]): Names, for messages, and docs.
    RAISES (InstaNERError): On a broken brief.
    """
    tasks = (llm.task for _, llm in get_llms(nlp))
    (task,) = (task for task in tasks if isinstance(task, GenerateTask))
    for brief in _read_briefs(briefs, task):
        yield _make_brief_doc(nlp, brief)


def _make_brief_doc(nlp: Language, brief: dict[str, Any]) -> tuple[str, Doc]:
    doc = Doc(nlp.vocab)
    doc.user_data[BRIEF] = brief
    return f"Brief {brief['id']}", doc


class _Writer:
    """Has texts written until there are enough, and keeps those that are new."""

    def __init__(
        self,
        nlp: Language,
        model: Model,
        briefs: list[dict[str, Any]],
        summary: Summary,
        n: int | None,
        per_label: int | None,
    ) -> None:
        self._nlp = nlp
        self._model = model
        self._task: GenerateTask = model.llm.task
        self._briefs = briefs
        self._summary = summary
        self._n = n
        self._per_label = per_label
        self._count = 0  # of texts for training
        self._asked: Counter[str] = Counter()  # prompts
        self._numbers: Counter[str] = Counter()  # of texts, by brief
        self._near = NearFinder()
        self._sources: dict[str, str] = {}  # of texts to compare with, by key
        self._gold: dict[str, str] = {}  # texts, by key

    def add_gold(self, path: Path) -> None:
        """Add texts of which none is to be kept."""
        for text in read_bare(path):
            key = f"gold {len(self._gold)}"
            self._gold[key] = text
            self._near.add(key, text)

    def add_corpus(self, path: Path) -> None:
        """Add texts that are not to be repeated."""
        for text in read_bare(path):
            key = f"corpus {len(self._sources)}"
            self._sources[key] = str(path)
            self._near.add(key, text)

    def write(self, bar: tqdm) -> Iterator[dict[str, Any]]:
        """Ask, and read, until there is enough, or nothing new comes.

        bar (tqdm): Counts answers.
        YIELDS (Dict[str, Any]): Rows of texts.
        RAISES (InstaNERError): If nothing more can be asked.
        """
        turns = self._take_turns()
        batch = list(islice(turns, self._guess_number()))
        barren = fruitful = 0
        while batch and barren < _BARREN:
            bar.total = (bar.total or 0) + len(batch)
            asked = list(self._ask(batch, bar))
            for brief, (named_doc, sample) in zip(batch, asked, strict=True):
                before = self._get_lacks()
                yield from self._read(brief, named_doc, sample)
                if is_test(brief):
                    continue
                # More of what there is enough of already is nothing new.
                is_new = self._get_lacks() < before
                barren = 0 if is_new else barren + 1
                fruitful += is_new
            # What is asked for at a time grows with what came of it.
            most = _BARREN - barren if barren else max(_BARREN, min(fruitful, _MOST))
            batch = list(islice(turns, self._guess_number(asked=True, most=most)))
        self._summary.short = self._describe_lacks(barren)

    def _take_turns(self) -> Iterator[dict[str, Any]]:
        """YIELDS (Dict[str, Any]): Briefs in their order, those for testing first if
        not all may be needed; then, if there is a target, those for training again and
        again. Once only labels are lacking, they ask for these in turn."""
        if self._n is None and self._per_label is None:
            yield from self._briefs
            return
        yield from (brief for brief in self._briefs if is_test(brief))
        briefs = [brief for brief in self._briefs if not is_test(brief)]
        with_entities = list(filter(_asks_for_entities, briefs))
        turn = 0
        while briefs:
            for brief in briefs:
                lacks = self._get_lacking_labels()
                if not lacks or self._lacks_texts():
                    yield brief
                elif brief in with_entities:
                    yield {**brief, FOCUS: lacks[turn % len(lacks)]}
                    turn += 1
            if not with_entities and not self._lacks_texts():
                return

    def _guess_number(self, *, asked: bool = False, most: int = _BARREN) -> int | None:
        """RETURNS (Optional[int]): How many answers may be enough, or the most to ask
        for, tests aside; None for all."""
        if self._n is None and self._per_label is None:
            return None if not asked else 0
        per_answer = self._task.n
        tests = 0 if asked else sum(map(is_test, self._briefs))
        done = sum(self._asked.values()) - sum(map(is_test, self._briefs))
        if asked and done > 0:
            per_answer = max(1, min(per_answer, self._count // done))
        texts = math.ceil(max(0, (self._n or 0) - self._count) / per_answer)
        # A text that is asked for a label has one of it, or more.
        missing = sum(self._get_missing(label) for label in self._get_lacking_labels())
        entities = math.ceil(missing / self._task.n)
        return tests + min(texts or entities, most)

    def _ask(
        self, batch: list[dict[str, Any]], bar: tqdm
    ) -> Iterator[tuple[tuple[str, Doc], int]]:
        docs = [_make_brief_doc(self._nlp, brief) for brief in batch]
        requests = []
        for question in self._model.make_questions(docs):
            (prompt,) = question.prompts
            requests.append((prompt, self._asked[prompt]))
            self._asked[prompt] += 1
        self._model.fetch_requests(requests, on_answer=bar.update)
        for doc, (_, sample) in zip(docs, requests, strict=True):
            yield doc, sample

    def _read(
        self, brief: dict[str, Any], named_doc: tuple[str, Doc], sample: int
    ) -> Iterator[dict[str, Any]]:
        (answer,) = self._model.read([named_doc], sample=sample)
        summary = self._summary
        summary.failures.add(brief["id"], self._model.name, answer.failure)
        summary.readings.update(answer.readings or [])
        if answer.failure is not None:
            return
        for text, spans in answer.doc.user_data[TEXTS]:
            marks, labels = self._describe(brief, spans)
            number = self._numbers[brief["id"]]
            self._numbers[brief["id"]] += 1
            text_id = f"{brief['id']}-{number:02}"
            if not is_test(brief):
                if not self._is_new(text):
                    continue
                self._count += 1
                summary.labels.update(labels)
            self._near.add(text_id, text)
            summary.texts += 1
            yield {
                "id": text_id,
                "brief": brief["id"],
                "split": brief.get("split", "train"),
                "text": text,
                **marks,
            }

    def _describe(
        self, brief: dict[str, Any], spans: Iterable[Offsets]
    ) -> tuple[dict[str, Any], list[str]]:
        """RETURNS (Tuple[Dict[str, Any], List[str]]): What a row says of a text, and
        the labels to count."""
        if self._task.task == "textcat":
            focus = [brief[FOCUS]] if FOCUS in brief else []
            return {"cats": brief[FOCUS]} if focus else {}, focus
        rows = [{"start": i, "end": j, "label": label} for i, j, label in spans]
        return {"spans": rows}, [label for *_, label in spans]

    def _is_new(self, text: str) -> bool:
        """Find out whether there is no such text yet, and keep account if there is."""
        near = self._near.find(text)
        if near in self._gold:
            self._summary.leaks.append((text, self._gold[near]))
        elif near is not None:
            self._summary.repeats[self._sources.get(near, _EARLIER)] += 1
        return near is None

    def _lacks_texts(self) -> bool:
        return self._count < (self._n or 0)

    def _get_missing(self, label: str) -> int:
        return max(0, (self._per_label or 0) - self._summary.labels[label])

    def _get_lacking_labels(self) -> list[str]:
        return [label for label in self._task.labels if self._get_missing(label)]

    def _get_lacks(self) -> int:
        """RETURNS (int): How many texts and entities there are too few."""
        texts = max(0, (self._n or 0) - self._count)
        return texts + sum(map(self._get_missing, self._task.labels))

    def _describe_lacks(self, barren: int) -> str:
        if not self._get_lacks():
            return ""
        parts = [f"{self._count} of {self._n} texts"] * self._lacks_texts()
        parts += [
            f"{self._summary.labels[label]} of {self._per_label} {label}"
            for label in self._get_lacking_labels()
        ]
        return f"{', '.join(parts)}; the last {barren} answers brought nothing new"


def is_test(brief: dict[str, Any]) -> bool:
    """RETURNS (bool): Whether a brief's texts are for testing."""
    return brief.get("split") == "test"


def _asks_for_entities(brief: dict[str, Any]) -> bool:
    return LOOKALIKES not in brief and not is_test(brief)


def _read_briefs(path: Path, task: GenerateTask) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for number, row in read_jsonl(path):
        brief_id = get_field(row, "id", path, number)
        if brief_id in seen:
            raise InstaNERError(
                f'{path}, line {number}: the id "{brief_id}" occurs a second time. '
                "Give each brief its own."
            )
        seen.add(brief_id)
        try:
            task.check(row)
        except InstaNERError as err:
            raise InstaNERError(
                f'{path}, line {number}: the brief "{brief_id}": {err}'
            ) from err
        yield row
