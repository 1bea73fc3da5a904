"""The figures of a report: SVG to stand in a page, in the colours of that page."""

import io
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ..errors import InstaNERError
from ..scores import find_score
from ..variety import clip, count_columns

# Colours to draw with, each of which a variable of the page's style takes the place of.
_INK, _MUTED, _LINE, _PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
_COLOURS = [f"#0a0c{k:02}" for k in range(6)]
_VARIABLES = {_INK: "ink", _MUTED: "muted", _LINE: "line", _PAPER: "paper"}
_VARIABLES |= {colour: f"system-{k}" for k, colour in enumerate(_COLOURS)}
_MARKERS = ["s", "o", "^", "D", "v", "P", "X"]  # systems differ without colour too

_WIDTH = 5.0  # inches: on a phone, letters are about as large as the text's
_NARROW = 4.2
_COLUMNS = 16  # of a label or a name, of which a Japanese character takes two
_COLUMN = 0.095  # inches
_POINT = 6.5  # the size of one

_Paint = Callable[[Any], None]
_Interval = Sequence[float] | None


def draw_scores(
    comparison: Mapping[str, Any], colours: Mapping[str, int], every: str = "All"
) -> str:
    """Draw the F1 of each label, and of all together, with intervals.

    comparison (Mapping[str, Any]): The comparison.
    colours (Mapping[str, int]): Systems in order, with the numbers of their colours.
    every (str): Heading of the score of all labels.
    RETURNS (str): SVG, or "" if there is nothing to draw.
    """
    names = list(colours)
    systems = [comparison["systems"][name] for name in names]
    rows = [(every, [_get_scores(s, find_score(s, "f")) for s in systems])]
    for label in comparison["labels"]:
        types = [find_score(s, "per_type").get(label, {}) for s in systems]
        rows.append((label, [_get_scores(v, v.get("f")) for v in types]))
    points = [
        (
            row + (k - (len(names) - 1) / 2) * 0.72 / len(names),
            colours[names[k]],
            scores,
        )
        for row, (_, found) in enumerate(rows)
        for k, scores in enumerate(found)
        if scores is not None
    ]
    if not points:
        return ""
    labels = [clip(label, _COLUMNS) for label, *_ in rows]
    left = 0.15 + _COLUMN * max(map(count_columns, labels))
    ncols, top = _place_legend(names, _WIDTH)
    bottom = 0.3
    plot = len(rows) * (0.16 + 0.15 * len(names))
    height = top + plot + bottom

    def paint(figure: Any) -> None:
        axes = figure.add_axes(
            (left / _WIDTH, bottom / height, 1 - (left + 0.2) / _WIDTH, plot / height)
        )
        for y, k, (score, interval) in points:
            _draw_interval(axes, interval, k, y=y)
            _draw_point(axes, score, y, k)
        axes.set_xlim(*_find_range(scores for *_, scores in points))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), labels)
        axes.axhline(0.5, color=_LINE, linewidth=0.8)
        axes.grid(axis="x", color=_LINE, linewidth=0.6)
        axes.spines["left"].set_visible(False)
        _add_legend(figure, colours, height, ncols)

    return _to_svg("scores", (_WIDTH, height), paint)


def draw_curve(
    curve: Mapping[str, Any], teacher: tuple[str, float] | None, score: str = "F1"
) -> str:
    """Draw how a score grows with the training texts.

    curve (Mapping[str, Any]): The learning curve.
    teacher (Optional[Tuple[str, float]]): Name and score of what students are compared
        with.
    score (str): What the score is called.
    RETURNS (str): SVG, or "" if there is nothing to draw.
    """
    points = [
        (point["texts"], scores)
        for point in curve.get("points") or []
        if (scores := _get_scores(point, find_score(point, "f"))) is not None
    ]
    if not points:
        return ""
    fit = curve.get("fit") or {}
    doubled = _get_scores(fit, fit.get("doubled_f"))
    height = 3.2

    def paint(figure: Any) -> None:
        axes = figure.add_axes(
            (0.45 / _WIDTH, 0.5 / height, 1 - 0.65 / _WIDTH, 1 - 0.8 / height)
        )
        most = max(n for n, _ in points)
        scored = [scores for _, scores in points]
        if doubled is not None:
            most = max(most, fit["doubled_texts"])
            scored.append(doubled)
            xs = [min(n for n, _ in points) * 1.02**k for k in range(400)]
            xs = [x for x in xs if x <= most]
            ys = [1 - fit["a"] * x ** -fit["b"] for x in xs]
            axes.plot(xs, ys, color=_MUTED, linewidth=1.2, dashes=(4, 3))
            _draw_interval(axes, doubled[1], 1, x=fit["doubled_texts"])
            _draw_point(axes, fit["doubled_texts"], doubled[0], 1, hollow=True)
            place = fit["doubled_texts"], doubled[0]
            _write(axes, f"{doubled[0]:.3f}", place, (0, -11), ha="center", va="top")
        for n, (value, interval) in points:
            _draw_interval(axes, interval, 1, x=n)
            _draw_point(axes, n, value, 1)
            _write(axes, f"{value:.3f}", (n, value), (7, -9), ha="left", va="top")
        low, high = _find_range(scored)
        if teacher is not None:
            low, high = min(low, teacher[1]), max(high, min(1, teacher[1] + 0.06))
            axes.axhline(teacher[1], color=_COLOURS[0], linewidth=1.2)
            text = f"{clip(teacher[0], _COLUMNS)} {teacher[1]:.3f}"
            _write(axes, text, (0, teacher[1]), (3, -4), va="top")
        axes.set_xlim(0, most * 1.13)
        axes.set_ylim(max(0, low - 0.06), high)
        axes.set_title(score, fontsize=11, color=_MUTED)
        axes.set_xlabel("Training texts", color=_MUTED)
        axes.xaxis.set_major_locator(_get_ticker().MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y", color=_LINE, linewidth=0.6)
        axes.spines["left"].set_visible(False)

    return _to_svg("curve", (_WIDTH, height), paint)


def draw_against(
    name: str,
    title: str,
    points: Sequence[tuple[str, int, float, float, _Interval]],
    score: str = "F1",
) -> str:
    """Draw quality against cost or speed.

    name (str): Name of the figure, which no other figure of the page has.
    title (str): What the horizontal axis is.
    points (Sequence[Tuple]): Name, number of the colour, place on the horizontal axis,
        score and its interval, of each system.
    score (str): What the score is called.
    RETURNS (str): SVG, or "" if there are no two systems to compare.
    """
    if len(points) < 2:
        return ""
    height = 3.1

    def paint(figure: Any) -> None:
        axes = figure.add_axes(
            (0.45 / _NARROW, 0.5 / height, 1 - 0.6 / _NARROW, 1 - 0.8 / height)
        )
        xs = [x for _, _, x, _, _ in points]
        if min(xs) > 0:
            low, high = math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs)))
            high += low == high
            axes.set_xscale("log")
            axes.set_xlim(10**low / 1.3, 10**high * 1.3)
            step = math.ceil((high - low) / 4)
            axes.set_xticks([10**k for k in range(low, high + 1, step)])
            axes.minorticks_off()
            middle = 10 ** ((low + high) / 2)
        else:
            axes.set_xlim(-0.08 * max(xs) - 0.1, 1.08 * max(xs) + 0.1)
            middle = max(xs) / 2
        axes.xaxis.set_major_formatter(_get_ticker().FuncFormatter(_shorten))
        low_f, high_f = _find_range((f, interval) for *_, f, interval in points)
        axes.set_ylim(low_f - 0.02, high_f)
        above = -math.inf
        least = (high_f - low_f) * 0.085  # two lines of text need that much
        for text, k, x, f, interval in sorted(points, key=lambda point: point[3]):
            _draw_interval(axes, interval, k, x=x)
            _draw_point(axes, x, f, k)
            above = max(f, above + least)
            shift = (above - f) / (high_f - low_f) * (height - 0.8) * 72
            side = -1 if x > middle else 1
            align = "right" if side < 0 else "left"
            _write(axes, clip(text, _COLUMNS), (x, f), (8 * side, shift), ha=align)
        axes.set_title(score, fontsize=11, color=_MUTED)
        axes.set_xlabel(title, color=_MUTED)
        axes.grid(axis="y", color=_LINE, linewidth=0.6)
        axes.spines["left"].set_visible(False)

    return _to_svg(name, (_NARROW, height), paint)


def draw_reliability(
    systems: Mapping[str, Mapping[str, Any]], colours: Mapping[str, int]
) -> str:
    """Draw how far scores are probabilities: a reliability diagram.

    systems (Mapping[str, Mapping[str, Any]]): Systems by name, some with calibration.
    colours (Mapping[str, int]): Systems in order, with the numbers of their colours.
    RETURNS (str): SVG, or "" if there is nothing to draw.
    """
    drawn = {
        name: bins
        for name in colours
        if (bins := (systems[name].get("calibration") or {}).get("bins"))
        and all(isinstance(n, int | float) for row in bins for n in row.values())
    }
    if not drawn:
        return ""
    most = max(row["count"] for bins in drawn.values() for row in bins)
    ncols, top = _place_legend(drawn, _WIDTH)
    plot = 3.4
    height = top + plot + 0.75

    def paint(figure: Any) -> None:
        axes = figure.add_axes(
            (0.5 / _WIDTH, 0.5 / height, 1 - 0.7 / _WIDTH, plot / height)
        )
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1.2, dashes=(4, 3))
        for name, bins in drawn.items():
            k = colours[name]
            line = {"color": _COLOURS[k % len(_COLOURS)], "linewidth": 1.2}
            axes.plot([b["score"] for b in bins], [b["share"] for b in bins], **line)
            for row in bins:
                size = 3 + 2 * _POINT * math.sqrt(row["count"] / most)
                _draw_point(axes, row["score"], row["share"], k, size=size)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_title("Share that is right", fontsize=11, color=_MUTED)
        axes.set_xlabel("Score, on average", color=_MUTED)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.grid(color=_LINE, linewidth=0.6)
        axes.spines["left"].set_visible(False)
        _add_legend(figure, {name: colours[name] for name in drawn}, height, ncols)

    return _to_svg("reliability", (_WIDTH, height), paint)


def _get_scores(
    values: Mapping[str, Any], score: float | None
) -> tuple[float, _Interval] | None:
    """RETURNS (Optional[Tuple[float, Interval]]): A score and its interval."""
    if score is None:
        return None
    interval = values.get("interval")
    if isinstance(interval, Mapping):
        interval = interval.get("f")
    return score, None if not interval or None in interval else interval


def _find_range(scores: Iterable[tuple[float, _Interval]]) -> tuple[float, float]:
    least = min(min([score, *(interval or ())]) for score, interval in scores)
    low = max(0.0, math.floor(least * 10 - 0.3) / 10)
    return (low, 1.02) if low else (-0.02, 1.02)


def _draw_point(
    axes: Any,
    x: float,
    y: float,
    k: int,
    *,
    size: float = _POINT,
    hollow: bool = False,
) -> None:
    colour = _COLOURS[k % len(_COLOURS)]
    axes.plot(
        [x],
        [y],
        _MARKERS[k % len(_MARKERS)],
        color=colour,
        markersize=size,
        markerfacecolor=_PAPER if hollow else colour,
        clip_on=False,
        zorder=4,
    )


def _draw_interval(
    axes: Any, interval: _Interval, k: int, *, x: float = 0, y: float | None = None
) -> None:
    if interval is None:
        return
    style = {"color": _COLOURS[k % len(_COLOURS)], "linewidth": 1.6, "zorder": 3}
    if y is None:
        axes.plot([x, x], interval, **style, clip_on=False)
    else:
        axes.plot(interval, [y, y], **style, clip_on=False)


def _write(
    axes: Any,
    text: str,
    place: tuple[float, float],
    shift: tuple[float, float],
    *,
    ha: str = "left",
    va: str = "center",
) -> None:
    axes.annotate(
        text, place, shift, textcoords="offset points", ha=ha, va=va, zorder=5
    )


def _place_legend(names: Collection[str], width: float) -> tuple[int, float]:
    """RETURNS (Tuple[int, float]): Columns of a legend, and its height in inches."""
    entry = 0.55 + _COLUMN * max(count_columns(clip(name, _COLUMNS)) for name in names)
    ncols = max(1, int(width / entry))
    return ncols, 0.1 + 0.24 * math.ceil(len(names) / ncols)


def _add_legend(
    figure: Any, colours: Mapping[str, int], height: float, ncols: int
) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=_COLOURS[k % len(_COLOURS)],
            marker=_MARKERS[k % len(_MARKERS)],
            markersize=_POINT,
            linewidth=1.6,
            label=clip(name, _COLUMNS),
        )
        for name, k in colours.items()
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, 1 + 0.05 / height),
        ncols=ncols,
        frameon=False,
        fontsize=11,
        handlelength=1.6,
        columnspacing=1.2,
        borderaxespad=0.2,
    )


def _get_ticker() -> Any:
    from matplotlib import ticker

    return ticker


def _shorten(number: float, _: Any = None) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _to_svg(name: str, size: tuple[float, float], paint: _Paint) -> str:
    """RETURNS (str): What is painted, to stand in a page. The same gives the same."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as err:
        raise InstaNERError(
            "To draw figures, matplotlib is needed: pip install 'instaner[figures]'"
        ) from err
    style: dict[Any, Any] = {
        "axes.edgecolor": _LINE,
        "axes.facecolor": "none",
        "axes.labelcolor": _INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "figure.facecolor": "none",
        "font.family": "sans-serif",
        "font.size": 11,
        "svg.fonttype": "none",  # a browser has letters that matplotlib's font has not
        "svg.hashsalt": "instaner",
        "text.color": _INK,
        "text.parse_math": False,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "xtick.major.pad": 6,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
    }
    file_ = io.StringIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")
        figure = Figure(figsize=size)
        paint(figure)
        figure.savefig(file_, format="svg", metadata={"Date": None})
    svg = file_.getvalue()
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    head = f'<svg class="{name}" role="img" aria-labelledby="{name}-caption" '
    head += f'viewBox="0 0 {size[0] * 72:g} {size[1] * 72:g}">'
    return head + svg[svg.index(">") + 1 :].strip()
