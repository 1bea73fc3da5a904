import pytest
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from instaner.targets import ENTS, Target, are_exclusive, choose_categories

_ONE = Target("cats", ("A", "B", "C"), exclusive=True)
_MANY = Target("cats", ("A", "B", "C"))


def _overlap(one: tuple[int, int, str], other: tuple[int, int, str]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_marks_of_entities_are_their_offsets(vocab: Vocab) -> None:
    doc = Doc(vocab, words=["a", "wok"])
    doc.set_ents([Span(doc, 1, 2, "TOOL")])
    assert ENTS.get_marks(doc) == [(2, 5, "TOOL")]
    assert ENTS.get_units(doc) == [0, 2]


def test_marks_overlap_where_categories_exclude_each_other() -> None:
    a, b = _ONE.make_marks(["A", "B"])
    assert _overlap(a, b)
    b, a = _MANY.make_marks(["A", "B"])
    assert not _overlap(a, b)


@pytest.mark.parametrize("target", [_ONE, _MANY])
def test_marks_of_categories_are_at_units(target: Target, vocab: Vocab) -> None:
    doc = Doc(vocab, words=["a"])
    doc.cats = {"A": 0.2, "B": 0.7, "C": 0.1}
    (mark,) = target.get_marks(doc)
    assert mark[2] == "B"
    assert mark[0] in target.get_units(doc)
    assert mark[1] == mark[0] + 1 <= 0


def test_unknown_category_makes_no_mark() -> None:
    assert _ONE.make_marks(["D"]) == _MANY.make_marks(["D"]) == []


@pytest.mark.parametrize(
    ("cats", "one", "many"),
    [
        ({}, [], []),
        ({"A": 0.0, "B": 0.0}, [], []),
        ({"A": 0.4, "B": 0.3, "C": 0.3}, ["A"], []),
        ({"A": 0.5, "B": 0.9}, ["B"], ["A", "B"]),
        ({"A": 0.5, "B": 0.5}, [], ["A", "B"]),
    ],
)
def test_scores_stand_for_categories(
    cats: dict[str, float], one: list[str], many: list[str]
) -> None:
    assert choose_categories(cats, exclusive=True) == one
    assert choose_categories(cats, exclusive=False) == many


def test_categories_exclude_each_other_if_scores_sum_to_one() -> None:
    assert are_exclusive([{"A": 1.0}, {}, {"A": 0.33, "B": 0.67}])
    assert not are_exclusive([{"A": 1.0}, {"A": 1.0, "B": 1.0}])
    assert not are_exclusive([{"A": 0.3}])
    assert are_exclusive([{"A": 0.0, "B": 0.0}, {"A": 1.0}])  # one has no answer
