"""What is written comes back as it was, or it is said that it does not."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from spacy.language import Language

from instaner.corpus import read_docs
from instaner.decisions import Answer
from instaner.errors import InstaNERError
from instaner.formats import FORMATS, Losses, Mark, Record, read, write
from instaner.targets import make_mark

LABELS = ["DISH", "a b", "[x](y)|\\", "=SUM(A1)", "ünï-cödé"]
PIECES = [
    *("ramen ", "  ", "\t", "\r\n", "\n", "\r", "x", "Mr. ", "don't", "-", "=1+1"),
    *("🍜", "👩‍👩‍👧", "é", "e\u0301", "שלום ", "مرحبا", "\u200f", "\ufeff", "\u2028"),
    *("[", "]", "(", ")", "\\", "|", '"', "'", "'", ",", ";", "#", "# text = ", "O"),
    *("\x00", "\x01", "\x1c", "\x85", "\xa0", "null", "NaN", "\\n", "-DOCSTART-"),
]
QUICK = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)
ids = st.text("ab1 -_=é🍜'\"|", min_size=1, max_size=5)


@st.composite
def records(
    draw: Any, *, attr: str, answers: list[Answer | None], reviewers: list[str]
) -> list[Record]:
    """Records of texts with names of their own, of one answer each."""
    found = []
    exclusive = draw(st.booleans())
    for name in draw(st.lists(ids, min_size=1, max_size=3, unique=True)):
        text = draw(texts)
        answer = draw(st.sampled_from(answers))
        marks: set[Mark] = set()
        if attr == "cats":
            named = draw(st.sets(st.sampled_from(LABELS), max_size=3))
            marks = {Mark(*make_mark(la)) for la in [*named][: 1 if exclusive else 3]}
        else:
            for _ in range(draw(st.integers(0, 3))):
                start = draw(st.integers(0, len(text) - 1))
                end = draw(st.integers(start + 1, len(text)))
                marks.add(Mark(start, end, draw(st.sampled_from(LABELS))))
        if answer in (Answer.REJECT, Answer.SKIP):
            marks = set()
        meta = draw(st.sampled_from([{}, {"brief": "b-1"}]))
        reviewer = draw(st.sampled_from(reviewers)) if answer else ""
        found.append(
            Record(
                text,
                name,
                tuple(sorted(marks)),
                attr,  # type: ignore[arg-type]
                tuple(LABELS) if attr == "cats" else (),
                attr == "cats" and exclusive,
                answer,
                reviewer,
                meta,
            )
        )
    return found


def _pass(
    found: list[Record], name: str, folder: Path, nlp: Language, *, skip: bool = False
) -> tuple[list[Record], list[str]]:
    if name == "csv" and sys.version_info < (3, 11):  # which reads no NUL in CSV
        assume(not any("\0" in record.text for record in found))
    path = folder / "file.x"
    losses = Losses()
    write(found, path, FORMATS[name], losses, nlp, skip=skip)
    back = [*read(path, FORMATS[name], losses)]
    return back, losses.describe()


def _get_held(record: Record) -> tuple[Any, ...]:
    """What a record says, without what only sets up a tool."""
    return record._replace(labels=(), exclusive=False)


ALL = [Answer.ACCEPT, Answer.REJECT, Answer.SKIP, None]
NAMES = ["anna", "", "b.c@example.org", "12=3"]


@pytest.mark.parametrize(
    ("name", "answers", "reviewers"),
    [
        ("prodigy", ALL, NAMES),
        ("label-studio", [Answer.ACCEPT, Answer.SKIP, None], NAMES),
        ("argilla", ALL, NAMES),
        ("doccano", [Answer.ACCEPT], [""]),
        ("jsonl", [Answer.ACCEPT], [""]),
    ],
)
@given(data=st.data())
@QUICK
def test_spans_and_answers_come_back(
    name: str,
    answers: list[Answer | None],
    reviewers: list[str],
    data: Any,
    tmp_path: Path,
    nlp: Language,
) -> None:
    found = data.draw(records(attr="ents", answers=answers, reviewers=reviewers))
    back, lost = _pass(found, name, tmp_path, nlp)
    assert not lost
    assert [*map(_get_held, back)] == [*map(_get_held, found)]


@pytest.mark.parametrize(
    ("name", "answers", "reviewers"),
    [
        ("prodigy", ALL, NAMES),
        ("label-studio", [Answer.ACCEPT, Answer.SKIP, None], NAMES),
        ("argilla", ALL, NAMES),
        ("doccano", [Answer.ACCEPT], [""]),
        ("csv", ALL, NAMES),
        ("docbin", [Answer.ACCEPT], [""]),
        ("jsonl", [Answer.ACCEPT], [""]),
    ],
)
@given(data=st.data())
@QUICK
def test_categories_and_answers_come_back(
    name: str,
    answers: list[Answer | None],
    reviewers: list[str],
    data: Any,
    tmp_path: Path,
    nlp: Language,
) -> None:
    found = data.draw(records(attr="cats", answers=answers, reviewers=reviewers))
    back, lost = _pass(found, name, tmp_path, nlp, skip=True)
    if name == "argilla":  # which holds no text of no category
        empty = [r for r in found if r.answer is Answer.ACCEPT and not r.marks]
        assert len(lost) == bool(empty)
        found = [record for record in found if record not in empty]
    else:
        assert not lost
    # Where no category is named at all, a file cannot say that it is about them.
    if any(record.marks for record in found) or name in ("prodigy", "csv", "jsonl"):
        assert [*map(_get_held, back)] == [*map(_get_held, found)]
    else:
        assert [r.text for r in back] == [r.text for r in found]


@pytest.mark.parametrize(
    ("name", "answers", "reviewers"),
    [("csv", ALL, NAMES), ("conll", ALL[:1], [""]), ("docbin", ALL[:1], [""])],
)
@given(data=st.data())
@QUICK
def test_spans_come_back_or_it_is_said(
    name: str,
    answers: list[Answer | None],
    reviewers: list[str],
    data: Any,
    tmp_path: Path,
    nlp: Language,
) -> None:
    found = data.draw(records(attr="ents", answers=answers, reviewers=reviewers))
    back, lost = _pass(found, name, tmp_path, nlp)
    ids = [record.id for record in back]
    if any("white space around it" in line for line in lost):
        assert len(ids) == len(found)
    else:
        assert ids == [record.id for record in found]
    kept = 0
    for one, other in zip(found, back, strict=True):
        assert one.text == other.text
        assert (one.answer, one.reviewer) == (other.answer, other.reviewer)
        assert {*other.marks} <= {*one.marks}
        kept += len(other.marks)
    spans = sum(len(record.marks) for record in found)
    said = [line for line in lost if "spans" in line or "labels" in line]
    counts = sum(int(line.split("left out: ")[1].split()[0]) for line in said)
    assert spans - kept == counts


@pytest.mark.parametrize("name", ["prodigy", "label-studio", "argilla"])
def test_votes_come_back(name: str, tmp_path: Path, nlp: Language) -> None:
    voted = Mark(6, 11, "DISH", 0.75, ("llm/0", "rule"))
    open_ = Mark(6, 17, "DISH", 0.25, ("llm/1",), True)
    record = Record("I had ramen soup.", "t", (voted, open_))
    back, lost = _pass([record], name, tmp_path, nlp)
    if name == "argilla":
        assert lost == ["voters of trusted marks, left out: 1 (t)"]
        record = record._replace(marks=(voted._replace(voters=()), open_))
    assert back == [record]


@pytest.mark.parametrize("name", ["label-studio", "argilla"])
def test_answers_of_several_stand_beside_the_votes(
    name: str, tmp_path: Path, nlp: Language
) -> None:
    voted = Record("I had ramen.", "t", (Mark(6, 11, "DISH", 1.0),))
    anna = voted._replace(
        marks=(Mark(6, 11, "DISH"),), answer=Answer.ACCEPT, reviewer="anna"
    )
    bob = anna._replace(marks=(), reviewer="bob")
    back, lost = _pass([voted, anna, bob], name, tmp_path, nlp)
    assert not lost
    assert back == [voted, anna, bob]


def test_most_reviewers_decide_where_one_annotation_is_held(
    tmp_path: Path, nlp: Language
) -> None:
    voted = Record("I had ramen.", "t", (Mark(2, 5, "X", 1.0),))
    anna = voted._replace(
        marks=(Mark(6, 11, "DISH"),), answer=Answer.ACCEPT, reviewer="anna"
    )
    said = [voted, anna, anna._replace(reviewer="bob")]
    said.append(anna._replace(reviewer="cem", marks=()))
    back, lost = _pass(said, "jsonl", tmp_path, nlp)
    assert [record.marks for record in back] == [anna.marks]
    assert len(lost) == 3
    assert "marks of models where people answered, left out: 1 (t)" in lost


def _dispute(*marks: tuple[Mark, ...], **values: Any) -> list[Record]:
    base = Record("I had ramen soup.", "t", answer=Answer.ACCEPT, **values)
    return [base._replace(marks=own, reviewer=f"r{k}") for k, own in enumerate(marks)]


@pytest.mark.parametrize("name", ["jsonl", "conll", "doccano"])
def test_what_reviewers_dispute_is_not_written_as_certain(
    name: str, tmp_path: Path, nlp: Language
) -> None:
    said = _dispute((Mark(6, 11, "DISH"),), (Mark(6, 16, "DISH"),))
    agreed = Record("Salt.", "u", answer=Answer.ACCEPT)
    with pytest.raises(
        InstaNERError, match=r"reviewers dispute, to be left out: 1 \(t\)"
    ):
        _pass([*said, agreed], name, tmp_path, nlp)
    back, _ = _pass([*said, agreed], name, tmp_path, nlp, skip=True)
    assert [record.text for record in back] == ["Salt."]


def test_disputed_spans_are_missing_annotation(tmp_path: Path, nlp: Language) -> None:
    said = _dispute((Mark(2, 5, "X"), Mark(6, 11, "DISH")), (Mark(2, 5, "X"),))
    write(said, tmp_path / "a.spacy", FORMATS["docbin"], Losses(), nlp)
    (doc,) = read_docs(tmp_path / "a.spacy", nlp.vocab)
    assert [token.ent_iob_ for token in doc] == ["O", "B", "", "O", "O"]
    losses = Losses()
    assert not [*read(tmp_path / "a.spacy", FORMATS["docbin"], losses)]
    with pytest.raises(InstaNERError, match="missing annotation, to be left out: 1"):
        losses.check()


def test_nested_spans_hold_no_missing_annotation(tmp_path: Path, nlp: Language) -> None:
    nested = (Mark(6, 11, "DISH"), Mark(6, 16, "DISH"))
    said = _dispute(nested, (*nested, Mark(2, 5, "X")))
    with pytest.raises(InstaNERError, match="overlapping spans that reviewers dispute"):
        _pass(said, "docbin", tmp_path, nlp)


@pytest.mark.parametrize("name", ["jsonl", "docbin"])
def test_categories_that_do_not_exclude_others_are_no_rivals(
    name: str, tmp_path: Path, nlp: Language
) -> None:
    a, b = Mark(*make_mark("A")), Mark(*make_mark("B"))
    both = _dispute((a, b), (a, b), attr="cats", labels=("A", "B"))
    back, _ = _pass(both, name, tmp_path, nlp)
    assert back[0].marks == (a, b)
    one = _dispute((a, b), (a,), attr="cats", labels=("A", "B"))
    assert not _pass(one, name, tmp_path, nlp, skip=True)[0]


def test_longer_of_nested_spans_is_kept_and_the_other_told(
    tmp_path: Path, nlp: Language
) -> None:
    outer, inner = Mark(2, 15, "ORG"), Mark(2, 10, "GPE")
    marks = (inner, outer, Mark(3, 5, "GPE"))
    record = Record("A New York Times.", "t", marks, answer=Answer.ACCEPT)
    record = record._replace(marks=(Mark(2, 10, "GPE"), Mark(2, 16, "ORG"), marks[2]))
    back, lost = _pass([record], "conll", tmp_path, nlp)
    assert back[0].marks == (Mark(2, 16, "ORG"),)
    assert lost == [
        "spans in or across a longer one, left out: 1 (t)",
        "spans that are not on token boundaries, left out: 1 (t)",
    ]
