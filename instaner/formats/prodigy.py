"""Prodigy: JSONL as db-out writes it and as recipes and db-in read it.

Relied on, from https://prodi.gy/docs/api-interfaces: a task has text, tokens (text,
start, end, id, ws), spans (start, end, label, token_start, and token_end, which is the
last token, not the one after it), and meta; a choice has options (id, text) and, once
it is answered, accept, the ids chosen; config.choice_style is single or multiple, and
answer is accept, reject or ignore. _annotator_id and _session_id say who it was, and
_view_id with which interface. Other keys are kept as they are.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc

from ..decisions import Answer
from ..files import get_field, read_jsonl
from .base import (
    Losses,
    Mark,
    Record,
    are_apart,
    choose_answers,
    fail,
    get_dict,
    get_dicts,
    get_votes,
    group,
    make_categories,
    make_span,
    put_votes,
    sort_marks,
    write_lines,
)

_ANSWERS = {"accept": Answer.ACCEPT, "reject": Answer.REJECT, "ignore": Answer.SKIP}
_NAMES = {answer: name for name, answer in _ANSWERS.items()}
_BINARY = ("ner", "spans", "classification")  # interfaces that ask about one mark


def read(path: Path, losses: Losses) -> Iterator[Record]:
    """YIELDS (Record): Tasks, or what was answered about them."""
    for number, row in read_jsonl(path):
        meta = get_dict(row, "meta", path, number)
        text_id = meta.pop("id", row.get("id", f"{path.stem}-{number}"))
        answer = row.get("answer")
        if answer is not None and answer not in _NAMES.values():
            raise fail(
                path, number, f"answer {answer!r} is none of {', '.join(_ANSWERS)}."
            )
        record = Record(
            get_field(row, "text", path, number),
            str(text_id),
            answer=_ANSWERS.get(answer) if answer else None,
            reviewer=str(row.get("_annotator_id") or row.get("_session_id") or ""),
            meta=meta,
        )
        if row.get("_view_id") in _BINARY and (
            answer != "accept" or row["_view_id"] != "classification"
        ):
            losses.leave_out("texts with an answer about one mark alone", record)
        elif "accept" in row or "options" in row or isinstance(row.get("label"), str):
            yield _read_choice(record, row, path, number)
        else:
            spans = [
                make_span(
                    record.text,
                    span.get("start"),
                    span.get("end"),
                    span.get("label"),
                    path,
                    number,
                    **{**get_votes(span, path, number), "disputed": disputed},
                )
                for key, disputed in (("spans", False), ("disputed", True))
                for span in get_dicts(row, key, path, number)
            ]
            yield record._replace(marks=sort_marks(spans))


def _read_choice(
    record: Record, row: dict[str, Any], path: Path, number: int
) -> Record:
    chosen = row.get("accept", [row["label"]] if "label" in row else [])
    marks = {mark.label: mark for mark in make_categories(chosen, path, number)}
    options = get_dicts(row, "options", path, number)
    for option in options:
        votes = get_votes(option, path, number)
        if option.get("id") in marks or votes["disputed"]:
            (mark,) = make_categories([option.get("id")], path, number)
            marks[mark.label] = mark._replace(**votes)
    style = get_dict(row, "config", path, number).get("choice_style", "single")
    return record._replace(
        marks=sort_marks(marks.values()),
        attr="cats",
        labels=tuple(str(option.get("id")) for option in options),
        exclusive=style == "single" and len(chosen) < 2,
    )


def write(records: Iterable[Record], path: Path, losses: Losses, nlp: Language) -> None:
    """Write tasks, or answers: a row for each. Tokens are cut where a mark begins or
    ends within one, as the interfaces show marks by their tokens."""
    write_lines(
        (
            _make_row(record, nlp)
            for several in group(records)
            for record in choose_answers(several, losses)
        ),
        path,
    )


def _make_row(record: Record, nlp: Language) -> dict[str, Any]:
    row: dict[str, Any] = {"text": record.text}
    trusted = [mark for mark in record.marks if not mark.disputed]
    if record.attr == "cats":
        named = {mark.label: mark for mark in record.marks}
        row["options"] = [
            {
                "id": label,
                "text": label,
                **(put_votes(named[label]) if label in named else {}),
            }
            for label in dict.fromkeys((*record.labels, *named))
        ]
        row["accept"] = [mark.label for mark in trusted]
        style = "single" if record.exclusive else "multiple"
        row["config"] = {"choice_style": style}
        view = "choice"
    else:
        row["tokens"] = _make_tokens(nlp.make_doc(record.text), record.marks)
        starts = {token["start"]: token["id"] for token in row["tokens"]}
        ends = {token["end"]: token["id"] for token in row["tokens"]}
        for key, disputed in (("spans", False), ("disputed", True)):
            row[key] = [
                {
                    "start": mark.start,
                    "end": mark.end,
                    "token_start": starts[mark.start],
                    "token_end": ends[mark.end],
                    "label": mark.label,
                    **put_votes(mark),
                }
                for mark in record.marks
                if mark.disputed == disputed
            ]
        if not row["disputed"]:
            del row["disputed"]
        view = "ner_manual" if are_apart(trusted) else "spans_manual"
    if record.answer is not None:
        row |= {"answer": _NAMES[record.answer], "_view_id": view}
    if record.reviewer:
        row |= {"_annotator_id": record.reviewer, "_session_id": record.reviewer}
    row["meta"] = {**record.meta, "id": record.id}
    return row


def _make_tokens(doc: Doc, marks: Iterable[Mark]) -> list[dict[str, Any]]:
    starts = {mark.start for mark in marks}
    ends = {mark.end for mark in marks}
    tokens: list[dict[str, Any]] = []
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        cuts = {cut for cut in starts | ends if start < cut < end}
        edges = [start, *sorted(cuts), end]
        space = bool(token.whitespace_)
        if space and (end in starts or end + 1 in ends):  # a mark has the space
            edges.append(end + 1)
            space = False
        for one, other in pairwise(edges):
            tokens.append(
                {
                    "text": doc.text[one:other],
                    "start": one,
                    "end": other,
                    "id": len(tokens),
                    "ws": False,
                }
            )
        tokens[-1]["ws"] = space
    return tokens
