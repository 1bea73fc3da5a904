"""From several opinions about a text to spans with a standing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from spacy.tokens import Doc

Offsets = tuple[int, int, str]


class Standing(str, Enum):
    """What a span's votes are worth."""

    TRUSTED = "trusted"
    DISPUTED = "disputed"


class Candidate(NamedTuple):
    """A span that at least one voter named.

    start (int): First character.
    end (int): Character after the last.
    label (str): Label.
    voters (Tuple[str, ...]): Who named it, in the order of the ballots.
    standing (Standing): What the votes are worth.
    """

    start: int
    end: int
    label: str
    voters: tuple[str, ...]
    standing: Standing


def vote(ballots: Mapping[str, Iterable[Offsets]]) -> list[Candidate]:
    """Trust the spans that more than half of the voters named, label and boundaries
    alike; all others are disputed. Trusted spans do not overlap as long as no voter's
    own spans do: any two majorities have a voter in common.

    ballots (Mapping[str, Iterable[Offsets]]): Start and end character and label of
        each span that a voter named. A voter that has no opinion has no ballot.
    RETURNS (List[Candidate]): Every span named, in the order of the text.
    """
    voters: dict[Offsets, list[str]] = defaultdict(list)
    for voter, spans in ballots.items():
        for span in set(spans):
            voters[span].append(voter)
    return [
        Candidate(
            *span,
            voters=tuple(named_by),
            standing=Standing.TRUSTED
            if 2 * len(named_by) > len(ballots)
            else Standing.DISPUTED,
        )
        for span, named_by in sorted(voters.items())
    ]


def set_ents(doc: Doc, candidates: Iterable[Candidate]) -> None:
    """Make trusted spans the doc's entities, and the tokens of disputed ones missing
    annotation, which spaCy neither trains on nor scores.

    doc (Doc): The doc.
    candidates (Iterable[Candidate]): Candidates, on token boundaries.
    RAISES (ValueError): If a candidate is not on token boundaries.
    """
    trusted = []
    disputed: set[int] = set()
    for candidate in candidates:
        start, end, label, _, standing = candidate
        span = doc.char_span(start, end, label=label)
        if span is None:
            raise ValueError(f"{candidate} is not on token boundaries of '{doc.text}'")
        if standing is Standing.TRUSTED:
            trusted.append(span)
        else:
            disputed.update(range(span.start, span.end))
    for span in trusted:
        disputed.difference_update(range(span.start, span.end))
    missing = [doc[i : i + 1] for i in sorted(disputed)]
    doc.set_ents(trusted, missing=missing, default="outside")
