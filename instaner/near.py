"""Finding texts that are, or nearly are, another."""

import re
import unicodedata
from array import array
from collections import defaultdict
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

NEAR = 0.6  # Jaccard index of shingles from which a text is nearly another

_SHINGLE = 5  # characters
_BANDS, _ROWS = 32, 4  # finds 0.988 of the texts at 0.6, and all but 1e-5 at 0.75
_BITS = 1024  # of a text's parity bits
_NO_CHARACTER = 0x110000  # fills up a shorter text: the first number that is none
_MOST = 4096  # shingles hashed at a time

_WORD = re.compile(r"\w+")

_random = np.random.RandomState(0)  # whose numbers are the same for ever
_POWERS, _FACTORS, _KEYS = (
    _random.randint(2**63, size=size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    for size in (_SHINGLE, _BANDS * _ROWS, (_BANDS, _ROWS))
)


class _Sketch(NamedTuple):
    shingles: np.ndarray  # 64-bit fingerprints, none twice
    bits: np.ndarray  # for each of _BITS, whether it has an odd number of shingles
    buckets: list[int]  # of each band


class NearFinder:
    """Finds the text that another is, or nearly is: the Jaccard index of their sets of
    5-character shingles, punctuation and case aside, is 0.6 or more (Broder 1997, On
    the resemblance and containment of documents). Candidates share a band of MinHashes
    (Leskovec, Rajaraman, Ullman 2014, Mining of Massive Datasets, chapter 3). Parity
    bits, which bound what two sets can share, sort most out (Sandes, Teodoro, Melo
    2020, Bitmap filter); the index of the others is computed.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._shingles: list[np.ndarray] = []
        self._bits = np.zeros((64, _BITS // 64), np.uint64)
        self._sizes = np.zeros(64, np.int64)
        self._index: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))

    def add(self, text_id: str, text: str) -> None:
        """Add a text to find.

        text_id (str): What stands for it.
        text (str): The text.
        """
        sketch = _make_sketch(text)
        row = len(self._ids)
        if row == len(self._bits):
            self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
            self._sizes = np.concatenate([self._sizes, np.zeros_like(self._sizes)])
        self._ids.append(text_id)
        self._shingles.append(sketch.shingles)
        self._bits[row] = sketch.bits
        self._sizes[row] = len(sketch.shingles)
        for bucket in sketch.buckets:
            self._index[bucket].append(row)

    def find(self, text: str) -> str | None:
        """Find the nearest of the texts that were added.

        text (str): The text.
        RETURNS (Optional[str]): The id of the text that it is, or nearly is.
        """
        shingles, bits, buckets = _make_sketch(text)
        found = b"".join(self._index[key] for key in buckets if key in self._index)
        if not found:
            return None
        is_candidate = np.zeros(len(self._ids), bool)
        is_candidate[np.frombuffer(found, np.uintc)] = True
        rows = np.flatnonzero(is_candidate)
        both = self._sizes[rows] + len(shingles)
        odd = np.bitwise_count(self._bits.take(rows, axis=0) ^ bits)
        unlike = odd.sum(axis=1, dtype=np.int64)  # shingles of one alone, or fewer
        is_left = (both - unlike) / (both + unlike) >= NEAR
        rows, both = rows[is_left], both[is_left]
        if not len(rows):
            return None
        others = [self._shingles[row] for row in rows]
        joined = np.concatenate(others)
        places = np.searchsorted(shingles[:-1], joined)
        starts = np.cumsum([0, *map(len, others[:-1])])
        shared = np.add.reduceat(shingles[places] == joined, starts, dtype=np.int64)
        nearness = shared / (both - shared)
        best = int(nearness.argmax())
        return self._ids[rows[best]] if nearness[best] >= NEAR else None


def normalise(text: str) -> str:
    """RETURNS (str): A text without case and punctuation, if it has anything else."""
    folded = unicodedata.normalize("NFC", text.casefold())
    # Vowel signs and accents are of the word, but no letters to Python.
    pattern = _WORD if folded.isascii() else _make_marked_word()
    return " ".join(pattern.findall(folded)) or text


@cache
def _make_marked_word() -> re.Pattern[str]:
    # Of the basic plane: more would make it slow.
    marks = (chr(i) for i in range(0x10000) if unicodedata.category(chr(i))[0] == "M")
    return re.compile(rf"\w+(?:[{''.join(marks)}]+\w*)*")


@lru_cache(maxsize=1)  # a text is sought, then added
def _make_sketch(text: str) -> _Sketch:
    characters = np.frombuffer(
        normalise(text).encode("utf-32-le", "surrogatepass"), "<u4"
    ).astype(np.uint64)
    if len(characters) < _SHINGLE:
        characters = np.pad(
            characters, (0, _SHINGLE - len(characters)), constant_values=_NO_CHARACTER
        )
    mixed = np.convolve(characters, _POWERS, "valid")
    mixed ^= mixed >> np.uint64(32)
    shingles = np.unique(mixed)
    places = (shingles % np.uint64(_BITS)).astype(np.intp)
    odd = np.bincount(places, minlength=_BITS) & 1
    bits = np.packbits(odd.astype(bool)).view(np.uint64)
    smallest = np.min(
        [
            (shingles[i : i + _MOST, None] * _FACTORS).min(axis=0)
            for i in range(0, len(shingles), _MOST)
        ],
        axis=0,
    )
    keys = (smallest.reshape(_BANDS, _ROWS) * _KEYS).sum(axis=1, dtype=np.uint64)
    return _Sketch(shingles, bits, (keys >> np.uint64(44)).tolist())
