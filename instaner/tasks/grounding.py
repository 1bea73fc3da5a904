"""Grounding: from the surface text of an answer to the tokens of a doc."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import cached_property, lru_cache
from itertools import chain, islice, pairwise, zip_longest
from typing import Any, NamedTuple

from rapidfuzz import fuzz, process
from spacy.tokens import Doc, Span

# Under this key of doc.user_data stand the readings of the answer about the doc.
READINGS = "instaner_readings"

_MIN_LETTERS, _MAX_LETTERS = 5, 100  # of a surface that may be spelt otherwise
_MIN_WORD = 80  # similarity of a word that is
_MAX_PLACES, _MAX_RANGES, _MAX_CHECKS = 64, 128, 8  # of a text, for one surface
_LONGEST_REASON = 500  # characters that are kept

# Of a character class: soft hyphen, zero-width characters, marks of direction,
# variation selectors.
_UNSEEN = (
    "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff"
    "\U000e0100-\U000e01ef"
)
# Vowels and final consonants of Hangul and the voicing of half-width kana join the
# letter before, as marks do.
_JOINING = "\u1160-\u11ff\ud7b0-\ud7fb\uff9e\uff9f"
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′´`ʼ‹›׳", "'"),
        **dict.fromkeys("“”„‟″«»״", '"'),
        **dict.fromkeys("‐‑‒–—―−־", "-"),
        **dict.fromkeys("İı", "i"),  # in the other case one cannot tell whose i it is
    }
)
# A character of Han or Hangul says as much as a short word.
_DENSE = "\u3005-\u3007\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_DENSE}]|[^ {_DENSE}]+")
_NUMBER = re.compile(r"\d+|\b[ivxlcdm]+\b")

_Range = tuple[int, int]
_Character = tuple[int, int, str]  # start and end in the text, and a form of it


class Status(str, Enum):
    """How a mention, or a line of an answer, was read."""

    NO_ENTITY = "no entity"  # the answer says so
    EXACT = "exact"
    NORMALISED = "normalised"  # equal after normalise
    FUZZY = "fuzzy"  # spelt otherwise
    NOT_IN_TEXT = "not in text"
    OFF_TOKEN = "off token"  # in the text, but it begins or ends inside a token
    OVERLAP = "overlap"  # all its occurrences are taken by earlier mentions
    UNKNOWN_LABEL = "unknown label"
    UNREADABLE = "unreadable"

    @property
    def is_loss(self) -> bool:
        """Whether something that was answered made no span."""
        made_span = self in (Status.EXACT, Status.NORMALISED, Status.FUZZY)
        return not made_span and self is not Status.NO_ENTITY


class Mention(NamedTuple):
    """What an answer says is an entity, before it is found in the text.

    text (str): The surface.
    label (str): The label.
    reason (str): Why, as far as the answer says so.
    """

    text: str
    label: str
    reason: str = ""


class Reading(NamedTuple):
    """What became of one mention, or of one line that could not be read.

    status (Status): How it was read.
    text (str): The surface, or the line.
    label (str): The label as answered, or "".
    start (int): Offset in the doc's text where the span that it made begins, or -1.
    end (int): Offset where that span ends, or -1.
    reason (str): Why, as far as the answer says so.
    """

    status: Status
    text: str
    label: str
    start: int = -1
    end: int = -1
    reason: str = ""


def shorten_reason(said: str) -> str:
    """RETURNS (str): A reason as it is kept: on one line, and not too long."""
    return " ".join(said.split())[:_LONGEST_REASON]


def dump_readings(readings: Iterable[Reading]) -> list[tuple[Any, ...]]:
    """RETURNS (List[Tuple[Any, ...]]): Readings as user data that spaCy can write."""
    return [(status.value, *rest) for status, *rest in readings]


def load_readings(doc: Doc) -> list[Reading] | None:
    """Get what became of the answer about a doc.

    doc (Doc): The doc. Readings that were written without offsets or reasons have
        none.
    RETURNS (Optional[List[Reading]]): The readings, or None if the task that read the
        answer keeps none.
    """
    data = doc.user_data.get(READINGS)
    if data is None:
        return None
    return [Reading(Status(status), *rest) for status, *rest in data]


def ground(
    doc: Doc, mentions: Iterable[Mention], *, fuzzy: float = 93
) -> tuple[list[Span], list[Reading]]:
    """Find mentions in a doc: each at its next free occurrence after the one before,
    else at any other; else, in the same order, where the text is equal after normalise;
    else, unless all of these are taken, where it is the same name spelt otherwise.

    The time is linear in the text and the answer, with two terms beside: a surface that
    does not come next costs a str.find over the text, and each distinct surface costs,
    once, its occurrences from the start of a token that cannot be had. Another spelling
    is looked for only where a surface's rarest trigrams are, in a few dozen places.

    doc (Doc): The doc.
    mentions (Iterable[Mention]): Mentions, in the order of the answer.
    fuzzy (float): How similar another spelling must be, from 0 to 100: rapidfuzz's
        ratio, of letters and digits without accents. 0 or 100: none is looked for. At
        93, one letter of 8 may be missing, or one of 15 be another: of 33 pairs that it
        took in four corpora, for names that a text lacks, 2 were two names (champion,
        campion), but most of those between 85 and 93. Numbers and short words may never
        differ, and no word may be a part of the other.
    RETURNS (Tuple[List[Span], List[Reading]]): Labelled spans that do not overlap, in
        the order of the text, and what became of each mention, in their own order.
    """
    finder = _Finder(doc, fuzzy)
    spans: list[Span] = []
    readings: list[Reading] = []
    for mention in mentions:
        surface, label, reason = mention
        status, tokens = finder.find(surface)
        reading = Reading(status, surface, label, reason=reason)
        if tokens is not None:
            span = Span(doc, *tokens, label=label)
            spans.append(span)
            reading = reading._replace(start=span.start_char, end=span.end_char)
        readings.append(reading)
    return sorted(spans, key=lambda span: span.start), readings


def normalise(text: str) -> str:
    """Bring text to the form in which surfaces are compared: without case, with one
    kind of space, quote and dash, and nothing unseen.

    NFKC and its Stream-Safe Text Format: Unicode Standard Annex #15.

    text (str): The text.
    RETURNS (str): Its normal form, without white space at the edges.
    """
    return "".join(char for _, _, char in _split_characters(text)).strip(" ")


def _split_characters(text: str) -> Iterator[_Character]:
    """Split text into what is normalised by itself: letters with their marks, and runs
    of white space."""
    for match in _get_character_pattern().finditer(text):
        yield match.start(), match.end(), _normalise_character(match[0])


@lru_cache(maxsize=1)
def _get_character_pattern() -> re.Pattern[str]:
    unseen = re.compile(f"[{_UNSEEN}]")
    marks = "".join(
        char
        for char in map(chr, range(0x300, 0x1F000))
        if unicodedata.category(char).startswith("M") and not unseen.match(char)
    )
    # At most 30 marks, as in the Stream-Safe Text Format: more take quadratic time.
    return re.compile(
        rf"\s(?:[\s{_UNSEEN}]*\s)?"
        rf"|[^{_UNSEEN}](?:[{_UNSEEN}]*[{_JOINING}{marks}]){{0,30}}"
    )


@lru_cache(maxsize=4096)
def _normalise_character(char: str) -> str:
    if char[0].isspace():
        return " "
    char = re.sub(f"[{_UNSEEN}]", "", char).translate(_PLAIN)
    char = unicodedata.normalize("NFKC", char).translate(_PLAIN).casefold()
    # A spacing accent comes apart into a space and a mark.
    return unicodedata.normalize("NFKC", char).replace("i\u0307", "i").lstrip(" ")


@lru_cache(maxsize=4096)
def _get_letters(text: str) -> str:
    """Drop from normal text what a writer may leave out: accents, punctuation and
    spaces."""
    return "".join(
        char
        for char in unicodedata.normalize("NFD", text)
        if unicodedata.category(char)[0] not in "PZ"
        and not "\u0300" <= char <= "\u036f"
    )


def _is_same_name(surface: str, text: str) -> bool:
    """Whether similar normal texts are two spellings of one name: with the same numbers
    and the same words, but for long ones that are similar. A word that is a part of the
    other is another word: Austria, Austrian."""
    if _NUMBER.findall(surface) != _NUMBER.findall(text):
        return False
    if _get_letters(surface) == _get_letters(text):
        return True
    words = (map(_get_letters, _WORD.findall(form)) for form in (surface, text))
    return all(
        a == b
        or (
            min(len(a), len(b)) >= _MIN_LETTERS
            and not (a in b or b in a)
            and fuzz.ratio(a, b) >= _MIN_WORD
        )
        for a, b in zip_longest(*(filter(None, w) for w in words), fillvalue="")
    )


class _Form:
    """A form of a text, and which occurrences of surfaces in it are lost.

    characters (Iterable[Tuple[int, int, str]]): Start, end and form of each character.
        None that is blank begins or ends a token, and none is cut by one.
    tokens (List[Tuple[int, int]]): Start and end of each token.
    taken (bytearray): For each token, whether it is taken. One more never is.
    """

    def __init__(
        self, characters: Iterable[_Character], tokens: list[_Range], taken: bytearray
    ) -> None:
        starts, ends, offsets, forms, length = [], [], [], [], 0
        for start, end, form in characters:
            if form.strip(" "):
                starts.append(start)
                ends.append(end)
                offsets.append((length, length + len(form)))
            forms.append(form)
            length += len(form)
        self._text = "".join(forms)
        self._starts: dict[int, int] = {}  # where a token begins → it, in order
        self._ends: dict[int, int] = {}  # where a token ends → the one after it
        for i, (start, end) in enumerate(tokens):
            first, last = bisect_left(starts, start), bisect_right(ends, end) - 1
            if first <= last:
                if first == 0 or ends[first - 1] <= start:
                    self._starts[offsets[first][0]] = i
                if last + 1 == len(starts) or starts[last + 1] >= end:
                    self._ends[offsets[last][1]] = i + 1
        self._start_offsets = [*self._starts, length]
        self._start_tokens = [*self._starts.values(), len(tokens)]
        self._end_offsets = [*self._ends]
        self._taken = taken
        # For each surface: an occurrence that cannot be had → where to look next.
        self._lost: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self._overlapping: set[str] = set()

    def find(self, surface: str, cursor: int) -> _Range | None:
        """Find a surface on free tokens, from a token on or else anywhere."""
        tokens = self._find(surface, cursor)
        return tokens if tokens or not cursor else self._find(surface, 0)

    def _find(self, surface: str, cursor: int) -> _Range | None:
        lost, passed, found = self._lost[surface], [], None
        offset = self._text.find(surface, self._get_offset(cursor))
        while offset >= 0:
            if offset not in lost:
                after = self._start_offsets[bisect_right(self._start_offsets, offset)]
                start = self._starts.get(offset, -1)
                end = self._ends.get(offset + len(surface), -1)
                if start >= 0 and end >= 0:
                    taken = self._taken.rfind(1, start, end)
                    if taken < 0:
                        found = start, end
                        break
                    self._overlapping.add(surface)
                    after = self._get_offset(self._taken.find(0, taken))
                lost[offset] = self._text.find(surface, after)
            passed.append(offset)
            offset = lost[offset]
        lost.update(dict.fromkeys(passed, offset))  # the next time, pass them at once
        return found

    def _get_offset(self, token: int) -> int:
        """Get where the first token from one on begins."""
        return self._start_offsets[bisect_left(self._start_tokens, token)]

    def get_loss(self, surface: str) -> Status:
        """Say why a surface was not found."""
        if surface in self._overlapping:
            return Status.OVERLAP
        return Status.OFF_TOKEN if self._lost[surface] else Status.NOT_IN_TEXT

    def find_similar(self, surface: str, cursor: int, fuzzy: float) -> list[_Range]:
        """Find free tokens that are like a surface: the most like, then the next from a
        token on first."""
        ranges = islice(self._iter_ranges(surface, cursor, fuzzy), _MAX_RANGES)
        windows = {(self._starts[s], self._ends[e]): self._text[s:e] for s, e in ranges}
        similar = process.extract(
            surface, windows, scorer=fuzz.ratio, score_cutoff=fuzzy, limit=None
        )
        similar.sort(key=lambda row: (-row[1], row[2][0] < cursor, row[2]))
        return [tokens for *_, tokens in similar if self._taken.find(1, *tokens) < 0]

    def _iter_ranges(self, surface: str, cursor: int, fuzzy: float) -> Iterator[_Range]:
        """Pair starts and ends of tokens about as far apart as a surface is long."""
        length = len(surface)
        reach = min(length, int(2 * length * (100 - fuzzy) / fuzzy))
        places = islice(self._iter_places(surface, cursor), _MAX_PLACES)
        for place in dict.fromkeys(places):
            for start in _cut(self._start_offsets, place - reach, place + reach):
                low = max(place + length - reach, start + 1)
                for end in _cut(self._end_offsets, low, place + length + reach):
                    yield start, end

    def _iter_places(self, surface: str, cursor: int) -> Iterator[int]:
        """Tell where a surface would begin by each of its trigrams, the rarest first,
        and of each those from a token on first."""
        trigrams = [
            (self._trigrams.get(surface[i : i + 3], []), i)
            for i in range(len(surface) - 2)
        ]
        for offsets, i in sorted(trigrams, key=lambda trigram: len(trigram[0])):
            ahead = bisect_left(offsets, self._get_offset(cursor))
            for offset in offsets[ahead : ahead + _MAX_PLACES] + offsets[:_MAX_PLACES]:
                yield offset - i

    @cached_property
    def _trigrams(self) -> dict[str, list[int]]:
        trigrams = defaultdict(list)
        for i in range(len(self._text) - 2):
            trigrams[self._text[i : i + 3]].append(i)
        return dict(trigrams)


def _cut(numbers: list[int], low: int, high: int) -> list[int]:
    return numbers[bisect_left(numbers, low) : bisect_right(numbers, high)]


class _Finder:
    """Finds the surfaces of one answer in a doc, one after the other."""

    def __init__(self, doc: Doc, fuzzy: float) -> None:
        self._doc, self._text = doc, doc.text
        self._fuzzy = fuzzy
        self._tokens = [(token.idx, token.idx + len(token)) for token in doc]
        self._taken = bytearray(len(doc) + 1)
        self._cursor = 0

    @cached_property
    def _plain(self) -> _Form:
        edges = [0, *chain.from_iterable(self._tokens)]
        parts = ((start, end, self._text[start:end]) for start, end in pairwise(edges))
        return _Form(parts, self._tokens, self._taken)

    @cached_property
    def _normal(self) -> _Form:
        return _Form(_split_characters(self._text), self._tokens, self._taken)

    @cached_property
    def _letters(self) -> _Form:
        characters = _split_characters(self._text)
        letters = ((start, end, _get_letters(char)) for start, end, char in characters)
        return _Form(letters, self._tokens, self._taken)

    def find(self, surface: str) -> tuple[Status, _Range | None]:
        """Find a surface, and take its tokens."""
        form = normalise(surface)
        if not form:
            return Status.NOT_IN_TEXT, None
        # White space at an edge is no part of a name.
        if surface == surface.strip():
            if tokens := self._plain.find(surface, self._cursor):
                return Status.EXACT, self._take(tokens)
        if tokens := self._normal.find(form, self._cursor):
            return Status.NORMALISED, self._take(tokens)
        losses = self._plain.get_loss(surface), self._normal.get_loss(form)
        if Status.OVERLAP in losses:
            return Status.OVERLAP, None
        if tokens := self._find_spelt_otherwise(form):
            return Status.FUZZY, self._take(tokens)
        return max(losses, key=[Status.NOT_IN_TEXT, Status.OFF_TOKEN].index), None

    def _take(self, tokens: _Range) -> _Range:
        start, self._cursor = tokens
        self._taken[start : self._cursor] = b"\1" * (self._cursor - start)
        return tokens

    def _find_spelt_otherwise(self, form: str) -> _Range | None:
        letters = _get_letters(form)
        if not (0 < self._fuzzy < 100 and _MIN_LETTERS <= len(letters) <= _MAX_LETTERS):
            return None
        similar = self._letters.find_similar(letters, self._cursor, self._fuzzy)
        for start, end in similar[:_MAX_CHECKS]:
            if _is_same_name(form, self._normalise(start, end)):
                return self._widen(form, start, end)
        return None

    def _widen(self, form: str, start: int, end: int) -> _Range:
        """Take in punctuation beside tokens, if that is more like a surface."""
        windows = [
            (first, last)
            for first in range(start, max(start - 2, -1), -1)
            for last in range(end, min(end + 2, len(self._tokens) + 1))
            if self._taken.find(1, first, last) < 0
            and not _get_letters(self._normalise(first, start))
            and not _get_letters(self._normalise(end, last))
        ]
        return max(windows, key=lambda w: fuzz.ratio(form, self._normalise(*w)))

    def _normalise(self, start: int, end: int) -> str:
        return normalise(self._doc[start:end].text)
