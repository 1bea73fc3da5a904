"""Marks: from what a model wrote to texts with their entities.

A model is asked for numbered texts, one a line, in which entities are marked as
[surface](LABEL). However the texts are numbered, wrapped or laid out, they are read. A
mark that is written otherwise is mended where it is certain where its surface begins
and ends, and which label it has. If it is not, the whole text is left out, as a text
with an entity of unknown extent teaches what is wrong, and counted.
"""

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any, NamedTuple

from .grounding import Reading, Status
from .judge import Judge, lose
from .loose_json import TEXT_FIELDS, parse_loosely
from .ner import make_ner_task
from .reading import _REMARK, _THINKING, drop_thoughts

_DEEPEST = 20  # marks in marks
_MOST_ON_A_LINE = 50  # texts
_OPEN, _CLOSE = r"\[［【", r"\]］】"
_ANY_OPEN, _ANY_CLOSE = rf"{_OPEN}(（{{｛", rf"{_CLOSE})）}}｝"
_NO_BRACKET = rf"[^\\\n{_ANY_OPEN}{_ANY_CLOSE}]"
_BRACKET = re.compile(
    rf"(?P<bold>\*{{1,3}}|_{{1,3}}|`)?\\?(?P<open>[{_OPEN}])|\\?(?P<close>[{_CLOSE}])|"
    r"\\?(?P<paren>[(（])"
)
# What follows the bracket after a surface: a label, and maybe a remark.
_TARGET = re.compile(
    rf"(?P<gap>[ \t\u00a0\u3000]{{0,2}}(?P<bold>[*_`]{{0,3}})[ ]?)\\?[{_ANY_OPEN}]"
    rf"(?P<said>{_NO_BRACKET}{{0,200}}(?:\({_NO_BRACKET}{{0,100}}\){_NO_BRACKET}{{0,100}})?)"
    rf"\\?(?P<end>[{_ANY_CLOSE}])"
)
_BOLD = re.compile(r"\s*(?P<bold>\*{1,3}|_{1,3}|`)(?P<text>[^*_`]+)(?P=bold)\s*")
_SIGN = re.compile(r"[:：|,，、;；=]|\s[-–—]\s")  # between a label and a remark
_LINK = re.compile(
    r"\s*(?:[a-z][\w+.-]*://|mailto:|tel:|www\.|[/#?]|\.{1,2}/|[\w-]+(?:\.[\w-]+)+)",
    re.IGNORECASE,
)

_FENCE = re.compile(r"\s*(?:(?:```|~~~)\s*\w*|</?\w+>|(?:[-*_=]\s?){3,})\s*")
_HEADING = re.compile(r"\s*(?:#|\*\*[^*]*\*\*:?\s*$)")
_DIGITS = "⓪①-⑳⑴-⒛㉑-㉟㊱-㊿❶-❿➀-➓"
_NUMBER = re.compile(
    r"\s*(?:[-*•‣▪·–—+>]\s+)?(?P<bold>[*_]{0,3})(?:#{2,6}\s*)?"
    r"(?P<word>(?:[^\W\d_]{2,20}\.?\s*)?#?)"
    rf"(?:(?P<sign>[{_DIGITS}]|\d\ufe0f?\u20e3)[.):]?|"
    r"(?P<open>[(（\[［【])?(?P<number>\d{1,4}|(?P<letter>(?<!\w)[a-zA-Z](?=[.)）])(?!\.\w\.)))"
    r"(?:[*_]{0,3}(?P<end>\s?\\?[.:．：。、)）\]］】/°º]+|\s*[-–—](?=\s)|(?=\s*$))|"
    r"(?=\s))(?!\d))(?P<shut>[*_]{1,3}(?=\s|$))?\s*"
)
_BULLET = re.compile(r"\s*[-*•‣▪·–—+>]\s+(?=\S)")
# At the end of an answer: of a mark, the label may be missing.
_CUT = re.compile(rf"[{_OPEN}][^{_OPEN}{_CLOSE}]+[{_CLOSE}]\s*$")
_SENTENCE_END = re.compile(r"[.!?…。！？)）\"”»*]\s+")
_JSON = re.compile(r"^[ \t]*(?=\[\s*[\"'{]|\{\s*[\"'\w])", re.MULTILINE)
_TEXT_FIELDS = (*TEXT_FIELDS, "sentence", "content", "post", "message", "body")


class MarkedText(NamedTuple):
    """A generated text without its marks.

    text (str): The text.
    spans (List[Tuple[int, int, str]]): Start and end character and label.
    """

    text: str
    spans: list[tuple[int, int, str]]


class _Mark(NamedTuple):
    """A mark in a line.

    cuts (Tuple[Tuple[int, int], ...]): What does not belong to the text, in order.
    begin (int): Where the surface begins.
    end (int): Where it ends.
    said (str): The label as it was given.
    label (Optional[str]): The label, if it is known.
    """

    cuts: tuple[tuple[int, int], ...]
    begin: int
    end: int
    said: str
    label: str | None


class _Item(NamedTuple):
    """A line that begins a text.

    style (Tuple[str, ...]): How it is numbered; "" in it stands for nothing.
    number (int): Its number, or -1.
    sign (str): The number as it was written, with what is round it.
    text (str): What follows.
    """

    style: tuple[str, ...]
    number: int
    sign: str
    text: str

    @property
    def is_plain(self) -> bool:
        """Whether the number is one, and stands there without a word."""
        return self.style[:2] == ("number", "")


def read_marks(line: str, labels: Iterable[str]) -> tuple[MarkedText, list[Reading]]:
    """Take the marks [surface](LABEL) out of a text.

    Read, too, are: a label in another case, with a remark, in other brackets, or after
    a space; label and surface swapped; brackets that are escaped, full-width or, if it
    is certain what they hold, not closed. Of marks in a mark, the outer one counts.
    Links, and brackets without a label, are part of the text.

    labels (Iterable[str]): Known labels.
    line (str): Text with marks.
    RETURNS (Tuple[MarkedText, List[Reading]]): The text, and what became of each mark.
        A mark with an unknown label leaves its surface as plain text. A text with a
        mark that cannot be read is returned as it is, with one reading: unreadable.
    """
    return _make_reader(tuple(labels)).read_marks(line)


def read_texts(
    answer: str, labels: Iterable[str], *, has_marks: bool = True
) -> tuple[list[MarkedText], list[Reading]]:
    """Read an answer to the generation prompt: numbered texts with marks, one a line.

    Any numbers, letters, bullets or JSON do. Lines without a number continue the text
    before, after a line break, unless they are as many as the numbers that are missing.
    If nothing is numbered and there are marks, each line is a text.

    answer (str): The answer.
    labels (Iterable[str]): Known labels.
    has_marks (bool): Whether marks were asked for. If not, brackets are part of a text,
        and a text that names a label in them, or before a colon, is left out.
    RETURNS (Tuple[List[MarkedText], List[Reading]]): The texts, and what became of each
        mark, and of each text that was left out. Wrapping without marks, such as "Here
        they are:", counts as nothing, if there are texts.
    """
    reader = _make_reader(tuple(labels), has_marks)
    said = drop_thoughts(answer)
    texts = []
    readings = []
    if not _THINKING.match(said):  # else it was cut off before it answered
        for piece in reader.split_json(said) or reader.split(said):
            if isinstance(piece, Reading):
                readings.append(piece)
                continue
            text, marks = reader.read_marks(reader.clean(piece))
            readings.extend(marks)
            if text.text and all(r.status is not Status.UNREADABLE for r in marks):
                texts.append(text)
    if not texts and not readings:
        readings.append(lose(next(iter(answer.strip().splitlines()), "")))
    return texts, readings


@lru_cache(maxsize=8)
def _make_reader(labels: tuple[str, ...], has_marks: bool = True) -> "_Reader":
    return _Reader(labels) if has_marks else _PlainReader(labels)


class _Reader(Judge):
    """Reads texts with marks of known labels."""

    cut = _CUT

    def __init__(self, labels: tuple[str, ...]) -> None:
        super().__init__(make_ner_task(list(labels)), "")
        self._known = set(labels)
        folded = Counter(map(self.fold, self._known))
        self.labels = {
            self.fold(label): label if folded[self.fold(label)] == 1 else None
            for label in labels
        }
        names = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
        closing = rf"\s*\\?[{_ANY_CLOSE}](?:\s*\\?[{_CLOSE}])?"
        self._label = re.compile(rf"\s*(?P<said>{names})(?!\w)")
        self._bare = re.compile(rf"\\?[(（]\s*(?P<said>{names}){closing}")
        self._unclosed = re.compile(
            rf"[(（]\s*(?P<said>{names})(?!\w)(?=(?:(?!\n){_NO_BRACKET})*(?:[\[［\n]|$))"
        )
        # In brackets, with other words, a label that is a word may be one of the text.
        words = "|".join(map(re.escape, filter(_is_word, labels))) or r"(?!)"
        self._left = re.compile(
            rf"(?<![\]］])(?<![\]］]\s)(?P<words>[(（](?:(?:{words})(?=\s+\w){_NO_BRACKET}*|"
            rf"{_NO_BRACKET}*\w,?\s+(?:{words}))[)）])|"
            rf"[{_ANY_OPEN}<]\s{{0,3}}/?(?:{names})(?!\w)|"
            rf"(?<!\w)(?:{names})\s{{0,3}}\\?[{_ANY_CLOSE}>]"
        )
        self._hint = re.compile(rf"[{_OPEN}{_CLOSE}]|(?<!\w)(?:{names})(?!\w)")

    def find_label(self, said: str) -> str | None:
        """RETURNS (Optional[str]): The label that is meant, if it is one."""
        said = unicodedata.normalize("NFC", said.strip())
        if said in self._known:
            return said
        if label := self.labels.get(self.fold(said)):
            return label
        found = {self.labels.get(self.fold(part)) for part in _SIGN.split(said)}
        found.discard(None)
        return found.pop() if len(found) == 1 else None

    def read_marks(self, line: str) -> tuple[MarkedText, list[Reading]]:
        """Take the marks out of a text; see read_marks."""
        marks = self._find_marks(line)
        found = None if marks is None else self._take_out(line, marks)
        return found or (MarkedText(line, []), [lose(line)])

    def _find_marks(self, line: str) -> list[_Mark] | None:
        """RETURNS (Optional[List[_Mark]]): Marks by where they begin; None if it is not
        certain which they are."""
        marks: list[_Mark] = []
        opened: list[re.Match[str]] = []
        last = None
        position = 0
        while bracket := _BRACKET.search(line, position):
            position = bracket.end()
            mark = None
            if bracket["paren"]:
                bare = self._bare.match(line, bracket.start())
                if not (bare and opened):
                    continue
                begin = opened.pop()
                surface = line[begin.end() : bare.start()]
                if last is not begin or re.search(r"[()（）]", surface):
                    return None
                mark = _make_mark(line, begin, bare.start(), bare.end(), bare["said"])
                mark = mark._replace(label=bare["said"])
            elif bracket["open"]:
                opened.append(bracket)
                if len(opened) > _DEEPEST:
                    return None
            elif not opened:
                return None
            else:
                target = _TARGET.match(line, position)
                is_broken, mark = self._read_target(line, opened.pop(), bracket, target)
                if is_broken:
                    return None
            last = bracket
            if mark:
                marks.append(mark)
                position = mark.cuts[-1][1]
        return None if opened else sorted(marks)

    def _read_target(
        self,
        line: str,
        begin: re.Match[str],
        end: re.Match[str],
        target: re.Match[str] | None,
    ) -> tuple[bool, _Mark | None]:
        """Read what follows the bracket after a surface.

        RETURNS (Tuple[bool, Optional[_Mark]]): Whether it is broken, and the mark.
        """
        follows = line[end.end() : end.end() + 1]
        if target:
            said = target["said"]
            label = self.find_label(said)
            is_near = not target["gap"] or follows in "(（" or target["end"] in ")）"
            if label and (is_near or said.strip() in self._known):
                gap = target["bold"]
                mark = _make_mark(line, begin, end.start(), target.end(), said, gap)
                return False, mark._replace(label=label)
        if follows not in ("(", "（") or _LINK.match(line, end.end() + 1):
            return False, None
        surface = line[begin.end() : end.start()].strip()
        if target is None:
            # The label may be cut off.
            unclosed = self._unclosed.match(line, end.end())
            if unclosed is None:
                return True, None
            label, stop = unclosed["said"], unclosed.end()
            longer = (name for name in self._known if name.startswith(label))
            if stop == len(line) and sum(1 for _ in longer) > 1:
                return True, None
            mark = _make_mark(line, begin, end.start(), stop, label)
            return False, mark._replace(label=label)
        if target["end"] not in ")）" or self._label.match(said):
            return True, None
        if surface in self._known and said.strip():
            cuts = (begin.start("open"), target.start("said")), target.span("end")
            return False, _Mark(cuts, *target.span("said"), surface, surface)
        if not surface:
            return False, None
        return False, _make_mark(line, begin, end.start(), target.end(), said)

    def _take_out(
        self, line: str, marks: list[_Mark]
    ) -> tuple[MarkedText, list[Reading]] | None:
        """RETURNS (Optional[Tuple[MarkedText, List[Reading]]]): As read_marks; None if
        a surface is none, or something is left of a mark."""
        text, move = _cut_out(line, sorted(chain(*(mark.cuts for mark in marks))))
        spans: list[tuple[int, int, str]] = []
        readings = []
        for mark in marks:
            start, end = move(mark.begin), move(mark.end)
            surface = text[start:end].strip()
            start += text[start:end].find(surface)
            end = start + len(surface)
            if not mark.label:
                said = mark.said.strip()
                readings.append(Reading(Status.UNKNOWN_LABEL, surface, said))
                continue
            if not surface or re.search(r"[\]］][(（]|\n", surface):
                return None
            if not _is_balanced(surface):
                return None
            if spans and start < spans[-1][1]:
                readings.append(Reading(Status.OVERLAP, surface, mark.said.strip()))
                continue
            spans.append((start, end, mark.label))
            readings.append(Reading(Status.EXACT, surface, mark.label))
        if any(not left["words"] for left in self._left.finditer(text)):
            return None
        text = text.rstrip() if marks else text
        return MarkedText(text, spans), readings

    def split(self, said: str) -> Iterator[str | Reading]:
        """Split an answer into texts, with their marks.

        said (str): The answer.
        YIELDS (Union[str, Reading]): Texts, and lines that cannot be one, in order.
        """
        lines = [ln for ln in said.splitlines() if not _FENCE.fullmatch(ln)]
        while lines and not lines[-1].strip():
            lines.pop()
        items = _find_items(lines)
        if not items:
            yield from self._split_unnumbered(lines)
            return
        places = list(items)
        first = items[places[0]].number
        before = [line for line in lines[: places[0]] if self._has_marks(line)]
        is_missing = len(before) == first - 1  # texts that have lost their number
        yield from (self.clean(ln) if is_missing else lose(ln) for ln in before)
        has_more = False
        for place, stop in pairwise([*places, len(lines)]):
            item, following = items[place], items.get(stop)
            more = lines[place + 1 : stop]
            lost: list[str] = []
            if following is None:
                more, lost = self._split_end(more, is_text=has_more or not item.text)
            more = [ln for ln in more if ln.strip() and not _HEADING.match(ln)]
            has_more |= bool(more)
            if following and more and len(more) == following.number - item.number - 1:
                texts = [item.text, *more]
            elif more:
                texts = ["\n".join(ln.strip() for ln in (item.text, *more))]
            else:
                texts = _split_item(item, following)
            yield from filter(None, map(self.clean, texts[:-1]))
            is_cut = following is None and self.cut.search(texts[-1])
            if text := self.clean(texts[-1]):
                yield lose(text) if is_cut else text
            yield from map(lose, lost)

    def _split_end(
        self, lines: list[str], *, is_text: bool
    ) -> tuple[list[str], list[str]]:
        """RETURNS (Tuple[List[str], List[str]]): What, of the lines after the last
        number, belongs to its text, and what is lost. The rest is a remark."""
        while lines and is_text and not lines[0].strip():
            lines = lines[1:]
        near = next((i for i, ln in enumerate(lines) if not ln.strip()), len(lines))
        near = near or sum(map(self._has_marks, lines[:1]))
        lost = [line for line in lines[near:] if self._has_marks(line)]
        if is_text or any(map(self._has_marks, lines[:near])):
            return lines[:near], lost
        return [], [ln for ln in lines[:near] if not _REMARK.match(ln.strip())] + lost

    def _split_unnumbered(self, lines: list[str]) -> Iterator[str | Reading]:
        """Split into lines, without a remark before and after. Without a mark, they are
        no texts: the model refuses, or asks back."""
        blocks = [
            block.splitlines() for block in re.split(r"\n\s*\n", "\n".join(lines))
        ]
        blocks = [[ln for ln in block if ln.strip()] for block in blocks]
        blocks = [block for block in blocks if block]
        if not any(self.read_marks(line)[0].spans for line in lines):
            yield from (lose(line) for block in blocks for line in block)
            return
        if any(len(block) > 1 for block in blocks):
            for i in (0, -1):
                if len(blocks[i]) == 1 and not self._has_marks(blocks[i][0]):
                    blocks.pop(i)
        texts = [line for block in blocks for line in block]
        for i in (0, -1):
            text = texts[i].strip(" \t*_")
            is_remark = _REMARK.match(text) or text.endswith((":", "："))
            if is_remark and not self._has_marks(text):
                texts.pop(i)
        yield from map(self.clean, texts[:-1])
        yield lose(texts[-1]) if self.cut.search(texts[-1]) else self.clean(texts[-1])

    def _has_marks(self, line: str) -> bool:
        return bool(self._hint.search(line))

    def _lacks_marks(self, line: str) -> bool:
        return not self._has_marks(line)

    def split_json(self, said: str) -> list[str | Reading]:
        """RETURNS (List[Union[str, Reading]]): The texts in JSON, and what is lost;
        nothing, if there is none."""
        pieces: list[str | Reading] = []
        position = 0
        while opening := _JSON.search(said, position):
            begin = opening.end()
            value, stop, is_whole = parse_loosely(said, begin, self.find_label)
            rest = said[stop:].split("\n", 1)[0]
            if is_whole and rest.strip(" \t\r,;`"):
                break
            found = list(self._find_texts(value))
            if not found:
                break
            before = said[position:begin].splitlines()
            pieces += [lose(line) for line in before if self._has_marks(line)]
            pieces += found
            position = stop
            if not is_whole:
                pieces += [lose(said[stop:])] if re.search(r"\w", said[stop:]) else []
                return pieces
        if pieces:
            after = said[position:].splitlines()
            pieces += [lose(line) for line in after if self._has_marks(line)]
        return pieces

    def _find_texts(self, value: Any) -> Iterator[str | Reading]:
        """Find texts in what parse_loosely gave."""
        if isinstance(value, str):
            item = _parse_item(value) if _NUMBER.match(value) else None
            text = item.text if item and item.style[-1] else value
            lines = (self.clean(line) for line in text.splitlines())
            if text := self.clean("\n".join(filter(None, lines))):
                yield text
            return
        if isinstance(value, tuple):
            fields = {key.strip().lower(): said for key, said in value}
            names = (n for n in _TEXT_FIELDS if isinstance(fields.get(n), str))
            if name := next(names, ""):
                has_list = any(isinstance(v, list) and v for v in fields.values())
                is_lost = has_list and self._lacks_marks(fields[name])
                yield from map(lose, [fields[name]]) if is_lost else [fields[name]]
                return
            value = list(fields.values())
        for part in value if isinstance(value, list) else ():
            if not (isinstance(part, str) and part.strip().isdecimal()):
                yield from self._find_texts(part)


class _PlainReader(_Reader):
    """Reads texts in which nothing is marked."""

    cut = re.compile(r"(?!)")

    def __init__(self, labels: tuple[str, ...]) -> None:
        super().__init__(labels)
        names = "|".join(re.escape(la) for la in labels if not _is_word(la)) or r"(?!)"
        self._named = re.compile(rf"\W*(?:{names})\W{{0,3}}[:：]")

    def read_marks(self, line: str) -> tuple[MarkedText, list[Reading]]:
        left = (found["words"] for found in self._left.finditer(line))
        if self._named.match(line) or not all(left):
            return MarkedText(line, []), [lose(line)]
        return MarkedText(line, []), []

    def _has_marks(self, line: str) -> bool:
        return False

    def _lacks_marks(self, line: str) -> bool:
        return False


def _is_word(label: str) -> bool:
    return label != label.upper()


def _make_mark(
    line: str, begin: re.Match[str], end: int, stop: int, said: str, bold: str = ""
) -> _Mark:
    """Make a mark of a surface in brackets, with what makes it bold.

    line (str): The line.
    begin (re.Match): The opening bracket.
    end (int): Where the surface ends.
    stop (int): Where the mark ends.
    said (str): The label as it was given.
    bold (str): What stands between the surface's bracket and the label's.
    RETURNS (_Mark): The mark, as yet of no known label.
    """
    before = begin["bold"] or ""
    start = begin.start()
    if before != bold:
        if line.startswith(before or bold, stop):
            stop += len(before or bold)
        else:
            start += len(before)
    cuts = [(start, begin.end()), (end, stop)]
    if inner := _BOLD.fullmatch(line, begin.end(), end):
        width = len(inner["bold"])
        for edge in (inner.start("text") - width, inner.end("text")):
            cuts.append((edge, edge + width))
    return _Mark(tuple(sorted(cuts)), begin.end(), end, said, None)


def _cut_out(
    line: str, cuts: list[tuple[int, int]]
) -> tuple[str, Callable[[int], int]]:
    """Cut parts out of a line, and of the space on both sides of a cut, one.

    line (str): The line.
    cuts (List[Tuple[int, int]]): Where the parts begin and end, in order.
    RETURNS (Tuple[str, Callable[[int], int]]): What is left, and a function that tells
        where in it an offset in the line is.
    """
    text: list[str] = []
    begins, offsets = [0], [0]
    length = position = 0
    is_space = False
    for start, end in [*cuts, (len(line), len(line))]:
        piece = line[position:start]
        if position and (is_space or not length):
            piece = piece.lstrip()
        if piece:
            begins.append(start - len(piece))
            offsets.append(length)
            text.append(piece)
            length += len(piece)
            is_space = piece[-1].isspace()
        begins.append(start)
        offsets.append(length)
        position = max(position, end)

    def move(offset: int) -> int:
        i = bisect_right(begins, offset) - 1
        after = offsets[i + 1] if i + 1 < len(offsets) else length
        return min(offsets[i] + offset - begins[i], after)

    return "".join(text), move


def _is_balanced(surface: str) -> bool:
    depth = 0
    for bracket in re.findall(r"[()（）]", surface):
        depth += 1 if bracket in "(（" else -1
        if depth < 0:
            return False
    return depth == 0


def _parse_item(line: str) -> _Item | None:
    """RETURNS (Optional[_Item]): The line, if it may begin a text."""
    match = _NUMBER.match(line)
    if match and not (match["open"] in ("[", "［") and line[match.end() :][:1] == "("):
        word = match["word"].strip().lower()
        sign = match[0].strip()
        text = line[match.end() :].strip()
        bold = match["bold"]
        if bold and not sign.endswith(bold) and text.endswith(bold):  # round it all
            text = bold + text
        if match["sign"]:
            number = int(unicodedata.numeric(match["sign"][0]))
            return _Item(("number", word, "", "sign"), number, sign, text)
        style = (word, match["open"] or "", (match["end"] or "").strip()[:1])
        if match["letter"]:
            number = ord(match["letter"].lower()) - ord("a") + 1
            return _Item(("letter", *style), number, sign, text)
        is_sure = match["end"] is not None or word.endswith("#")
        if is_sure or not word:
            style = (*style[:2], style[2] or ("$" if is_sure else ""))
            return _Item(("number", *style), int(match["number"]), sign, text)
    if match := _BULLET.match(line):
        return _Item(("bullet", ""), -1, match[0].strip(), line[match.end() :].strip())
    return None


def _find_items(lines: list[str]) -> dict[int, _Item]:
    """RETURNS (Dict[int, _Item]): The lines that begin a text; none if they do not
    make up a list."""
    parsed = {i: item for i, ln in enumerate(lines) if (item := _parse_item(ln))}
    total = sum(1 for line in lines if line.strip())
    for kind in ("number", "letter", "bullet"):
        styles = Counter(
            item.style for item in parsed.values() if item.style[0] == kind
        )
        # A number alone may begin any text.
        common = sorted(styles, key=lambda style: (not style[-1], -styles[style]))
        for style in common[:2]:
            items = _choose_items(parsed, style)
            places = list(items)
            numbers = [item.number for item in items.values()]
            is_row = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            has_marks = any("](" in line for line in lines[: places[0]])
            is_list = is_row and len(items) > 1 and numbers[0] < 2 and not has_marks
            is_half = 2 * len(items) >= total
            if kind == "bullet" or (kind == "number" and style[-1]):
                if is_half or (kind == "number" and is_list):
                    return items
            elif is_half and is_list:
                return items
    return {}


def _choose_items(parsed: dict[int, _Item], style: tuple[str, ...]) -> dict[int, _Item]:
    """RETURNS (Dict[int, _Item]): Those of a style, and those of another that go on
    where it leaves a gap."""
    own = {item.number for item in parsed.values() if item.style == style}
    items: dict[int, _Item] = {}
    last = None
    for place, item in parsed.items():
        is_next = last is not None and item.is_plain and item.number == last + 1
        if item.style == style or (is_next and item.number not in own):
            items[place] = item
            last = item.number
    return items


def _split_item(item: _Item, following: _Item | None) -> list[str]:
    """Split texts that stand on one line, each with the next number."""
    texts = [item.text]
    number = item.number
    stop = following.number if following else -1
    if item.style[0] != "number" or item.style[-1] in ("", "$", "sign"):
        return texts
    if (inner := _parse_item(item.text)) and inner.style == item.style:
        return texts
    while number + 1 != stop and len(texts) < _MOST_ON_A_LINE:
        sign = item.sign.replace(str(item.number), str(number + 1))
        if sign == item.sign:
            break
        found = list(re.finditer(rf"{re.escape(sign)}\s+(?=\S)", texts[-1]))
        before = texts[-1][: found[0].start()] if found else ""
        is_only = len(found) == 1 and number + 2 == stop
        if not (before.strip() and (is_only or _SENTENCE_END.search(before[-3:]))):
            break
        texts[-1:] = [before.strip(), texts[-1][found[0].end() :]]
        number += 1
    return texts
