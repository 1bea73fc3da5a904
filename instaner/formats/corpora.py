"""A corpus, with what people decided about it, as records; and records as decisions."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from ..decisions import REVIEWS, Answer, Decision, Decisions, check_reviewer, is_store
from ..errors import InstaNERError
from ..files import check_exists
from ..targets import Offsets, Target
from . import docbin, jsonl
from .base import Losses, Mark, Record, are_apart, group


def read_corpus(
    path: Path, losses: Losses, *, attr: str | None = None, disputed: bool = False
) -> Iterator[Record]:
    """Read a corpus.

    path (Path): Folder of annotated shards, with the review store that lies beside it;
        a DocBin; gold JSONL; or a review store.
    losses (Losses): What is left out.
    attr (Optional[str]): Which decisions to read from a store: "ents" or "cats".
    disputed (bool): Only texts in which the votes leave a mark open.
    YIELDS (Record): What the votes say about a text, then what each person does.
    RAISES (InstaNERError): If it is none of these, or has no texts.
    """
    check_exists(path, "Corpus")
    if is_store(path):
        records = _read_decisions(Decisions(path), path, attr)
    elif path.is_dir():
        store = Decisions(path.resolve().with_name(REVIEWS))
        records = _add_decisions(docbin.read(path, losses), store)
    elif path.suffix == ".spacy":
        records = docbin.read(path, losses)
    elif path.suffix == ".jsonl":
        records = jsonl.read(path, losses)
    else:
        raise InstaNERError(
            f"{path} is no corpus. Give a folder of annotated shards, a .spacy, a "
            ".jsonl or a review store (.db)."
        )
    is_empty = True
    for several in group(records):
        marks = (mark for record in several for mark in record.marks)
        if not disputed or any(mark.disputed for mark in marks):
            is_empty = False
            yield from several
    if is_empty:
        what = "texts with a disputed mark" if disputed else "annotated texts"
        raise InstaNERError(f"{path} has no {what}. There is nothing to export.")


def _add_decisions(records: Iterable[Record], store: Decisions) -> Iterator[Record]:
    for record in records:
        yield record
        for decision in store.find(record.text, record.attr):
            yield _make_record(decision, record)


def _read_decisions(store: Decisions, path: Path, attr: str | None) -> Iterator[Record]:
    attrs = [a for a in ("ents", "cats") if next(store.read(a), None)]
    if attr is None and len(attrs) > 1:
        raise InstaNERError(
            f"{path} has decisions about entities and about categories. Say which, "
            "with --attr ents or --attr cats."
        )
    for name in attrs:
        if attr in (None, name):
            target = store.get_target(name) or Target(name)  # type: ignore[arg-type]
            texts = enumerate(store.read(name), 1)
            for number, decisions in texts:
                first = decisions[0]
                base = Record(
                    first.text,
                    first.text_id or f"{path.stem}-{number}",
                    attr=target.attr,
                    labels=target.labels if name == "cats" else (),
                    exclusive=target.exclusive,
                )
                for decision in decisions:
                    yield _make_record(decision, base)


def _make_record(decision: Decision, base: Record) -> Record:
    marks = [Mark(*mark) for mark in decision.marks if mark[2]]
    return base._replace(
        marks=tuple(marks) if decision.answer is Answer.ACCEPT else (),
        answer=decision.answer,
        reviewer=decision.reviewer,
    )


def _choose_marks(record: Record, losses: Losses) -> list[Offsets]:
    """RETURNS (List[Offsets]): Marks without the shorter of two spans that overlap,
    which entities cannot be, nor what is reviewed."""
    kept: list[Mark] = []
    for mark in sorted(record.marks, key=lambda m: (m.start - m.end, m.offsets)):
        if record.attr == "ents" and not are_apart([*kept, mark]):
            losses.lose("spans in or across a longer one", record)
        else:
            kept.append(mark)
    return sorted(mark.offsets for mark in kept)


def read_answers(records: Iterable[Record], losses: Losses) -> Iterator[Record]:
    """YIELDS (Record): What people say: what only a model says is no gold."""
    for several in group(records):
        if all(record.answer is None for record in several):
            losses.lose("texts without an answer", several[0])
        for record in several:
            if record.answer is not None:
                yield record


def add_decisions(
    records: Iterable[Record], path: Path, losses: Losses, *, reviewer: str = ""
) -> tuple[int, int]:
    """Add what people say to a review store, but for what they said there before: an
    older file must not win over what they decided since.

    records (Iterable[Record]): The records.
    path (Path): The store.
    losses (Losses): What is left out.
    reviewer (str): Who it was, where a record does not say.
    RETURNS (Tuple[int, int]): How many decisions were added, and how many were there.
    RAISES (InstaNERError): If nobody has a name, or a name that cannot be.
    """
    last: dict[tuple[str, str, str], Decision] = {}
    labels: dict[str, dict[str, None]] = {}
    inclusive: set[str] = set()
    for record in records:
        name = record.reviewer or reviewer
        if record.answer is None:
            continue
        if record.answer is Answer.SKIP:
            losses.lose("answers that decide nothing", record)
            continue
        if not name:
            raise InstaNERError(
                f'Nobody is named for the text "{record.id}". Say who annotated it '
                "with --reviewer NAME."
            )
        check_reviewer(name)
        names = chain(record.labels, (mark.label for mark in record.marks))
        labels.setdefault(record.attr, {}).update(dict.fromkeys(names))
        if not record.exclusive:
            inclusive.add(record.attr)
        is_accepted = record.answer is Answer.ACCEPT
        marks = _choose_marks(record, losses) if is_accepted else []
        key = (record.text, record.attr, name)
        last.pop(key, None)
        last[key] = Decision(
            record.text,
            record.attr,
            name,
            record.answer,
            tuple(marks),
            text_id=record.id,
            queue="import",
        )
    store = Decisions(path)
    added = 0
    for decision in last.values():
        if not store.knows(decision):
            store.add(decision)
            added += 1
    for attr, found in labels.items():
        target = store.get_target(attr)
        exclusive = attr == "cats" and attr not in inclusive
        if target is not None:
            exclusive = target.exclusive
        store.set_target(Target(attr, tuple(found), exclusive))  # type: ignore[arg-type]
    return added, len(last) - added
