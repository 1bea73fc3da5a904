"""What a review page needs of an annotated corpus, in an order of use, in one file: so
that a page opens at once, however large the corpus is."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import spacy
import srsly
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch
from spacy.vocab import Vocab

from ..corpus import PROVENANCE, read_docs
from ..database import Database, transact
from ..decisions import Answer
from ..errors import InstaNERError
from ..files import check_exists
from ..recheck import find_suspects
from ..targets import ENTS, Offsets, Target, are_exclusive, is_category, make_mark
from ..vote import Standing

_BATCH = 200  # texts written at a time
_FORMAT = 2  # of what the file has; others are made anew
_NEAREST_ONE = 1 - 1e-6

CHECKER = "out-of-fold student"  # voter that finds suspects


class Queue(str, Enum):
    """Why a text is shown, in the order of use."""

    DISPUTED = "disputed"  # its votes dispute something
    SUSPICIOUS = "suspicious"  # students trained on the other texts disagree
    DISAGREEMENT = "disagreement"  # the student disagrees
    REST = "rest"
    RANDOM = "random"  # drawn from all


_ORDER = [Queue.DISPUTED, Queue.SUSPICIOUS, Queue.DISAGREEMENT, Queue.REST]


class Status(str, Enum):
    """What became of a text."""

    TODO = "to do"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    ALL = "all"


class Filter(NamedTuple):
    """Which texts to show, and in which order.

    reviewer (str): To whom.
    queue (Optional[Queue]): Only those of a queue; RANDOM: all, in random order. None:
        all, by use.
    status (Status): What became of them.
    label (str): Only those in which somebody named it; "": all.
    voter (str): Only those in which this voter named something; "": all.
    search (str): Only those that contain it, in any case of ASCII; "": all.
    """

    reviewer: str
    queue: Queue | None = None
    status: Status = Status.TODO
    label: str = ""
    voter: str = ""
    search: str = ""


class Item(NamedTuple):
    """A text to review.

    n (int): Its number in the corpus.
    id (str): Its name.
    text (str): The text.
    tokens (List[Tuple[int, int]]): Start and end character of each token.
    candidates (List[Dict[str, Any]]): Every mark that a voter named, as in a shard.
    proposed (List[Offsets]): The marks that stand.
    queue (Queue): Why it is shown.
    place (float): Where it stands in the order of use, or in the random one.
    """

    n: int
    id: str
    text: str
    tokens: list[tuple[int, int]]
    candidates: list[dict[str, Any]]
    proposed: list[Offsets]
    queue: Queue
    place: float


class Opinion(NamedTuple):
    """What a voter says of a text.

    n (int): The text's number.
    marks (List[Offsets]): What it names.
    rank (float): How early in the queue the text comes, from 0 to below 1; -1: it does
        not belong there.
    """

    n: int
    marks: list[Offsets]
    rank: float


class Index(Database):
    """The texts of a corpus. It is a cache: it can be deleted.

    path (Path): The file.
    reviews (Path): The review store, which has to be there.
    """

    noun = "review index"
    application = 0x494E4958  # "INIX"
    schema = (
        """CREATE TABLE texts (
            n INTEGER PRIMARY KEY,
            id TEXT NOT NULL,
            text TEXT NOT NULL,
            tokens TEXT NOT NULL,
            candidates TEXT NOT NULL,
            proposed TEXT NOT NULL,
            place REAL NOT NULL,
            shuffled REAL NOT NULL,
            shared REAL NOT NULL
        )""",
        "CREATE INDEX by_place ON texts (place, n)",
        "CREATE INDEX by_chance ON texts (shuffled, n)",
        """CREATE TABLE names (
            kind TEXT, name TEXT, n INTEGER, PRIMARY KEY (kind, name, n)
        ) WITHOUT ROWID""",
        """CREATE TABLE kinds (
            kind TEXT, name TEXT, PRIMARY KEY (kind, name)
        ) WITHOUT ROWID""",
        "CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    )
    lost = "which is made from the corpus"

    def __init__(self, path: Path, reviews: Path) -> None:
        super().__init__(path)
        self._reviews = reviews

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "reviews": self._reviews}

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = OFF")  # it can be made again
        # To be read alone, so that nobody who decides has to wait.
        uri = f"{self._reviews.resolve().as_uri()}?mode=ro"
        connection.execute("ATTACH DATABASE ? AS reviews", (uri,))
        connection.create_function("draw", 1, _draw_place, deterministic=True)

    def get_state(self) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): How far the making of it is; see build."""
        with self._use() as connection:
            rows = connection.execute("SELECT key, value FROM state").fetchall()
        return {key: json.loads(value) for key, value in rows}

    def set_state(self, **values: Any) -> None:
        """Set values of the state."""
        with self._use() as connection, transact(connection):
            connection.executemany(
                "REPLACE INTO state VALUES (?, ?)",
                [(key, json.dumps(value)) for key, value in values.items()],
            )

    def get_names(self, kind: str) -> list[str]:
        """RETURNS (List[str]): All that are named: kind "label" or "voter"."""
        query = "SELECT name FROM kinds WHERE kind = ? ORDER BY name"
        with self._use() as connection:
            return [name for (name,) in connection.execute(query, (kind,))]

    def add(self, items: Iterable[Item]) -> None:
        """Add texts."""
        rows: list[tuple[Any, ...]] = []
        names: list[tuple[str, str, int]] = []
        for item in items:
            rows.append(
                (
                    *item[:3],
                    json.dumps(item.tokens),
                    json.dumps(item.candidates, ensure_ascii=False),
                    json.dumps(item.proposed, ensure_ascii=False),
                    item.place,
                    _draw_place(item.text),
                    draw(item.text, "overlap"),
                )
            )
            names += _name(item)
        with self._use() as connection, transact(connection):
            connection.executemany(
                "INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            _add_names(connection, names)

    def add_opinions(
        self,
        voter: str,
        queue: Queue,
        opinions: Iterable[Opinion],
    ) -> None:
        """Add what another voter says.

        voter (str): Its name.
        queue (Queue): Where a text belongs in which it is of another opinion.
        opinions (Iterable[Opinion]): What it says of which texts.
        """
        with self._use() as connection, transact(connection):
            for n, marks, rank in opinions:
                item = _load(
                    connection.execute(f"{_SELECT} WHERE n = ?", (n,)).fetchone()
                )
                found = {_get_mark(row): row for row in item.candidates}
                for mark in marks:
                    row = found.setdefault(mark, _make_candidate(mark))
                    row["votes"][voter] = ""
                place = item.place
                if rank >= 0:
                    place = min(place, _ORDER.index(queue) + rank)
                changed = item._replace(candidates=[found[m] for m in sorted(found)])
                connection.execute(
                    "UPDATE texts SET candidates = ?, place = ? WHERE n = ?",
                    (json.dumps(changed.candidates, ensure_ascii=False), place, n),
                )
                _add_names(connection, _name(changed))

    def get(self, n: int) -> Item | None:
        """RETURNS (Optional[Item]): The text of a number, or None."""
        row = self._find(f"{_SELECT} WHERE n = ?", (n,))
        return None if row is None else _load(row)

    def find(self, text: str) -> Item | None:
        """RETURNS (Optional[Item]): A text, or None if it is not in the corpus."""
        row = self._find(
            f"{_SELECT} WHERE shuffled = ? AND text = ?", (_draw_place(text), text)
        )
        return None if row is None else _load(row)

    def get_next(
        self,
        wanted: Filter,
        attr: str,
        *,
        after: tuple[float, int] | None = None,
        overlap: float = 0.0,
        taken: Iterable[int] = (),
    ) -> Item | None:
        """Get the next text to show.

        wanted (Filter): Which.
        attr (str): What is annotated; see Target.
        after (Optional[Tuple[float, int]]): Place and number of the one before.
        overlap (float): Share of the texts that everybody decides about.
        taken (Iterable[int]): Numbers of texts that others are looking at.
        RETURNS (Optional[Item]): The text, or None if there is no further one.
        """
        by_chance = wanted.queue is Queue.RANDOM
        order = "shuffled" if by_chance else "place"
        where, values = _make_where(wanted, attr)
        if wanted.status is Status.TODO:
            where.append(
                "(t.shared < :overlap OR (NOT EXISTS (SELECT 1 FROM "
                "reviews.decisions AS d WHERE d.text = t.text AND d.attr = :attr AND "
                "d.undone = 0 AND d.answer != 'skip') AND t.n NOT IN "
                f"({', '.join(str(int(n)) for n in taken)})))"
            )
            values["overlap"] = overlap
        if after is not None:
            where.append(f"(t.{order}, t.n) > (:place, :n)")
            values.update(place=after[0], n=after[1])
        row = self._find(
            f"{_SELECT.replace('place', order) if by_chance else _SELECT} "
            f"WHERE {' AND '.join(where)} ORDER BY t.{order}, t.n LIMIT 1",
            values,
        )
        if row is None:
            return None
        item = _load(row)
        return item._replace(queue=Queue.RANDOM) if by_chance else item

    def count_decided(self, attr: str) -> int:
        """RETURNS (int): Number of texts about which somebody decided."""
        # Crossed, SQLite goes through the decisions, not the texts.
        query = (
            "SELECT count(DISTINCT t.n) FROM reviews.decisions AS d CROSS JOIN "
            "texts AS t WHERE t.shuffled = draw(d.text) AND t.text = d.text AND "
            "d.attr = ? AND d.undone = 0 AND d.answer != 'skip'"
        )
        return int(self._find(query, (attr,))[0])


_SELECT = "SELECT n, id, text, tokens, candidates, proposed, place FROM texts AS t"


def _make_where(wanted: Filter, attr: str) -> tuple[list[str], dict[str, Any]]:
    values: dict[str, Any] = {"attr": attr, "reviewer": wanted.reviewer}
    mine = (
        "SELECT {} FROM reviews.decisions AS d WHERE d.text = t.text AND d.attr = "
        ":attr AND d.reviewer = :reviewer AND d.undone = 0 {}"
    )
    last = mine.format("answer", "AND d.answer != 'skip' ORDER BY d.id DESC LIMIT 1")
    where = {
        Status.ALL: ["1"],
        Status.TODO: [f"NOT EXISTS ({mine.format(1, '')})"],
        Status.ACCEPTED: [f"({last}) = '{Answer.ACCEPT.value}'"],
        Status.REJECTED: [f"({last}) = '{Answer.REJECT.value}'"],
        Status.SKIPPED: [f"EXISTS ({mine.format(1, '')})", f"({last}) IS NULL"],
    }[wanted.status]
    if wanted.queue not in (None, Queue.RANDOM):
        where.append("t.place >= :first AND t.place < :first + 1")
        values["first"] = _ORDER.index(wanted.queue)
    for kind in ("label", "voter"):
        if name := getattr(wanted, kind):
            where.append(
                f"EXISTS (SELECT 1 FROM names WHERE kind = '{kind}' AND name = :{kind} "
                "AND names.n = t.n)"
            )
            values[kind] = name
    if wanted.search:
        where.append("t.text LIKE :search ESCAPE '\\'")
        escaped = wanted.search
        for character in "\\%_":
            escaped = escaped.replace(character, f"\\{character}")
        values["search"] = f"%{escaped}%"
    return where, values


def _load(row: tuple[Any, ...]) -> Item:
    n, id_, text, tokens, candidates, proposed, place = row
    return Item(
        n,
        id_,
        text,
        [(start, end) for start, end in json.loads(tokens)],
        json.loads(candidates),
        [(start, end, label) for start, end, label in json.loads(proposed)],
        _ORDER[min(int(place), len(_ORDER) - 1)],
        place,
    )


def _name(item: Item) -> Iterator[tuple[str, str, int]]:
    for row in item.candidates:
        yield "label", row["label"], item.n
        for voter in row["votes"]:
            yield "voter", voter, item.n


def _add_names(
    connection: sqlite3.Connection, names: Iterable[tuple[str, str, int]]
) -> None:
    names = list(names)
    connection.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", names)
    kinds = {name[:2] for name in names}
    connection.executemany("INSERT OR IGNORE INTO kinds VALUES (?, ?)", kinds)


def draw(text: str, purpose: str) -> float:
    """RETURNS (float): A number from 0 to below 1, drawn by the text. What is drawn for
    one purpose says nothing of another.
    """
    digest = hashlib.sha256(f"{purpose}:{text}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def _draw_place(text: str) -> float:
    return draw(text, "place")


def flatten(marks: Iterable[Offsets]) -> list[Offsets]:
    """RETURNS (List[Offsets]): Marks, of categories as make_mark has them, in order."""
    return sorted(make_mark(m[2]) if is_category(m) else m for m in marks)


def _get_mark(row: dict[str, Any]) -> Offsets:
    (mark,) = flatten([(row["start"], row["end"], row["label"])])
    return mark


def _make_candidate(mark: Offsets) -> dict[str, Any]:
    start, end, label = mark
    row = {"start": start, "end": end, "label": label, "votes": {}, "standing": ""}
    return {**row, "score": 0.0, "dispute": None}


def find_target(source: Path) -> Target:
    """Find out what a corpus is annotated with.

    source (Path): Folder of annotated shards, or a DocBin.
    RETURNS (Target): As the annotation's summary says; else as the first texts show.
    RAISES (InstaNERError): If there are no texts.
    """
    check_exists(source, "Annotated corpus")
    meta = source.with_name(f"{source.name}.meta.json")
    if meta.exists():
        said = srsly.read_json(meta).get("target")
        if said:
            return Target(said["attr"], tuple(said["labels"]), said["exclusive"])
    cats: list[dict[str, float]] = []
    doc = None
    for doc, _ in zip(read_docs(source, Vocab()), range(_BATCH), strict=False):
        if doc.has_annotation("ENT_IOB"):
            return ENTS
        cats.append(doc.cats)
    if doc is None:
        raise InstaNERError(f"{source} has no texts. Annotate some first.")
    labels = tuple(dict.fromkeys(label for scores in cats for label in scores))
    return Target("cats", labels, are_exclusive(cats)) if labels else ENTS


def make_item(n: int, doc: Doc, target: Target) -> Item:
    """Make what is shown of an annotated doc."""
    provenance = doc.user_data.get(PROVENANCE, {})
    rows = []
    for row in provenance.get("spans", ()):
        start, end, label = _get_mark(row)
        rows.append({**row, "start": start, "end": end, "label": label})
    proposed = flatten(target.get_marks(doc))
    known = {_get_mark(row) for row in rows}
    rows += [_make_candidate(mark) for mark in proposed if mark not in known]
    disputed = sum(row["standing"] == Standing.DISPUTED.value for row in rows)
    queue = Queue.DISPUTED if disputed else Queue.REST
    rank = 1 / (1 + disputed) if disputed else _draw_place(doc.text)
    return Item(
        n,
        str(provenance.get("id", n)),
        doc.text,
        [(token.idx, token.idx + len(token)) for token in doc],
        rows,
        proposed,
        queue,
        _ORDER.index(queue) + min(rank, _NEAREST_ONE),
    )


def get_fingerprint(
    source: Path, target: Target, student: str | None, suspects: int
) -> str:
    """RETURNS (str): What tells whether an index is that of a corpus as it is now."""
    files = sorted(source.glob("*.spacy")) if source.is_dir() else [source]
    if student is not None:
        files += sorted(path for path in Path(student).rglob("*") if path.is_file())
    stats = [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files
    ]
    can_check = find_spec("cleanlab") is not None  # else none are suspicious
    source = source.resolve()
    values = (_FORMAT, str(source), stats, target, student, suspects, can_check)
    return hashlib.sha256(repr(values).encode()).hexdigest()


def build(
    index: Index,
    source: Path,
    target: Target,
    *,
    student: Language | None = None,
    suspects: int = 0,
) -> None:
    """Index a corpus. The state says how far it is: stage is "reading", "student",
    "checking" or "done", done and total count texts, and trouble is what went wrong.

    index (Index): Where to.
    source (Path): Folder of annotated shards, or a DocBin.
    target (Target): What is annotated.
    student (Optional[Language]): Pipeline whose opinions are added.
    suspects (int): In how many texts at most, drawn by chance, label errors are looked
        for (see recheck.find_suspects).
    """
    meta = source.with_name(f"{source.name}.meta.json")
    total = srsly.read_json(meta).get("texts") if meta.exists() else None
    index.set_state(stage="reading", done=0, total=total, trouble=None)
    vocab = Vocab()
    done = 0
    for docs in minibatch(read_docs(source, vocab), _BATCH):
        index.add(make_item(done + k, doc, target) for k, doc in enumerate(docs))
        done += len(docs)
        index.set_state(done=done)
    index.set_state(total=done)
    if student is not None:
        _ask_student(index, student, target, done)
    if suspects:
        index.set_state(stage="checking", done=0, total=min(done, suspects))
        _check(index, source, target, done, suspects)
    index.set_state(stage="done", done=done, total=done)


def _ask_student(
    index: Index,
    student: Language,
    target: Target,
    total: int,
) -> None:
    index.set_state(stage="student", done=0, total=total)
    for start in range(0, total, _BATCH):
        items = [
            item
            for n in range(start, min(total, start + _BATCH))
            if (item := index.get(n)) is not None
        ]
        opinions = []
        docs = student.pipe(item.text for item in items)
        for item, doc in zip(items, docs, strict=True):
            marks = flatten(target.get_marks(doc))
            differences = len(set(marks) ^ set(item.proposed))
            rank = 1 / (1 + differences) if differences else -1
            opinions.append(Opinion(item.n, marks, rank))
        index.add_opinions("student", Queue.DISAGREEMENT, opinions)
        index.set_state(done=start + len(items))


def _check(
    index: Index,
    source: Path,
    target: Target,
    total: int,
    at_most: int,
) -> None:
    share = at_most / total if total else 1
    vocab = spacy.blank("xx").vocab
    numbered = [
        (n, doc)
        for n, doc in enumerate(read_docs(source, vocab))
        if draw(doc.text, "check") < share
    ]
    try:
        found = find_suspects([doc for _, doc in numbered], target)
    except InstaNERError as err:  # too few texts, or cleanlab is missing
        index.set_state(trouble=f"Label errors were not looked for: {err}")
        return
    opinions: dict[int, tuple[list[Offsets], float]] = {}
    for suspect in found:  # the worst first
        n = numbered[suspect.doc][0]
        marks, score = opinions.get(n, ([], suspect.score))
        opinions[n] = ([*marks, *flatten(suspect.predicted)], score)
    index.add_opinions(
        CHECKER,
        Queue.SUSPICIOUS,
        (
            Opinion(n, marks, min(score, _NEAREST_ONE))
            for n, (marks, score) in opinions.items()
        ),
    )
