"""Numbers and names, in words for a person."""

import math
from typing import Any

NONE = "–"


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
