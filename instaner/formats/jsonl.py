"""The project's own gold: JSONL with text and spans, or cats; see gold.read_gold."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spacy.language import Language

from ..corpus import get_cats
from ..decisions import Answer
from ..files import get_field, read_jsonl
from ..targets import are_exclusive, choose_categories, make_mark
from .base import (
    Losses,
    Mark,
    Record,
    get_dicts,
    make_span,
    settle_all,
    write_lines,
)

_KEYS = ("text", "spans", "cats", "id")


def read(path: Path, losses: Losses) -> Iterator[Record]:
    """YIELDS (Record): The texts of a gold file."""
    every = [
        get_cats(row["cats"], path, number)
        for number, row in read_jsonl(path)
        if "cats" in row
    ]
    exclusive = are_exclusive(every)
    labels = tuple(dict.fromkeys(label for cats in every for label in cats))
    for number, row in read_jsonl(path):
        record = Record(
            get_field(row, "text", path, number),
            str(row.get("id", f"{path.stem}-{number}")),
            answer=Answer.ACCEPT if "spans" in row or "cats" in row else None,
            meta={key: row[key] for key in row if key not in _KEYS},
        )
        spans = [
            make_span(
                record.text, s.get("start"), s.get("end"), s.get("label"), path, number
            )
            for s in get_dicts(row, "spans", path, number)
        ]
        if "cats" in row:
            if spans:
                losses.lose("spans beside categories", record)
            cats = get_cats(row["cats"], path, number)
            found = choose_categories(cats, exclusive=exclusive)
            yield record._replace(
                marks=tuple(Mark(*make_mark(label)) for label in sorted(found)),
                attr="cats",
                labels=labels,
                exclusive=exclusive,
            )
        else:
            yield record._replace(marks=tuple(sorted(spans)))


def write(records: Iterable[Record], path: Path, losses: Losses, nlp: Language) -> None:
    """Write a gold file."""
    write_lines(_make_rows(records, losses), path)


def _make_rows(records: Iterable[Record], losses: Losses) -> Iterator[dict[str, Any]]:
    for record in settle_all(records, losses):
        meta = {key: value for key, value in record.meta.items() if key not in _KEYS}
        row: dict[str, Any] = {**meta, "id": record.id, "text": record.text}
        named = [mark.label for mark in record.marks]
        if record.attr == "cats":
            row["cats"] = {
                label: float(label in named)
                for label in dict.fromkeys((*record.labels, *named))
            }
        else:
            row["spans"] = [
                {"start": start, "end": end, "label": label}
                for start, end, label, *_ in record.marks
            ]
        yield row
