"""Label Studio: its JSON, with an interface of <Text name="text" value="$text"/> and
<Labels name="label" toName="text"> or <Choices name="label" toName="text">.

Relied on, from https://labelstud.io/guide/task_format and
https://labelstud.io/guide/predictions: a task has data, predictions (model_version,
score, result) and annotations (completed_by, was_cancelled for a text that was skipped,
result); a result has from_name, to_name, type, value, and a score of its own in
predictions; for the type labels, value has start, end, text and labels, for choices,
choices.

Offsets are code points: charsToCodePoints in web/libs/editor/src/utils/
selection-tools.js counts [...text] since 2021, and a carriage return and a line feed
are one character each (RichText splits at /\\n|\\r/g). Older exports count UTF-16
units, which the text of a span tells.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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
    read_array,
    sort_marks,
    write_array,
)

_TRUSTED, _DISPUTED = "trusted", "disputed"  # model_version of predictions
_HELD = {"labels": "ents", "choices": "cats"}  # types of results


def read(path: Path, losses: Losses) -> Iterator[Record]:
    """YIELDS (Record): For each task its predictions, then its annotations."""
    attr, exclusive = _find_kind(path)
    for number, task in read_array(path):
        data = get_dict(task, "data", path, number)
        if "data" not in task:
            raise fail(path, number, 'a task has no "data". Export as JSON.')
        text = get_field(data, "text", path, number)
        text_id = data.get("id", task.get("id", f"{path.stem}-{number}"))
        meta = {key: data[key] for key in data if key not in ("text", "id")}
        record = Record(
            text,
            str(text_id),
            attr=attr,  # type: ignore[arg-type]
            exclusive=exclusive,
            meta=meta,
        )
        predictions = _get_predictions(task, path, number)
        if task.get("predictions") and not predictions:
            losses.lose("predictions of which the file has only ids", record)
        annotations = _get_annotations(task, path, number)
        if predictions or not annotations:
            marks = [
                mark
                for prediction in predictions
                for mark in _read_results(
                    record,
                    prediction,
                    losses,
                    path,
                    number,
                    disputed=prediction.get("model_version") == _DISPUTED,
                )
            ]
            yield record._replace(marks=sort_marks(marks))
        for annotation in annotations:
            skipped = annotation.get("was_cancelled") is True
            marks = _read_results(record, annotation, losses, path, number)
            yield record._replace(
                marks=() if skipped else sort_marks(marks),
                answer=Answer.SKIP if skipped else Answer.ACCEPT,
                reviewer=_get_reviewer(annotation),
            )


def _find_kind(path: Path) -> tuple[str, bool]:
    attr, most = "", 0
    for number, task in read_array(path):
        annotations = _get_annotations(task, path, number)
        for said in [*_get_predictions(task, path, number), *annotations]:
            for result in get_dicts(said, "result", path, number):
                attr = attr or _HELD.get(str(result.get("type")), "")
                value = get_dict(result, "value", path, number)
                most = max(most, len(value.get("choices") or []))
    return attr or "ents", attr == "cats" and most < 2


def _get_predictions(
    task: dict[str, Any], path: Path, number: int
) -> list[dict[str, Any]]:
    ids = task.get("predictions")
    if isinstance(ids, list) and all(type(one) is int for one in ids):
        return []  # as the Export button has them
    return get_dicts(task, "predictions", path, number)


def _get_annotations(
    task: dict[str, Any], path: Path, number: int
) -> list[dict[str, Any]]:
    return get_dicts(task, "annotations", path, number)


def _get_reviewer(annotation: dict[str, Any]) -> str:
    by = annotation.get("reviewer") or annotation.get("completed_by") or ""
    return str(by.get("email") or by.get("id") or "" if isinstance(by, dict) else by)


def _read_results(
    record: Record,
    said: dict[str, Any],
    losses: Losses,
    path: Path,
    number: int,
    *,
    disputed: bool = False,
) -> list[Mark]:
    marks: list[Mark] = []
    for result in get_dicts(said, "result", path, number):
        value = get_dict(result, "value", path, number)
        kind = str(result.get("type"))
        if _HELD.get(kind) != record.attr:
            losses.lose(f'results of the type "{kind}"', record)
            continue
        voters = get_dict(result, "meta", path, number).get("text") or []
        votes = get_votes(
            {"score": result.get("score"), "voters": voters, "disputed": disputed},
            path,
            number,
        )
        if kind == "choices":
            found = make_categories(value.get("choices"), path, number)
            marks += [mark._replace(**votes) for mark in found]
            continue
        start, end = _find_offsets(record.text, value, path, number)
        labels = value.get("labels")
        if not isinstance(labels, list):
            raise fail(path, number, f"labels have to be a list, found {labels!r}.")
        marks += [
            make_span(record.text, start, end, label, path, number, **votes)
            for label in labels
        ]
    return marks


def _find_offsets(
    text: str, value: dict[str, Any], path: Path, number: int
) -> tuple[Any, Any]:
    """Read offsets, in code points or, as in older exports, in UTF-16 units."""
    start, end, said = value.get("start"), value.get("end"), value.get("text")
    if not (type(start) is type(end) is int and isinstance(said, str)):
        return start, end  # checked by make_span
    if _bare(text[start:end]) == _bare(said):
        return start, end
    units = text.encode("utf-16-le")
    one, other = (
        len(units[: 2 * offset].decode("utf-16-le", "ignore"))
        for offset in (start, end)
    )
    if _bare(text[one:other]) != _bare(said):
        raise fail(
            path,
            number,
            f"the span {start}:{end} is {text[start:end]!r}, but is said to be "
            f"{said!r}. Mend the offsets, or remove the span's text.",
        )
    return one, other


def _bare(text: str) -> str:
    # A browser tells line breaks as it shows them, or as a backslash and an n.
    return "".join(text.replace("\\n", "").replace("\\r", "").split())


def write(records: Iterable[Record], path: Path, losses: Losses, nlp: Language) -> None:
    """Write tasks."""
    write_array(_make_tasks(records, losses), path)


def _make_tasks(records: Iterable[Record], losses: Losses) -> Iterator[dict[str, Any]]:
    for several in group(records):
        first = several[0]
        if any(record.answer is Answer.REJECT for record in several):
            losses.leave_out("texts that are rejected", first)
            continue
        task: dict[str, Any] = {
            "data": {**first.meta, "id": first.id, "text": first.text},
            "predictions": [],
            "annotations": [],
        }
        for record in several:
            if record.answer is None:
                task["predictions"] += _make_predictions(record, losses)
                continue
            annotation: dict[str, Any] = {
                "result": _make_results(record, record.marks),
                "was_cancelled": record.answer is Answer.SKIP,
            }
            if "@" in record.reviewer:
                annotation["completed_by"] = {"email": record.reviewer}
            elif record.reviewer:  # Label Studio takes no name of no user
                annotation["reviewer"] = record.reviewer
            task["annotations"].append(annotation)
        yield task


def _make_predictions(record: Record, losses: Losses) -> Iterator[dict[str, Any]]:
    for name in (_TRUSTED, _DISPUTED):
        marks = [mark for mark in record.marks if mark.disputed == (name == _DISPUTED)]
        if not marks:
            continue
        scores = [mark.score for mark in marks if mark.score is not None]
        if record.attr == "cats" and len({(m.score, m.voters) for m in marks}) > 1:
            losses.lose("votes of each of several categories", record)
        yield {
            "model_version": name,
            **({"score": min(scores)} if scores else {}),
            "result": _make_results(record, marks),
        }


def _make_results(record: Record, marks: Iterable[Mark]) -> list[dict[str, Any]]:
    marks = [*marks]
    if record.attr == "cats":
        if not marks:
            return []
        least = min(marks, key=lambda mark: 1 if mark.score is None else mark.score)
        value: dict[str, Any] = {"choices": [mark.label for mark in marks]}
        return [_make_result("c0", "choices", value, least)]
    return [
        _make_result(
            f"s{k}",
            "labels",
            {
                "start": mark.start,
                "end": mark.end,
                "text": record.text[mark.start : mark.end],
                "labels": [mark.label],
            },
            mark,
        )
        for k, mark in enumerate(marks)
    ]


def _make_result(
    name: str, kind: str, value: dict[str, Any], mark: Mark
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "id": name,
        "from_name": "label",
        "to_name": "text",
        "type": kind,
        "value": value,
    }
    if mark.score is not None:
        result["score"] = mark.score
    if mark.voters:
        result["meta"] = {"text": [*mark.voters]}
    return result
