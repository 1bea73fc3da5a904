"""How sure a score is, and a difference of two: the bootstrap over texts."""

from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from .scores import FN, FP, PARTIAL, TP, get_prf

_AT_ONCE = 100  # resamples that are drawn at a time
_PSEUDO = 0.5  # of an entity

# What is added to the texts, to be drawn like them: to the counts of one system, half
# an entity that is right and half a one that is missed and mistaken; to those of two,
# half a one that the first alone has right, and half a one that the second has.
_RIGHT = _PSEUDO * np.eye(4)[[TP, PARTIAL]].sum(axis=0)
_WRONG = _PSEUDO * np.eye(4)[[FP, FN]].sum(axis=0)
_MISSED = _PSEUDO * np.eye(4)[FN]


class Difference(NamedTuple):
    """How far a student's F1 is from its reference's, on the same texts.

    difference (float): F1 of the student less that of the reference.
    low (float): Lower end of its interval.
    high (float): Upper end.
    p_value (float): How probable a difference as large, either way, would be if there
        was none.
    deviation (float): Its standard error.
    """

    difference: float
    low: float
    high: float
    p_value: float
    deviation: float


class Bootstrap:
    """Draws as many texts as there are, with replacement, again and again (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap). The same texts are drawn for all
    systems. Intervals are percentiles, expanded for small numbers of texts (Hesterberg
    2015, What Teachers Should Know about the Bootstrap, section 3.4), of the texts and
    two more of half an entity each, without which they would be too narrow, and of no
    width where nothing is wrong (Agresti and Min 2005, Simple improved confidence
    intervals for comparing matched proportions).
    """

    def __init__(
        self,
        n_texts: int,
        *,
        confidence: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        """Set what is drawn.

        n_texts (int): Number of texts.
        confidence (float): How often intervals are to hold what is true, below 1.
        resamples (int): How often to draw.
        seed (int): Decides what is drawn.
        """
        self.n_texts = n_texts
        self.resamples = resamples
        self.seed = seed
        normal = NormalDist()
        z, df = normal.inv_cdf(0.5 + confidence / 2), max(1, n_texts - 1)
        t = z + (z**3 + z) / (4 * df)  # near enough: Student's, by Cornish and Fisher
        end = normal.cdf(-t * (1 + 1 / df) ** 0.5)
        self.ends = (end, 1 - end)

    def _draw(self) -> Iterator[np.ndarray]:
        """YIELDS (np.ndarray): How often each text was drawn, and each of the two more;
        of shape (_AT_ONCE or fewer, n_texts + 2).
        """
        random = np.random.default_rng(self.seed)
        n = self.n_texts + 2
        for start in range(0, self.resamples, _AT_ONCE):
            size = min(_AT_ONCE, self.resamples - start)
            drawn = random.integers(n, size=(size, self.n_texts))
            drawn += n * np.arange(size)[:, None]
            yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)

    def resample(self, counts: np.ndarray, more: np.ndarray) -> np.ndarray:
        """Sum counts over drawn texts.

        counts (np.ndarray): Of shape (texts, …, 4).
        more (np.ndarray): Two more texts, of a shape that can be spread to (2, …, 4).
        RETURNS (np.ndarray): Of shape (resamples, …, 4).
        """
        shape = counts.shape[1:]
        more = np.broadcast_to(more, (2, *shape))
        rows = np.concatenate([counts, more]).reshape(self.n_texts + 2, -1)
        sums = [weights.astype(float) @ rows for weights in self._draw()]
        return np.concatenate(sums).reshape(-1, *shape)

    def get_intervals(self, counts: np.ndarray) -> np.ndarray:
        """Get intervals of precision, recall and F1.

        counts (np.ndarray): Of shape (texts, …, 4).
        RETURNS (np.ndarray): Lower and upper ends, of shape (2, …, 3); nan where a
            score is not defined.
        """
        more = np.stack([_RIGHT, _WRONG])
        more = more.reshape(2, *(1,) * (counts.ndim - 2), 4)
        drawn = get_prf(self.resample(counts, more))
        undefined = np.isnan(get_prf(counts.sum(axis=0)))
        drawn[:, undefined] = 0
        ends = np.nanquantile(drawn, self.ends, axis=0)
        ends[:, undefined] = np.nan
        return ends

    def compare(
        self, reference: np.ndarray, student: np.ndarray
    ) -> list[Difference | None]:
        """Get the differences of two systems' F1 on the same texts, by label.

        reference (np.ndarray): Counts, of shape (texts, labels, 4).
        student (np.ndarray): Counts, of shape (texts, labels, 4).
        RETURNS (List[Optional[Difference]]): The difference for each label, or None
            where one of them has no F1.
        """
        both = np.stack([reference, student], axis=1)
        f = get_prf(both.sum(axis=0))[..., 2]
        more = np.array([[_RIGHT, _MISSED], [_MISSED, _RIGHT]])[:, :, None]
        drawn = np.nan_to_num(get_prf(self.resample(both, more))[..., 2])
        drawn = drawn[:, 1] - drawn[:, 0]
        lows, highs = np.quantile(drawn, self.ends, axis=0)
        least = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
        p_values = np.minimum(1, 2 * (least + 1) / (self.resamples + 1))
        return [
            None if np.isnan(difference) else Difference(*map(float, values))
            for difference, *rest in zip(
                f[1] - f[0], lows, highs, p_values, drawn.std(axis=0), strict=True
            )
            for values in [(difference, *rest)]
        ]
