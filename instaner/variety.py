"""How varied generated texts are, in figures and in a picture."""

import math
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.attrs import IS_SPACE, LOWER
from spacy.language import Language

from .corpus import GENERATOR, Text
from .errors import InstaNERError
from .files import write_whole
from .targets import is_category

DRAWN = 5000  # n-grams among which the distinct ones of two corpora can be compared
_ORDERS = (1, 2, 3)
_MOST_FREQUENT = 10  # mentions of a label
_BINS = 20

# A text is judged from 20 bytes in UTF-8 on: 20 letters in English, 7 characters in
# Japanese, which tell as much. A guess that is probably wrong is no verdict.
_MIN_BYTES = 20
_MIN_CONFIDENCE = 0.5
_JUDGED = 1000  # characters of a text, the first ones, that tell its language
_NO_LANGUAGE = ("und", "zxx")  # undetermined, and no linguistic content
# What the library calls otherwise, or tells apart where spaCy does not.
_SPACY_CODES = {"no": "nb", "ku": "kmr", "hbo": "he", "bs": "hr", "pcm": "en"}
_SPACY_CODES |= {"ary": "ar", "arz": "ar", "wuu": "zh", "yue": "zh"}

_DARK, _LIGHT, _INK = "#0072B2", "#A6CEE8", "#333333"  # differ without colour too
_LABEL_WIDTH = 28  # columns, of which a Japanese character takes two
_MENTION_WIDTH = 24
_COLUMN = 0.085  # inches

_Words = NDArray[np.uint64]


@dataclass
class Spread:
    """How numbers are spread over the texts.

    min, q1, median, q3, max (float): The smallest, the quartiles, the largest.
    bins (List[Tuple[int, int, int]]): First number, last number, and texts, of up to 20
        bins of a width, and of one for what is larger than 99 per cent.
    """

    min: float
    q1: float
    median: float
    q3: float
    max: float
    bins: list[tuple[int, int, int]]


@dataclass
class Mentions:
    """The marked mentions of one label.

    count (int): All of them.
    unique (int): Those that differ, case and the width of white space aside.
    share (float): Share of the mentions of all labels.
    top (List[Tuple[str, int]]): The 10 most frequent, case-folded, and how frequent.
    """

    count: int
    unique: int
    share: float
    top: list[tuple[str, int]]


@dataclass
class Languages:
    """The languages that texts are in.

    lang (str): The pipeline's language.
    share (Optional[float]): Share of the texts in it, of those whose language could be
        told. None if that is not one of them, or could not be told of any text.
    untold (int): Texts whose language could not be told, as they are too short, or
        could be of several languages.
    found (Dict[str, int]): Texts by language, the most frequent first.
    """

    lang: str
    share: float | None
    untold: int
    found: dict[str, int]


@dataclass
class Variety:
    """How varied texts are. Tokens are counted without white space.

    texts (int): Number of texts.
    tokens (int): Number of tokens.
    distinct (List[float]): Distinct n-grams of lower-cased tokens over all n-grams, for
        n of 1, 2 and 3. It falls as a corpus grows.
    distinct_drawn (List[Optional[float]]): What is to be expected of it among 5,000
        n-grams drawn at random, which does not depend on the size. None if there are
        fewer.
    lengths (Spread): Tokens of a text.
    entities (Optional[Spread]): Entities of a text. None if there are categories.
    without_entities (Optional[float]): Share of the texts that have none.
    mentions (Dict[str, Mentions]): Mentions by label, the most frequent label first.
    categories (Dict[str, int]): Texts by the category that they were written for, the
        most frequent first. Where there are any, there are no entities.
    languages (Optional[Languages]): Languages of the texts. None if the extra that
        tells them is not installed.
    """

    texts: int
    tokens: int
    distinct: list[float]
    distinct_drawn: list[float | None]
    lengths: Spread
    entities: Spread | None
    without_entities: float | None
    mentions: dict[str, Mentions]
    categories: dict[str, int]
    languages: Languages | None

    def to_json(self) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): The same, as JSON values."""
        return asdict(self)


def measure(texts: Iterable[Text], nlp: Language) -> Variety:
    """Measure how varied texts, and what their writer marked, are.

    Methods: distinct-n (Li et al. 2016, A Diversity-Promoting Objective Function for
    Neural Conversation Models), and rarefaction for what is expected of a
    fixed number of n-grams (Hurlbert 1971, The Nonconcept of Species Diversity).

    texts (Iterable[Text]): The texts, of which tokens are held, 8 bytes each.
    nlp (Language): Pipeline whose tokenizer is used, and whose language is expected.
    RETURNS (Variety): The figures.
    RAISES (InstaNERError): If there are no texts.
    """
    identifier = _load_identifier()
    words: list[_Words] = []
    entities: list[int] = []
    surfaces: defaultdict[str, Counter[str]] = defaultdict(Counter)
    categories: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for text in texts:
        tokens = nlp.make_doc(text.text).to_array([LOWER, IS_SPACE])
        words.append(tokens[tokens[:, 1] == 0, 0])
        marks = text.votes.get(GENERATOR, [])
        categories.update(mark[2] for mark in marks if is_category(mark))
        spans = [mark for mark in marks if not is_category(mark)]
        entities.append(len(spans))
        for start, end, label in spans:
            surface = " ".join(text.text[start:end].casefold().split())
            surfaces[label][surface] += 1
        if identifier is not None:
            found[_tell(identifier, text.text)] += 1
    if not words:
        raise InstaNERError("There are no texts to measure. Generate some first.")
    counts = [_count_ngrams(words, n) for n in _ORDERS]
    n_mentions = sum(entities)
    return Variety(
        texts=len(words),
        tokens=sum(len(row) for row in words),
        distinct=[round(len(c) / max(1, int(c.sum())), 4) for c in counts],
        distinct_drawn=[_rarefy(c, DRAWN) for c in counts],
        lengths=_spread([len(row) for row in words]),
        entities=None if categories else _spread(entities),
        without_entities=None
        if categories
        else round(entities.count(0) / len(words), 4),
        mentions={
            label: Mentions(
                count=seen.total(),
                unique=len(seen),
                share=round(seen.total() / n_mentions, 4),
                top=sorted(seen.items(), key=_by_frequency)[:_MOST_FREQUENT],
            )
            for label, seen in sorted(
                surfaces.items(), key=lambda item: (-item[1].total(), item[0])
            )
        },
        categories=dict(sorted(categories.items(), key=_by_frequency)),
        languages=None
        if identifier is None
        else _sum_up(found, nlp.lang or "xx", identifier.labels),
    )


def draw(variety: Variety, path: Path) -> None:
    """Draw the figures.

    variety (Variety): The figures.
    path (Path): The SVG file. The same figures give the same bytes.
    RAISES (InstaNERError): If matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as err:
        raise InstaNERError(
            "To draw figures, matplotlib is needed: pip install 'instaner[figures]'"
        ) from err
    style: dict[Any, Any] = {
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "font.family": "sans-serif",
        "font.size": 9,
        "svg.fonttype": "none",  # a browser has letters that matplotlib's font has not
        "svg.hashsalt": "instaner",
        "text.color": _INK,
        "text.parse_math": False,
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    # In inches. Layouts that measure text are of no use where a browser sets it.
    names = variety.categories or variety.mentions
    width, rows = 11.0, max(1, len(names))
    bars, top = 0.28 * rows, 2.2
    height = bars + top + 1.8
    labels = [clip(label, _LABEL_WIDTH) for label in names]
    left = 0.4 + _COLUMN * max((count_columns(la) for la in labels), default=0)
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")
        figure = Figure(figsize=(width, height))

        def add(x: float, y: float, w: float, h: float) -> Any:
            return figure.add_axes((x / width, y / height, w / width, h / height))

        figure.text(
            0.4 / width, 1 - 0.35 / height, _make_title(variety), fontsize=12, va="top"
        )
        upper = bars + 1.15
        _draw_lengths(add(0.7, upper, 3.1, top - 0.25), variety)
        if variety.entities is not None:
            _draw_entities(add(4.5, upper, 2.6, top - 0.25), variety, variety.entities)
        _draw_distinct(add(7.8, upper, 2.8, top - 0.25), variety)
        lower = add(left, 0.25, width - left - 3.7, bars)
        if variety.categories:
            _draw_categories(lower, variety, labels)
        else:
            _draw_mentions(lower, variety, labels)
        with write_whole(path) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})


def _count_ngrams(words: list[_Words], n: int) -> NDArray[np.int64]:
    """RETURNS (NDArray[int64]): How often each n-gram occurs; none is of two texts."""
    hashes = []
    for row in words:
        hashed = row[: max(0, len(row) - n + 1)].copy()
        for k in range(1, n):
            # A polynomial of hashes, modulo 2**64, is a hash of the whole.
            hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + row[k : k + len(hashed)]
        hashes.append(hashed)
    return np.unique(np.concatenate(hashes), return_counts=True)[1]


def _rarefy(counts: NDArray[np.int64], number: int) -> float | None:
    """RETURNS (Optional[float]): Share that is expected to be distinct among a number
    drawn without replacement, or None if there are fewer.
    """
    total = int(counts.sum())
    if total < number:
        return None
    expected = 0.0
    for count, times in zip(*np.unique(counts, return_counts=True), strict=True):
        rest = total - int(count)
        missed = 0.0  # the chance that something so frequent is not drawn
        if rest >= number:
            missed = math.exp(_log_choose(rest, number) - _log_choose(total, number))
        expected += int(times) * (1 - missed)
    return round(expected / number, 4)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _spread(numbers: list[int]) -> Spread:
    low, high = min(numbers), max(numbers)
    # One long text is not to squeeze all others into a bin.
    usual = math.ceil(np.percentile(numbers, 99))
    width = math.ceil((usual - low + 1) / _BINS)
    n_bins = math.ceil((usual - low + 1) / width)
    filled = Counter(min((number - low) // width, n_bins) for number in numbers)
    firsts = [low + k * width for k in range(n_bins + 1)]
    bins = [(firsts[k], firsts[k + 1] - 1, filled[k]) for k in range(n_bins)]
    if filled[n_bins]:
        bins.append((firsts[n_bins], high, filled[n_bins]))
    q1, median, q3 = (float(q) for q in np.percentile(numbers, [25, 50, 75]))
    return Spread(low, q1, median, q3, high, bins)


def _by_frequency(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _load_identifier() -> Any:
    """RETURNS (Any): What tells languages, or None if it is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    return LanguageIdentifier.from_model_file(
        MODEL_FILE, norm_probs=True, min_confidence=_MIN_CONFIDENCE
    )


def _tell(identifier: Any, text: str) -> str:
    """RETURNS (str): spaCy's code of a text's language, or "" if it cannot be told."""
    start = " ".join(text.split())[:_JUDGED]
    if len(start.encode("utf8")) < _MIN_BYTES:
        return ""
    code = identifier.classify(start)[0]
    return "" if code in _NO_LANGUAGE else _SPACY_CODES.get(code, code)


def _sum_up(found: Counter[str], lang: str, codes: Iterable[str]) -> Languages:
    untold = found.pop("", 0)
    told = found.total()
    share = None
    if told and lang in {_SPACY_CODES.get(code, code) for code in codes}:
        share = round(found[lang] / told, 4)
    return Languages(
        lang, share, untold, dict(sorted(found.items(), key=_by_frequency))
    )


def _make_title(variety: Variety) -> str:
    title = f"{variety.texts:,} texts, {variety.tokens:,} tokens"
    told = variety.languages
    if told is not None and told.share is not None:
        title += f", {told.share:.1%} in the right language ({told.lang})"
        if told.untold:
            title += f", {told.untold:,} could not be told"
    return title


def _draw_lengths(axes: Any, variety: Variety) -> None:
    half = f"{variety.lengths.q1:g} to {variety.lengths.q3:g}"
    _draw_spread(axes, variety.lengths)
    axes.set_title(f"Lengths: half have {half} tokens")
    axes.set_xlabel("Tokens")
    axes.set_ylabel("Texts")


def _draw_entities(axes: Any, variety: Variety, entities: Spread) -> None:
    _draw_spread(axes, entities)
    axes.set_title(f"Entities: {variety.without_entities:.1%} have none")
    axes.set_xlabel("Entities in a text")


def _draw_spread(axes: Any, spread: Spread) -> None:
    bins = spread.bins
    axes.bar(range(len(bins)), [n for *_, n in bins], width=0.9, color=_DARK)
    step = math.ceil(len(bins) / 9)
    ticks = list(range(0, len(bins), step))
    last = len(bins) - 1
    # Numbers of a wide bin stand where it begins.
    wide = bins[0][1] > bins[0][0]
    texts = [f"{first:,}" for first, *_ in bins]
    if bins[-1][1] - bins[-1][0] > bins[0][1] - bins[0][0]:
        texts[-1] += "+"
        ticks = [k for k in ticks if last - k >= step] + [last]
    axes.set_xticks([k - 0.5 * wide for k in ticks], [texts[k] for k in ticks])
    axes.set_xlim(-0.7, len(bins) - 0.3)
    axes.yaxis.get_major_locator().set_params(integer=True)


def _draw_distinct(axes: Any, variety: Variety) -> None:
    series: list[tuple[str, str, Sequence[float | None]]] = [
        ("of all", _LIGHT, variety.distinct),
        (f"among {DRAWN:,} drawn", _DARK, variety.distinct_drawn),
    ]
    for k, (name, colour, shares) in enumerate(series):
        known = [
            (n + 0.4 * k - 0.2, share)
            for n, share in zip(_ORDERS, shares, strict=True)
            if share is not None
        ]
        if known:
            places, heights = zip(*known, strict=True)
            axes.bar(places, heights, width=0.37, color=colour, label=name)
        for place, share in known:
            axes.text(place, share + 0.02, f"{share:.2f}", ha="center", fontsize=8)
    axes.set_title("Distinct n-grams")
    axes.set_xticks(_ORDERS, ["1 token", "2 tokens", "3 tokens"])
    axes.set_ylim(0, 1.3)
    axes.set_yticks([0, 0.5, 1])
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _draw_mentions(axes: Any, variety: Variety, labels: list[str]) -> None:
    axes.set_title("Mentions by label")
    axes.set_xlim(left=0)
    if not labels:
        axes.text(0, 0.5, "No entities are marked.", va="center")
        axes.set_axis_off()
        return
    rows = range(len(labels))
    mentions = list(variety.mentions.values())
    for name, colour, numbers in (
        ("all", _LIGHT, [m.count for m in mentions]),
        ("unique", _DARK, [m.unique for m in mentions]),
    ):
        axes.barh(rows, numbers, height=0.72, color=colour, label=name)
    _set_rows(axes, labels, max(m.count for m in mentions))
    for row, label in zip(rows, mentions, strict=True):
        mention, count = label.top[0]
        note = f"{label.count:,}, {label.unique:,} unique; "
        note += f"{count:,} × {clip(mention, _MENTION_WIDTH)}"
        place = (1.01, row)
        axes.annotate(note, place, xycoords=("axes fraction", "data"), va="center")
    axes.legend(
        frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8
    )


def _draw_categories(axes: Any, variety: Variety, labels: list[str]) -> None:
    counts = list(variety.categories.values())
    axes.set_title("Texts by category")
    axes.barh(range(len(labels)), counts, height=0.72, color=_DARK)
    _set_rows(axes, labels, max(counts))
    for row, count in enumerate(counts):
        place = (1.01, row)
        axes.annotate(
            f"{count:,}", place, xycoords=("axes fraction", "data"), va="center"
        )


def _set_rows(axes: Any, labels: list[str], most: int) -> None:
    axes.set_xlim(0, most)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def clip(text: str, width: int) -> str:
    """Cut a text for a figure.

    text (str): The text.
    width (int): Columns, of which a Japanese character takes two.
    RETURNS (str): The text, without control characters, which SVG cannot hold, and in
        no more columns.
    """
    text = "".join(char for char in text if char.isprintable())
    if count_columns(text) <= width:
        return text
    while count_columns(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def count_columns(text: str) -> int:
    """RETURNS (int): Columns that a text takes; a Japanese character takes two."""
    return sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in text)
