"""How far voters agree, before anything is decided."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from spacy.tokens import Doc

from .targets import ENTS, Offsets, Target


class Agreement:
    """Agreement between voters, counted text by text, so that memory does not grow.

    The F1 of two voters is that of one's spans scored on the other's, boundaries and
    label alike, over the texts on which both have an opinion (Hripcsak and Rothschild
    2005, Agreement, the F-Measure, and Reliability in Information Retrieval).
    Krippendorff's alpha is the nominal one, its units the tokens, or what a text can
    have a category of, and its values the labels and none (Krippendorff 2011, Computing
    Krippendorff's Alpha-Reliability).

    target (Target): What is annotated.
    """

    def __init__(self, target: Target = ENTS) -> None:
        self._target = target
        self._shared: Counter[tuple[str, str]] = Counter()
        self._named: Counter[tuple[str, str]] = Counter()
        # How often two voters gave a token two values, by pairs of values.
        self._coincidences: dict[tuple[str, str], float] = defaultdict(float)

    def add(self, doc: Doc, ballots: Mapping[str, Iterable[Offsets]]) -> None:
        """Count a text.

        doc (Doc): Its doc.
        ballots (Mapping[str, Iterable[Offsets]]): Each voter's marks, on tokens.
        """
        self.add_places(self._target.get_units(doc), ballots)

    def add_places(
        self, units: Sequence[int], ballots: Mapping[str, Iterable[Offsets]]
    ) -> None:
        """Count a text by the characters at which there can be a mark; see
        Target.get_units.
        """
        spans = {voter: set(named) for voter, named in ballots.items()}
        for one, other in combinations(sorted(spans), 2):
            self._shared[one, other] += len(spans[one] & spans[other])
            self._named[one, other] += len(spans[one]) + len(spans[other])
        if len(spans) < 2:
            return
        values: dict[int, Counter[str]] = {}
        for named in spans.values():
            for start, end, label in named:
                for i in range(bisect_left(units, start), bisect_left(units, end)):
                    values.setdefault(i, Counter())[label] += 1
        for counts in values.values():
            counts[""] += max(0, len(spans) - counts.total())
            self.add_unit(counts)
        # All other units have no label to anybody.
        self._coincidences["", ""] += (len(units) - len(values)) * len(spans)

    def add_unit(self, values: Mapping[str, int]) -> None:
        """Count how many voters gave one unit which value."""
        number = sum(values.values())
        if number < 2:
            return
        for one, count in values.items():
            for other, others in values.items():
                pairs = count * (others - (one == other))
                self._coincidences[one, other] += pairs / (number - 1)

    @property
    def alpha(self) -> float | None:
        """Krippendorff's alpha, at most 1; None where nothing can be compared."""
        totals: dict[str, float] = defaultdict(float)
        for (one, _), count in self._coincidences.items():
            totals[one] += count
        number = sum(totals.values())
        expected = number**2 - sum(count**2 for count in totals.values())
        if not expected:
            return None
        observed = sum(n for (a, b), n in self._coincidences.items() if a != b)
        return 1 - (number - 1) * observed / expected

    @property
    def f1(self) -> dict[tuple[str, str], float]:
        """F1 of each pair of voters of which one at least named something."""
        return {
            pair: 2 * self._shared[pair] / named
            for pair, named in self._named.items()
            if named
        }

    def to_json(self) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): f1, the mean over the pairs of voters, alpha, both
        None where there is nothing to compare, and the f1 of each of the pairs.
        """
        pairs = self.f1
        alpha = self.alpha
        return {
            "f1": round(sum(pairs.values()) / len(pairs), 4) if pairs else None,
            "alpha": None if alpha is None else round(alpha, 4),
            "pairs": [
                {"voters": list(pair), "f1": round(f1, 4)} for pair, f1 in pairs.items()
            ],
        }
