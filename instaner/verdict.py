"""Whether a student can take the LLM's place, as far as the gold can say."""

import math
from collections.abc import Mapping
from enum import Enum
from statistics import NormalDist
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field

from .intervals import Difference

_FARTHEST = 100  # times as many texts are more than anybody labels


class Rules(BaseModel, extra="forbid", frozen=True):
    """How a verdict is reached: section [verdict] of a config.

    annotators (str): Who labelled the gold, to stand beside the scores.
    margin (float): How much F1, or accuracy, a student may lack.
    confidence (float): How often an interval is to hold what is true.
    resamples (int): How often texts are drawn for the intervals.
    power (float): How probably the texts that are asked for would decide.
    seed (int): Decides which texts are drawn.
    """

    annotators: str = ""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.02
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    power: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    seed: Annotated[int, Field(ge=0)] = 0


class Decision(str, Enum):
    """What to do."""

    SWAP = "swap"  # the student is not worse by more than the margin
    KEEP = "keep"  # it is: keep the LLM
    UNDECIDED = "undecided"


class Verdict(NamedTuple):
    """What to do, and why.

    decision (Decision): What to do.
    reason (str): Why, in a sentence.
    more_texts (Optional[int]): How many more texts like these would decide, if the
        difference is what it seems. None: no number that anybody would label, or that
        is not the question.
    """

    decision: Decision
    reason: str
    more_texts: int | None = None


def decide(
    difference: Difference | None, rules: Rules, *, n_texts: int, silver: bool
) -> Verdict:
    """Reach a verdict.

    difference (Optional[Difference]): Between student and LLM.
    rules (Rules): The rules.
    n_texts (int): Number of texts that it was measured on.
    silver (bool): Whether a teacher labelled them.
    RETURNS (Verdict): The verdict.
    """
    if silver:
        return Verdict(
            Decision.UNDECIDED,
            "A teacher labelled these texts, so they show how well the student "
            "imitates it, not how right either is: label some by hand.",
        )
    if difference is None:
        return Verdict(
            Decision.UNDECIDED,
            "The gold has nothing of this kind, so there is nothing to compare: give "
            "texts that have some.",
        )
    low, high = (f"{n:+.3f}".replace("-", "−") for n in difference[1:3])
    bounds = f"{low} to {high}"
    if difference.low > -rules.margin:
        return Verdict(
            Decision.SWAP,
            f"The difference is {bounds}: the student surely lacks less than the "
            f"{rules.margin:g} that it may.",
        )
    if difference.high < -rules.margin:
        return Verdict(
            Decision.KEEP,
            f"The difference is {bounds}: the student surely lacks more than the "
            f"{rules.margin:g} that it may. More texts to train on, or a larger "
            "encoder, may bring it nearer.",
        )
    more = _count_more(difference, rules, n_texts)
    advice = (
        f"About {more:,} more texts would decide."
        if more
        else "It is so near the limit that no number of texts would decide soon."
    )
    return Verdict(
        Decision.UNDECIDED,
        f"The difference is {bounds}: the student may lack more or less than the "
        f"{rules.margin:g} that it may. {advice}",
        more,
    )


def describe(decision: Decision, rival: str) -> str:
    """RETURNS (str): A decision in words, with what the student is to replace."""
    return {
        Decision.SWAP: "swap",
        Decision.KEEP: f"keep {rival}",
        Decision.UNDECIDED: "not enough gold",
    }[decision]


def name_rival(comparison: Mapping[str, Any]) -> str:
    """RETURNS (str): What a student is to replace, in words: not all is an LLM."""
    name = comparison.get("reference")
    system = comparison["systems"].get(name) or {}
    return "the LLM" if "answers" in system else str(name)


def _count_more(difference: Difference, rules: Rules, n_texts: int) -> int | None:
    """RETURNS (Optional[int]): Texts to add so that the interval leaves the margin with
    the probability `power`, if the difference is what was measured (the sample size for
    a test of non-inferiority; Chow, Shao and Wang 2008, Sample Size Calculations in
    Clinical Research, chapter 3); in two digits.
    """
    normal = NormalDist()
    z = normal.inv_cdf(0.5 + rules.confidence / 2) + normal.inv_cdf(rules.power)
    distance = abs(difference.difference + rules.margin)
    if z * difference.deviation >= distance * _FARTHEST**0.5:
        return None
    more = n_texts * ((z * difference.deviation / distance) ** 2 - 1)
    if more <= 1:
        return 1
    unit = 10 ** max(0, math.floor(math.log10(more)) - 1)
    return math.ceil(more / unit) * unit
