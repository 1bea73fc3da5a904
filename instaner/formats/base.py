"""What all formats share: one shape of an annotated text, and how little is lost."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from spacy.language import Language

from .. import vote
from ..decisions import Answer, Decision
from ..errors import InstaNERError
from ..files import check_file, read_jsonl
from ..targets import Offsets, Target, make_mark
from ..vote import Standing, is_majority

_SHOWN = 3  # ids in a message


class Mark(NamedTuple):
    """A mark (see targets.Target), and what it is worth. A category is as
    targets.make_mark has it.

    start (int): First character, in code points.
    end (int): Character after the last.
    label (str): Label.
    score (Optional[float]): Share of the votes, if it was voted on.
    voters (Tuple[str, ...]): Who named it.
    disputed (bool): Whether the votes leave it open.
    """

    start: int
    end: int
    label: str
    score: float | None = None
    voters: tuple[str, ...] = ()
    disputed: bool = False

    @property
    def offsets(self) -> Offsets:
        """Where it is, and its label."""
        return self[:3]


class Record(NamedTuple):
    """What one person, or a model, says about a text.

    text (str): The text.
    id (str): Its name. What several say about a text has one name, and is in sequence.
    marks (Tuple[Mark, ...]): The marks, in order.
    attr (Literal["ents", "cats"]): What is annotated.
    labels (Tuple[str, ...]): The categories there are, where they are known.
    exclusive (bool): Whether a text has one category.
    answer (Optional[Answer]): What a person says. None: a model says it.
    reviewer (str): The person, where the name is known.
    meta (Mapping[str, Any]): What else is known, e.g. the brief.
    """

    text: str
    id: str = ""
    marks: tuple[Mark, ...] = ()
    attr: Literal["ents", "cats"] = "ents"
    labels: tuple[str, ...] = ()
    exclusive: bool = False
    answer: Answer | None = None
    reviewer: str = ""
    meta: Mapping[str, Any] = MappingProxyType({})


class Losses:
    """What a format cannot hold, so that it can be said."""

    def __init__(self) -> None:
        self._parts: dict[str, list[str]] = {}
        self._texts: dict[str, list[str]] = {}

    def lose(self, what: str, record: Record) -> None:
        """Count a part of a text's annotation that is left out."""
        self._parts.setdefault(what, []).append(record.id)

    def leave_out(self, what: str, record: Record) -> None:
        """Count a text that is left out."""
        self._texts.setdefault(what, []).append(record.id)

    def check(self) -> None:
        """RAISES (InstaNERError): If a whole text is left out."""
        if self._texts:
            raise InstaNERError(
                f"{'; '.join(_describe(self._texts, 'to be left out'))}. Nothing was "
                "written: take another format, or leave them out with --skip."
            )

    def describe(self) -> list[str]:
        """RETURNS (List[str]): A line for each kind of loss."""
        found = [*self._texts.items(), *self._parts.items()]
        return [*_describe(dict(found), "left out")]


def _describe(losses: Mapping[str, list[str]], how: str) -> Iterator[str]:
    for what, ids in losses.items():
        shown = [*dict.fromkeys(ids)]
        more = ", …" if len(shown) > _SHOWN else ""
        yield f"{what}, {how}: {len(ids)} ({', '.join(shown[:_SHOWN])}{more})"


Read = Callable[[Path, Losses], Iterator[Record]]
Write = Callable[[Iterable[Record], Path, Losses, Language], None]


def group(records: Iterable[Record]) -> Iterator[list[Record]]:
    """YIELDS (List[Record]): What all say about a text."""
    for _, several in groupby(records, lambda r: (r.id, r.text, r.attr)):
        yield [*several]


def choose_answers(records: list[Record], losses: Losses) -> list[Record]:
    """RETURNS (List[Record]): What people say about a text or, if they say nothing,
    what a model says: for formats that have no place for both."""
    people = [record for record in records if record.answer is not None]
    if not people:
        return records
    for record in records:
        if record.answer is None and record.marks:
            losses.lose("marks of models where people answered", record)
    return people


def settle(
    records: list[Record], losses: Losses, *, missing: bool = False
) -> Record | None:
    """Make one annotation of what all say about a text, for formats that hold one: what
    people marked (see vote.settle) or, if they say nothing, what the votes made
    trusted. A text whose marks people dispute is left out.

    records (List[Record]): The records.
    losses (Losses): What is left out.
    missing (bool): Keep disputed spans, for a format that holds missing annotation.
    RETURNS (Optional[Record]): The annotation, or None if there is none.
    """
    people = choose_answers(records, losses)
    first = people[0]
    missing = missing and first.attr == "ents"
    if first.answer is None:
        _lose_votes(first, losses)
        marks = [mark for mark in first.marks if missing or not mark.disputed]
        return first._replace(marks=tuple(marks))
    said = {
        record.reviewer or str(k): record
        for k, record in enumerate(people)
        if record.answer is not Answer.SKIP
    }
    if not said:
        losses.leave_out("texts that are not decided", first)
        return None
    decisions = (
        Decision(r.text, r.attr, name, r.answer, tuple(m.offsets for m in r.marks))
        for name, r in said.items()
        if r.answer is not None
    )
    target = Target(first.attr, first.labels, first.exclusive)
    candidates = vote.settle(decisions, target)
    if candidates is None:
        losses.leave_out("texts that are rejected", first)
        return None
    # A person's spans can overlap, trusted candidates cannot.
    right = [c for c in candidates if is_majority(c.score)]
    disputed = [
        c for c in candidates if c.standing is Standing.DISPUTED and c not in right
    ]
    if disputed and not missing:
        losses.leave_out("texts that reviewers dispute", first)
        return None
    accepted = [record for record in said.values() if record.answer is Answer.ACCEPT]
    if any(len(c.voters) < len(accepted) for c in candidates):
        losses.lose("opinions other than that of most reviewers", first)
    if any(record.reviewer for record in accepted):
        losses.lose("names of reviewers", first)
    marks = [
        Mark(*(make_mark(c.label) if first.attr == "cats" else c[:3]), disputed=is_open)
        for found, is_open in ((right, False), (disputed, True))
        for c in found
    ]
    return accepted[0]._replace(marks=sort_marks(marks), reviewer="")


def settle_all(
    records: Iterable[Record], losses: Losses, *, missing: bool = False
) -> Iterator[Record]:
    """YIELDS (Record): The one annotation of each text that has one; see settle."""
    for several in group(records):
        record = settle(several, losses, missing=missing)
        if record is not None:
            yield record


def _lose_votes(record: Record, losses: Losses) -> None:
    for mark in record.marks:
        if mark.disputed:
            losses.lose("disputed marks", record)
        elif mark.score is not None:
            losses.lose("scores", record)


def lose_meta(record: Record, losses: Losses, *held: str) -> None:
    """Count what else is known about a text, but for what a format holds."""
    for name in record.meta:
        if name not in held:
            losses.lose(f'values of "{name}"', record)


def sort_marks(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """RETURNS (Tuple[Mark, ...]): Marks in the order in which a record has them."""
    return tuple(sorted(marks, key=lambda mark: mark.offsets))


def are_apart(marks: Iterable[Mark]) -> bool:
    """RETURNS (bool): Whether no marks overlap."""
    ends = 0
    for mark in sorted(marks):
        if mark.start < ends:
            return False
        ends = mark.end
    return True


def fail(path: Path, number: int, what: str) -> InstaNERError:
    """RETURNS (InstaNERError): An error that says where in a file it is."""
    return InstaNERError(f"{path}, line {number}: {what}")


def make_span(
    text: str, start: Any, end: Any, label: Any, path: Path, number: int, **votes: Any
) -> Mark:
    """Make the mark of a span that stands in a file.

    text (str): The text.
    start (Any): First character.
    end (Any): Character after the last.
    label (Any): Label.
    path (Path): The file, for the message.
    number (int): The line, for the message.
    votes (Any): What else is known about the mark.
    RETURNS (Mark): The mark.
    RAISES (InstaNERError): If the span is none of the text.
    """
    if not (type(start) is type(end) is int and 0 <= start < end <= len(text)):
        raise fail(
            path,
            number,
            f"a span from {start!r} to {end!r} is not in the text, which has "
            f"{len(text)} characters. Mend the offsets.",
        )
    return Mark(start, end, _check_label(label, path, number), **votes)


def make_categories(labels: Any, path: Path, number: int) -> tuple[Mark, ...]:
    """RETURNS (Tuple[Mark, ...]): The marks of a list of categories in a file."""
    if not isinstance(labels, list):
        raise fail(path, number, f"categories have to be a list, found {labels!r}.")
    names = {_check_label(label, path, number) for label in labels}
    return tuple(Mark(*make_mark(label)) for label in sorted(names))


def _check_label(label: Any, path: Path, number: int) -> str:
    if not isinstance(label, str) or not label.strip():
        raise fail(path, number, f"{label!r} is no label. Give a name.")
    return label


def get_votes(row: Mapping[str, Any], path: Path, number: int) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): Score, voters and dispute of a mark in a file."""
    score, voters = row.get("score"), row.get("voters", [])
    if score is not None and (type(score) not in (int, float) or not 0 <= score <= 1):
        raise fail(path, number, f"a score has to be 0 to 1, found {score!r}.")
    if not isinstance(voters, list) or not all(isinstance(v, str) for v in voters):
        raise fail(path, number, f"voters have to be names, found {voters!r}.")
    disputed = row.get("disputed") is True
    return {"score": score, "voters": tuple(voters), "disputed": disputed}


def put_votes(mark: Mark) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): What get_votes reads."""
    values: dict[str, Any] = {} if mark.score is None else {"score": mark.score}
    if mark.voters:
        values["voters"] = [*mark.voters]
    if mark.disputed:
        values["disputed"] = True
    return values


def get_dict(row: Mapping[str, Any], key: str, path: Path, number: int) -> Any:
    """RETURNS (Dict[str, Any]): An object that a row may have."""
    value = row.get(key)
    if value is not None and not isinstance(value, dict):
        raise fail(path, number, f'"{key}" has to be an object, found {value!r}.')
    return dict(value or {})


def get_dicts(
    row: Mapping[str, Any], key: str, path: Path, number: int
) -> list[dict[str, Any]]:
    """RETURNS (List[Dict[str, Any]]): A list of objects that a row may have."""
    values = row.get(key)
    values = [] if values is None else values
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        raise fail(path, number, f'"{key}" has to be a list of objects.')
    return values


def write_lines(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write JSONL."""
    with path.open("w", encoding="utf8", newline="\n") as file_:
        for row in rows:
            file_.write(f"{json.dumps(row, ensure_ascii=False)}\n")


def write_array(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a JSON array, of which one row at a time is held."""
    with path.open("w", encoding="utf8", newline="\n") as file_:
        before = "[\n"
        for row in rows:
            file_.write(f"{before}{json.dumps(row, ensure_ascii=False)}")
            before = ",\n"
        file_.write("\n]\n" if before != "[\n" else "[]\n")


def read_array(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the objects of a JSON array, or of JSONL.

    path (Path): UTF-8 file.
    YIELDS (Tuple[int, Dict[str, Any]]): Line number, counted from 1, and the object.
    RAISES (InstaNERError): On a missing file, broken JSON, or what is no object.
    """
    check_file(path, "File")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as err:
        raise InstaNERError(f"{path} is not UTF-8 ({err}). Save it as that.") from err
    place = _skip(text, 0)
    if not text.startswith("[", place):
        yield from read_jsonl(path)
        return
    number, counted = 1, 0
    place = _skip(text, place + 1)
    decoder = json.JSONDecoder()
    while not text.startswith("]", place):
        number += text.count("\n", counted, place)
        counted = place
        try:
            row, place = decoder.raw_decode(text, place)
            json.dumps(row, ensure_ascii=False).encode("utf8")  # no half of a pair
        except (RecursionError, ValueError) as err:
            raise fail(path, number, f"broken JSON ({err}). Export it again.") from err
        if not isinstance(row, dict):
            raise fail(path, number, f"a JSON object is expected, found {row!r}.")
        yield number, row
        place = _skip(text, place)
        if text.startswith(",", place):
            place = _skip(text, place + 1)
        elif not text.startswith("]", place):
            raise fail(path, number, "the JSON array breaks off. Export it again.")


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
