"""What the review page asks for: texts, and what becomes of a person's decisions."""

import os
import signal
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import import_file
from spacy.vocab import Vocab

from ..agreement import Agreement
from ..database import LARGEST
from ..decisions import Answer, Decision, Decisions, check_reviewer
from ..errors import InstaNERError
from ..llm.store import hash_prompt
from ..pipeline import load_pipeline, load_teacher
from ..targets import ENTS, Offsets, Target, make_mark
from ..tasks.examples import add_example, make_example, remove_example
from .index import Filter, Index, Item, Queue, Status, build

_LEASE = 600  # seconds for which a text is its reviewer's
_LONGEST = 100_000  # characters of a text to try


@dataclass
class Settings:
    """What a review page is about.

    source (Path): Folder of annotated shards, or a DocBin.
    target (Target): What is annotated; of entities, with the labels that are known.
    reviewer (str): Who reviews, if the page is not told another name.
    definitions (Dict[str, str]): Definitions of labels.
    guidelines (str): Text to show beside them.
    examples (Optional[Path]): File of the teacher's prompt examples.
    systems (Dict[str, str]): Pipelines to try, "teacher" and "student", by name.
    overlap (float): Share of the texts that every reviewer sees, between 0 and 1. Of
        the others each is shown to one.
    suspects (int): In how many texts to look for label errors.
    fingerprint (str): See index.get_fingerprint.
    code (Optional[Path]): Python file that the pipelines need.
    """

    source: Path
    target: Target
    reviewer: str
    definitions: dict[str, str] = field(default_factory=dict)
    guidelines: str = ""
    examples: Path | None = None
    systems: dict[str, str] = field(default_factory=dict)
    overlap: float = 0.1
    suspects: int = 0
    fingerprint: str = ""
    code: Path | None = None


class Review:
    """What the page asks for.

    settings (Settings): What it is about.
    index (Index): The texts.
    decisions (Decisions): What people decided.
    """

    def __init__(self, settings: Settings, index: Index, decisions: Decisions) -> None:
        self.settings = settings
        self.index = index
        self.decisions = decisions
        self.target = settings.target
        self.worker: BaseProcess | None = None  # that makes the index, if one does
        self.lock: IO[bytes] | None = None  # that is held while this is
        self._lock = Lock()
        self._leases: dict[int, tuple[str, float]] = {}
        self._trying = Lock()  # apart: a teacher takes its time
        self._systems: dict[str, Language] = {}

    def describe(self) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): What the page has to know once."""
        settings = self.settings
        return {
            "attr": self.target.attr,
            "exclusive": self.target.exclusive,
            "labels": self.labels,
            "voters": self.index.get_names("voter"),
            "definitions": settings.definitions,
            "guidelines": settings.guidelines,
            "reviewer": settings.reviewer,
            "source": str(settings.source),
            "queues": [queue.value for queue in Queue],
            "statuses": [status.value for status in Status],
            "examples": None if settings.examples is None else str(settings.examples),
            "systems": list(settings.systems),
        }

    @property
    def labels(self) -> list[str]:
        """RETURNS (List[str]): The labels that a mark can have."""
        seen = () if self.target.attr == "cats" else self.index.get_names("label")
        return list(dict.fromkeys((*self.target.labels, *seen)))

    def get_progress(self, reviewer: str) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): How far the index and this person are."""
        state = self.index.get_state()
        if not state.get("trouble") and self.worker and self.worker.exitcode:
            state["trouble"] = "The corpus was not read to its end; see the terminal."
        return {
            "state": state,
            "texts": self.index.count_decided(self.target.attr),
            **self.decisions.count(reviewer, self.target.attr),
        }

    def get_agreement(self) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): How often each person left what was proposed as it
        was, and how far people agree where they decided about the same texts."""
        target = self._agreed_target
        people = Agreement(target)
        teacher: dict[str, Agreement] = {}
        both = 0
        for decisions in self.decisions.read(self.target.attr):
            accepted = [d for d in decisions if d.answer is Answer.ACCEPT]
            if not accepted:
                continue
            item = self.index.find(accepted[0].text)
            if item is None:
                continue  # of another corpus
            units = [start for start, _ in item.tokens]
            if target.attr == "cats":
                units = target.get_units(Doc(Vocab()))
            for decision in accepted:
                pair = {"teacher": decision.proposed, "person": decision.marks}
                teacher.setdefault(decision.reviewer, Agreement(target)).add_places(
                    units, {name: self._place(marks) for name, marks in pair.items()}
                )
            if len(accepted) > 1:
                both += 1
                people.add_places(
                    units, {d.reviewer: self._place(d.marks) for d in accepted}
                )
        return {
            "teacher": {name: found.to_json() for name, found in teacher.items()},
            "people": people.to_json(),
            "texts": both,
        }

    @property
    def _agreed_target(self) -> Target:
        if self.target.attr == "ents":
            return ENTS
        return self.target._replace(labels=tuple(self.labels))

    def _place(self, marks: tuple[Offsets, ...]) -> list[Offsets]:
        if self.target.attr == "ents":
            return [*marks]
        return self._agreed_target.make_marks(label for *_, label in marks)

    def get_next(
        self, wanted: Filter, after: tuple[float, int] | None
    ) -> dict[str, Any] | None:
        """RETURNS (Optional[Dict[str, Any]]): The next text, which is kept for this
        person, or None."""
        with self._lock:
            now = time.monotonic()
            self._leases = {
                n: lease for n, lease in self._leases.items() if lease[1] > now
            }
            item = self.index.get_next(
                wanted,
                self.target.attr,
                after=after,
                overlap=self.settings.overlap,
                taken=[
                    n
                    for n, (reviewer, _) in self._leases.items()
                    if reviewer != wanted.reviewer
                ],
            )
            if item is None:
                return None
            self._leases[item.n] = (wanted.reviewer, now + _LEASE)
        return self._show(item, wanted.reviewer)

    def _get(self, body: Mapping[str, Any]) -> Item:
        """RETURNS (Item): The text that a request is about, as its n and key say."""
        n = _get_int(body, "n")
        item = self.index.get(n) if abs(n) < LARGEST else None
        if item is None:
            raise InstaNERError(
                f"There is no text {n}, or not yet: try again when all are read."
            )
        if body.get("key") != hash_prompt(item.text):
            raise InstaNERError(
                "The corpus has changed since this text was shown: it is another one "
                "now. Reload the page."
            )
        return item

    def _show(self, item: Item, reviewer: str) -> dict[str, Any]:
        found = self.decisions.find(item.text, self.target.attr)
        mine = next((d for d in found if d.reviewer == reviewer), None)
        marks = mine.marks if mine and mine.answer is Answer.ACCEPT else item.proposed
        starts = [*(start for start, _ in item.tokens), len(item.text)][1:]
        first = item.tokens[0][0] if item.tokens else len(item.text)
        return {
            "n": item.n,
            "key": hash_prompt(item.text),
            "id": item.id,
            "place": item.place,
            "queue": item.queue.value,
            "before": item.text[:first],
            "tokens": [
                [item.text[start:end], item.text[end:following]]
                for (start, end), following in zip(item.tokens, starts, strict=True)
            ],
            "candidates": [
                {**row, **self._find_tokens(item, (row["start"], row["end"]))}
                for row in item.candidates
            ],
            "proposed": self._to_tokens(item, item.proposed),
            "marks": self._to_tokens(item, marks),
            "answer": mine.answer.value if mine else None,
            "others": [d.reviewer for d in found if d.reviewer != reviewer],
        }

    def _to_tokens(self, item: Item, marks: Any) -> list[dict[str, Any]]:
        return [
            {"label": label, **self._find_tokens(item, (start, end))}
            for start, end, label in marks
        ]

    def _find_tokens(self, item: Item, place: tuple[int, int]) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): First token, and that after the last, of a span."""
        if self.target.attr == "cats":
            return {"first": -1, "last": -1}
        start, end = place
        first = bisect_right(item.tokens, start, key=lambda token: token[1])
        last = bisect_left(item.tokens, end, key=lambda token: token[0])
        return {"first": first, "last": max(first + 1, last)}

    def decide(self, body: Mapping[str, Any]) -> None:
        """Store a decision.

        body (Mapping[str, Any]): n, key, reviewer, answer, marks (label, and first and
            last token of entities), seconds, and by_chance.
        """
        item = self._get(body)
        answer = Answer(_get_one(body, "answer", [answer.value for answer in Answer]))
        marks = self._read_marks(item, body.get("marks", []))
        seconds: Any = body.get("seconds")
        is_time = type(seconds) in (int, float) and 0 <= seconds < LARGEST
        self.decisions.add(
            Decision(
                item.text,
                self.target.attr,
                get_reviewer(body),
                answer,
                tuple(marks) if answer is Answer.ACCEPT else (),
                tuple(item.proposed),
                item.id,
                Queue.RANDOM.value if body.get("by_chance") else item.queue.value,
                round(float(seconds), 1) if is_time else None,
            )
        )
        with self._lock:
            self._leases.pop(item.n, None)

    def _read_marks(self, item: Item, given: Any) -> list[Offsets]:
        if not isinstance(given, list) or not all(isinstance(m, dict) for m in given):
            raise InstaNERError("marks have to be a list of objects.")
        marks: list[Offsets] = []
        last = 0
        if self.target.attr == "cats":
            labels = [_get_one(mark, "label", self.labels) for mark in given]
            if self.target.exclusive and len(labels) != 1:
                raise InstaNERError(
                    "A text has exactly one of these categories. Choose it."
                )
            return sorted({make_mark(label) for label in labels})
        for mark in sorted(given, key=lambda m: _get_int(m, "first")):
            first, end = _get_int(mark, "first"), _get_int(mark, "last")
            label = _get_one(mark, "label", self.labels)
            if not last <= first < end <= len(item.tokens):
                raise InstaNERError(
                    "Spans have to be in the text, and must not overlap."
                )
            start, stop = item.tokens[first][0], item.tokens[end - 1][1]
            if item.text[start].isspace() or item.text[stop - 1].isspace():
                raise InstaNERError("Spans cannot begin or end with white space.")
            marks.append((start, stop, label))
            last = end
        return marks

    def undo(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): The text about which the last decision is taken
        back, with the marks that it had."""
        reviewer = get_reviewer(body)
        decision = self.decisions.get_last(reviewer, self.target.attr)
        if decision is None:
            raise InstaNERError("There is nothing to undo.")
        item = self.index.find(decision.text)
        if item is None:
            raise InstaNERError(
                f"The last decision is about text {decision.text_id}, which is not in "
                "this corpus: it is not undone."
            )
        self.decisions.undo(reviewer, self.target.attr)
        shown = self._show(item, reviewer)
        if decision.answer is Answer.ACCEPT:
            shown["marks"] = self._to_tokens(item, decision.marks)
        return shown

    def show_to_teacher(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Add a text to the prompt examples, or take it out of them.

        body (Mapping[str, Any]): n, key, marks (each with a reason), deleted (proposed
            marks that are none, each with a reason), and remove.
        RETURNS (Dict[str, Any]): file, and what was done.
        """
        path = self.settings.examples
        if path is None:
            raise InstaNERError(
                "The teacher's config has no file of examples. Start the page with "
                "--teacher CONFIG, or --examples FILE."
            )
        item = self._get(body)
        with self._lock:
            if body.get("remove"):
                done = remove_example(path, item.text)
                return {"file": str(path), "done": "removed" if done else "not there"}
            given = body.get("marks", [])
            marks = self._read_marks(item, given)
            deleted = body.get("deleted", [])
            if not isinstance(deleted, list):
                raise InstaNERError("deleted has to be a list.")
            reasons: dict[Offsets, str] = {}
            for row in [*given, *deleted]:
                (mark,) = self._read_marks(item, [row])
                reasons[mark] = str(row.get("reason", ""))[:1000]
            decision = Decision(
                item.text,
                self.target.attr,
                get_reviewer(body),
                Answer.ACCEPT,
                tuple(marks),
                tuple(item.proposed),
            )
            add_example(path, make_example(decision, self.labels, reasons))
        return {"file": str(path), "done": "added"}

    def try_text(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): What each system says of a text, or its trouble."""
        text = body.get("text")
        if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
            raise InstaNERError(f"Give a text, of at most {_LONGEST:,} characters.")
        answers = {}
        for name, source in self.settings.systems.items():
            with self._trying:
                try:
                    if name not in self._systems:
                        load = load_teacher if name == "teacher" else load_pipeline
                        self._systems[name] = load(source)
                    doc = self._systems[name](text)
                except InstaNERError as err:
                    answers[name] = {"trouble": str(err)}
                    continue
            answers[name] = _show_doc(doc)
        return answers


def _show_doc(doc: Doc) -> dict[str, Any]:
    parts: list[list[str]] = []
    end = 0
    for ent in doc.ents:
        parts += [[doc.text[end : ent.start_char], ""], [ent.text, ent.label_]]
        end = ent.end_char
    parts.append([doc.text[end:], ""])
    cats = sorted(doc.cats.items(), key=lambda pair: -pair[1])
    return {"parts": [part for part in parts if part[0]], "cats": cats}


def _get_int(body: Mapping[str, Any], key: str) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InstaNERError(f"{key} has to be a whole number, found {value!r}.")
    return value


def _get_one(body: Mapping[str, Any], key: str, options: list[str]) -> str:
    value = body.get(key)
    if value not in options:
        raise InstaNERError(
            f"{key} has to be one of {', '.join(options)}, found {value!r}."
        )
    return str(value)


def get_reviewer(body: Mapping[str, Any]) -> str:
    """RETURNS (str): The name of who asks."""
    name = body.get("reviewer")
    if not isinstance(name, str):
        raise InstaNERError("A reviewer's name is needed.")
    name = name.strip()
    check_reviewer(name)
    return name


def prepare(settings: Settings, path: Path, reviews: Path) -> Review:
    """Make ready what a page needs; an index that has to be made is made by a process
    of its own, while the page is used.

    settings (Settings): What the page is about.
    path (Path): File for the index.
    reviews (Path): The review store, which is made.
    RETURNS (Review): What the page asks for.
    RAISES (InstaNERError): If a file cannot be used.
    """
    lock = _lock(path.with_name(f"{path.name}.lock"), settings.source)
    decisions = Decisions(reviews)
    decisions.set_target(settings.target)
    index = Index(path, reviews)
    review = Review(settings, index, decisions)
    review.lock = lock
    if path.exists():
        if index.get_state().get("fingerprint") == settings.fingerprint:
            return review
        index.close()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    index.set_state(stage="reading", done=0, total=None, trouble=None)
    # A copy of this process has nothing to import, and shares its memory.
    way = "fork" if sys.platform == "linux" else "spawn"
    index.close()  # what is open, the copy would have, too
    decisions.close()
    review.worker = get_context(way).Process(  # type: ignore[attr-defined]
        target=_work, args=(settings, path, reviews, os.getpid()), daemon=True
    )
    review.worker.start()
    return review


def _lock(path: Path, source: Path) -> IO[bytes] | None:
    """Hold a corpus, as two servers would show two people the same text."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file_ = path.open("wb")
    except OSError as err:
        raise InstaNERError(
            f"{path} cannot be written ({err.strerror}). A page keeps its files beside "
            "the corpus: check the folder's permissions."
        ) from err
    try:
        fcntl.lockf(file_, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a copy of this has it not
    except OSError as err:
        file_.close()
        raise InstaNERError(
            f"{source} is open on another page. Take its address: several people can "
            "review there, each with a name."
        ) from err
    return file_


def _work(settings: Settings, path: Path, reviews: Path, parent: int) -> None:
    """Make the index, in a process of its own, which ends when the server does."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=watch, daemon=True).start()
    index = Index(path, reviews)
    try:
        if settings.code is not None:
            import_file("python_code", settings.code)
        student = settings.systems.get("student")
        build(
            index,
            settings.source,
            settings.target,
            student=None if student is None else load_pipeline(student),
            suspects=settings.suspects,
        )
        index.set_state(fingerprint=settings.fingerprint)
    except InstaNERError as err:
        index.set_state(trouble=str(err))
