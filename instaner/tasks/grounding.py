"""Grounding: from the surface text of an answer to the tokens of a doc."""

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from spacy.tokens import Doc, Span

# Under this key of doc.user_data stand the readings of the answer about the doc.
READINGS = "instaner_readings"


class Status(str, Enum):
    """How a mention, or a line of an answer, was read."""

    NO_ENTITY = "no entity"  # the answer says so
    EXACT = "exact"
    NORMALISED = "normalised"  # equal but for case and white space
    NOT_IN_TEXT = "not in text"
    OFF_TOKEN = "off token"  # in the text, but it begins or ends inside a token
    OVERLAP = "overlap"  # all its occurrences are taken by earlier mentions
    UNKNOWN_LABEL = "unknown label"
    UNREADABLE = "unreadable"

    @property
    def is_loss(self) -> bool:
        """Whether something that was answered made no span."""
        return self not in (Status.NO_ENTITY, Status.EXACT, Status.NORMALISED)


class Mention(NamedTuple):
    """What an answer says is an entity, before it is found in the text."""

    text: str
    label: str


class Reading(NamedTuple):
    """What became of one mention, or of one line that could not be read.

    status (Status): How it was read.
    text (str): The surface, or the line.
    label (str): The label as answered, or "".
    """

    status: Status
    text: str
    label: str


def dump_readings(readings: Iterable[Reading]) -> list[tuple[str, str, str]]:
    """RETURNS (List[Tuple[str, str, str]]): Readings as user data spaCy can write."""
    return [(r.status.value, r.text, r.label) for r in readings]


def load_readings(doc: Doc) -> list[Reading] | None:
    """Get what became of the answer about a doc.

    doc (Doc): The doc.
    RETURNS (Optional[List[Reading]]): The readings, or None if the task that read the
        answer keeps none.
    """
    data = doc.user_data.get(READINGS)
    if data is None:
        return None
    return [Reading(Status(status), text, label) for status, text, label in data]


def ground(doc: Doc, mentions: Iterable[Mention]) -> tuple[list[Span], list[Reading]]:
    """Find mentions in a doc: each at its next free occurrence after the one before,
    else at an earlier free one, else where it is equal but for case and white space.

    doc (Doc): The doc.
    mentions (Iterable[Mention]): Mentions, in the order of the answer.
    RETURNS (Tuple[List[Span], List[Reading]]): Labelled spans that do not overlap, in
        the order of the text, and what became of each mention, in their own order.
    """
    spans: list[Span] = []
    readings: list[Reading] = []
    taken = bytearray(len(doc))
    cursor = 0
    for mention in mentions:
        span, status = _find(doc, mention, taken, cursor)
        if span is not None:
            cursor = span.end_char
            taken[span.start : span.end] = b"\1" * len(span)
            spans.append(span)
        readings.append(Reading(status, *mention))
    return sorted(spans), readings


def _find(
    doc: Doc, mention: Mention, taken: bytearray, cursor: int
) -> tuple[Span | None, Status]:
    found: set[Status] = set()
    for search in (_search_exact, _search_normalised):
        for begin, stop in ((cursor, len(doc.text)), (0, len(doc.text))):
            for start, end in search(doc.text, mention.text, begin, stop):
                span = doc.char_span(start, end, label=mention.label)
                if span is None:
                    found.add(Status.OFF_TOKEN)
                elif any(taken[span.start : span.end]):
                    found.add(Status.OVERLAP)
                elif search is _search_exact:
                    return span, Status.EXACT
                else:
                    return span, Status.NORMALISED
    for status in (Status.OVERLAP, Status.OFF_TOKEN):
        if status in found:
            return None, status
    return None, Status.NOT_IN_TEXT


def _search_exact(
    text: str, surface: str, begin: int, stop: int
) -> Iterator[tuple[int, int]]:
    start = text.find(surface, begin, stop) if surface else -1
    while start >= 0:
        yield start, start + len(surface)
        start = text.find(surface, start + 1, stop)


def _search_normalised(
    text: str, surface: str, begin: int, stop: int
) -> Iterator[tuple[int, int]]:
    words = [re.escape(word) for word in surface.split()]
    if words:
        pattern = re.compile(r"\s+".join(words), re.IGNORECASE)
        for match in pattern.finditer(text, begin, stop):
            yield match.span()
