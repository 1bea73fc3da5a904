import time

import numpy as np
import pytest

from instaner.intervals import Bootstrap
from instaner.scores import get_prf
from instaner.verdict import Decision, Rules, decide
from scripts.bench_verdict import (
    SHARES,
    TEXTS,
    WORLDS,
    draw,
    know,
    make_world,
    simulate,
)

_RUNS = 400
_MARGIN = 0.02


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_interval_holds_what_is_true_as_often_as_it_says(world: str) -> None:
    n, settings = WORLDS[world]
    true = know(settings)
    held = sum(f.low <= true <= f.high for f in draw(n, settings, _RUNS))
    assert 0.93 <= held / _RUNS <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("share", SHARES)
def test_verdict_errs_in_at_most_5_of_100(share: float) -> None:
    rules = Rules(margin=_MARGIN)
    settings = make_world(share)
    wrong = Decision.SWAP if know(settings) < -_MARGIN else Decision.KEEP
    errors = sum(
        decide(found, rules, n_texts=TEXTS, silver=False).decision is wrong
        for found in draw(TEXTS, settings, _RUNS)
    )
    assert errors / _RUNS <= 0.05


@pytest.mark.slow
def test_texts_asked_for_would_decide() -> None:
    random = np.random.default_rng(3)
    settings = {"rate": 2.2, "found": (0.85, 0.82), "spurious": (0.1, 0.2)}
    true = know(settings)
    rules = Rules(margin=_MARGIN)
    counts = simulate(random, 300_000, **settings)
    (whole,) = Bootstrap(300_000, resamples=100).compare(counts[:, :1], counts[:, 1:])
    assert whole is not None
    # As of 100 texts that have the difference that is true.
    seen = whole._replace(
        difference=true,
        low=true - 1,
        high=true + 1,
        deviation=whole.deviation * (300_000 / 100) ** 0.5,
    )
    more = decide(seen, rules, n_texts=100, silver=False).more_texts
    assert more is not None
    n = 100 + more
    decided = sum(
        decide(found, rules, n_texts=n, silver=False).decision is not Decision.UNDECIDED
        for found in draw(n, settings, _RUNS)
    )
    assert 0.74 <= decided / _RUNS <= 0.9  # the power is 0.8


@pytest.mark.slow
def test_interval_of_one_system_holds_its_score() -> None:
    n, settings = WORLDS["near"]
    random = np.random.default_rng(4)
    true = get_prf(simulate(random, 2_000_000, **settings).sum(axis=0))
    held = np.zeros((2, 3))
    for seed in range(_RUNS):
        low, high = Bootstrap(n, seed=seed).get_intervals(
            simulate(random, n, **settings)
        )
        held += (low <= true) & (true <= high)
    assert (held / _RUNS >= 0.925).all()
    assert (held / _RUNS <= 0.975).all()


def _count(*right: int, of: int = 1) -> np.ndarray:
    """Counts of texts with `of` entities each."""
    return np.array([[[n, 0, of - n, n]] for n in right])


def test_same_answers_have_no_difference_but_are_not_certain() -> None:
    counts = _count(*[1] * 20)
    (found,) = Bootstrap(20).compare(counts, counts)
    assert found is not None
    assert found.difference == 0
    assert found.low < 0 < found.high
    assert found.p_value == 1


def test_fewer_texts_are_less_certain() -> None:
    few, many = (
        Bootstrap(n).compare(_count(*[1] * n), _count(*[1] * n))[0] for n in (5, 500)
    )
    assert few is not None
    assert many is not None
    assert few.low < -0.05 < many.low


def test_clear_difference_is_found() -> None:
    (found,) = Bootstrap(100).compare(_count(*[1] * 100), _count(*[1, 0] * 50))
    assert found is not None
    assert found.high < 0
    assert found.p_value < 0.01


def test_one_text_has_an_interval() -> None:
    (found,) = Bootstrap(1).compare(_count(1), _count(0))
    assert found is not None
    assert found.low < -0.9
    assert found.high > -0.9


def test_nothing_to_find_has_no_difference() -> None:
    assert Bootstrap(2).compare(np.zeros((2, 1, 4)), np.zeros((2, 1, 4))) == [None]


def test_nothing_to_find_has_no_interval() -> None:
    assert np.isnan(Bootstrap(2).get_intervals(np.zeros((2, 3, 4)))).all()


def test_all_right_has_an_interval_up_to_1() -> None:
    low, high = Bootstrap(20).get_intervals(_count(*[1] * 20))
    assert high[0, 2] == 1
    assert 0.8 < low[0, 2] < 1


def test_seed_decides() -> None:
    counts = simulate(np.random.default_rng(0), 50, **WORLDS["near"][1])
    one, same, other = (
        Bootstrap(50, seed=seed).get_intervals(counts) for seed in (1, 1, 3)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_five_systems_on_ten_thousand_texts_take_seconds() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(2, size=(10_000, 5, 41, 4))
    start = time.perf_counter()
    bootstrap = Bootstrap(10_000)
    bootstrap.get_intervals(counts)
    for system in range(1, 5):
        bootstrap.compare(counts[:, 0], counts[:, system])
    assert time.perf_counter() - start < 30
