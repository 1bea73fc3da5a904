from typing import Any

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from instaner.errors import InstaNERError
from instaner.llm.cost import estimate_footprint, make_price

MODEL = "gpt-4o-mini"
OPENAI = "https://api.openai.com/v1"
LOCAL = "http://127.0.0.1:8000/v1"
TOKENS = st.integers(0, 10**6)


@given(prompt=TOKENS, cached=TOKENS, completion=TOKENS)
def test_price_is_that_of_genai_prices(
    prompt: int, cached: int, completion: int
) -> None:
    price = make_price(MODEL, OPENAI)
    assert price is not None
    cached = min(prompt, cached)
    usage = Usage(
        input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion
    )
    expected = calc_price(usage, MODEL, provider_id="openai").total_price
    assert price(prompt, cached, completion) == float(expected)


def test_cached_tokens_are_cheaper() -> None:
    price = make_price(MODEL, OPENAI)
    assert price is not None
    assert 0 < price(1000, 800, 0) < price(1000, 0, 0)


def test_more_cached_tokens_than_tokens_cost_as_all() -> None:
    price = make_price(MODEL, OPENAI)
    assert price is not None
    assert price(1000, 2000, 5) == price(1000, 1000, 5)


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({"input": 1, "output": 10}, 3e-3),
        ({"input": 1, "output": 10, "cached_input": 0.25}, 2.4e-3),
        ({"input": 1, "output": 10, "cached_input": 0}, 2.2e-3),
        ({"input": 0, "output": 0}, 0),
    ],
)
@pytest.mark.parametrize("model", ["my-own", MODEL])
def test_prices_of_ones_own_come_first(
    model: str, prices: dict[str, float], cost: float
) -> None:
    price = make_price(model, OPENAI, prices)
    assert price is not None
    assert price(1000, 800, 200) == pytest.approx(cost)


@pytest.mark.parametrize(
    ("model", "base_url"),
    [("no-such-model", OPENAI), (MODEL, LOCAL), (MODEL, ""), ("", OPENAI)],
)
def test_unknown_price_is_not_guessed(model: str, base_url: str) -> None:
    assert make_price(model, base_url) is None


@pytest.mark.parametrize(
    "prices",
    [
        {},
        {"input": 1},
        {"output": 1},
        {"input": -1, "output": 1},
        {"input": 1, "output": 1, "cached_input": -1},
        {"input": 1, "output": 1, "cached": 1},
        {"input": float("nan"), "output": 1},
    ],
)
def test_prices_that_are_none_are_named(prices: dict[str, Any]) -> None:
    with pytest.raises(InstaNERError, match="prices of m have to be .* found"):
        make_price("m", OPENAI, prices)


def test_footprint_is_a_range() -> None:
    footprint = estimate_footprint(MODEL, OPENAI, 1000, 200.5, 2.0)
    assert footprint is not None
    for least, most in footprint:
        assert 0 < least <= most


def test_footprint_grows_with_the_answers() -> None:
    one = estimate_footprint(MODEL, OPENAI, 1, 200, 2.0)
    many = estimate_footprint(MODEL, OPENAI, 1000, 200, 2.0)
    assert one is not None
    assert many is not None
    for part, whole in zip(one, many, strict=True):
        assert whole == pytest.approx([1000 * value for value in part])


def test_footprint_grows_with_the_tokens() -> None:
    short = estimate_footprint(MODEL, OPENAI, 1, 0, 100.0)
    long = estimate_footprint(MODEL, OPENAI, 1, 1000, 100.0)
    assert short is not None
    assert long is not None
    assert long.kwh > short.kwh


@pytest.mark.parametrize(
    ("model", "base_url", "answers"),
    [("no-such-model", OPENAI, 1), (MODEL, LOCAL, 1), (MODEL, OPENAI, 0)],
)
def test_unknown_footprint_is_not_guessed(
    model: str, base_url: str, answers: int
) -> None:
    assert estimate_footprint(model, base_url, answers, 200, 2.0) is None
