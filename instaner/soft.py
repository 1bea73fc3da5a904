"""Soft labels of texts: proportions in doc.cats, which spaCy's text classifiers do not
train on, become labels that are drawn in that proportion."""

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import accumulate

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from .errors import InstaNERError

Cats = dict[str, float]

_EPSILON = 1e-3  # that proportions may sum to above 1, or differ by and be equal
_SHOWN = 80  # characters of a text in a message


def make_label_sampler(
    exclusive_classes: bool = True, copies: int = 3, sample: bool = True
) -> Callable[[Language, Example], Iterator[Example]]:
    """Make instaner.SampleLabels.v1, an augmenter for a corpus of texts whose doc.cats
    are proportions, as of votes. It gives every text as many times as copies says, and
    draws a hard label for each. The gradient of spaCy's loss is linear in the labels,
    so that it is in expectation the one of the cross-entropy with soft labels (Hinton
    et al., 2015, Distilling the Knowledge in a Neural Network); where copies times
    each proportion is a whole number, as with one copy for each vote, it is so exactly.

    The draws are of the copies, not anew in each epoch, as spaCy reads a corpus once:
    it would read it in each epoch with max_epochs = -1, but then takes the labels from
    its first 100 texts, and silently trains on no other.

    exclusive_classes (bool): A text has one label, drawn in proportion to the scores,
        and is left out where it has no score above 0. Otherwise each label is drawn by
        itself.
    copies (int): Times that each text is given. Without sample, it is 1.
    sample (bool): Draw. Otherwise, as for the dev corpus, a text gets its most probable
        label, and is left out where two are; of labels that are not exclusive each gets
        what is more probable, and is missing at one half.
    RETURNS (Callable[[Language, Example], Iterator[Example]]): The augmenter.
    RAISES (InstaNERError): If copies is below 1; from the augmenter, on scores that
        are no proportions.
    """
    if copies < 1:
        raise InstaNERError(f"copies = {copies}: it has to be 1 or more.")
    if exclusive_classes:
        harden = partial(_draw_one, copies=copies) if sample else _choose_one
    else:
        harden = partial(_draw_each, copies=copies) if sample else _choose_each
    return partial(_sample_labels, harden=harden, exclusive_classes=exclusive_classes)


def _sample_labels(
    nlp: Language,
    example: Example,
    *,
    harden: Callable[[Cats], list[Cats]],
    exclusive_classes: bool,
) -> Iterator[Example]:
    reference = example.reference
    _check(reference, exclusive_classes)
    for i, cats in enumerate(harden(reference.cats)):
        if i == 0 and cats == reference.cats:
            yield example
        else:
            # A doc for each, as a transformer aligns the docs of a batch by identity;
            # those to predict on are copied by spaCy before each update.
            doc = reference.copy()
            doc.cats = cats
            yield Example(example.predicted, doc)


def _check(doc: Doc, exclusive_classes: bool) -> None:
    text = doc.text[:_SHOWN]
    for label, score in doc.cats.items():
        if not 0 <= score <= 1:
            raise InstaNERError(
                f'The text "{text}" has {score} for {label}: it has to be 0 to 1.'
            )
    total = sum(doc.cats.values())
    if exclusive_classes and total > 1 + _EPSILON:
        raise InstaNERError(
            f'The labels of the text "{text}" sum to {total:g}, more than 1. If a text '
            "can have several, set exclusive_classes = false."
        )


def _draw_one(cats: Cats, copies: int) -> list[Cats]:
    labels = [label for label, score in cats.items() if score]
    ends = list(accumulate(cats[label] for label in labels))
    if not labels:
        return []
    points = (point * ends[-1] for point in _spread(copies))
    return [_make_hard(cats, labels[bisect_left(ends, point)]) for point in points]


def _draw_each(cats: Cats, copies: int) -> list[Cats]:
    drawn = {}
    for label, score in cats.items():
        draws = [float(point < score) for point in _spread(copies)]
        drawn[label] = random.sample(draws, copies)
    return [{label: drawn[label][i] for label in cats} for i in range(copies)]


def _spread(number: int) -> Iterator[float]:
    """Points in 0 to 1, evenly spaced from a random start: systematic sampling (Madow,
    1949, On the Theory of Systematic Sampling, II), in which a label is drawn as often
    as expected, rounded down or up."""
    start = random.random()
    return ((start + i) / number for i in range(number))


def _choose_one(cats: Cats) -> list[Cats]:
    best = max(cats.values(), default=0.0)
    labels = [label for label, score in cats.items() if score > best - _EPSILON]
    return [_make_hard(cats, labels[0])] if best and len(labels) == 1 else []


def _choose_each(cats: Cats) -> list[Cats]:
    clear = {k: score for k, score in cats.items() if abs(score - 0.5) > _EPSILON}
    return [{label: float(score > 0.5) for label, score in clear.items()}]


def _make_hard(cats: Mapping[str, float], label: str) -> Cats:
    return {other: float(other == label) for other in cats}
