"""Numbers and names, in words for a person."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

NONE = "–"


class Words(NamedTuple):
    """What a report calls what was scored.

    mark (str): What is found.
    marks (str): More than one.
    spans (str): What votes decide on.
    counted (str): What is counted of each label.
    support (str): Heading of that count.
    score (str): The score of all labels together.
    every (str): Heading of that score, among those of the labels.
    errors (Mapping[str, Tuple[str, str, str]]): By kind, what an error is called, what
        it means, and what to say where most are of that kind.
    """

    mark: str
    marks: str
    spans: str
    counted: str
    support: str
    score: str
    every: str
    errors: Mapping[str, tuple[str, str, str]]


_ENTITIES = Words(
    mark="entity",
    marks="entities",
    spans="spans",
    counted="entities",
    support="Support",
    score="F1",
    every="All",
    errors={
        "missed": (
            "Missed",
            "in the gold, but not found",
            "Most often, the student misses an entity",
        ),
        "spurious": (
            "Spurious",
            "found, but not in the gold",
            "Most often, the student sees an entity where there is none",
        ),
        "boundary": (
            "Wrong boundary",
            "the right label on too much or too little",
            "Most often, the student gets the boundary wrong",
        ),
        "label": (
            "Wrong label",
            "the right words with another label",
            "Most often, the student gets the label wrong",
        ),
        "both": ("Both wrong", "another label on too much or too little", ""),
    },
)
_CATEGORIES = Words(
    mark="category",
    marks="categories",
    spans="categories",
    counted="texts",
    support="Support",
    score="F1",
    every="All",
    errors={
        "label": (
            "Wrong category",
            "another than in the gold",
            "Most often, the student takes one category for another",
        ),
        "missed": (
            "Missed category",
            "in the gold, but not given",
            "Most often, the student misses a category",
        ),
        "spurious": (
            "Spurious category",
            "given, but not in the gold",
            "Most often, the student gives a category too many",
        ),
    },
)
_ONE_CATEGORY = _CATEGORIES._replace(
    support="Texts", score="accuracy", every="All (accuracy)"
)


def choose_words(gold: Mapping[str, Any]) -> Words:
    """RETURNS (Words): What to call what is scored on a comparison's gold."""
    if gold.get("attr") != "cats":
        return _ENTITIES
    return _ONE_CATEGORY if gold.get("one_category") else _CATEGORIES


def is_number(value: Any) -> bool:
    """RETURNS (bool): Whether it is one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def show_score(value: Any) -> str:
    """RETURNS (str): A score, with three decimals."""
    return f"{value:.3f}" if is_number(value) else NONE


def show_signed(value: Any, decimals: int = 3) -> str:
    """RETURNS (str): A number with its sign."""
    if not is_number(value):
        return NONE
    text = f"{abs(value):.{decimals}f}"
    if not float(text):
        return text
    return f"−{text}" if value < 0 else f"+{text}"


def show_range(interval: Any) -> str:
    """RETURNS (str): An interval, or ""."""
    if not interval or not all(map(is_number, interval)):
        return ""
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def show_percent(value: Any) -> str:
    """RETURNS (str): A share, in percent."""
    return f"{value:.1%}" if is_number(value) else NONE


def show_number(value: Any) -> str:
    """RETURNS (str): A whole number."""
    return f"{value:,.0f}" if is_number(value) else NONE


def show_quantity(value: Any) -> str:
    """RETURNS (str): A number, or from one to another, with three digits that count."""
    if isinstance(value, list) and len(value) == 2:
        low, high = map(show_quantity, value)
        return low if low == high else f"{low} to {high}"
    if not is_number(value):
        return NONE
    if not value:
        return "0"
    text = f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def show_money(value: Any) -> str:
    """RETURNS (str): US dollars."""
    if not is_number(value):
        return NONE
    return f"${value:,.2f}" if value >= 0.1 or not value else f"${show_quantity(value)}"


def show_seconds(value: Any) -> str:
    """RETURNS (str): Seconds, or milliseconds."""
    if not is_number(value):
        return NONE
    return (
        f"{show_quantity(value)} s"
        if value >= 1
        else f"{show_quantity(value * 1000)} ms"
    )


def show_bytes(value: Any) -> str:
    """RETURNS (str): MB, or GB."""
    if not is_number(value) or not value:
        return NONE
    if value >= 1e9:
        return f"{show_quantity(value / 1e9)} GB"
    return f"{show_quantity(value / 1e6)} MB"


def capitalise(text: str) -> str:
    """RETURNS (str): A text with a capital in front."""
    return text[:1].upper() + text[1:]
