"""Reading: from what a model wrote to the mentions in it.

Models wrap, decorate and rearrange what a prompt asks for. Whatever says in some way
which surface has which label is read. The rest is counted, unless it clearly carries
nothing: a preamble, a code fence, the header of a table, the text once more.
"""

import re
from collections.abc import Iterable, Iterator

from spacy_llm.tasks.ner import NERTask

from .grounding import Mention, Reading, Status, shorten_reason
from .judge import MARKS, SIGN, Judge, Piece, is_lost, is_no_label, is_nothing, lose
from .loose_json import LABEL_FIELDS, TEXT_FIELDS, find_pairs, parse_loosely

_THOUGHT = re.compile(r"</(?:think(?:ing)?|thought|reason(?:ing)?)>", re.I)
_THINKING = re.compile(r"\s*<(?:think(?:ing)?|thought|reason(?:ing)?)>", re.I)
_FINAL = re.compile(
    r"^[ \t*_#>-]*(?:\w+ ){0,3}?(?:final|revised|corrected|updated) (?:answer|list|"
    r"entities|output|response|version)\b[^\n:|]*:[*_]*",
    re.IGNORECASE | re.MULTILINE,
)
_LINE = re.compile(r"[^\r\n]*")
_BULLET = re.compile(
    r"\s*(?:(?:answer|output|response)\s*:\s*(?=\S))?(?:[-*•‣▪·–—+>]\s+(?![|｜]))?"
    r"(?:[(\[]?\d+\s*[.):\]]\s+)?",
    re.IGNORECASE,
)
_BAR = re.compile(r"[|｜\t]")
# Between rows on one line, and between pairs that end with a label in parentheses.
_NEXT_ROW = re.compile(
    r"(?:;|(?<=\s)(?=[(\[]?\d+[.)]\s))(?=[^|｜\t;]{1,200}[|｜\t]\s*(?:true|false)\b)",
    re.IGNORECASE,
)
_NEXT_PAIR = re.compile(r"(?<=[)）\]])\s*[,;、，；]")
_OPENING = re.compile(r"[\[{]\s*(?:[\"'\[{(\]}]|$)|\{\s*\w+\s*:")
# Where reading goes on after JSON that is broken.
_RESUME = re.compile(
    r"^(?:.*[|｜\t]\s*(?:true|false)\s*[|｜\t]|[ \t]*(?:```|~~~))", re.I | re.M
)

_TABLE_RULE = re.compile(r"[\s:+-]*[|｜][\s|｜:+-]*")
_TRIVIAL = re.compile(r"[\s,;:|｜+=*_~\[\](){}<>/-]*|(?:```|~~~)\s*\w*|\(?\d+[.):]")
_NO_ENTITIES = re.compile(r"\b(?:no|not \w+ any) (?:\w+ ){0,2}entit(?:y|ies)\b", re.I)
_EXCEPTION = re.compile(r"(?<!sorry, )\bbut\b|except|other than|apart|only", re.I)
_REMARK = re.compile(
    r"(?:sure|certainly|of course|ok(?:ay)?|here (?:is|are)|here's|below|these are|"
    r"i hope|let me know|please let|if you (?:need|have|want)|feel free|thank)\b",
    re.IGNORECASE,
)
_PROMPT = re.compile(r"\**(?:paragraph|text|input|sentence|passage)\s*:[\s*]*", re.I)
_LONGEST = 30  # characters of a line of the text that may be a name, and no echo

_FLAGS = {
    **dict.fromkeys(("true", "yes", "1", "✓", "✔", "✅"), True),
    **dict.fromkeys(("false", "no", "0", "✗", "✘", "❌"), False),
}
_HEADERS = {
    *(name.replace("_", " ") for name in TEXT_FIELDS + LABEL_FIELDS),
    *"entities labels reason explanation answer output result results json no".split(),
    *("named entities", "named entity", "is entity", "true/false", "is it an entity"),
    "",
}


def read_answer(
    task: NERTask, answer: str, text: str = ""
) -> tuple[list[Mention], list[Reading]]:
    """Read an answer to the NER v3 prompt, which asks for lines of surface, whether it
    is an entity, label and reason, between bars; or to that of ner_json.jinja.

    A label is one of the task's, but for case, spaces, hyphens and underscores; any
    other is unknown. What a model thinks aloud (<think>…</think>) is left out. What
    follows a heading such as "Final answer:" replaces what stands before it, if it can
    be read; otherwise what stands there twice is two mentions.

    task (NERTask): The task that asked; it knows the labels.
    answer (str): The answer.
    text (str): The text that was asked about. Quotes round a surface, say, belong to it
        if they stand in the text.
    RETURNS (Tuple[List[Mention], List[Reading]]): Mentions of known labels, and what
        became of the rest: no entity, an unknown label, or unreadable; each with the
        reason, if the answer gives one.
    """
    reader = _Reader(task, text)
    said = drop_thoughts(answer.replace("\r\n", "\n"))
    pieces: list[Piece] = []
    for part in (_FINAL.split(said)[-1], said):
        pieces = list(reader.read(part))
        if not all(map(is_lost, pieces)):
            break
    if not pieces:  # nothing but wrapping
        pieces.append(lose(_get_line(answer.strip(), 0)))
    mentions = [piece for piece in pieces if isinstance(piece, Mention)]
    return mentions, [piece for piece in pieces if isinstance(piece, Reading)]


def drop_thoughts(answer: str) -> str:
    """RETURNS (str): What follows after a model has thought aloud; nothing if it was
    cut off before it answered."""
    said = _THOUGHT.split(answer)[-1]
    return "" if _THINKING.match(said) else said


class _Reader(Judge):
    """Reads what was said about a text."""

    def read(self, said: str) -> Iterator[Piece]:
        """Read an answer, or a part of it.

        said (str): The answer.
        YIELDS (Union[Mention, Reading]): Its pieces, in order.
        """
        start = 0
        label = ""  # of the heading that a list stands under
        while start < len(said):
            line = _get_line(said, start)
            if not line.strip():
                start += len(line) + 1
                continue
            row = self._read_rows(line)
            if found := self._read_json(said, start, line, is_row=bool(row)):
                pieces, start = found
                yield from pieces
                continue
            start += len(line) + 1
            heading = self._find_heading(line)
            has_bullet = bool(_get_bullet(line).strip())
            if row:
                yield from row
            elif not (heading or self._is_wrapping(line, _get_line(said, start))):
                yield from self._read_line(line, label if has_bullet else "")
            if heading or not has_bullet:
                label = heading or ""

    def _find_heading(self, line: str) -> str | None:
        """RETURNS (Optional[str]): The label, if a line is a heading with one."""
        line = line.strip()
        is_heading = line[:1] == "#" or line[:2] == "**" or line.strip("*_")[-1:] == ":"
        return self.find_label(self._tidy(line)) if is_heading else None

    def _is_wrapping(self, line: str, following: str = "") -> bool:
        """RETURNS (bool): Whether a line clearly carries nothing."""
        line = line.strip()
        if _TRIVIAL.fullmatch(line):
            return True
        if _get_bullet(line).strip():
            return False
        prompt = _PROMPT.match(line)
        said = line[prompt.end() :] if prompt else line
        if (prompt or len(line) > _LONGEST) and self.is_line(said):
            return True
        if _BAR.search(line):  # the header of a table?
            is_header = all(self.fold(cell) in _HEADERS for cell in _BAR.split(line))
            return is_header or bool(_TABLE_RULE.fullmatch(following))
        plain = line.strip("*_")
        if line[:1] == "#" or re.search(r"[:：]$|[\w\s]=$", plain):
            return not self.has(line.strip(MARKS))
        words = self.fold(line)
        names_label = any(f" {label} " in f" {words} " for label in self.labels)
        is_remark = _REMARK.match(plain) and not names_label
        return bool(is_remark) or words in _HEADERS

    def _tidy(self, line: str) -> str:
        """Leave out marks that the text has not, and a bullet or number."""
        for mark, plain in (("**", ""), ("`", ""), (r"\|", "|")):
            if mark not in self.text:
                line = line.replace(mark, plain)
        line = line.strip()
        if line[:1] in ("|", "｜"):  # a row of a table
            line = line[1:].removesuffix(line[0]).strip()
        return line[len(_get_bullet(line)) :].rstrip()

    def _split(
        self, line: str, separator: re.Pattern[str]
    ) -> tuple[str, list[tuple[int, int]]]:
        """RETURNS (Tuple[str, List[Tuple[int, int]]]): The line, made tidy, and where
        its cells begin and end."""
        line = self._tidy(line)
        matches = list(separator.finditer(line))
        begins = [0, *(match.end() for match in matches)]
        ends = [*(match.start() for match in matches), len(line)]
        cells = []
        for begin, end in zip(begins, ends, strict=True):
            text = line[begin:end]
            begin += len(text) - len(text.lstrip())
            cells.append((begin, begin + len(text.strip())))
        return line, cells

    def _read_rows(self, line: str) -> list[Piece]:
        """Read surface, whether it is an entity, label and reason, once or more."""
        rows = [self._read_row(part) for part in _NEXT_ROW.split(line)]
        if all(rows):
            return [piece for row in rows for piece in row]
        return self._read_row(line)

    def _read_row(self, line: str) -> list[Piece]:
        line, cells = self._split(line, _BAR)
        texts = [line[begin:end] for begin, end in cells]
        texts.append("")
        flags = [_get_flag(text) for text in texts]
        found = [i for i in range(1, len(cells)) if flags[i] is not None]
        labels = [bool(self.find_label(text)) for text in texts]
        good = [i for i in found if labels[i + 1] or is_nothing(texts[i + 1])]
        if not found or (not good and any(labels[1:])):
            return []
        i = (good or found)[0]
        surface = line[: cells[i - 1][1]]
        pieces = [self.judge(surface, texts[i + 1], flag=flags[i])]
        if len(good) > 1:  # one more row, but where does it begin?
            return [*pieces, lose(line[cells[i + 1][1] :])]
        return _explain(pieces, _get_rest(line, cells, i + 2))

    def _read_line(self, line: str, heading: str) -> list[Piece]:
        """Read a line that is no row: with less in it, or in another order."""
        if pieces := self._read_pair(line, _BAR):
            return pieces
        parts = [part for part in _NEXT_PAIR.split(line) if part]
        pairs = [self._read_pair(part, SIGN) for part in parts]
        if any(pairs):
            found = zip(parts, pairs, strict=True)
            return [piece for part, pair in found for piece in pair or [lose(part)]]
        tidy = self._tidy(line)
        says_nothing = _NO_ENTITIES.search(tidy) and not _EXCEPTION.search(tidy)
        if says_nothing or is_nothing(tidy):
            return [Reading(Status.NO_ENTITY, line.strip(), "")]
        if heading and tidy:
            return self.judge_all(tidy, heading)
        return [lose(line)]

    def _read_pair(self, line: str, separator: re.Pattern[str]) -> list[Piece]:
        """Read a surface and its label, in either order; nothing if there are none, or
        if signs leave it open which they are."""
        line, cells = self._split(line, separator)
        texts = [line[begin:end] for begin, end in cells]
        named = [i for i in range(1, len(cells)) if self.find_label(texts[i])]
        is_open = len(named) > 1 or self.fold(texts[0]) in _HEADERS
        if separator is SIGN and named and is_open:
            return []
        if named:
            surface = line[: cells[named[0] - 1][1]]
            after = named[0] + 1
            flag = _get_flag("".join(texts[after:][:1]))
            pieces = [self.judge(surface, texts[named[0]], flag=flag)]
            if len(named) > 1:
                return [*pieces, lose(line[cells[named[0]][1] :])]
            return _explain(pieces, _get_rest(line, cells, after + (flag is not None)))
        reason = _get_rest(line, cells, 2)
        if len(cells) > 1 and self.find_label(texts[0]):
            if separator is _BAR:
                return _explain(self.judge_all(texts[1], texts[0]), reason)
            return self.judge_all(line[cells[1][0] :], texts[0])
        if len(cells) > 1 and is_no_label(texts[1]):
            return _explain([Reading(Status.NO_ENTITY, texts[0], "")], reason)
        return []

    def _read_json(
        self, said: str, start: int, line: str, *, is_row: bool
    ) -> tuple[list[Piece], int] | None:
        """Read JSON that begins on a line.

        RETURNS (Optional[Tuple[List[Union[Mention, Reading]], int]]): What stands in it
            and before it on its line, and where it ends. None if there is none.
        """
        opening = _OPENING.search(line)
        if opening is None:
            return None
        before, begin = line[: opening.start()], start + opening.start()
        value, end, is_whole = parse_loosely(said, begin, self.find_label)
        around = f"{before}{_get_line(said, end)}".strip()
        if is_row and not (is_whole and _TRIVIAL.fullmatch(around)):
            return None
        label = self.find_label(self._tidy(before)) or ""
        pieces: list[Piece] = []
        for text, given, is_entity, reason in find_pairs(value, label, self.find_label):
            flag = _get_flag(str(is_entity))
            if self.find_label(given) and flag is None:
                pieces += _explain(self.judge_all(text, given), reason)
                continue
            found = self._read_rows(text) or self._read_line(text, "")
            if given and (flag is not None or all(map(is_lost, found))):
                found = _explain([self.judge(text, given, flag=flag)], reason)
            pieces += found
        if not is_whole:
            resume = _RESUME.search(said, end)
            stop = max(begin + 1, resume.start() if resume else len(said))
            lost, end = said[end:stop].strip(" \t\r\n,:]})"), stop
            if lost or not pieces:
                pieces.append(lose(lost or said[begin:stop]))
        pieces = pieces or [Reading(Status.NO_ENTITY, said[begin:end].strip(), "")]
        if not (label or self._is_wrapping(before)):
            pieces = self._read_line(before, "") + pieces
        return pieces, end


def _get_rest(line: str, cells: list[tuple[int, int]], first: int) -> str:
    """RETURNS (str): What a line has from a cell on."""
    return line[cells[first][0] :] if first < len(cells) else ""


def _explain(pieces: Iterable[Piece], reason: str) -> list[Piece]:
    reason = shorten_reason(reason.strip(" *_:：|｜"))
    return [piece._replace(reason=reason) for piece in pieces]


def _get_line(said: str, start: int) -> str:
    match = _LINE.match(said, start)
    return match[0] if match else ""


def _get_bullet(line: str) -> str:
    match = _BULLET.match(line)
    return match[0] if match else ""


def _get_flag(said: str) -> bool | None:
    return _FLAGS.get(said.strip(f"{MARKS}\ufe0f").lower())
