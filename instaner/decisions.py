"""What people decided about texts, in one SQLite file beside the response store."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from .database import LARGEST, SUFFIXES, Database, transact
from .errors import InstaNERError
from .targets import Offsets, Target, make_mark

REVIEWS = "reviews.db"  # the file's name

HUMAN = "human"  # component that reviewers are samples of: human/anna votes
RANDOM = "random"  # queue whose texts are like those in general

_FIELDS = (
    "text",
    "attr",
    "reviewer",
    "answer",
    "marks",
    "proposed",
    "text_id",
    "queue",
    "seconds",
    "created",
)
_SCHEMA = (
    """CREATE TABLE decisions (
        id INTEGER PRIMARY KEY,
        text TEXT NOT NULL,
        attr TEXT NOT NULL,
        reviewer TEXT NOT NULL,
        answer TEXT NOT NULL,
        marks TEXT NOT NULL,
        proposed TEXT NOT NULL,
        text_id TEXT NOT NULL,
        queue TEXT NOT NULL,
        seconds REAL,
        created TEXT NOT NULL,
        undone INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX by_text ON decisions (text, attr, reviewer, id)",
    "CREATE INDEX by_reviewer ON decisions (reviewer, attr, undone, id)",
    """CREATE TABLE targets (
        attr TEXT PRIMARY KEY,
        labels TEXT NOT NULL,
        exclusive INTEGER NOT NULL
    )""",
)


class Answer(str, Enum):
    """What a person says about an annotated text."""

    ACCEPT = "accept"  # its marks, as they now are, are right
    REJECT = "reject"  # the text is of no use
    SKIP = "skip"  # not decided


class Decision(NamedTuple):
    """What a person decided about a text.

    text (str): The text.
    attr (str): What is annotated: "ents" or "cats".
    reviewer (str): Who decided.
    answer (Answer): What.
    marks (Tuple[Offsets, ...]): The marks that are right, if the answer is accept. A
        category is as make_mark has it.
    proposed (Tuple[Offsets, ...]): The marks that the person was shown.
    text_id (str): The text's name in its file.
    queue (str): Why it was shown; see review.index.Queue.
    seconds (Optional[float]): How long it took.
    created (str): When: ISO 8601, UTC. "": now.
    """

    text: str
    attr: str
    reviewer: str
    answer: Answer
    marks: tuple[Offsets, ...] = ()
    proposed: tuple[Offsets, ...] = ()
    text_id: str = ""
    queue: str = ""
    seconds: float | None = None
    created: str = ""


class Decisions(Database):
    """Decisions in one SQLite file. What is undone stays in it, and does not count.

    path (Path): The file. It is made, with its folders, if it is not there.
    """

    noun = "review store"
    application = 0x494E5256  # "INRV"
    schema = _SCHEMA
    lost = "without the decisions"

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = FULL")  # people's work is dear

    def add(self, decision: Decision) -> None:
        """Store a decision. Of several of a person about a text, the last counts; to
        skip it takes nothing back.

        decision (Decision): The decision.
        RAISES (InstaNERError): If the reviewer has no name, or one that is no voter's.
        """
        check_reviewer(decision.reviewer)
        created = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        row = decision._replace(created=decision.created or created)._asdict()
        for name in ("marks", "proposed"):
            row[name] = _dump(row[name])
        row["answer"] = decision.answer.value
        names = ", ".join(_FIELDS)
        values = ", ".join(f":{name}" for name in _FIELDS)
        with self._use() as connection, transact(connection):
            connection.execute(
                f"INSERT INTO decisions ({names}) VALUES ({values})", row
            )

    def get_last(self, reviewer: str, attr: str) -> Decision | None:
        """RETURNS (Optional[Decision]): The last decision of a person, or None."""
        rows = self._read(
            f"SELECT {', '.join(_FIELDS)} FROM decisions WHERE reviewer = ? AND "
            "attr = ? AND undone = 0 ORDER BY id DESC LIMIT 1",
            (reviewer, attr),
        )
        return _load(rows[0]) if rows else None

    def undo(self, reviewer: str, attr: str) -> None:
        """Have the last decision of a person count no more, if there is one."""
        with self._use() as connection, transact(connection):
            connection.execute(
                "UPDATE decisions SET undone = 1 WHERE id = (SELECT max(id) FROM "
                "decisions WHERE reviewer = ? AND attr = ? AND undone = 0)",
                (reviewer, attr),
            )

    def find(self, text: str, attr: str) -> list[Decision]:
        """RETURNS (List[Decision]): What each person decided about a text, the oldest
        first."""
        query = f"{_CURRENT} AND text = ? ORDER BY id"
        return [_load(row) for row in self._read(query, (attr, text))]

    def knows(self, decision: Decision) -> bool:
        """RETURNS (bool): Whether the person once decided so about the text, even if it
        no longer counts."""
        query = (
            "SELECT 1 FROM decisions WHERE text = ? AND attr = ? AND reviewer = ? AND "
            "answer = ? AND marks = ?"
        )
        text, attr, reviewer, answer, marks, *_ = decision
        values = (text, attr, reviewer, answer.value, _dump(marks))
        return self._find(query, values) is not None

    def read(self, attr: str) -> Iterator[list[Decision]]:
        """YIELDS (List[Decision]): For each text what each person decided, in the order
        in which the texts were first decided about."""
        texts: dict[str, list[Decision]] = {}
        for row in self._read(f"{_CURRENT} ORDER BY id", (attr,)):
            decision = _load(row)
            texts.setdefault(decision.text, []).append(decision)
        yield from texts.values()

    def count(self, reviewer: str, attr: str) -> dict[str, Any]:
        """Count what a person decided.

        RETURNS (Dict[str, Any]): accepted, rejected and skipped (texts), unchanged
            (accepted as they were proposed), and seconds (the mean time for a text).
        """
        rows = self._read(
            "SELECT answer, count(*), sum(marks = proposed), avg(seconds) FROM "
            # The row of the last that is no skip, or else of the last.
            "(SELECT answer, marks, proposed, seconds, max(id + (answer != 'skip') * "
            f"{LARGEST}) FROM decisions WHERE reviewer = ? AND attr = ? AND undone = 0 "
            "GROUP BY text) GROUP BY answer",
            (reviewer, attr),
        )
        found = {answer: values for answer, *values in rows}
        counts = {
            "accepted": found.get(Answer.ACCEPT.value, (0,))[0],
            "rejected": found.get(Answer.REJECT.value, (0,))[0],
            "skipped": found.get(Answer.SKIP.value, (0,))[0],
        }
        _, unchanged, seconds = found.get(Answer.ACCEPT.value, (0, 0, None))
        return {**counts, "unchanged": unchanged, "seconds": seconds}

    def set_target(self, target: Target) -> None:
        """Keep which labels there are, beside those of earlier runs."""
        known = self.get_target(target.attr)
        labels = dict.fromkeys((*(known.labels if known else ()), *target.labels))
        values = (target.attr, json.dumps([*labels]), target.exclusive)
        with self._use() as connection, transact(connection):
            connection.execute("REPLACE INTO targets VALUES (?, ?, ?)", values)

    def get_target(self, attr: str) -> Target | None:
        """RETURNS (Optional[Target]): What was annotated, or None if nothing was."""
        query = "SELECT labels, exclusive FROM targets WHERE attr = ?"
        row = self._find(query, (attr,))
        if row is None:
            return None
        return Target(attr, tuple(json.loads(row[0])), bool(row[1]))  # type: ignore[arg-type]

    def _read(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        if not self.path.exists():
            return []
        with self._use() as connection:
            return connection.execute(query, values).fetchall()


# Of each person about each text the last that counts, and decides. Left to itself,
# SQLite looks through all that the person decided.
_CURRENT = (
    f"SELECT {', '.join(_FIELDS)} FROM decisions AS d WHERE attr = ? AND undone = 0 "
    "AND answer != 'skip' AND NOT EXISTS (SELECT 1 FROM decisions AS e INDEXED BY "
    "by_text WHERE e.text = d.text AND e.attr = d.attr AND e.reviewer = d.reviewer "
    "AND e.id > d.id AND e.undone = 0 AND e.answer != 'skip')"
)


def _dump(marks: Iterable[Offsets]) -> str:
    return json.dumps(sorted(marks), ensure_ascii=False)


def _load(row: tuple[Any, ...]) -> Decision:
    values = dict(zip(_FIELDS, row, strict=True))
    for name in ("marks", "proposed"):
        values[name] = tuple((s, e, label) for s, e, label in json.loads(values[name]))
    return Decision(**{**values, "answer": Answer(values["answer"])})


def is_store(path: Path) -> bool:
    """RETURNS (bool): Whether a path is that of a review store."""
    return path.suffix in SUFFIXES


def check_reviewer(name: str) -> None:
    """RAISES (InstaNERError): If a name cannot be a reviewer's."""
    if not name.strip() or "/" in name or not name.isprintable():
        raise InstaNERError(
            f"{name!r} is no name for a reviewer. Give letters and digits, no slash."
        )


def is_rejected(decisions: Iterable[Decision]) -> bool:
    """RETURNS (bool): Whether more people reject a text than accept it."""
    answers = [decision.answer for decision in decisions]
    return answers.count(Answer.REJECT) > answers.count(Answer.ACCEPT)


def get_ballots(decisions: Iterable[Decision]) -> dict[str, list[Offsets]]:
    """RETURNS (Dict[str, List[Offsets]]): What people who accepted a text marked in it,
    by voter, as corpus.Text has it."""
    return {
        f"{HUMAN}/{d.reviewer}": [*d.marks]
        if d.marks or d.attr == "ents"
        else [make_mark("")]
        for d in decisions
        if d.answer is Answer.ACCEPT
    }
