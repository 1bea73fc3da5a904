"""CSV for a spreadsheet: UTF-8 with a byte order mark, which Excel asks for.

Spans stand in the text: I had [ramen](DISH). A backslash stands before a bracket, or a
backslash, that is the text's own. Categories have a column, with | between them. A cell
that a spreadsheet would take for a formula, or that begins with an apostrophe, gets one
before it (https://owasp.org/www-community/attacks/CSV_Injection), which is taken away
again.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from spacy.language import Language

from ..decisions import Answer
from ..errors import InstaNERError
from ..files import check_file
from .base import (
    Losses,
    Mark,
    Record,
    choose_answers,
    fail,
    group,
    lose_meta,
    make_categories,
    make_span,
)

_ENTS = ("id", "text", "answer", "reviewer", "brief")
_CATS = ("id", "text", "categories", "answer", "reviewer", "brief")
_GUARDED = tuple("'=+-@\t\r\n＝＋－＠")
_LONGEST = 2**31 - 1  # characters of a cell


def read(path: Path, losses: Losses) -> Iterator[Record]:
    """YIELDS (Record): The rows of a table with text and, where there are any, id,
    categories, answer, reviewer and brief."""
    check_file(path, "File")
    csv.field_size_limit(_LONGEST)
    with path.open(encoding="utf-8-sig", newline="") as file_:
        rows = csv.DictReader(file_, strict=True)
        try:
            if "text" not in (rows.fieldnames or ()):
                raise fail(path, 1, 'there is no column "text". Give columns a name.')
            attr = "cats" if "categories" in (rows.fieldnames or ()) else "ents"
            for row in rows:
                number = rows.line_num
                if None in row or None in row.values():
                    raise fail(
                        path,
                        number,
                        f"{len(rows.fieldnames or ())} cells are expected. Save it "
                        "with commas between them.",
                    )
                cells = {key: _unguard(value) for key, value in row.items()}
                yield _make_record(cells, attr, path, number)
        except (csv.Error, UnicodeDecodeError) as err:
            raise InstaNERError(
                f"{path}, line {rows.line_num}: no CSV in UTF-8 ({err}). Save it as "
                "that."
            ) from err


def _make_record(cells: dict[str, str], attr: str, path: Path, number: int) -> Record:
    answer = cells.get("answer", "").strip().lower()
    if answer and answer not in [*Answer]:
        raise fail(
            path,
            number,
            f"answer {answer!r} is none of {', '.join(a.value for a in Answer)}.",
        )
    record = Record(
        cells["text"],
        cells.get("id") or f"{path.stem}-{number}",
        answer=Answer(answer) if answer else None,
        reviewer=cells.get("reviewer", ""),
        meta={"brief": cells["brief"]} if cells.get("brief") else {},
    )
    if attr == "cats":
        labels = [_unescape(la) for la in re.findall(_PART, cells["categories"]) if la]
        marks = make_categories(labels, path, number)
        return record._replace(attr="cats", marks=marks)
    text, spans = _read_marks(cells["text"], path, number)
    marks = tuple(sorted(make_span(text, *span, path, number) for span in spans))
    return record._replace(text=text, marks=marks)


_PART = re.compile(r"(?:[^|\\]|\\.)+", re.DOTALL)
_PIECE = re.compile(r"\\(.)|(\[)|\]\(((?:[^)\\]|\\.)*)\)|([^\\\[\]]+)", re.DOTALL)


def _read_marks(
    cell: str, path: Path, number: int
) -> tuple[str, list[tuple[int, int, str]]]:
    parts: list[str] = []
    length = place = 0
    opened: list[int] = []
    spans = []
    while place < len(cell):
        found = _PIECE.match(cell, place)
        if found is None or (found[3] is not None and not opened):
            raise fail(
                path,
                number,
                f"{cell[place : place + 20]!r} is no mark such as [ramen](DISH). Put a "
                "backslash before a bracket, or a backslash, of the text.",
            )
        escaped, bracket, label, plain = found.groups()
        if bracket:
            opened.append(length)
        elif label is not None:
            spans.append((opened.pop(), length, _unescape(label)))
        else:
            parts.append(escaped or plain)
            length += len(parts[-1])
        place = found.end()
    if opened:
        raise fail(path, number, "a [ has no ](LABEL). Close it, or write \\[.")
    return "".join(parts), spans


def write(records: Iterable[Record], path: Path, losses: Losses, nlp: Language) -> None:
    """Write a table with a row for each answer, or text without one."""
    attr = ""
    with path.open("w", encoding="utf-8-sig", newline="") as file_:
        writer = csv.writer(file_, quoting=csv.QUOTE_ALL)
        for several in group(records):
            for record in choose_answers(several, losses):
                if not attr:
                    attr = record.attr
                    writer.writerow(_CATS if attr == "cats" else _ENTS)
                writer.writerow(map(_guard, _make_cells(record, losses)))


def _make_cells(record: Record, losses: Losses) -> Iterator[str]:
    lose_meta(record, losses, "brief")
    marks = [mark for mark in record.marks if not mark.disputed]
    for mark in record.marks:
        if mark.disputed:
            losses.lose("disputed marks", record)
        elif mark.score is not None:
            losses.lose("scores", record)
    yield record.id
    if record.attr == "cats":
        yield record.text
        yield "|".join(_escape(mark.label, "|") for mark in marks)
    else:
        yield _put_marks(record, marks, losses)
    yield record.answer.value if record.answer else ""
    yield record.reviewer
    yield str(record.meta.get("brief", ""))


def _put_marks(record: Record, marks: list[Mark], losses: Losses) -> str:
    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda m: (m.start, -m.end, m.label)):
        if any(k.start < mark.start < k.end < mark.end for k in kept):
            losses.lose("spans that cross another", record)
        else:
            kept.append(mark)
    cell = []
    for i in range(len(record.text) + 1):
        # The inner ones close first; they began last.
        cell += [f"]({_escape(m.label, ')')})" for m in reversed(kept) if m.end == i]
        cell += ["[" for mark in kept if mark.start == i]
        cell.append(_escape(record.text[i : i + 1], "[]"))
    return "".join(cell)


def _escape(text: str, special: str) -> str:
    return "".join(f"\\{c}" if c in special or c == "\\" else c for c in text)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _guard(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_GUARDED) else cell


def _unguard(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_GUARDED) else cell
