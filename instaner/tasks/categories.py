"""Reading categories: from what a model wrote about a text to the labels it gives.

Models reason, decorate and hedge. What is most clearly the answer is read; what is not
clear is not.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from spacy_llm.tasks.textcat import TextCatTask

from ..targets import LEAST
from .grounding import Reading, Status, shorten_reason
from .judge import MARKS, Judge, is_nothing, lose
from .loose_json import parse_loosely
from .reading import drop_thoughts

NONE = "==NONE=="
_OTHER = "\0"  # stands for what is not the one label

_NOUN = (
    r"(?:labels?|answers?|categor(?:y|ies)|class(?:es)?|classifications?|sentiments?|"
    r"intents?|topics?|tags?|predictions?|verdict|decision|choice|conclusion)"
)
_LAST = r"(?:final|revised|corrected|overall)"
_WRAP = r"[\s*_\"'`]*"
# "Label:", "**Final answer:**", '"label":', at the start of a line or in it.
_MARK = re.compile(
    rf"(?P<line>^[ \t*#>_{{\"'`-]*(?:\d+[.)][ \t*_\"'`]*)?(?:\w+[ \t]+){{0,3}}?)?"
    rf"\b(?:{_LAST}\s+)?{_NOUN}(?:\(s\))?{_WRAP}[:=：](?P<value>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_FINAL = re.compile(rf"\b{_LAST}\s", re.IGNORECASE)
_WHY = r"(?:reason\w*|explanation|rationale|justification|thoughts?|analysis)"
_REASON = re.compile(rf"[\s*#_]*{_WHY}[\s*_]*[:：]", re.IGNORECASE)
# What states the label in a sentence, and what concludes.
_STATEMENT = re.compile(
    rf"\b{_NOUN}\b[^.;\n]{{0,60}}?\b(?:is|are|be|remains?|as)\b", re.IGNORECASE
)
_CONCLUSION = re.compile(
    r"\b(?:label|classif|categori[sz]|tag|assign)(?:y|ies|ied|e|es|led|ed|s)?\b|"
    r"\b(?:therefore|thus|hence|so|consequently|overall|in (?:conclusion|summary|"
    r"short))\b",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"\b(?:but|however|although|though|while|whereas|yet|despite|nevertheless|still|"
    r"on the other hand)\b",
    re.IGNORECASE,
)
# What has to stand before a label in longer prose.
_BEFORE = re.compile(
    rf"(?:\b(?:is|are|was|be|been|as|belongs to|remains?|seems?|looks?|sounds?|"
    rf"express\w*|conveys?|indicat\w+|shows?|{_NOUN})\b|[\"'“‘*`])"
    r"\W+(?:[\w'-]+\W+){0,3}$|[\"'“‘*`]$",
    re.IGNORECASE,
)
# A negation holds up to one of these, as it cannot go wrong that far.
_CLAUSE = re.compile(
    r"[.;!?)](?=\W|$)|(?<!\bnot)(?<!\bno)(?<!\bof)[\n:]|[—–→]|[-=]>|\s-\s|"
    r"(?<!anything )\bbut\b|\b(?:however|although|though|while|whereas|because|since|"
    r"therefore|thus|hence)\b|[,;]\s*(?:and\s+)?(?:yet|so|it|this|that|the|which|they|"
    r"there|i|we|i'd)\b|\band\s+(?:is|are|so|it)\b|\bso\s+(?:it|the|this|i|we)\b",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"\b(?:not(?!\s+(?:only|just|merely)\b)|no(?!\s+(?:doubt|question)\b)|never|nor|"
    r"neither|none|non|nothing|cannot|without(?!\s+(?:a\s+|any\s+)?doubt\b)|lacks?|"
    r"lacking|hardly|barely|unlikely|unable|difficult|impossible|hard to|fails?|less|"
    r"except|excludes?|excluding|reject\w*|rules? out|"
    r"ruled out|far from|anything but|rather than|instead of|than|unlike|opposed to|"
    r"nicht|kein\w*|nie|weder|pas|ni|sans|sin|niet|geen|inte|ikke|não|не|нет|ни)\b|"
    r"n['’]t\b",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    rf"[\"'”’*`)\]]*(?:[^\w\ue000]+(?:(?:or|and|nor)[^\w\ue000]+)?\ue000+){{0,9}}"
    r"(?:\s*[:=?-]+\s*(?:no|not|false|0|wrong)(?:\s+at\s+all)?\s*(?:[.,;)\n](?!\d)|$)|\s+"
    rf"(?:{_NOUN}\s+)?(?:(?:is|was|does|do|would|can|could|should|seems?|fits?|applies)"
    r"(?:n['’]t\b|\s+(?:\w+\s+)?not\b|(?:\s+\w+)?\s+(?:wrong|incorrect|excluded|"
    r"(?:ruled|left) out|unlikely|inappropriate))|cannot\b|can['’]t\b))",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:could|might|may|can be (?!labell?ed|classified)|possibly|perhaps|if|"
    r"whether)\b",
    re.IGNORECASE,
)
_CONCEDED = re.compile(r"\b(?:although|though|while|whereas|despite)$", re.IGNORECASE)
_RETRACTION = re.compile(
    r"\b(?:no,? wait|wait,? no|actually,? no|scratch that|on second thoughts?|"
    r"i meant)\b[\s,.:;!—–-]*",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"[^.!?\n]{0,200}\?")
_REFUSAL = re.compile(
    r"\b(?:cannot|can['’]?t|could not|not possible|impossible|unable|difficult|unclear|"
    r"not (?:clear|sure|enough)|sorry)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“«]([^\"“”«»\n]{3,200})[\"”»]|(?<!\w)'([^'\n]{3,200})'(?!\w)")
_JSON = re.compile(r"\{\s*[\"'\w}]|\[\s*(?:[\"'{\]])")
_LABEL_FIELD = re.compile(rf"(?:\w+[ _-])?{_NOUN}", re.IGNORECASE)
_WHY_FIELD = re.compile(_WHY, re.IGNORECASE)
_OTHER_FIELD = re.compile(
    rf"{_WHY}|text|input|evidence|comments?|notes?|confidence|score", re.IGNORECASE
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*\w*[ \t]*$", re.MULTILINE)
_NEXT_TEXT = re.compile(r"^[ \t#*]*Text:", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_BULLET = re.compile(r"\s*(?:[-*•·–+>#]+\s+|[(\[]?\d+[.):\]]\s+)?")
_PART = re.compile(r"\s*(?:[,;/|&+、，；]|\band\b|\bund\b)\s*", re.IGNORECASE)
_SCORE = re.compile(
    r"[\s*_\"'`]*[:=][\s*_\"'`]*(true|yes|false|no|\d+(?:\.\d+)? ?%?)"
    r"[*_\"'`]*\s*(?:[,;|)\]}\n]|\.(?:\s|$)|$)",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"$|[\"'*_`\]]*\s*(?:[.:;(\n—–]|-\s|,?\s*(?:because|since|as|due)\b)", re.IGNORECASE
)
_WORD = re.compile(r"\w+")
_NEXT_LINE = re.compile(r"\s*([^\n]*)")
_NO_LABEL = re.compile(
    r"(?:none of (?:the|these)|no)(?: \w+)? (?:label|categor|class)\w*\b[^,;:]*",
    re.IGNORECASE,
)
_SCORES = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0, "none": 0.0}
_MOST_TEXTS = 3
_SHORT = 6  # words of an answer that need not say "is"
_LONGEST = 8  # words after "Label:" that have to be a label
_LONGEST_LOSS = 200  # characters that are kept


def read_labels(
    task: TextCatTask, answer: str, text: str = ""
) -> tuple[list[str] | None, list[Reading]]:
    """Read an answer to a TextCat prompt, whatever its format.

    What is most clearly the answer decides, and nothing after it: JSON; what follows
    "Label:" or the like ("Final answer:" before others); labels and yes or no; a label
    alone in the last, the first or any line; a sentence that states one, the last of
    them; else the one label that a text names at all. A label that is denied is never
    read, nor one that is only possible. Where one label is wanted, two are none.

    task (TextCatTask): The task that asked.
    answer (str): The answer.
    text (str): The text that was asked about. What is quoted from it is no answer.
    RETURNS (Tuple[Optional[List[str]], List[Reading]]): The labels, in the order of the
        answer; None if it cannot be read. And what became of what it says: a reading
        for each label, or one that it says there is none, or that it is unreadable; and
        each unknown label beside known ones; each with the reason, if it gives one.
    """
    said = drop_thoughts(answer.replace("\r\n", "\n"))
    reader = _Reader(task, text)
    findings = reader.read(said)
    readings: list[Reading] = []
    if findings is None:
        readings.append(lose(answer.strip()[:_LONGEST_LOSS]))
    elif not findings:
        readings.append(Reading(Status.NO_ENTITY, said.strip()[:_LONGEST_LOSS], ""))
    for name, label in findings or ():
        if label == _OTHER:
            status = Status.NO_ENTITY
        elif label is None:
            status = Status.UNKNOWN_LABEL
        else:
            status = Status.EXACT if name.strip() == label else Status.NORMALISED
        named = task.labels[0] if task.use_binary else label or name
        readings.append(Reading(status, name, named))
    reason = reader.find_reason(said)
    readings = [reading._replace(reason=reason) for reading in readings]
    if findings is None:
        return None, readings
    return [label for _, label in findings if label and label != _OTHER], readings


class _Said(NamedTuple):
    """What an answer says, and the label that it is, if it is one."""

    said: str
    label: str | None


class _Mention(NamedTuple):
    """A label in prose.

    clause (int): Which clause it stands in.
    denied (bool): Whether the prose says that it is not so.
    plain (bool): Whether it is neither denied nor only possible.
    strong (bool): Whether the prose says of something that it is so.
    """

    start: int
    said: _Said
    clause: int
    denied: bool
    plain: bool
    strong: bool


class _Reader(Judge):
    """Reads what was said about a text."""

    def __init__(self, task: TextCatTask, text: str) -> None:
        super().__init__(task, text)
        self._exclusive = task.exclusive_classes
        self._allow_none = task.allow_none and not task.exclusive_classes
        # Whether the prompt ends with "Reason:".
        self._says_why = getattr(task, "reasoning", False) and task.format == "text"
        self._binary = task.labels[0] if task.use_binary else None
        names = dict(self.labels)
        if self._binary is not None:
            label, own = self._binary, self.fold(self._binary)
            names.update(pos=label, neg=_OTHER)
            self.labels = {"yes": label, "true": label, "no": _OTHER, "false": _OTHER}
            if own not in ("positive", "negative"):
                self.labels.update(positive=label, negative=_OTHER)
            self.labels.update({f"not {own}": _OTHER, f"non {own}": _OTHER, **names})
        parts = [r"[\s_-]*".join(map(re.escape, name.split())) for name in names]
        # What is stripped from a label may be all that tells it from another: C, C#.
        parts += [re.escape(x) for x in task.labels if x != x.strip(MARKS)]
        longest = "|".join(sorted(filter(None, parts), key=len, reverse=True))
        self._name = re.compile(
            rf"(?<![^\W_])(?<!\w-)(?:{longest or '(?!)'})(?![^\W_])(?!-\w)",
            re.IGNORECASE,
        )

    def read(self, said: str) -> list[_Said] | None:
        """RETURNS (Optional[List[_Said]]): What it says; None if nothing clear."""
        said = _FENCE.sub("", said)
        if len(self.text) > 2 * _LONGEST:
            said = said.replace(self.text, " ")
        said = re.sub(r"\n(?: ?\n)+", "\n\n", re.sub(r"[^\S\n]+", " ", said))
        for match in [*_RETRACTION.finditer(said)][-1:]:
            if self._name.search(said, match.end()):
                said = said[match.end() :]
        # A model may go on with texts of its own.
        for match in islice(_NEXT_TEXT.finditer(said), _MOST_TEXTS):
            before = said[: match.start()]
            if (found := self._find_clear(before)) is not None:
                return self._decide(found)
        found = self._find_clear(said)
        if found is None and not _JSON.match(said.strip()):
            found = self._find_in_prose(said)
        return None if found is None else self._decide(found)

    def find_reason(self, said: str) -> str:
        """RETURNS (str): Why, as far as it says so: in JSON, after "Reason:", or before
        the label if the prompt ends with "Reason:"."""
        # A model may go on with texts of its own.
        said = next((part for part in _NEXT_TEXT.split(said) if part.strip()), "")
        values = list(self._parse(said))
        reason = next(filter(None, map(_find_why, values)), None)
        if reason is None:
            reason = self._find_reason(said, is_open=self._says_why and not values)
        return shorten_reason(reason)

    def _find_reason(self, said: str, *, is_open: bool) -> str:
        reason = ""
        for line in _FENCE.sub("", said).split("\n"):
            if match := _REASON.match(line):
                is_open, reason, line = True, "", line[match.end() :].strip(" *_")
            if not is_open:
                continue
            if _MARK.match(line) or self._read_list(line) is not None:
                if reason:  # else it begins further down
                    break
                continue
            mark = _MARK.search(line)
            if mark and self._read_list(mark["value"]):
                reason += line[: mark.start()]
                break
            reason += line + "\n"
        return reason

    def _decide(self, found: list[_Said]) -> list[_Said] | None:
        """Whether what was found is an answer to what was asked."""
        labels = dict.fromkeys(one.label for one in found if one.label is not None)
        if not labels:
            says_none = all(_is_none(one.said) for one in found)
            return [] if self._allow_none and says_none else None
        if self._exclusive and len(labels) > 1:
            return None
        first: dict[str, _Said] = {}
        for one in found:
            if one.label is not None or not (self._exclusive or _is_none(one.said)):
                first.setdefault(one.label or one.said, one)
        return list(first.values())

    def _find_clear(self, said: str) -> list[_Said] | None:
        for find in (
            self._find_in_json,
            self._find_marked,
            self._find_scored,
            self._find_in_lines,
        ):
            if (found := find(said)) is not None:
                return found
        return None

    def _find_in_json(self, said: str) -> list[_Said] | None:
        values = list(self._parse(said))
        found = [one for value in values for one in self._find_in_value(value)]
        return found or ([_Said(said, None)] if values else None)

    def _parse(self, said: str) -> Iterator[Any]:
        """The JSON in an answer that is whole."""
        end = 0
        while match := _JSON.search(said, end):
            value, stop, is_whole = parse_loosely(said, match.start(), self.find_label)
            end = max(stop, match.end())
            if is_whole and (not isinstance(value, str) or self.find_label(value)):
                yield value

    def _find_in_value(self, value: Any) -> Iterator[_Said]:
        if isinstance(value, str):
            yield from self._read_value(value)
        elif value is None or value == []:
            yield _Said(NONE, None)
        elif isinstance(value, list):
            for item in value:
                yield from self._find_in_value(item)
        elif isinstance(value, tuple):
            scores = [(key, item) for key, item in value if self.find_label(key)]
            named = [item for key, item in value if _LABEL_FIELD.fullmatch(key)]
            rest = [item for key, item in value if not _OTHER_FIELD.fullmatch(key)]
            if named:
                yield from self._find_in_value(named)
            elif scores and all(_get_score(item) is not None for _, item in scores):
                yield from self._choose(scores)
            else:
                for item in rest:
                    if isinstance(item, (list, tuple)):
                        yield from self._find_in_value(item)
                    elif isinstance(item, str) and (label := self.find_label(item)):
                        yield _Said(item, label)

    def _find_marked(self, said: str) -> list[_Said] | None:
        marks = []
        for match in _MARK.finditer(said):
            value = match["value"].strip()
            found: list[_Said] = []
            end = match.end()
            while not value.strip(MARKS) and (line := _NEXT_LINE.match(said, end)):
                more = self._read_list(line[1]) if line[1] else None
                if more is None:
                    value = "" if found else line[1]
                    break
                found += more
                end = line.end()
            found = found or list(self._read_value(value))
            known = any(one.label is not None for one in found)
            if known or len(value.split()) <= _LONGEST:
                marks.append((match, found))
        for match, found in reversed(marks):
            if _FINAL.search(said, match.start(), match.start("value")):
                return found
        at_start = [found for match, found in marks if match["line"] is not None]
        return list(chain(*at_start)) or (marks[-1][1] if marks else None)

    def _find_scored(self, said: str) -> list[_Said] | None:
        pairs = [
            (match[0], score[1])
            for match in self._name.finditer(said)
            if (score := _SCORE.match(said, match.end()))
        ]
        return list(self._choose(pairs)) if pairs else None

    def _choose(self, pairs: Iterable[tuple[str, Any]]) -> Iterator[_Said]:
        """The labels that have a yes, or, of scores, the highest or high ones."""
        scores = [(name, _get_score(value) or 0.0) for name, value in pairs]
        is_contest = self._exclusive and len(scores) > 1
        least = max(score for _, score in scores) if is_contest else LEAST
        chosen = [name for name, score in scores if score >= least and score > 0]
        for name in chosen:
            yield _Said(name, self.find_label(name))
        if not chosen:
            denied = self._binary and self.find_label(scores[0][0]) == self._binary
            yield _Said(scores[0][0], _OTHER) if denied else _Said(NONE, None)

    def _find_in_lines(self, said: str) -> list[_Said] | None:
        lines = [line for line in said.split("\n") if line.strip(MARKS)]
        if not lines:
            return None
        clean = [self._read_list(line) for line in lines]
        is_list = all(found is not None for found in clean)
        if is_list or (not self._exclusive and (clean[0] or clean[-1])):
            return [one for found in clean for one in found or ()]
        for found in (clean[-1], clean[0]):
            if found is not None:
                return found
        leads = [self._get_lead(line) for line in lines]
        if leads[0]:
            return [lead for lead in leads if lead]
        return next((found for found in clean if found), None)

    def _get_lead(self, line: str) -> _Said | None:
        """The label that a line begins with: "Positive. It says that …"."""
        line = _BULLET.sub("", line, count=1).lstrip(MARKS)
        match = self._name.match(line) or (self._binary and _WORD.match(line))
        if not match or not _LEAD.match(line, match.end()):
            return None
        label = None if _DENIAL.match(line, match.end()) else self.find_label(match[0])
        return _Said(match[0], label) if label else None

    def _find_in_prose(self, said: str) -> list[_Said] | None:
        said = _QUOTED.sub(self._blank, said)
        sentences = [s for s in _SENTENCE.split(said) if s.strip()]
        for pattern in (_STATEMENT, _CONCLUSION):
            for sentence in reversed(sentences):
                mentions = list(self._find_mentions(sentence))
                found, is_said = _get_stated(sentence, mentions, pattern)
                if found:
                    return found
                if is_said and pattern is _CONCLUSION:
                    return None
        mentions = list(self._find_mentions(said))
        plain = [mention for mention in mentions if mention.plain]
        labels = {mention.said.label for mention in plain}
        if not plain or _REFUSAL.search(said):
            return None
        if labels & {m.said.label for m in mentions if m.denied}:
            return None
        last = max((m.end() for m in _CONTRAST.finditer(said)), default=0)
        if plain[-1].start < last:
            return None
        if len(said.split()) > _SHORT and not any(m.strong for m in plain):
            return None
        if len(labels) > 1 and (len(sentences) > 1 or self._exclusive):
            return None
        return [mention.said for mention in plain]

    def _blank(self, match: re.Match[str]) -> str:
        inner = match[1] or match[2]
        return " " * len(match[0]) if self.has(inner) else match[0]

    def _find_mentions(self, said: str) -> Iterator[_Mention]:
        """Labels in prose. What is denied of the only label says so."""
        names = list(self._name.finditer(said))
        masked = self._name.sub(lambda m: "\ue000" * len(m[0]), said)
        ends = [0, *(match.end() for match in _CLAUSE.finditer(masked))]
        nots = [match.start() for match in _NOT.finditer(masked)]
        hedges = [match.start() for match in _HEDGE.finditer(masked)]
        for match in names:
            label = self.find_label(match[0])
            if label is None:
                continue
            clause = bisect_right(ends, match.start()) - 1
            start, end = ends[clause], match.end()
            denied = _has(nots, start, end) or _DENIAL.match(masked, end)
            hedged = (
                _has(hedges, start, end)
                or _CONCEDED.search(masked[max(0, start - 20) : start])
                or _QUESTION.match(masked, end)
            )
            if denied and self._binary == label and not hedged:
                label, denied = _OTHER, None
            yield _Mention(
                match.start(),
                _Said(match[0], label),
                clause,
                denied=bool(denied),
                plain=not (denied or hedged),
                strong=bool(
                    _BEFORE.search(masked[max(0, match.start() - 80) : match.start()])
                ),
            )

    def _read_value(self, value: str) -> Iterator[_Said]:
        """What stands where a label has to."""
        value = value.strip()
        if found := self._read_list(value):
            yield from found
            return
        if self._exclusive and (lead := self._get_lead(value)):
            yield lead
            return
        mentions = [m.said for m in self._find_mentions(value) if m.plain]
        parts = [part.strip(MARKS) for part in _PART.split(value)]
        known = [self.find_label(part) for part in parts]
        if self._exclusive or not any(known):
            yield from mentions or [_Said(value, None)]
            return
        for part, label in zip(parts, known, strict=True):
            if label or (part and not _NOT.search(part)):
                yield _Said(part, label)

    def _read_list(self, line: str) -> list[_Said] | None:
        """Labels, if a line has nothing else."""
        line = _BULLET.sub("", line, count=1).strip()
        if label := self.find_label(line):
            return [_Said(line.strip(MARKS), label)]
        if _is_none(line):
            return [_Said(line, None)]
        if _REASON.match(line):
            return None
        parts = [part for part in _PART.split(line) if part.strip(MARKS)]
        labels = [self.find_label(part) for part in parts]
        if not parts or not all(labels):
            return None
        return [_Said(p.strip(MARKS), x) for p, x in zip(parts, labels, strict=True)]


def _get_stated(
    sentence: str, mentions: list[_Mention], pattern: re.Pattern[str]
) -> tuple[list[_Said], bool]:
    """What a sentence says after a pattern, as far as the first clause that says
    anything; and whether it names labels there at all."""
    named = False
    for match in reversed(list(pattern.finditer(sentence))):
        after = [m for m in mentions if m.start >= match.end()]
        named = named or bool(after)
        if plain := [m for m in after if m.plain]:
            return [m.said for m in plain if m.clause == plain[0].clause], True
    return [], named


def _has(numbers: list[int], low: int, high: int) -> bool:
    return bisect_left(numbers, low) < bisect_left(numbers, high)


def _find_why(value: Any) -> str:
    """The first reason in a value that parse_loosely gave."""
    if isinstance(value, tuple):
        for key, item in value:
            if _WHY_FIELD.fullmatch(key) and isinstance(item, str):
                return item
        value = [item for _, item in value]
    if not isinstance(value, list):
        return ""
    return next(filter(None, map(_find_why, value)), "")


def _is_none(said: str) -> bool:
    plain = said.strip(MARKS)
    return not plain or is_nothing(plain) or bool(_NO_LABEL.fullmatch(plain))


def _get_score(value: Any) -> float | None:
    said = str(value).strip(MARKS).lower()
    if said in _SCORES:
        return _SCORES[said]
    if not re.fullmatch(r"\d+(?:\.\d+)? ?%?", said):
        return None
    return float(said.rstrip(" %")) / (100 if said.endswith("%") else 1)
