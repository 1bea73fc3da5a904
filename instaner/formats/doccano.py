"""doccano: JSONL as it exports and imports it.

Relied on, from https://doccano.github.io/doccano/tutorial and the project's
backend/data_export: a row has id, text, label, which is a list of [start, end, label]
or of categories, and Comments; with relations, entities (id, label, start_offset,
end_offset) and relations stand in the place of label. Older ones call it labels. Other
columns are kept, and come back as they were. Offsets are code points, unless a project
counts grapheme clusters as one character, which is not to be switched on.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spacy.language import Language

from ..decisions import Answer
from ..files import get_field, read_jsonl
from .base import (
    Losses,
    Record,
    fail,
    get_dicts,
    make_categories,
    make_span,
    settle_all,
    write_lines,
)

_KEYS = ("id", "text", "data", "label", "labels", "entities", "relations", "Comments")


def read(path: Path, losses: Losses) -> Iterator[Record]:
    """YIELDS (Record): The annotated texts of an export."""
    attr = "ents"
    for _, row in read_jsonl(path):
        label = row.get("label", row.get("labels"))
        if "entities" in row or label:
            is_cats = isinstance(label, list) and isinstance(label[0], str)
            attr = "cats" if is_cats else "ents"
            break
    for number, row in read_jsonl(path):
        text = get_field(row, "text" if "text" in row else "data", path, number)
        record = Record(
            text,
            str(row.get("id", f"{path.stem}-{number}")),
            attr=attr,  # type: ignore[arg-type]
            answer=Answer.ACCEPT,
            meta={key: row[key] for key in row if key not in _KEYS},
        )
        for key in ("relations", "Comments"):
            if row.get(key):
                losses.lose(key.lower(), record)
        labels = row.get("label", row.get("labels"))
        if "entities" in row:
            labels = [
                [span.get("start_offset"), span.get("end_offset"), span.get("label")]
                for span in get_dicts(row, "entities", path, number)
            ]
        elif labels is None:
            record = record._replace(answer=None)
            labels = []
        if attr == "cats":
            marks = make_categories(labels, path, number)
        else:
            if not isinstance(labels, list) or not all(
                isinstance(span, list) and len(span) == 3 for span in labels
            ):
                raise fail(
                    path, number, "labels have to be lists of start, end and label."
                )
            marks = tuple(
                sorted(
                    make_span(text, start, end, label, path, number)
                    for start, end, label in labels
                )
            )
        yield record._replace(marks=marks)


def write(records: Iterable[Record], path: Path, losses: Losses, nlp: Language) -> None:
    """Write texts to import."""
    write_lines(_make_rows(records, losses), path)


def _make_rows(records: Iterable[Record], losses: Losses) -> Iterator[dict[str, Any]]:
    for record in settle_all(records, losses):
        meta = {key: value for key, value in record.meta.items() if key not in _KEYS}
        label = (
            [mark.label for mark in record.marks]
            if record.attr == "cats"
            else [[*mark.offsets] for mark in record.marks]
        )
        yield {**meta, "id": record.id, "text": record.text, "label": label}
