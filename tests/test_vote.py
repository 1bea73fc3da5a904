import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.vote import Candidate, Offsets, Standing, set_ents, vote

_WOK = (0, 3, "EQUIPMENT")
_TRUSTED, _DISPUTED = Standing.TRUSTED, Standing.DISPUTED


@st.composite
def _ballots(draw: st.DrawFn) -> dict[str, list[Offsets]]:
    """Ballots of which no voter's own spans overlap."""
    ballots = {}
    for voter in range(draw(st.integers(0, 4))):
        ends = sorted(draw(st.sets(st.integers(0, 6))))
        pairs = zip(ends[::2], ends[1::2], strict=False)
        labels = st.sampled_from(["DISH", "EQUIPMENT"])
        ballots[str(voter)] = [(*pair, draw(labels)) for pair in pairs]
    return ballots


@pytest.mark.parametrize(
    ("ballots", "standing"),
    [
        ([[_WOK]], _TRUSTED),
        ([[_WOK], [_WOK]], _TRUSTED),
        ([[_WOK], []], _DISPUTED),
        ([[_WOK], [_WOK], []], _TRUSTED),
        ([[_WOK], [_WOK], [], []], _DISPUTED),
        ([[_WOK, _WOK], []], _DISPUTED),  # nobody votes twice
        ([[_WOK], [(0, 3, "DISH")]], _DISPUTED),
        ([[_WOK], [(0, 4, "EQUIPMENT")]], _DISPUTED),
    ],
)
def test_more_than_half_is_trusted(
    ballots: list[list[Offsets]], standing: Standing
) -> None:
    candidates = vote({str(number): spans for number, spans in enumerate(ballots)})
    assert candidates[0].standing is standing


def test_voters_are_named() -> None:
    (candidate,) = vote({"a": [_WOK], "b": [], "c": [_WOK]})
    assert candidate == Candidate(*_WOK, voters=("a", "c"), standing=_TRUSTED)


def test_candidates_are_in_the_order_of_the_text() -> None:
    candidates = vote({"a": [(5, 7, "DISH")], "b": [_WOK]})
    assert [candidate.start for candidate in candidates] == [0, 5]


def test_nobody_names_nothing() -> None:
    assert vote({}) == []


@given(_ballots())
def test_every_span_is_a_candidate_once(
    ballots: dict[str, list[Offsets]],
) -> None:
    named = {span for spans in ballots.values() for span in spans}
    assert [tuple(c[:3]) for c in vote(ballots)] == sorted(named)


@given(_ballots())
def test_trusted_spans_do_not_overlap(ballots: dict[str, list[Offsets]]) -> None:
    trusted = [c for c in vote(ballots) if c.standing is _TRUSTED]
    ends = [offset for c in trusted for offset in (c.start, c.end)]
    assert ends == sorted(ends)


@pytest.mark.parametrize(
    ("candidates", "iob"),
    [
        ([], "OOO"),
        ([(0, 8, "DISH", _TRUSTED)], "BIO"),
        ([(0, 8, "DISH", _DISPUTED)], "--O"),
        ([(0, 3, "DISH", _TRUSTED), (0, 8, "DISH", _DISPUTED)], "B-O"),
        ([(0, 8, "DISH", _TRUSTED), (4, 13, "DISH", _DISPUTED)], "BI-"),
    ],
)
def test_set_ents(
    vocab: Vocab, candidates: list[tuple[int, int, str, Standing]], iob: str
) -> None:
    doc = Doc(vocab, words=["pad", "thai", "soup"])
    set_ents(doc, [Candidate(s, e, la, ("a",), st_) for s, e, la, st_ in candidates])
    assert "".join(token.ent_iob_ or "-" for token in doc) == iob


def test_set_ents_sets_labels(vocab: Vocab) -> None:
    doc = Doc(vocab, words=["pad", "thai"])
    set_ents(doc, [Candidate(0, 8, "DISH", ("a",), _TRUSTED)])
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("pad thai", "DISH")]


def test_set_ents_refuses_half_a_token(vocab: Vocab) -> None:
    doc = Doc(vocab, words=["pad", "thai"])
    with pytest.raises(ValueError, match="is not on token boundaries of 'pad thai"):
        set_ents(doc, [Candidate(0, 2, "DISH", ("a",), _DISPUTED)])
