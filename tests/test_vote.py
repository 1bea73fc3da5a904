import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.errors import InstaNERError
from instaner.targets import Target
from instaner.vote import (
    Candidate,
    Dispute,
    Offsets,
    Policy,
    Reliability,
    Remedy,
    Rule,
    Standing,
    read_policy,
    set_marks,
    vote,
)

_DOC = Doc(Vocab(), words=["wok", "pan"])
_WOK = (0, 3, "EQUIPMENT")
_DISH = (0, 3, "DISH")
_LONGER = (0, 6, "EQUIPMENT")
_TRUSTED, _DISPUTED, _DROPPED = Standing.TRUSTED, Standing.DISPUTED, Standing.DROPPED
_POLICIES = [
    Policy(rule, trust=0.6, drop=drop, disputed=disputed)
    for rule in (Rule.MAJORITY, Rule.UNANIMOUS, Rule.THRESHOLD)
    for drop in (0.0, 0.3)
    for disputed in Remedy
]


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


def _number(*ballots: list[Offsets]) -> dict[str, list[Offsets]]:
    return {f"llm/{number}": spans for number, spans in enumerate(ballots)}


def _get_standings(candidates: list[Candidate]) -> dict[Offsets, Standing]:
    return {c[:3]: c.standing for c in candidates}


@pytest.mark.parametrize(
    ("count", "majority", "unanimous", "threshold"),
    [
        (1, _DISPUTED, _DISPUTED, _DISPUTED),
        (2, _DISPUTED, _DISPUTED, _DISPUTED),
        (3, _TRUSTED, _DISPUTED, _DISPUTED),
        (4, _TRUSTED, _TRUSTED, _TRUSTED),
    ],
)
def test_rule_decides_how_many_votes_it_takes(
    count: int, majority: Standing, unanimous: Standing, threshold: Standing
) -> None:
    ballots = _number(*[[_WOK]] * count, *[[]] * (4 - count))
    rules = (Rule.MAJORITY, Rule.UNANIMOUS, Rule.THRESHOLD)
    found = [vote(ballots, Policy(rule, trust=0.8))[0].standing for rule in rules]
    assert found == [majority, unanimous, threshold]


def test_threshold_is_reached_by_just_that_share() -> None:
    ballots = _number([_WOK], [_WOK], [_WOK], [_WOK], [])
    (candidate,) = vote(ballots, Policy(Rule.THRESHOLD, trust=0.8))
    assert (candidate.standing, candidate.score) == (_TRUSTED, 0.8)


def test_nobody_votes_twice() -> None:
    (candidate,) = vote(_number([_WOK, _WOK], []))
    assert candidate.standing is _DISPUTED


def test_span_with_few_votes_is_dropped() -> None:
    ballots = _number([_WOK], [], [], [])
    (candidate,) = vote(ballots, Policy(Rule.MAJORITY, drop=0.25))
    assert candidate.standing is _DROPPED


def test_span_inside_a_trusted_one_is_dropped() -> None:
    ballots = _number([_LONGER], [_LONGER], [_WOK])
    standings = _get_standings(vote(ballots, Policy(Rule.MAJORITY)))
    assert standings == {_LONGER: _TRUSTED, _WOK: _DROPPED}


def test_span_beyond_a_trusted_one_stays_disputed() -> None:
    ballots = _number([_WOK], [_WOK], [_LONGER])
    standings = _get_standings(vote(ballots, Policy(Rule.MAJORITY)))
    assert standings == {_WOK: _TRUSTED, _LONGER: _DISPUTED}


@pytest.mark.parametrize(
    ("other", "dispute"),
    [
        ([], Dispute.EXISTENCE),
        ([_DISH], Dispute.LABEL),
        ([_LONGER], Dispute.BOUNDARY),
        ([(7, 9, "DISH")], Dispute.EXISTENCE),
        ([(3, 6, "DISH")], Dispute.EXISTENCE),  # beside it
    ],
)
def test_candidate_says_what_is_disputed(
    other: list[Offsets], dispute: Dispute
) -> None:
    candidates = vote(_number([_WOK], other))
    assert {c[:3]: c.dispute for c in candidates}[_WOK] is dispute


def test_nothing_is_disputed_about_a_trusted_span() -> None:
    (candidate,) = vote(_number([_WOK], [_WOK]))
    assert candidate.dispute is None


def test_weights_count() -> None:
    ballots = {"llm/0": [_WOK], "llm/1": [_WOK], "ruler": [_DISH]}
    policy = Policy(Rule.MAJORITY, weights={"ruler": 3.0})
    assert _get_standings(vote(ballots, policy))[_DISH] is _TRUSTED
    policy = Policy(Rule.MAJORITY, weights={"ruler": 3.0, "llm": 2.0})
    assert _get_standings(vote(ballots, policy))[_WOK] is _TRUSTED
    policy = Policy(Rule.MAJORITY, weights={"ruler": 3.0, "llm": 2.0, "llm/1": 0.5})
    assert _get_standings(vote(ballots, policy))[_DISH] is _TRUSTED


def test_decisive_voters_have_the_last_word() -> None:
    ballots = {"llm/0": [_WOK], "llm/1": [_WOK], "human": [_DISH]}
    assert _get_standings(vote(ballots)) == {_DISH: _TRUSTED, _WOK: _DROPPED}


def test_component_is_decisive_with_all_its_voters() -> None:
    ballots = {"llm/0": [_WOK], "human/anna": [_DISH], "human/ben": [_DISH]}
    assert _get_standings(vote(ballots)) == {_DISH: _TRUSTED, _WOK: _DROPPED}
    assert not Policy().is_decisive("humanist/0")
    assert Policy(decisive=["human/ben"]).is_decisive("human/ben")


def test_decisive_voter_can_say_there_is_nothing() -> None:
    (candidate,) = vote({"llm/0": [_WOK], "human": []})
    assert candidate.standing is _DROPPED


def test_decisive_voters_can_disagree() -> None:
    policy = Policy(decisive=["ann", "bob"])
    candidates = vote({"llm/0": [_WOK], "ann": [_WOK], "bob": [_DISH]}, policy)
    assert set(_get_standings(candidates).values()) == {_DISPUTED}


def test_majority_can_settle_what_is_disputed() -> None:
    ballots = _number([_WOK, (7, 9, "DISH")], [_WOK], [])
    policy = Policy(Rule.UNANIMOUS, disputed=Remedy.MAJORITY)
    standings = _get_standings(vote(ballots, policy))
    assert standings == {_WOK: _TRUSTED, (7, 9, "DISH"): _DROPPED}


def test_voters_are_named() -> None:
    (candidate,) = vote({"a": [_WOK], "b": [], "c": [_WOK]}, Policy(Rule.MAJORITY))
    assert candidate == Candidate(*_WOK, ("a", "c"), _TRUSTED, score=0.6667)


def test_candidates_are_in_the_order_of_the_text() -> None:
    candidates = vote({"a": [(5, 7, "DISH")], "b": [_WOK]})
    assert [candidate.start for candidate in candidates] == [0, 5]


def test_nobody_names_nothing() -> None:
    assert vote({}) == []


@given(_ballots(), st.sampled_from(_POLICIES))
def test_every_span_is_a_candidate_once(
    ballots: dict[str, list[Offsets]], policy: Policy
) -> None:
    named = {span for spans in ballots.values() for span in spans}
    assert [tuple(c[:3]) for c in vote(ballots, policy)] == sorted(named)


@given(_ballots(), st.sampled_from(_POLICIES))
def test_trusted_spans_do_not_overlap(
    ballots: dict[str, list[Offsets]], policy: Policy
) -> None:
    trusted = [c for c in vote(ballots, policy) if c.standing is _TRUSTED]
    ends = [offset for c in trusted for offset in (c.start, c.end)]
    assert ends == sorted(ends)


@given(_ballots())
def test_stricter_rules_trust_less(ballots: dict[str, list[Offsets]]) -> None:
    trusted = [
        {c[:3] for c in vote(ballots, Policy(rule)) if c.standing is _TRUSTED}
        for rule in (Rule.UNANIMOUS, Rule.THRESHOLD, Rule.MAJORITY)
    ]
    assert trusted[0] <= trusted[1] <= trusted[2]


def _simulate(errors: dict[str, float], number: int) -> list[dict[str, list[Offsets]]]:
    """Ballots of voters that are wrong this often, each in its own way."""
    draw = random.Random(0)
    return [
        {
            voter: [(0, 3, "B" if (draw.random() < error) is is_a else "A")]
            for voter, error in errors.items()
        }
        for is_a in (n % 2 == 0 for n in range(number))
    ]


def test_reliable_voter_is_found_without_gold() -> None:
    errors = {"good": 0.05, "bad": 0.4, "worse": 0.4, "worst": 0.4}
    texts = _simulate(errors, 2000)
    reliability = Reliability()
    for ballots in texts:
        reliability.add(_DOC, ballots)
    reliability.fit()
    right: Counter[str] = Counter()
    for number, ballots in enumerate(texts):
        truth = "A" if number % 2 == 0 else "B"
        scores = reliability.score(ballots)
        chosen = max(scores, key=lambda span: scores[span])
        right["estimated"] += chosen[2] == truth
        votes = Counter(spans[0][2] for spans in ballots.values())
        right["majority"] += votes.most_common(1)[0][0] == truth
    assert right["estimated"] / len(texts) > 0.93  # the good voter alone: 0.95
    assert right["estimated"] > right["majority"] + 0.03 * len(texts)


def test_probabilities_of_the_labels_and_none_sum_to_one() -> None:
    reliability = Reliability()
    texts = [_number([_WOK], [_DISH], []), _number([_WOK], [_WOK], [_WOK])]
    for ballots in texts:
        reliability.add(_DOC, ballots)
    reliability.fit()
    scores = reliability.score(texts[0])
    assert set(scores) == {_WOK, _DISH}
    assert 0 < sum(scores.values()) < 1


def test_samples_of_one_component_are_alike() -> None:
    reliability = Reliability()
    for ballots in [_number([_WOK], [], []), _number([], [], [_WOK])] * 5:
        reliability.add(_DOC, ballots)
    reliability.fit()
    scores = [
        reliability.score(_number(*ballots))[_WOK]
        for ballots in ([[_WOK], [], []], [[], [_WOK], []], [[], [], [_WOK]])
    ]
    assert len(set(scores)) == 1


def test_probabilities_are_those_of_a_simulation() -> None:
    """Voters that overlook spans, and name some that are none, in a long text."""
    draw = random.Random(0)
    recalls = {"a": 0.9, "b": 0.8, "c": 0.7}
    inventions = {"a": 30, "b": 100, "c": 200}
    doc = Doc(Vocab(), words=["w"] * 10_000, spaces=[False] * 10_000)
    ballots: dict[str, list[Offsets]] = {voter: [] for voter in recalls}
    for voter, recall in recalls.items():
        named = [n for n in range(1000) if draw.random() < recall]
        named += draw.sample(range(1000, 10_000), inventions[voter])
        ballots[voter] = [(n, n + 1, "DISH") for n in named]
    reliability = Reliability()
    reliability.add(doc, ballots)
    reliability.fit()
    scores = reliability.score(ballots)
    found: dict[tuple[str, ...], set[float]] = {}
    right: Counter[tuple[str, ...]] = Counter()
    count: Counter[tuple[str, ...]] = Counter()
    for span, score in scores.items():
        voters = tuple(voter for voter in ballots if span in ballots[voter])
        found.setdefault(voters, set()).add(score)
        right[voters] += span[0] < 1000
        count[voters] += 1
    for voters, (score,) in ((voters, tuple(s)) for voters, s in found.items()):
        assert score == pytest.approx(right[voters] / count[voters], abs=0.1), voters
    assert min(found["a", "b"] | found["b", "c"]) > max(found["b",] | found["c",])


def test_estimated_rule_uses_the_probabilities() -> None:
    reliability = Reliability()
    texts = _simulate({"good": 0.02, "bad": 0.3, "worse": 0.3}, 1000)
    for ballots in texts:
        reliability.add(_DOC, ballots)
    reliability.fit()
    ballots = {
        "good": [(*_WOK[:2], "A")],
        "bad": [(0, 3, "B")],
        "worse": [(0, 3, "B")],
    }
    candidates = vote(ballots, Policy(Rule.ESTIMATED, trust=0.8, drop=0.2), reliability)
    assert {c.label: c.standing for c in candidates} == {"A": _TRUSTED, "B": _DROPPED}


def test_estimated_rule_needs_an_estimate() -> None:
    with pytest.raises(ValueError, match="needs the reliability"):
        vote({"a": [_WOK]}, Policy(Rule.ESTIMATED))


def test_no_ballots_need_no_fit() -> None:
    reliability = Reliability()
    reliability.fit()
    assert reliability.score({}) == {}


def test_policy_is_read() -> None:
    section = {
        "rule": "threshold",
        "trust": 0.7,
        "drop": 0.2,
        "disputed": "ask",
        "weights": {"llm": 2},
        "decisive": ["ann"],
    }
    policy = Policy(Rule.THRESHOLD, 0.7, 0.2, Remedy.ASK, {"llm": 2}, ["ann"])
    assert read_policy(section) == policy


def test_policy_has_defaults() -> None:
    assert read_policy({}) == Policy()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rules": "majority"}, 'no setting "rules". It has rule, trust'),
        (
            {"rule": "most"},
            'rule = "most": it has to be one of soft, majority',
        ),
        ({"rule": 1}, "it has to be one of"),
        ({"disputed": "drop"}, "it has to be one of missing, text, majority, ask"),
        ({"trust": 0.8}, 'trust needs rule = "threshold" or "estimated"'),
        ({"rule": "threshold", "trust": 2}, "trust = 2: it has to be 0 to 1"),
        ({"rule": "threshold", "trust": "high"}, "trust = 'high': it has to be 0 to"),
        ({"drop": True}, "drop = True: it has to be 0 to 1"),
        ({"rule": "threshold", "trust": 0.5, "drop": 0.5}, "Give a lower one"),
        ({"rule": "majority", "drop": 0.6}, "Give a lower one"),
        ({"weights": {"a": 0}}, "a number above 0"),
        ({"weights": {"a": float("inf")}}, "a number above 0"),
        ({"weights": ["a"]}, "a number above 0"),
        ({"weights": {"a": 1}, "rule": "estimated"}, "weights cannot be set"),
        ({"decisive": "ann"}, "it has to be a list of voters' names"),
    ],
)
def test_wrong_policy_is_an_error(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InstaNERError, match=message):
        read_policy(section)


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
    set_marks(doc, [Candidate(s, e, la, ("a",), st_) for s, e, la, st_ in candidates])
    assert "".join(token.ent_iob_ or "-" for token in doc) == iob


def test_set_ents_sets_labels(vocab: Vocab) -> None:
    doc = Doc(vocab, words=["pad", "thai"])
    set_marks(doc, [Candidate(0, 8, "DISH", ("a",), _TRUSTED)])
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("pad thai", "DISH")]


def test_set_ents_refuses_half_a_token(vocab: Vocab) -> None:
    doc = Doc(vocab, words=["pad", "thai"])
    with pytest.raises(ValueError, match="is not on token boundaries of 'pad thai"):
        set_marks(doc, [Candidate(0, 2, "DISH", ("a",), _DISPUTED)])


_INTENTS = Target("cats", ("BILL", "SHIP", "SIZE"), exclusive=True)
_TOPICS = Target("cats", ("BILL", "SHIP", "SIZE"))


def _vote_on_cats(
    target: Target, ballots: list[list[str]], rule: Rule
) -> tuple[dict[str, float], dict[str, Standing]]:
    doc = Doc(Vocab(), words=["a", "text"])
    marks = {f"v{k}": target.make_marks(labels) for k, labels in enumerate(ballots)}
    candidates = vote(marks, Policy(rule=rule))
    set_marks(doc, candidates, target, soft=rule is Rule.SOFT)
    return doc.cats, {c.label: c.standing for c in candidates}


@pytest.mark.parametrize(
    ("ballots", "rule", "cats"),
    [
        ([["BILL"], ["BILL"]], Rule.SOFT, {"BILL": 1, "SHIP": 0, "SIZE": 0}),
        (
            [["BILL"], ["SHIP"], ["BILL"], ["BILL"]],
            Rule.SOFT,
            {"BILL": 0.75, "SHIP": 0.25, "SIZE": 0},
        ),
        # The most votes, though not more than half of them.
        (
            [["BILL"], ["BILL"], ["SHIP"], ["SIZE"]],
            Rule.SOFT,
            {"BILL": 0.5, "SHIP": 0.25, "SIZE": 0.25},
        ),
        ([["BILL"], ["SHIP"]], Rule.SOFT, {}),
        (
            [["BILL"], ["SHIP"], ["BILL"]],
            Rule.MAJORITY,
            {"BILL": 1, "SHIP": 0, "SIZE": 0},
        ),
        ([["BILL"], ["SHIP"], ["BILL"]], Rule.UNANIMOUS, {}),
        ([["BILL"], []], Rule.SOFT, {}),
    ],
)
def test_votes_become_one_category(
    ballots: list[list[str]], rule: Rule, cats: dict[str, float]
) -> None:
    assert _vote_on_cats(_INTENTS, ballots, rule)[0] == cats


@pytest.mark.parametrize(
    ("ballots", "rule", "cats"),
    [
        (
            [["BILL", "SHIP"], ["BILL"], ["BILL", "SHIP"], ["BILL"]],
            Rule.SOFT,
            {"BILL": 1, "SIZE": 0},  # nobody knows whether it is SHIP
        ),
        (
            [["BILL", "SHIP"], ["BILL"], ["BILL"], ["SIZE"]],
            Rule.SOFT,
            {"BILL": 0.75, "SHIP": 0.25, "SIZE": 0.25},
        ),
        (
            [["BILL", "SHIP"], ["BILL"], ["SHIP"]],
            Rule.MAJORITY,
            {"BILL": 1, "SHIP": 1, "SIZE": 0},
        ),
        ([["BILL", "SHIP"], ["BILL"]], Rule.UNANIMOUS, {"BILL": 1, "SIZE": 0}),
        ([[], []], Rule.SOFT, {"BILL": 0, "SHIP": 0, "SIZE": 0}),
    ],
)
def test_votes_become_several_categories(
    ballots: list[list[str]], rule: Rule, cats: dict[str, float]
) -> None:
    assert _vote_on_cats(_TOPICS, ballots, rule)[0] == cats


def test_a_tie_is_disputed_and_the_rest_dropped() -> None:
    ballots = [["BILL"], ["BILL"], ["SHIP"], ["SHIP"], ["SIZE"]]
    _, standings = _vote_on_cats(_INTENTS, ballots, Rule.SOFT)
    assert standings == {
        "BILL": Standing.DISPUTED,
        "SHIP": Standing.DISPUTED,
        "SIZE": Standing.DROPPED,
    }


def test_rule_for_categories_is_soft_unless_there_is_one() -> None:
    assert read_policy({}, _INTENTS).rule is Rule.SOFT
    assert read_policy({"rule": "majority"}, _INTENTS).rule is Rule.MAJORITY
    with pytest.raises(InstaNERError, match="is for categories"):
        read_policy({"rule": "soft"})
    with pytest.raises(InstaNERError, match="drop has no meaning"):
        read_policy({"drop": 0.1}, _INTENTS)


@pytest.mark.parametrize("target", [_INTENTS, _TOPICS])
def test_reliability_of_voters_on_categories(target: Target) -> None:
    doc = Doc(Vocab(), words=["a", "text"])
    rng = random.Random(0)
    reliability = Reliability(target)
    wrong = []
    for _ in range(300):
        right = rng.choice(target.labels)
        said = {
            name: right if rng.random() < share else rng.choice(target.labels)
            for name, share in (("good", 0.95), ("fair", 0.8), ("bad", 0.1))
        }
        ballots = {name: target.make_marks([label]) for name, label in said.items()}
        reliability.add(doc, ballots)
        wrong.append((right, ballots))
    reliability.fit()
    hits = 0
    for right, ballots in wrong:
        scores = reliability.score(ballots)
        hits += max(scores, key=lambda mark: scores[mark])[2] == right
    assert hits > 0.93 * len(wrong)
