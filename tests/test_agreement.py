from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.agreement import Agreement

# "wok and ramen"
_WORDS = ["wok", "and", "ramen"]
_WOK = (0, 3, "EQUIPMENT")
_RAMEN = (8, 13, "DISH")


@pytest.fixture
def doc(vocab: Vocab) -> Doc:
    return Doc(vocab, words=_WORDS)


def test_f1_of_two_voters(doc: Doc) -> None:
    agreement = Agreement()
    agreement.add(doc, {"a": [_WOK, _RAMEN], "b": [_WOK]})
    assert agreement.f1 == {("a", "b"): pytest.approx(2 / 3)}


def test_f1_is_the_mean_of_the_pairs(doc: Doc) -> None:
    agreement = Agreement()
    agreement.add(doc, {"a": [_WOK], "b": [_WOK], "c": [_RAMEN]})
    assert agreement.to_json()["f1"] == pytest.approx(1 / 3, abs=1e-4)


def test_order_of_the_voters_does_not_matter(doc: Doc) -> None:
    agreement = Agreement()
    agreement.add(doc, {"a": [_WOK], "b": [_WOK]})
    agreement.add(doc, {"b": [_WOK], "a": []})
    assert agreement.f1 == {("a", "b"): pytest.approx(2 / 3)}


def test_voter_without_an_opinion_does_not_disagree(doc: Doc) -> None:
    agreement = Agreement()
    agreement.add(doc, {"a": [_WOK], "b": [_WOK]})
    agreement.add(doc, {"a": [_WOK]})
    assert agreement.to_json()["f1"] == 1
    assert agreement.to_json()["alpha"] == 1


def test_alpha_is_that_of_the_published_example() -> None:
    # Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C: twelve
    # units, four observers, data missing: alpha of nominal data is 0.743.
    units = ["111", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222"]
    units += ["555", "11", "3"]
    agreement = Agreement()
    for unit in units:
        agreement.add_unit(Counter(unit))
    assert agreement.alpha == pytest.approx(0.743, abs=5e-4)


def test_alpha_counts_tokens(doc: Doc) -> None:
    one, other = Agreement(), Agreement()
    one.add(doc, {"a": [_WOK], "b": [_WOK], "c": []})
    for unit in ("EE ", "   ", "   "):
        other.add_unit(Counter(unit))
    assert one.alpha == pytest.approx(other.alpha)


def test_alpha_is_not_known_where_all_say_the_same(doc: Doc) -> None:
    agreement = Agreement()
    agreement.add(doc, {"a": [], "b": []})
    assert agreement.to_json() == {"f1": None, "alpha": None, "pairs": []}


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=2, max_size=4), min_size=1))
def test_alpha_is_at_most_one(units: list[list[str]]) -> None:
    agreement = Agreement()
    for unit in units:
        agreement.add_unit(Counter(unit))
    alpha = agreement.alpha
    assert alpha is None or alpha <= 1
    if alpha == 1:
        assert all(len(set(unit)) == 1 for unit in units)
