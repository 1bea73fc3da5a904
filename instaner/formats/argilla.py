"""Argilla 2: records as rg.Record.to_dict makes and rg.Record.from_dict reads them, in
a JSON array (rg.Dataset.records.to_json, from_json) or as JSONL.

Relied on, from https://docs.argilla.io/latest/reference/argilla/records/records: a
record has id, fields, metadata, suggestions, by question, each with value, score and
agent, and responses, by question a list, each with value, user_id (a UUID) and status
(draft, submitted, discarded; to_dict leaves it out). The value of a SpanQuestion is a
list of start, end and label, of a LabelQuestion a label, of a MultiLabelQuestion a list
of labels that is not empty. A suggestion of a list has a list of scores. Values of
metadata are strings, numbers, or lists of strings.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from spacy.language import Language

from ..decisions import Answer
from ..files import get_field
from .base import (
    Losses,
    Mark,
    Record,
    fail,
    get_dict,
    get_dicts,
    get_votes,
    group,
    make_categories,
    make_span,
    put_votes,
    read_array,
    sort_marks,
    write_array,
)

_STATUSES = {
    "submitted": Answer.ACCEPT,
    "discarded": Answer.REJECT,
    "draft": Answer.SKIP,
}
_NAMES = {answer: status for status, answer in _STATUSES.items()}
_SPANS, _LABEL = "spans", "label"  # names of the questions
_REVIEWERS, _DISPUTED = "reviewers", "disputed"  # in metadata


def read(path: Path, losses: Losses) -> Iterator[Record]:
    """YIELDS (Record): For each record what is suggested, then the responses."""
    attr, exclusive = _find_kind(path)
    for number, row in read_array(path):
        fields = get_dict(row, "fields", path, number)
        if "text" not in fields and len(fields) == 1:
            fields = {"text": next(iter(fields.values()))}
        meta = get_dict(row, "metadata", path, number)
        names = dict(
            name.split("=", 1) for name in meta.pop(_REVIEWERS, []) if "=" in name
        )
        disputed = meta.pop(_DISPUTED, [])
        record = Record(
            get_field(fields, "text", path, number),
            str(row.get("id") or f"{path.stem}-{number}"),
            attr=attr,  # type: ignore[arg-type]
            exclusive=exclusive,
            meta=meta,
        )
        suggestions = get_dict(row, "suggestions", path, number)
        responses = get_dict(row, "responses", path, number)
        marks = []
        for question, suggestion in suggestions.items():
            value = _get_value(suggestion, path, number)
            if value is None or not _fits(record, value):
                losses.lose(f'suggestions on "{question}"', record)
                continue
            found = _read_value(record, value, path, number)
            scores = suggestion.get("score")
            scores = scores if isinstance(scores, list) else [scores] * len(found)
            if len(scores) != len(found):
                raise fail(path, number, "a suggestion has not a score for each mark.")
            marks += [
                mark._replace(**get_votes({"score": score}, path, number))
                for mark, score in zip(found, scores, strict=True)
            ]
        marks += [_read_disputed(record, text, path, number) for text in disputed]
        if suggestions or disputed or not any(responses.values()):
            yield record._replace(marks=sort_marks(marks))
        for said in _read_responses(record, responses, losses, path, number):
            yield said._replace(reviewer=names.get(said.reviewer, said.reviewer))


def _read_responses(
    record: Record, responses: dict[str, Any], losses: Losses, path: Path, number: int
) -> Iterator[Record]:
    """What a user responds to several questions is one opinion."""
    said: dict[tuple[str, str, int], Record] = {}
    for question in responses:
        counts: Counter[str] = Counter()
        for response in get_dicts(responses, question, path, number):
            value = _get_value(response, path, number)
            if value is None or not _fits(record, value):
                losses.lose(f'responses to "{question}"', record)
                continue
            if not response.get("status"):
                losses.lose("statuses (taken as submitted)", record)
            status = str(response.get("status") or "submitted")
            if status not in _STATUSES:
                raise fail(
                    path,
                    number,
                    f"status {status!r} is none of {', '.join(_STATUSES)}.",
                )
            user = str(response.get("user_id") or "")
            answer = _STATUSES[status]
            marks = []
            if answer is Answer.ACCEPT:
                marks = _read_value(record, value, path, number)
            new = record._replace(marks=sort_marks(marks), answer=answer, reviewer=user)
            # Who has no name can be another in each question.
            key = (user, "" if user else question, counts[user])
            counts[user] += 1
            old = said.setdefault(key, new)
            if old.answer is not answer or (
                record.exclusive and old.marks != new.marks
            ):
                losses.lose("responses of a user that contradict each other", record)
                if old.answer is Answer.SKIP:
                    said[key] = new
            else:
                said[key] = old._replace(marks=sort_marks({*old.marks, *marks}))
    yield from said.values()


def _fits(record: Record, value: Any) -> bool:
    is_cats = isinstance(value, str) or any(isinstance(one, str) for one in value)
    return not value or is_cats == (record.attr == "cats")


def _find_kind(path: Path) -> tuple[str, bool]:
    for number, row in read_array(path):
        for key in ("suggestions", "responses"):
            for said in get_dict(row, key, path, number).values():
                for one in said if isinstance(said, list) else [said]:
                    value = _get_value(one, path, number)
                    if isinstance(value, str):
                        return "cats", True
                    if value:
                        return ("ents" if isinstance(value[0], dict) else "cats"), False
    return "ents", False


def _get_value(said: Any, path: Path, number: int) -> Any:
    """RETURNS (Any): Spans, a label or labels; None for what is neither."""
    if not isinstance(said, dict):
        raise fail(path, number, f"an object with a value is expected, found {said!r}.")
    value = said.get("value")
    if isinstance(value, str):
        return value
    if isinstance(value, list) and (
        all(isinstance(v, dict) and "start" in v for v in value)
        or all(isinstance(v, str) for v in value)
    ):
        return value
    return None  # a rating or ranking


def _read_value(record: Record, value: Any, path: Path, number: int) -> list[Mark]:
    if isinstance(value, str):
        value = [value]
    if record.attr == "cats":
        # In the order of the scores.
        return [make_categories([label], path, number)[0] for label in value]
    return [
        make_span(record.text, s["start"], s.get("end"), s.get("label"), path, number)
        for s in value
    ]


def _read_disputed(record: Record, text: Any, path: Path, number: int) -> Mark:
    try:
        row = json.loads(text)
        votes = {**get_votes(row, path, number), "disputed": True}
    except (AttributeError, TypeError, ValueError) as err:
        raise fail(path, number, f'broken "{_DISPUTED}" in metadata ({err}).') from err
    if record.attr == "cats":
        return make_categories([row.get("label")], path, number)[0]._replace(**votes)
    offsets = row.get("start"), row.get("end"), row.get("label")
    return make_span(record.text, *offsets, path, number, **votes)


def write(records: Iterable[Record], path: Path, losses: Losses, nlp: Language) -> None:
    """Write records. Trusted marks are suggestions; disputed ones, which can overlap
    them, are in the metadata."""
    write_array(_make_rows(records, losses), path)


def _make_rows(records: Iterable[Record], losses: Losses) -> Iterator[dict[str, Any]]:
    for several in group(records):
        first = several[0]
        question = _LABEL if first.attr == "cats" else _SPANS
        metadata: dict[str, Any] = {}
        for key, value in first.meta.items():
            if isinstance(value, str | int | float):
                metadata[key] = value
            else:
                losses.lose(f'values of "{key}"', first)
        suggestions: dict[str, Any] = {}
        responses: list[dict[str, Any]] = []
        names: dict[str, str] = {}
        is_held = True
        for record in several:
            trusted = [mark for mark in record.marks if not mark.disputed]
            value = _make_value(record, trusted)
            if record.answer is None:
                for mark in trusted:
                    if mark.voters:
                        losses.lose("voters of trusted marks", record)
                disputed = [_put_disputed(m) for m in record.marks if m.disputed]
                if disputed:
                    metadata[_DISPUTED] = disputed
                if value is not None:
                    suggestions[question] = _make_suggestion(
                        value, trusted, losses, record
                    )
                continue
            if value is None and record.answer is not Answer.ACCEPT:
                # One has to stand there; of what is discarded, it says nothing.
                value = _make_value(
                    record, [Mark(-1, 0, label) for label in record.labels[:1]]
                )
            if value is None:
                is_held = False
                continue
            user = _make_user(record.reviewer)
            if user != record.reviewer:
                names[user] = record.reviewer
            status = _NAMES[record.answer]
            responses.append({"value": value, "user_id": user, "status": status})
        if not is_held:
            losses.leave_out("texts that people gave no category", first)
            continue
        if names:
            metadata[_REVIEWERS] = [f"{user}={name}" for user, name in names.items()]
        yield {
            "id": first.id,
            "fields": {"text": first.text},
            "metadata": metadata,
            "suggestions": suggestions,
            "responses": {question: responses} if responses else {},
            "vectors": {},
        }


def _make_value(record: Record, marks: list[Mark]) -> Any:
    if record.attr == "ents":
        return [{"start": m.start, "end": m.end, "label": m.label} for m in marks]
    if not marks:
        return None
    if record.exclusive:
        return marks[0].label
    return [mark.label for mark in marks]


def _make_suggestion(
    value: Any, marks: list[Mark], losses: Losses, record: Record
) -> dict[str, Any]:
    scores: Any = [mark.score for mark in marks]
    if None in scores or not scores:
        if any(score is not None for score in scores):
            losses.lose("scores of some marks", record)
        scores = None
    elif isinstance(value, str):
        (scores,) = scores
    return {"value": value, "score": scores, "agent": "instaner"}


def _put_disputed(mark: Mark) -> str:
    row = {"start": mark.start, "end": mark.end, "label": mark.label}
    return json.dumps({**row, **put_votes(mark)}, ensure_ascii=False)


def _make_user(name: str) -> str:
    """RETURNS (str): A user's id: the name itself if it is one, else one made of it."""
    try:
        return (
            str(UUID(name))
            if str(UUID(name)) == name
            else str(uuid5(NAMESPACE_URL, name))
        )
    except ValueError:
        return str(uuid5(NAMESPACE_URL, name))
