"""Entities, or categories, found, missed and mistaken, text by text."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from .targets import Offsets, are_exclusive, is_category

NOTHING = ""  # the label of what is no entity

# Names of scores, as spaCy's scorer has them, or would have.
_NAMES = {
    "ents": {
        "p": "ents_p",
        "r": "ents_r",
        "f": "ents_f",
        "acc": "ents_acc",
        "per_type": "ents_per_type",
    },
    "cats": {
        "p": "cats_micro_p",
        "r": "cats_micro_r",
        "f": "cats_micro_f",
        "acc": "cats_acc",
        "per_type": "cats_f_per_type",
    },
}

# Last axis of the counts of a system: right, spurious, missed, and right if boundaries
# do not matter.
TP, FP, FN, PARTIAL = range(4)

_EXAMPLES = 5  # of each kind of error
_BINS = 10  # of a reliability diagram


class GoldText(NamedTuple):
    """A text and what is right about it.

    text (str): The text.
    spans (List[Offsets]): Its entities, in order; or its categories, all at character
        -1 (see targets.make_mark).
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


def have_categories(golds: Iterable[GoldText]) -> bool:
    """RETURNS (bool): Whether it is categories that the texts have."""
    return any(is_category(span) for gold in golds for span in gold.spans)


def have_one_category(
    golds: Sequence[GoldText], *predicted: Sequence[Iterable[Offsets]]
) -> bool:
    """RETURNS (bool): Whether each text of which anything is known has one category,
    and no system found several in one.
    """
    return (
        have_categories(golds)
        and all(gold.unknown or len(gold.spans) == 1 for gold in golds)
        and all(len(list(spans)) < 2 for texts in predicted for spans in texts)
    )


def count(
    matches: Sequence[Iterable[Match]],
    labels: Sequence[str],
    *,
    one_category: bool = False,
) -> np.ndarray:
    """Count what is right and wrong.

    matches (Sequence[Iterable[Match]]): Matches of each text.
    labels (Sequence[str]): All labels that occur.
    one_category (bool): Whether each text has one. If a system finds none, it has found
        a wrong one: precision, recall and F1 of all labels are then the accuracy.
    RETURNS (np.ndarray): Whole numbers, of shape (texts, 1 + labels, 4), those of all
        labels first: TP, FP, FN and PARTIAL, what would be right if only labels
        mattered, and any overlap was enough (the type match of SemEval-2013 task 9).
    """
    rows = {label: row for row, label in enumerate(labels, 1)}
    counts = np.zeros((len(matches), 1 + len(labels), 4), np.int64)
    for text, found in zip(counts, matches, strict=True):
        for gold, predicted, kind in found:
            if gold is not None:
                text[rows[gold[2]], TP if kind is None else FN] += 1
                text[rows[gold[2]], PARTIAL] += kind in (None, Kind.BOUNDARY)
            if predicted is not None and kind is not None:
                text[rows[predicted[2]], FP] += 1
        text[0] = text[1:].sum(axis=0)
        if one_category:
            text[0, FP] += sum(kind is Kind.MISSED for *_, kind in found)
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


def name_scores(scores: Mapping[str, Any], attr: str) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): p, r, f, acc or per_type by the names that they have in
    a result: of entities ("ents") or categories ("cats").
    """
    return {_NAMES[attr][name]: value for name, value in scores.items()}


def find_score(result: Mapping[str, Any], name: str) -> Any:
    """RETURNS (Any): A score of a result, whatever it is of: p, r, f, acc or per_type.
    None: it has none.
    """
    return next((result[n[name]] for n in _NAMES.values() if n[name] in result), None)


def score_categories(
    golds: Sequence[GoldText], spans: Sequence[Iterable[Offsets]], counts: np.ndarray
) -> dict[str, float | None]:
    """Score categories as a whole.

    golds (Sequence[GoldText]): The texts.
    spans (Sequence[Iterable[Offsets]]): What a system found in each.
    counts (np.ndarray): Sums of counts by label, of shape (labels, 4).
    RETURNS (Dict[str, Optional[float]]): cats_acc (share of the texts of which the
        categories are those of the gold), cats_macro_f (mean F1 of the labels that
        occur) and cats_balanced_acc (mean recall of those that the gold has; None if a
        text can have several; Brodersen et al. 2010, The Balanced Accuracy and Its
        Posterior Distribution).
    """
    right = [
        {*gold.spans} == {(*span,) for span in found}
        for gold, found in zip(golds, spans, strict=True)
        if not gold.unknown
    ]
    prf = get_prf(counts)
    recalls = prf[counts[:, TP] + counts[:, FN] > 0, 1]
    return {
        "cats_acc": float(np.mean(right)) if right else None,
        "cats_macro_f": None if np.isnan(prf).all() else float(np.nanmean(prf[:, 2])),
        "cats_balanced_acc": (
            float(recalls.mean())
            if have_one_category(golds, spans) and len(recalls)
            else None
        ),
    }


def calibrate(
    golds: Sequence[GoldText], cats: Sequence[Mapping[str, float]]
) -> dict[str, Any] | None:
    """Find how far the scores of categories are the probabilities that they hold: the
    expected calibration error, and a reliability diagram (Guo et al. 2017, On
    Calibration of Modern Neural Networks). Where each text has one category, it is the
    highest score that is looked at, else each label's.

    golds (Sequence[GoldText]): The texts.
    cats (Sequence[Mapping[str, float]]): Scores by label, for each text.
    RETURNS (Optional[Dict[str, Any]]): ece, and bins of equal width, each with score
        (the mean), share (of those that hold) and count. None: there are only hard
        labels, 0 and 1.
    """
    one = have_one_category(golds) and are_exclusive(cats)
    pairs = []
    for gold, scores in zip(golds, cats, strict=True):
        if gold.unknown or not scores:
            continue
        wanted = {label for *_, label in gold.spans}
        names = [max(scores, key=lambda la: scores[la])] if one else [*scores]
        pairs += [(scores[name], name in wanted) for name in names]
    if all(value in (0, 1) for value, _ in pairs):
        return None
    values, holds = np.array(pairs, float).T
    places = np.minimum((values * _BINS).astype(int), _BINS - 1)
    bins = [
        {
            "score": float(values[places == k].mean()),
            "share": float(holds[places == k].mean()),
            "count": int((places == k).sum()),
        }
        for k in range(_BINS)
        if (places == k).any()
    ]
    off = sum(row["count"] * abs(row["score"] - row["share"]) for row in bins)
    return {"ece": off / len(pairs), "bins": bins}


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
