"""Gold: annotated texts of files, and of what people decided."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab

from .corpus import (
    GENERATED,
    PROVENANCE,
    find_spans,
    get_cats,
    get_spans,
    read_docs,
    shorten,
)
from .decisions import HUMAN, Answer, Decision, Decisions, is_store
from .errors import InstaNERError
from .files import get_field, read_jsonl
from .scores import NOTHING, GoldText
from .targets import ENTS, Target, are_exclusive, make_mark, mark_categories
from .vote import Candidate, Standing, is_majority, set_marks, settle

_UNKNOWN = make_mark(NOTHING)[:2]  # where nobody knows the category
_Cats = tuple[str, dict[str, float] | None, bool]  # text, scores, whether it is silver


def read_gold(path: Path, nlp: Language) -> Iterator[Doc]:
    """Read annotated texts.

    path (Path): JSONL with text, spans (start and end character and label) or cats (a
        label, a list of them, or a score for each, between 0 and 1) and, where there
        are any, id and brief; or a DocBin; or a review store (.db): of that, the texts
        that people accept, with entities, or, if there are none, categories. What no
        majority of them marked alike is missing annotation; a text whose categories
        they disagree on is left out.
    nlp (Language): Pipeline whose tokenizer is used.
    YIELDS (Doc): Docs with entities, or categories: of those, all of the file.
    RAISES (InstaNERError): On a broken line, or a span that is not on token boundaries
        or overlaps another.
    """
    if path.suffix == ".spacy":
        yield from read_docs(path, nlp.vocab)
        return
    if is_store(path):
        yield from _read_reviewed_docs(path, nlp)
        return
    labels = {
        label: 0.0
        for number, row in read_jsonl(path)
        if "cats" in row
        for label in get_cats(row["cats"], path, number)
    }
    for number, row in read_jsonl(path):
        doc = nlp.make_doc(get_field(row, "text", path, number))
        if "cats" in row:
            doc.cats = {**labels, **get_cats(row["cats"], path, number)}
        ents = []
        for start, end, label in get_spans(row, find_spans(row), path, number):
            span = doc.char_span(start, end, label=label)
            if span is None:
                raise InstaNERError(
                    f"{path}, line {number}: the span {start}:{end} "
                    f'("{doc.text[start:end]}") does not begin and end with a token. '
                    "Mend the offsets."
                )
            ents.append(span)
        try:
            if "spans" in row or "cats" not in row:
                doc.set_ents(ents)
        except ValueError as err:
            raise InstaNERError(
                f"{path}, line {number}: two spans overlap. Keep one of them."
            ) from err
        text_id = str(row.get("id", f"{path.stem}-{number}"))
        doc.user_data[PROVENANCE] = {"id": text_id}
        if "brief" in row:
            doc.user_data[PROVENANCE]["brief"] = str(row["brief"])
        yield doc


def read_gold_texts(path: Path, attr: str | None = None) -> list[GoldText]:
    """Read annotated texts by characters alone, so that pipelines with any tokenizer
    can be scored on them.

    path (Path): JSONL with text and spans, or cats, or a DocBin, or a review store (see
        read_gold).
    attr (Optional[str]): What to read, "ents" or "cats" (see targets.Target). None:
        entities, or, if there are none, categories.
    RETURNS (List[GoldText]): The texts, in order.
    RAISES (InstaNERError): On a broken line, overlapping spans, or if there is no
        annotated text.
    """
    read_ents, read_cats = _read_rows, _read_rows_cats
    if path.suffix == ".spacy":
        read_ents, read_cats = _read_docs_gold, _read_docs_cats
    elif is_store(path):
        read_ents, read_cats = _read_reviewed_gold, _read_reviewed_cats
    golds: list[GoldText] = []
    if attr != "cats":
        golds = [*read_ents(path)]
    if attr == "cats" or (attr is None and not any(gold.spans for gold in golds)):
        rows = read_cats(path)
        if attr == "cats" or any(cats for _, cats, _ in rows):
            golds = _make_golds_cats(rows)
    if not golds:
        raise InstaNERError(f"{path} has no texts to evaluate on.")
    if all(gold.unknown in ([(0, len(gold.text))], [_UNKNOWN]) for gold in golds):
        raise InstaNERError(
            f"{path} has no annotated text: nothing says what is "
            f"{'of which category' if attr == 'cats' else 'an entity'} there. Give "
            "texts with entities set, also those without any (doc.set_ents), or with "
            "categories (doc.cats)."
        )
    return golds


def read_bare(path: Path) -> Iterator[str]:
    """Read texts alone, annotated or not.

    path (Path): JSONL with text, or a DocBin, or a review store.
    YIELDS (str): The texts.
    RAISES (InstaNERError): On a broken line.
    """
    if path.suffix == ".spacy":
        yield from (doc.text for doc in read_docs(path, Vocab()))
    elif is_store(path):
        texts = (*_read_reviewed(path, "ents"), *_read_reviewed(path, "cats"))
        yield from dict.fromkeys(reviewed.text for reviewed in texts)
    else:
        for number, row in read_jsonl(path):
            yield get_field(row, "text", path, number)


def _read_docs_cats(path: Path) -> list[_Cats]:
    docs = read_docs(path, Vocab())
    return [(doc.text, doc.cats or None, _is_silver(doc)) for doc in docs]


def _read_rows_cats(path: Path) -> list[_Cats]:
    silver = path.with_suffix(".meta.json").exists()
    return [
        (
            get_field(row, "text", path, number),
            get_cats(row["cats"], path, number) if "cats" in row else None,
            silver,
        )
        for number, row in read_jsonl(path)
    ]


def _make_golds_cats(rows: list[_Cats]) -> list[GoldText]:
    exclusive = are_exclusive(cats for _, cats, _ in rows if cats is not None)
    return [
        GoldText(
            text,
            mark_categories(cats or {}, exclusive=exclusive),
            [_UNKNOWN] if cats is None else [],
            silver,
        )
        for text, cats, silver in rows
    ]


def _is_silver(doc: Doc) -> bool:
    provenance = doc.user_data.get(PROVENANCE, {})
    return provenance.get("source") == GENERATED or bool(provenance.get("prompts"))


def _read_docs_gold(path: Path) -> Iterator[GoldText]:
    for doc in read_docs(path, Vocab()):
        unknown: list[tuple[int, int]] = []
        for token in doc:
            start, end = token.idx, token.idx + len(token)
            if token.ent_iob:
                continue
            if unknown and token.nbor(-1).ent_iob == 0:
                start = unknown.pop()[0]
            unknown.append((start, end))
        if all(token.ent_iob == 0 for token in doc) and doc.text:
            unknown = [(0, len(doc.text))]
        yield GoldText(doc.text, ENTS.get_marks(doc), unknown, _is_silver(doc))


def _read_rows(path: Path) -> Iterator[GoldText]:
    # `instaner generate` says beside its texts how they came about.
    silver = path.with_suffix(".meta.json").exists()
    for number, row in read_jsonl(path):
        spans = sorted(get_spans(row, find_spans(row), path, number))
        unknown = [] if "spans" in row else [(0, len(row["text"]))]
        for one, other in pairwise(spans):
            if other[0] < one[1]:
                raise InstaNERError(
                    f"{path}, line {number}: the spans {one[0]}:{one[1]} and "
                    f"{other[0]}:{other[1]} overlap. Keep one of them."
                )
        yield GoldText(row["text"], spans, unknown, silver)


class _Reviewed(NamedTuple):
    """A text that people accept.

    text (str): The text.
    decisions (List[Decision]): Those of who accept it.
    candidates (List[Candidate]): What they marked.
    target (Target): What that is.
    """

    text: str
    decisions: list[Decision]
    candidates: list[Candidate]
    target: Target


def _read_reviewed(path: Path, attr: str) -> Iterator[_Reviewed]:
    if not path.exists():
        raise InstaNERError(
            f"Nothing was reviewed: {path} is not there. Run `instaner review`, which "
            "makes it."
        )
    decisions = Decisions(path)
    target = ENTS if attr == "ents" else decisions.get_target(attr)
    texts = list(decisions.read(attr))
    decisions.close()
    if target is None:
        if not texts:
            return
        raise InstaNERError(
            f"{path} does not say which categories there are. Run `instaner review` "
            "once more."
        )
    for decided in texts:
        candidates = settle(decided, target)
        if candidates is None:
            continue
        if attr == "cats" and not _is_settled(candidates, target):
            continue
        agreed = [c for c in candidates if is_majority(c.score)]
        for one, other in pairwise(agreed) if attr == "ents" else ():
            if other.start < one.end:
                raise InstaNERError(
                    f"{path}: the spans {one.start}:{one.end} and "
                    f'{other.start}:{other.end} of the text "'
                    f'{shorten(decided[0].text)}" overlap. Review the text again, '
                    "and keep one of them."
                )
        accepted = [d for d in decided if d.answer is Answer.ACCEPT]
        yield _Reviewed(decided[0].text, accepted, candidates, target)


def _is_settled(candidates: Iterable[Candidate], target: Target) -> bool:
    standings = [candidate.standing for candidate in candidates]
    has_one = Standing.TRUSTED in standings or not target.exclusive
    return has_one and Standing.DISPUTED not in standings


def _read_reviewed_docs(path: Path, nlp: Language) -> Iterator[Doc]:
    texts = list(_read_reviewed(path, "ents"))
    if not any(reviewed.candidates for reviewed in texts):
        texts = list(_read_reviewed(path, "cats")) or texts
    for number, (text, decisions, candidates, target) in enumerate(texts, 1):
        doc = nlp.make_doc(text)
        for start, end, *_ in candidates if target.attr == "ents" else ():
            if doc.char_span(start, end) is None:
                raise InstaNERError(
                    f'{path}: the span {start}:{end} ("{text[start:end]}") of the text '
                    f'"{shorten(text)}" does not begin and end with a token. Review '
                    "the text again, or give the language whose tokenizer was used."
                )
        set_marks(doc, candidates, target)
        doc.user_data[PROVENANCE] = {
            "id": decisions[0].text_id or f"{path.stem}-{number}",
            "source": HUMAN,
            "reviewers": [decision.reviewer for decision in decisions],
            "queues": [decision.queue for decision in decisions],
        }
        yield doc


def _read_reviewed_cats(path: Path) -> list[_Cats]:
    rows: list[_Cats] = []
    for text, _, candidates, target in _read_reviewed(path, "cats"):
        doc = Doc(Vocab())
        set_marks(doc, candidates, target)
        rows.append((text, doc.cats, False))
    return rows


def _read_reviewed_gold(path: Path) -> Iterator[GoldText]:
    for text, _, candidates, _ in _read_reviewed(path, "ents"):
        trusted = [c[:3] for c in candidates if c.standing is Standing.TRUSTED]
        covered = {i for start, end, _ in trusted for i in range(start, end)}
        unknown: list[tuple[int, int]] = []
        for i in sorted(
            i
            for candidate in candidates
            if candidate.standing is Standing.DISPUTED
            for i in {*range(candidate.start, candidate.end)} - covered
        ):
            start = unknown.pop()[0] if unknown and unknown[-1][1] >= i else i
            unknown.append((start, i + 1))
        yield GoldText(text, trusted, unknown, silver=False)
