"""spaCy's DocBin: doc.ents or, where spans overlap, doc.spans["sc"]; or doc.cats.
Disputed spans are missing annotation. The project's annotated shards are read as what
the votes say."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from ..corpus import PROVENANCE, read_docs
from ..decisions import Answer
from ..targets import Target, are_exclusive, choose_categories, make_mark
from ..vote import Standing
from .base import Losses, Mark, Record, are_apart, lose_meta, settle_all, sort_marks

_KEY = "sc"  # of doc.spans, as spaCy's spancat has it


def read(path: Path, losses: Losses) -> Iterator[Record]:
    """YIELDS (Record): The texts of a DocBin, or of a folder of DocBins."""
    target = _guess_target(path)
    for number, doc in enumerate(read_docs(path, Vocab()), 1):
        record = _make_record(doc, target, f"{path.stem}-{number}")
        if record.answer is not None and target.attr == "ents" and _is_partial(doc):
            losses.leave_out("texts with missing annotation", record)
        else:
            yield record


def _is_partial(doc: Doc) -> bool:
    is_whole = doc.has_annotation("ENT_IOB", require_complete=True)
    return _KEY not in doc.spans and not is_whole


def _guess_target(path: Path) -> Target:
    """RETURNS (Target): What is annotated in a DocBin, or a folder of DocBins."""
    labels: dict[str, None] = {}
    cats: list[dict[str, float]] = []
    is_ents, is_voted, exclusive = False, False, True
    for doc in read_docs(path, Vocab()):
        rows = doc.user_data.get(PROVENANCE, {}).get("spans")
        starts = [row["start"] for row in rows or [] if row["start"] < 0]
        is_voted = is_voted or bool(starts)
        exclusive = exclusive and all(start == -1 for start in starts)
        labels.update(dict.fromkeys(doc.cats))
        labels.update((row["label"], None) for row in rows or [] if row["start"] < 0)
        is_ents = is_ents or doc.has_annotation("ENT_IOB") or bool(doc.spans.get(_KEY))
        if doc.cats:
            cats.append(doc.cats)
    if not labels or (is_ents and not is_voted):
        return Target()
    if not is_voted:
        exclusive = are_exclusive(cats)
    return Target("cats", tuple(labels), exclusive)


def _make_record(doc: Doc, target: Target, name: str) -> Record:
    provenance: dict[str, Any] = doc.user_data.get(PROVENANCE, {})
    record = Record(
        doc.text,
        str(provenance.get("id", name)),
        attr=target.attr,
        labels=target.labels,
        exclusive=target.exclusive,
        meta={"brief": provenance["brief"]} if "brief" in provenance else {},
    )
    is_cats = target.attr == "cats"
    if "spans" in provenance:
        marks = [
            Mark(
                -1 if is_cats else row["start"],
                0 if is_cats else row["end"],
                row["label"],
                row["score"],
                tuple(row["votes"]),
                row["standing"] == Standing.DISPUTED.value,
            )
            for row in provenance["spans"]
            if row["standing"] != Standing.DROPPED.value
            and (row["start"] < 0) == is_cats
        ]
        return record._replace(marks=sort_marks(marks))
    if is_cats:
        found = choose_categories(doc.cats, exclusive=target.exclusive)
        return record._replace(
            marks=tuple(Mark(*make_mark(label)) for label in sorted(found)),
            answer=Answer.ACCEPT if doc.cats else None,
        )
    spans = [*doc.ents, *doc.spans.get(_KEY, [])]
    found_marks = {Mark(s.start_char, s.end_char, s.label_) for s in spans}
    is_known = _KEY in doc.spans or doc.has_annotation("ENT_IOB")
    return record._replace(
        marks=tuple(sorted(found_marks)), answer=Answer.ACCEPT if is_known else None
    )


def write(records: Iterable[Record], path: Path, losses: Losses, nlp: Language) -> None:
    """Write a DocBin."""
    doc_bin = DocBin(store_user_data=True)
    for record in settle_all(records, losses, missing=True):
        trusted = [mark for mark in record.marks if not mark.disputed]
        is_open = len(trusted) < len(record.marks)
        if is_open and record.answer is not None and not are_apart(trusted):
            losses.leave_out(
                "texts with overlapping spans that reviewers dispute", record
            )
        else:
            doc_bin.add(_make_doc(record, losses, nlp))
    doc_bin.to_disk(path)


def _make_doc(record: Record, losses: Losses, nlp: Language) -> Doc:
    doc = nlp.make_doc(record.text)
    doc.user_data[PROVENANCE] = {"id": record.id}
    lose_meta(record, losses, "brief")
    if "brief" in record.meta:
        doc.user_data[PROVENANCE]["brief"] = str(record.meta["brief"])
    if record.attr == "cats":
        named = [mark.label for mark in record.marks]
        labels = dict.fromkeys((*record.labels, *named))
        doc.cats = {label: float(label in named) for label in labels}
        return doc
    spans = []
    missing: set[int] = set()
    for mark in record.marks:
        if mark.disputed:
            around = doc.char_span(mark.start, mark.end, alignment_mode="expand")
            missing.update(token.i for token in around or ())
            continue
        span = doc.char_span(mark.start, mark.end, label=mark.label)
        if span is None:
            losses.lose("spans that are not on token boundaries", record)
        else:
            spans.append(span)
    if are_apart(mark for mark in record.marks if not mark.disputed):
        missing.difference_update(token.i for span in spans for token in span)
        doc.set_ents(spans, missing=[doc[i : i + 1] for i in sorted(missing)])
    else:
        doc.spans[_KEY] = spans
    return doc
