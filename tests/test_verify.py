import pytest
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.recheck import Suspect
from instaner.targets import Offsets, Target
from instaner.tasks.verify import Case
from instaner.verify import Verdict, find_cases, make_case, settle
from instaner.vote import Policy, Rule, Standing, set_marks, vote

_TEXT = "a text"
_LABELS = ("BILL", "SHIP", "SIZE")
_ONE = Target("cats", _LABELS, exclusive=True)
_MANY = Target("cats", _LABELS)
_BILL, _SHIP, _SIZE = _ONE.make_marks(_LABELS)
_HAS_SIZE, _HAS_SHIP, _HAS_BILL = _MANY.make_marks(_LABELS)


def _find(target: Target, ballots: list[list[str]]) -> list[Case]:
    marks = {f"v{k}": target.make_marks(labels) for k, labels in enumerate(ballots)}
    candidates = vote(marks, Policy(Rule.SOFT))
    return find_cases(_TEXT, candidates, marks, target)


@pytest.mark.parametrize(
    ("ballots", "readings"),
    [
        ([["BILL"], ["SHIP"]], [_BILL, _SHIP]),
        ([["SHIP"], ["SIZE"], ["BILL"], ["BILL"], ["SIZE"]], [_SIZE, _BILL, _SHIP]),
        ([["BILL"], []], [_BILL]),
    ],
)
def test_case_of_a_tie_has_all_that_was_voted_for(
    ballots: list[list[str]], readings: list[Offsets]
) -> None:
    assert _find(_ONE, ballots) == [Case(_TEXT, -1, 0, tuple((m,) for m in readings))]


@pytest.mark.parametrize("target", [_ONE, _MANY])
def test_there_is_no_case_without_a_dispute(target: Target) -> None:
    assert _find(target, [["BILL"], ["SHIP"], ["BILL"]]) == []


def test_each_disputed_one_of_several_is_a_case() -> None:
    assert _find(_MANY, [["BILL", "SHIP", "SIZE"], ["SHIP"]]) == [
        Case(_TEXT, *mark[:2], ((mark,), ())) for mark in (_HAS_SIZE, _HAS_BILL)
    ]


@pytest.mark.parametrize(
    ("given", "predicted", "readings"),
    [
        ([_BILL], [_SHIP], ((_BILL,), (_SHIP,))),
        ([_HAS_SHIP], [], ((_HAS_SHIP,), ())),
        ([], [_HAS_SHIP], ((), (_HAS_SHIP,))),
        ([(2, 6, "A")], [(2, 6, "B")], (((2, 6, "A"),), ((2, 6, "B"),), ())),
    ],
)
def test_suspect_becomes_a_case(
    given: list[Offsets],
    predicted: list[Offsets],
    readings: tuple[tuple[Offsets, ...], ...],
) -> None:
    place = (given or predicted)[0][:2]
    suspect = Suspect(0, *place, tuple(given), tuple(predicted), 0.1)
    assert make_case(_TEXT, suspect) == Case(_TEXT, *place, readings)


@pytest.mark.parametrize(
    ("target", "ballots", "decided", "cats"),
    [
        (_ONE, [["BILL"], ["SHIP"]], [_SHIP], {"BILL": 0, "SHIP": 1, "SIZE": 0}),
        # Nobody voted for it.
        (_ONE, [["BILL"], ["SHIP"]], [_SIZE], {"BILL": 0, "SHIP": 0, "SIZE": 1}),
        (_ONE, [["BILL"], ["SHIP"]], None, {}),
        # The others stay what they were.
        (
            _MANY,
            [["BILL"], ["BILL", "SHIP"], ["BILL", "SHIP"], ["SIZE"]],
            [_HAS_SHIP],
            {"BILL": 0.75, "SHIP": 1, "SIZE": 0.25},
        ),
        (
            _MANY,
            [["BILL"], ["BILL", "SHIP"], ["BILL", "SHIP"], ["SIZE"]],
            [],
            {"BILL": 0.75, "SHIP": 0, "SIZE": 0.25},
        ),
        (_MANY, [["BILL"], []], None, {"SHIP": 0, "SIZE": 0}),
    ],
)
def test_verdict_decides_on_categories(
    target: Target,
    ballots: list[list[str]],
    decided: list[Offsets] | None,
    cats: dict[str, float],
) -> None:
    marks = {f"v{k}": target.make_marks(labels) for k, labels in enumerate(ballots)}
    candidates = vote(marks, Policy(Rule.SOFT))
    (case,) = find_cases(_TEXT, candidates, marks, target)
    spans = None if decided is None else tuple(decided)
    settled = settle(candidates, case, Verdict(spans, ("llm/again",), {}, {}))
    doc = Doc(Vocab(), words=_TEXT.split())
    set_marks(doc, settled, target, soft=True)
    assert doc.cats == cats
    said = {c.label for c in settled if "llm/again" in c.voters}
    assert said == {label for *_, label in decided or []}
    is_disputed = any(c.standing is Standing.DISPUTED for c in settled)
    assert is_disputed is (decided is None)
