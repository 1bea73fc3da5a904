"""Tokens → money, energy and CO2. What is not known is not guessed."""

import logging
from functools import lru_cache
from typing import Callable, NamedTuple

from ..errors import InstaNERError

# US dollars for the tokens of a prompt, of them cached ones, and of an answer.
Price = Callable[[int, int, int], float]

# To estimate tokens that nobody counted: OpenAI's rule of thumb for English.
BYTES_PER_TOKEN = 4

_MILLION = 1_000_000
_PRICES = ("input", "output", "cached_input")
# Providers as genai-prices names them → as ecologits does.
_ECOLOGITS = {
    "anthropic": "anthropic",
    "azure": "openai",
    "cohere": "cohere",
    "google": "google_genai",
    "mistral": "mistralai",
    "openai": "openai",
}


class Footprint(NamedTuple):
    """What answers took from the world, as ranges from the least to the most.

    kwh (Tuple[float, float]): Energy, kWh.
    kg_co2e (Tuple[float, float]): Greenhouse gases, kg of CO2 equivalents.
    """

    kwh: tuple[float, float]
    kg_co2e: tuple[float, float]


@lru_cache(maxsize=32)
def _find_provider(model: str, base_url: str) -> str | None:
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(input_tokens=1), model, provider_api_url=base_url)
    except LookupError:
        return None
    return found.provider.id


def make_price(
    model: str, base_url: str, prices: dict[str, float] | None = None
) -> Price | None:
    """Make what says the price of an answer.

    model (str): Name of the model.
    base_url (str): Address of its server, which tells the provider.
    prices (Optional[Dict[str, float]]): US dollars per million tokens instead of those
        that the package genai-prices knows: input, output, and cached_input, which is
        input where it is left out.
    RETURNS (Optional[Price]): The price, or None if nobody knows it.
    RAISES (InstaNERError): On prices that are none.
    """
    if prices is not None:
        known = {"input", "output"} <= set(prices) <= set(_PRICES)
        if not known or not all(price >= 0 for price in prices.values()):
            raise InstaNERError(
                f"The prices of {model} have to be input and output, and cached_input "
                f"if it has one, in US dollars per million tokens; found {prices}."
            )
        fresh, answer = prices["input"], prices["output"]
        cached = prices.get("cached_input", fresh)

        def get_own_price(prompt: int, from_cache: int, completion: int) -> float:
            from_cache = min(from_cache, prompt)
            new = prompt - from_cache
            return (new * fresh + from_cache * cached + completion * answer) / _MILLION

        return get_own_price
    provider = _find_provider(model, base_url)
    if provider is None:
        return None
    from genai_prices import Usage, calc_price

    def get_price(prompt: int, from_cache: int, completion: int) -> float:
        usage = Usage(
            input_tokens=prompt,
            cache_read_tokens=min(from_cache, prompt),
            output_tokens=completion,
        )
        return float(calc_price(usage, model, provider_id=provider).total_price)

    return get_price


def estimate_footprint(
    model: str, base_url: str, answers: int, completion_tokens: float, seconds: float
) -> Footprint | None:
    """Estimate the energy and greenhouse gases of answers by the package ecologits,
    whose method is described at https://ecologits.ai.

    model (str): Name of the model.
    base_url (str): Address of its server, which tells the provider.
    answers (int): Number of answers.
    completion_tokens (float): Tokens of one answer, on average.
    seconds (float): Seconds that one answer took, on average.
    RETURNS (Optional[Footprint]): What they take, or None if nobody knows.
    """
    provider = _ECOLOGITS.get(_find_provider(model, base_url) or "")
    if provider is None or not answers:
        return None
    from ecologits.tracers.utils import llm_impacts

    # It warns of models whose size is not published; the ranges say so, too.
    logging.getLogger("ecologits").setLevel(logging.ERROR)
    tokens = max(1, round(completion_tokens))
    impacts = llm_impacts(provider, model, tokens, seconds)
    if impacts.energy is None or impacts.gwp is None:
        return None
    return Footprint(
        _scale(impacts.energy.value, answers), _scale(impacts.gwp.value, answers)
    )


def _scale(value: object, by: int) -> tuple[float, float]:
    least = getattr(value, "min", value)
    most = getattr(value, "max", value)
    return float(least) * by, float(most) * by  # type: ignore[arg-type]
