"""CoNLL: a token and its tag in a line, and an empty line between texts.

What is written is BIO, with comment lines as CoNLL-U has them (see
https://universaldependencies.org/format.html), so that ids, texts and offsets survive;
a text that does not fit in a line is in JSON, as text_json. Tokens of white space have
no line. What is read is BIO, IOB1, BILUO or IOBES of two columns or more, of which the
first is the token and the last the tag, with or without comments.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from spacy.language import Language

from ..decisions import Answer
from ..errors import InstaNERError
from ..files import check_file
from .base import Losses, Mark, Record, fail, lose_meta, settle_all

_COMMENT = re.compile(r"# ([A-Za-z_]+) =(?: (.*))?", re.DOTALL)
_TAG = re.compile(r"O|[BILUMES]-.*\S.*", re.DOTALL)


class _Row(NamedTuple):
    number: int
    token: str
    tag: str


def read(path: Path, losses: Losses) -> Iterator[Record]:
    """YIELDS (Record): The texts of a file."""
    check_file(path, "File")
    comments: dict[str, str] = {}
    rows: list[_Row] = []
    first = 1
    with path.open(encoding="utf-8-sig", newline="\n") as file_:
        try:
            for number, line in enumerate(file_, 1):
                line = line.removesuffix("\n")
                is_start = line.startswith("-DOCSTART-") and not comments
                if not line.strip(" \t\r") or is_start:
                    if rows or comments:
                        yield _make_record(comments, rows, path, first)
                    comments, rows, first = {}, [], number + 1
                elif not rows and (found := _COMMENT.fullmatch(line)):
                    comments[found[1]] = found[2] or ""
                elif not rows and line.startswith("#") and len(line.split()) != 2:
                    continue  # a comment that says nothing we know
                else:
                    rows.append(_read_row(line, path, number))
        except UnicodeDecodeError as err:
            raise InstaNERError(
                f"{path} is not UTF-8 ({err}). Save it as that."
            ) from err
    if rows or comments:
        yield _make_record(comments, rows, path, first)


def _read_row(line: str, path: Path, number: int) -> _Row:
    columns = line.split("\t") if "\t" in line else line.split()
    tag = columns[-1].rstrip(" \r")
    if len(columns) < 2 or not columns[0] or not _TAG.fullmatch(tag):
        raise fail(
            path,
            number,
            f"{line!r} is no token with a tag such as O or B-NAME. Mend the line.",
        )
    return _Row(number, columns[0], tag)


def _make_record(
    comments: dict[str, str], rows: list[_Row], path: Path, first: int
) -> Record:
    text = comments.get("text", " ".join(row.token for row in rows))
    try:
        if "text_json" in comments:
            text = json.loads(comments["text_json"])
        text.encode("utf8")
    except (AttributeError, ValueError) as err:
        raise fail(path, first, f"broken text_json ({err}). Mend it.") from err
    marks: list[Mark] = []
    place = 0
    is_open = False
    for row in rows:
        start = text.find(row.token, place)
        if start < 0 or text[place:start].strip():
            raise fail(
                path,
                row.number,
                f"the token {row.token!r} does not follow in the text "
                f"{text[place : place + 40]!r}. Mend the token or the text.",
            )
        place = start + len(row.token)
        kind, _, label = row.tag.partition("-")
        goes_on = is_open and marks[-1].label == label and kind in "IMLE"
        if goes_on:
            marks[-1] = marks[-1]._replace(end=place)
        elif kind != "O":
            marks.append(Mark(start, place, label))
        is_open = kind in "BIM"
    meta = {"brief": comments["brief"]} if "brief" in comments else {}
    return Record(
        text,
        comments.get("id", comments.get("sent_id", f"{path.stem}-{first}")),
        tuple(marks),
        answer=Answer.ACCEPT,
        meta=meta,
    )


def write(records: Iterable[Record], path: Path, losses: Losses, nlp: Language) -> None:
    """Write texts with a tag for each token."""
    with path.open("w", encoding="utf8", newline="\n") as file_:
        for record in settle_all(records, losses):
            if record.attr == "cats":
                losses.leave_out("texts with categories", record)
            else:
                file_.write(f"{_make_block(record, losses, nlp)}\n")


def _make_block(record: Record, losses: Losses, nlp: Language) -> str:
    lines = []
    lose_meta(record, losses, "brief")
    for name, value in (("id", record.id), ("brief", record.meta.get("brief"))):
        if value is None:
            continue
        if str(value) == _strip(str(value)):
            lines.append(f"# {name} = {value}\n")
        else:
            losses.lose(f"{name} with white space around it or line breaks", record)
    if record.text == _strip(record.text):
        lines.append(f"# text = {record.text}\n")
    else:
        lines.append(f"# text_json = {json.dumps(record.text)}\n")
    tokens = [token for token in nlp.make_doc(record.text) if not token.is_space]
    starts = {token.idx: i for i, token in enumerate(tokens)}
    ends = {token.idx + len(token): i for i, token in enumerate(tokens)}
    tags = ["O"] * len(tokens)
    for mark in sorted(record.marks, key=lambda m: (m.start - m.end, m)):
        if mark.start not in starts or mark.end not in ends:
            losses.lose("spans that are not on token boundaries", record)
            continue
        inside = range(starts[mark.start], ends[mark.end] + 1)
        if any(tags[i] != "O" for i in inside):
            losses.lose("spans in or across a longer one", record)
        elif mark.label != _strip(mark.label) or "\t" in mark.label:
            losses.lose("labels with tabs, line breaks or white space around", record)
        else:
            for i in inside:
                tags[i] = f"{'B' if i == inside[0] else 'I'}-{mark.label}"
    rows = zip(tokens, tags, strict=True)
    return "".join([*lines, *(f"{token.text}\t{tag}\n" for token, tag in rows)])


def _strip(value: str) -> str:
    """RETURNS (str): What is left of a value in a line of a file."""
    return value.replace("\n", "").replace("\r", "").strip()
