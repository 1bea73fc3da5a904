"""Entities found, missed and mistaken, text by text."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from .vote import Offsets

NOTHING = ""  # the label of what is no entity

# Last axis of the counts of a system: right, spurious, missed, and right if boundaries
# do not matter.
TP, FP, FN, PARTIAL = range(4)

_EXAMPLES = 5  # of each kind of error


class GoldText(NamedTuple):
    """A text and what is right about it.

    text (str): The text.
    spans (List[Offsets]): Its entities, in order.
    unknown (List[Tuple[int, int]]): Characters from and to which nobody knows. What a
        system says of them is neither right nor wrong.
    silver (bool): Whether a teacher labelled it.
    """

    text: str
    spans: list[Offsets]
    unknown: list[tuple[int, int]]
    silver: bool


class Kind(str, Enum):
    """What can be wrong."""

    MISSED = "missed"
    SPURIOUS = "spurious"
    BOUNDARY = "boundary"  # the label is right
    LABEL = "label"  # the boundaries are right
    BOTH = "both"  # boundaries and label


class Match(NamedTuple):
    """A gold entity and what a system said there.

    gold (Optional[Offsets]): The entity, if there is one.
    predicted (Optional[Offsets]): What the system said, if it said anything.
    kind (Optional[Kind]): What is wrong, if anything is.
    """

    gold: Offsets | None
    predicted: Offsets | None
    kind: Kind | None = None


def match(gold: Iterable[Offsets], predicted: Iterable[Offsets]) -> list[Match]:
    """Match the entities of a text, one with one: first those that are the same, then
    those that overlap, of the same label or boundaries before others, and of them those
    that share the most characters.

    gold (Iterable[Offsets]): Entities of the text.
    predicted (Iterable[Offsets]): What a system found.
    RETURNS (List[Match]): Each entity of both, once.
    """
    ours, theirs = sorted(set(gold)), sorted(set(predicted))
    both = set(ours) & set(theirs)
    matches = [Match(span, span) for span in sorted(both)]
    left, found = set(ours) - both, set(theirs) - both
    pairs = [
        (one[:2] != other[:2] and one[2] != other[2], -shared, one, other)
        for one in left
        for other in found
        if (shared := min(one[1], other[1]) - max(one[0], other[0])) > 0
    ]
    for unlike, _, one, other in sorted(pairs):
        if one in left and other in found:
            left.remove(one)
            found.remove(other)
            kind = Kind.LABEL if one[:2] == other[:2] else Kind.BOUNDARY
            matches.append(Match(one, other, Kind.BOTH if unlike else kind))
    matches += [Match(span, None, Kind.MISSED) for span in sorted(left)]
    matches += [Match(None, span, Kind.SPURIOUS) for span in sorted(found)]
    return matches


def match_texts(
    golds: Sequence[GoldText], predicted: Sequence[Iterable[Offsets]]
) -> list[list[Match]]:
    """Match the entities of texts. Predictions that touch what nobody knows are left
    out, as spaCy's scorer does.

    golds (Sequence[GoldText]): The texts.
    predicted (Sequence[Iterable[Offsets]]): What a system found in each.
    RETURNS (List[List[Match]]): As `match` gives them, for each text.
    """
    return [
        match(
            gold.spans,
            (
                span
                for span in spans
                if not any(
                    span[0] < end and start < span[1] for start, end in gold.unknown
                )
            ),
        )
        for gold, spans in zip(golds, predicted, strict=True)
    ]


def count(matches: Sequence[Iterable[Match]], labels: Sequence[str]) -> np.ndarray:
    """Count what is right and wrong.

    matches (Sequence[Iterable[Match]]): Matches of each text.
    labels (Sequence[str]): All labels that occur.
    RETURNS (np.ndarray): Whole numbers, of shape (texts, labels, 4): TP, FP, FN and
        PARTIAL, what would be right if only labels mattered, and any overlap was enough
        (the type match of SemEval-2013 task 9).
    """
    rows = {label: row for row, label in enumerate(labels)}
    counts = np.zeros((len(matches), len(labels), 4), np.int64)
    for text, found in zip(counts, matches, strict=True):
        for gold, predicted, kind in found:
            if gold is not None:
                text[rows[gold[2]], TP if kind is None else FN] += 1
                text[rows[gold[2]], PARTIAL] += kind in (None, Kind.BOUNDARY)
            if predicted is not None and kind is not None:
                text[rows[predicted[2]], FP] += 1
    return counts


def get_prf(counts: np.ndarray, *, partial: bool = False) -> np.ndarray:
    """Get precision, recall and F1.

    counts (np.ndarray): Sums of counts, of shape (…, 4).
    partial (bool): Of matches that may have other boundaries.
    RETURNS (np.ndarray): Of shape (…, 3), between 0 and 1; nan where there was nothing
        to find and nothing was found.
    """
    right = counts[..., PARTIAL if partial else TP]
    found = counts[..., TP] + counts[..., FP]
    wanted = counts[..., TP] + counts[..., FN]
    with np.errstate(divide="ignore", invalid="ignore"):
        prf = np.stack(
            [right / found, right / wanted, 2 * right / (found + wanted)], -1
        )
    prf[np.isnan(prf)] = 0  # as spaCy's scorer has it
    prf[found + wanted == 0] = np.nan
    return prf


def score(counts: np.ndarray) -> dict[str, Any]:
    """Put the scores of one label, or of all, into words.

    counts (np.ndarray): Sums of counts, of shape (4,).
    RETURNS (Dict[str, Any]): p, r, f and partial (with its own p, r and f), acc (right
        ones of all that are either gold or predicted), support and predicted, numbers
        of entities. None: not defined.
    """
    tp, fp, fn, _ = (int(number) for number in counts)
    partial = get_prf(counts, partial=True)
    return {
        **to_dict(get_prf(counts)),
        "acc": tp / (tp + fp + fn) if tp + fp + fn else None,
        "support": tp + fn,
        "predicted": tp + fp,
        "partial": to_dict(partial),
    }


def to_dict(prf: np.ndarray) -> dict[str, float | None]:
    """RETURNS (Dict[str, Optional[float]]): p, r and f, by name; None for nan."""
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip("prf", prf, strict=True)
    }


def count_errors(matches: Iterable[Iterable[Match]]) -> dict[str, int]:
    """RETURNS (Dict[str, int]): How many errors there are, by kind."""
    kinds = Counter(m.kind for found in matches for m in found)
    return {kind.value: kinds[kind] for kind in Kind}


def get_examples(matches: Iterable[Iterable[Match]]) -> dict[str, list[dict[str, Any]]]:
    """RETURNS (Dict[str, List[Dict[str, Any]]]): A few errors by kind, each with the
    number of its text, gold and predicted.
    """
    examples: dict[str, list[dict[str, Any]]] = {kind.value: [] for kind in Kind}
    for number, found in enumerate(matches):
        for gold, predicted, kind in found:
            if kind is not None and len(examples[kind.value]) < _EXAMPLES:
                examples[kind.value].append(
                    {"text": number, "gold": gold, "predicted": predicted}
                )
    return examples


def count_confusion(matches: Iterable[Iterable[Match]]) -> dict[str, dict[str, int]]:
    """RETURNS (Dict[str, Dict[str, int]]): How often an entity of a label was given
    which label, NOTHING where there was none.
    """
    confusion: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for found in matches:
        for gold, predicted, _ in found:
            label = gold[2] if gold else NOTHING
            confusion[label][predicted[2] if predicted else NOTHING] += 1
    return {
        label: dict(sorted(given.items())) for label, given in sorted(confusion.items())
    }
