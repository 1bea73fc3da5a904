import time

import numpy as np
import pytest

from instaner.intervals import Bootstrap
from instaner.scores import get_prf
from instaner.verdict import Decision, Rules, decide

_TEXTS = 144
_RUNS = 400
_MARGIN = 0.02


def _simulate(
    random: np.random.Generator,
    n: int,
    *,
    rate: float,
    found: tuple[float, float],
    spurious: tuple[float, float],
    alike: float = 0.6,
) -> np.ndarray:
    """Counts of two systems, of shape (texts, 2, 4). Some texts have many entities, and
    what one system misses, the other is likely to miss.
    """
    wanted = random.poisson(rate * random.gamma(2, 0.5, size=n))
    texts = np.repeat(np.arange(n), wanted)
    luck = random.random(len(texts))
    other = np.where(random.random(len(texts)) < alike, luck, random.random(len(texts)))
    counts = np.zeros((n, 2, 4))
    for row, (draw, share, rest) in enumerate(
        zip((luck, other), found, spurious, strict=True)
    ):
        right = np.bincount(texts, draw < share, minlength=n)
        counts[:, row] = np.stack(
            [right, random.poisson(rest, n), wanted - right, right], axis=1
        )
    return counts


def _get_difference(counts: np.ndarray) -> float:
    f = get_prf(counts.sum(axis=0))[:, 2]
    return float(f[1] - f[0])


# Teachers and students on few texts and many, of frequent labels and rare ones.
_WORLDS = {
    "far": (_TEXTS, {"rate": 2.2, "found": (0.97, 0.8), "spurious": (0.05, 0.3)}),
    "near": (_TEXTS, {"rate": 2.2, "found": (0.85, 0.83), "spurious": (0.3, 0.3)}),
    "rare": (_TEXTS, {"rate": 0.15, "found": (0.9, 0.85), "spurious": (0.02, 0.02)}),
    "few": (40, {"rate": 2, "found": (0.9, 0.85), "spurious": (0.1, 0.1)}),
    "many": (1000, {"rate": 2, "found": (0.9, 0.88), "spurious": (0.2, 0.2)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("world", _WORLDS)
def test_interval_holds_what_is_true_as_often_as_it_says(world: str) -> None:
    n, settings = _WORLDS[world]
    random = np.random.default_rng(1)
    true = _get_difference(_simulate(random, 2_000_000, **settings))
    held = 0
    for seed in range(_RUNS):
        counts = _simulate(random, n, **settings)
        found = Bootstrap(n, seed=seed).compare(counts[:, 0], counts[:, 1])
        assert found is not None
        held += found.low <= true <= found.high
    assert 0.93 <= held / _RUNS <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.8, 0.815, 0.83, 0.845, 0.86])
def test_verdict_errs_in_at_most_5_of_100(share: float) -> None:
    random = np.random.default_rng(2)
    settings = {"rate": 2.2, "found": (0.85, share), "spurious": (0.2, 0.2)}
    true = _get_difference(_simulate(random, 2_000_000, **settings))
    rules = Rules(margin=_MARGIN)
    errors = 0
    for seed in range(_RUNS):
        counts = _simulate(random, _TEXTS, **settings)
        found = Bootstrap(_TEXTS, seed=seed).compare(counts[:, 0], counts[:, 1])
        decision = decide(found, rules, n_texts=_TEXTS, silver=False).decision
        wrong = Decision.SWAP if true < -_MARGIN else Decision.KEEP
        errors += decision is wrong
    assert errors / _RUNS <= 0.05


@pytest.mark.slow
def test_texts_asked_for_would_decide() -> None:
    random = np.random.default_rng(3)
    settings = {"rate": 2.2, "found": (0.85, 0.82), "spurious": (0.1, 0.2)}
    true = _get_difference(_simulate(random, 2_000_000, **settings))
    rules = Rules(margin=_MARGIN)
    counts = _simulate(random, 300_000, **settings)
    whole = Bootstrap(300_000, resamples=100).compare(counts[:, 0], counts[:, 1])
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
    n, decided = 100 + more, 0
    for seed in range(_RUNS):
        counts = _simulate(random, n, **settings)
        found = Bootstrap(n, seed=seed).compare(counts[:, 0], counts[:, 1])
        verdict = decide(found, rules, n_texts=n, silver=False)
        decided += verdict.decision is not Decision.UNDECIDED
    assert 0.73 <= decided / _RUNS <= 0.87  # the power is 0.8


@pytest.mark.slow
def test_interval_of_one_system_holds_its_score() -> None:
    n, settings = _WORLDS["near"]
    random = np.random.default_rng(4)
    true = get_prf(_simulate(random, 2_000_000, **settings).sum(axis=0))
    held = np.zeros((2, 3))
    for seed in range(_RUNS):
        low, high = Bootstrap(n, seed=seed).get_intervals(
            _simulate(random, n, **settings)
        )
        held += (low <= true) & (true <= high)
    assert (held / _RUNS >= 0.925).all()
    assert (held / _RUNS <= 0.975).all()


def _count(*right: int, of: int = 1) -> np.ndarray:
    """Counts of texts with `of` entities each."""
    return np.array([[n, 0, of - n, n] for n in right])


def test_same_answers_have_no_difference_but_are_not_certain() -> None:
    counts = _count(*[1] * 20)
    found = Bootstrap(20).compare(counts, counts)
    assert found is not None
    assert found.difference == 0
    assert found.low < 0 < found.high
    assert found.p_value == 1


def test_fewer_texts_are_less_certain() -> None:
    few, many = (
        Bootstrap(n).compare(_count(*[1] * n), _count(*[1] * n)) for n in (5, 500)
    )
    assert few is not None
    assert many is not None
    assert few.low < -0.05 < many.low


def test_clear_difference_is_found() -> None:
    found = Bootstrap(100).compare(_count(*[1] * 100), _count(*[1, 0] * 50))
    assert found is not None
    assert found.high < 0
    assert found.p_value < 0.01


def test_one_text_has_an_interval() -> None:
    found = Bootstrap(1).compare(_count(1), _count(0))
    assert found is not None
    assert found.low < -0.9
    assert found.high > -0.9


def test_nothing_to_find_has_no_difference() -> None:
    assert Bootstrap(2).compare(np.zeros((2, 4)), np.zeros((2, 4))) is None


def test_nothing_to_find_has_no_interval() -> None:
    assert np.isnan(Bootstrap(2).get_intervals(np.zeros((2, 3, 4)))).all()


def test_all_right_has_an_interval_up_to_1() -> None:
    low, high = Bootstrap(20).get_intervals(_count(*[1] * 20))
    assert high[2] == 1
    assert 0.8 < low[2] < 1


def test_seed_decides() -> None:
    counts = _simulate(np.random.default_rng(0), 50, **_WORLDS["near"][1])
    one, same, other = (
        Bootstrap(50, seed=seed).get_intervals(counts) for seed in (1, 1, 3)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_five_systems_on_ten_thousand_texts_take_seconds() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(2, size=(10_000, 5, 13, 4))
    start = time.perf_counter()
    bootstrap = Bootstrap(10_000)
    bootstrap.get_intervals(counts)
    for label in range(13):
        bootstrap.compare(counts[:, 0, label], counts[:, 1, label])
    assert time.perf_counter() - start < 30
