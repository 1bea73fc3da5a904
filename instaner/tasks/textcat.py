"""Text classification: the prompt, and what is read from the answers."""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from spacy.tokens import Doc
from spacy.vocab import Vocab
from spacy_llm.tasks.textcat import TextCatTask, make_textcat_task_v3
from spacy_llm.tasks.textcat.parser import parse_responses_v1_v2_v3
from spacy_llm.tasks.textcat.task import DEFAULT_TEXTCAT_TEMPLATE_V3
from spacy_llm.tasks.textcat.util import TextCatExample
from spacy_llm.tasks.util.sharding import make_shard_mapper
from spacy_llm.ty import (
    ExamplesConfigType,
    FewshotExample,
    Scorer,
    ShardMapper,
    ShardReducer,
)
from spacy_llm.util import split_labels

from ..errors import InstaNERError
from .grounding import READINGS, Reading, Status, dump_readings
from .judge import MARKS, Judge, is_nothing, lose
from .loose_json import parse_loosely
from .ner import _check_labels, _estimate_tokens, _make_object, _map_shards
from .ner import reduce_shards as reduce_readings
from .prompts import get_constant, mark_constant
from .reading import _THINKING, drop_thoughts

_TEMPLATE = Path(__file__).with_name("textcat.jinja").read_text("utf8")
_POS, _NEG = "POS", "NEG"  # the answers where there is one label
_NONE = "==NONE=="
_OTHER = "\0"  # stands for what is not the one label

_NOUN = (
    r"(?:labels?|answers?|categor(?:y|ies)|class(?:es)?|classifications?|sentiments?|"
    r"intents?|topics?|tags?|predictions?|verdict|decision|choice|conclusion)"
)
_WRAP = r"[\s*_\"'`]*"
# "Label:", "**Final answer:**", '"label":', at the start of a line or in it.
_MARK = re.compile(
    rf"(?P<line>^[ \t*#>_{{\"'`-]*(?:\d+[.)][ \t*_\"'`]*)?(?:\w+[ \t]+){{0,3}}?)?"
    rf"\b(?P<final>(?:final|revised|corrected|overall)\s+)?{_NOUN}(?:\(s\))?{_WRAP}"
    rf"[:=：](?P<value>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_FINAL = re.compile(r"\b(?:final|revised|corrected|overall)\s", re.IGNORECASE)
_REASON = re.compile(
    r"^[\s*#_]*(?:reason\w*|explanation|rationale|justification|thoughts?|analysis)"
    r"[\s*_]*[:：]",
    re.IGNORECASE,
)
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
_QUESTION = re.compile(r"[^.!?\n]{0,200}\?")
_REFUSAL = re.compile(
    r"\b(?:cannot|can['’]?t|could not|not possible|impossible|unable|difficult|unclear|"
    r"not (?:clear|sure|enough)|sorry)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“«]([^\"“”«»\n]{3,200})[\"”»]|(?<!\w)'([^'\n]{3,200})'(?!\w)")
_JSON = re.compile(r"\{\s*[\"'\w}]|\[\s*(?:[\"'{\]])")
_LABEL_FIELD = re.compile(rf"(?:\w+[ _-])?{_NOUN}", re.IGNORECASE)
_OTHER_FIELD = re.compile(
    r"reason\w*|explanation|rationale|justification|thoughts?|analysis|text|input|"
    r"evidence|comments?|notes?|confidence|score",
    re.IGNORECASE,
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
    r"[\"'*_`\]]*\s*(?:[.:;(\n—–]|-\s|,?\s*(?:because|since|as|due)\b)", re.IGNORECASE
)
_WORD = re.compile(r"\w+")
_NEXT_LINE = re.compile(r"\s*([^\n]*)")
_NO_LABEL = re.compile(
    r"(?:none of (?:the|these)|no)(?: \w+)? (?:label|categor|class)\w*\b[^,;:]*",
    re.IGNORECASE,
)
_SCORES = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0, "none": 0.0}
_LEAST = 0.5  # from which score on a label holds where several may
_MOST_TEXTS = 3
_SHORT = 6  # words of an answer that need not say "is"
_LONGEST = 8  # words after "Label:" that have to be a label


class Example(TextCatExample):
    """A text, its answer as spaCy's TextCat has it, and why."""

    reason: str = ""


class _Task(TextCatTask):
    """spacy-llm's task. Its prompts say which part of them is constant, and what form
    the answers are to have."""

    format: Literal["text", "json"] = "text"
    reasoning: bool = False

    def generate_prompts(
        self, docs: Iterable[Doc], context_length: int | None = None
    ) -> Iterable[tuple[Iterable[Any], Iterable[Doc]]]:
        samples = [Doc(Vocab(), words=[word]) for word in ("one", "two")]
        (one,), (two,) = (prompts for prompts, _ in super().generate_prompts(samples))
        constant = get_constant(one, two)
        wanted = make_response_format(self) if self.format == "json" else None
        for prompts, shards in super().generate_prompts(docs, context_length):
            marked = mark_constant(prompts, constant, response_format=wanted)
            yield list(marked), shards

    def _get_prompt_data(self, *args: Any) -> dict[str, Any]:
        names = "…, …" if not self.exclusive_classes else "…"
        return {
            **super()._get_prompt_data(*args),
            "binary": self.use_binary,
            "format": self.format,
            "reasoning": self.reasoning,
            "form": _show(self, names, "…"),
            "show": lambda eg: _show(self, eg.answer, getattr(eg, "reason", "")),
        }


def make_response_format(task: "_Task") -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): The response_format that holds an answer to labels, and
    reasons before them, as chat completions have it; see tasks.ner.
    """
    names = [_POS, _NEG] if task.use_binary else list(task.labels)
    one = {"type": "string", "enum": names}
    reason = {"reason": {"type": "string"}} if task.reasoning else {}
    if task.exclusive_classes:
        schema = _make_object(**reason, label=one)
    else:
        schema = _make_object(**reason, labels={"type": "array", "items": one})
    json_schema = {"name": "categories", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": json_schema}


def _show(task: _Task, names: str, reason: str) -> str:
    """An answer in the form that is asked for."""
    if task.format == "text":
        field = "Label" if task.exclusive_classes else "Labels"
        return f"Reason: {reason}\n{field}: {names}"
    answer: dict[str, Any] = {"reason": reason} if task.reasoning else {}
    if task.exclusive_classes:
        answer["label"] = names
    else:
        labels = [] if names == _NONE else names.split(",")
        answer["labels"] = [label.strip() for label in labels if label.strip()]
    return json.dumps(answer, ensure_ascii=False)


def parse_responses(
    task: TextCatTask,
    shards: Iterable[Iterable[Doc]],
    responses: Iterable[Iterable[str]],
) -> Iterable[Iterable[dict[str, float]]]:
    """A spacy-llm response parser for TextCat answers that guesses nothing.

    task (TextCatTask): The task.
    shards (Iterable[Iterable[Doc]]): Shards of each doc. What became of each label is
        kept in a shard's user_data[READINGS].
    responses (Iterable[Iterable[str]]): The answer to each shard.
    YIELDS (Iterable[Dict[str, float]]): For each shard of a doc, 1 or 0 for each label;
        nothing if the answer cannot be read.
    """
    for doc_shards, answers in zip(shards, responses, strict=False):
        doc_cats = []
        for shard, answer in zip(doc_shards, answers, strict=False):
            labels, readings = read_labels(task, answer, shard.text)
            shard.user_data[READINGS] = dump_readings(readings)
            known = task.labels if labels is not None else ()
            doc_cats.append({label: float(label in (labels or ())) for label in known})
        yield doc_cats


def reduce_shards(task: TextCatTask, shards: Iterable[Doc]) -> Doc:
    """A spacy-llm shard reducer that keeps the readings, and the text as it was. A
    label's score is the share of the tokens in the shards that have it.

    task (TextCatTask): The task.
    shards (Iterable[Doc]): Shards of a doc. Those that could not be read do not count.
    RETURNS (Doc): The doc.
    """
    shards = list(shards)
    if len(shards) == 1:
        return shards[0]
    read = [(len(shard), shard.cats) for shard in shards if shard.cats]
    total = sum(length for length, _ in read)
    doc = reduce_readings(cast(Any, task), shards)
    doc.cats = {
        label: sum(length * cats[label] for length, cats in read) / total
        for label in (task.labels if total else ())
    }
    return doc


def adopt(task: Any) -> Any:
    """Have spacy-llm's own TextCat task ask and read as instaner.TextCat.v1 does: its
    prompt is the same, but what it cannot read becomes a text without a category.

    task (Any): Task of an llm component. One with a parser of its own is left alone.
    RETURNS (Any): The task.
    """
    if (
        isinstance(task, TextCatTask)
        and task._parse_responses is parse_responses_v1_v2_v3
    ):
        task.__class__ = _Task
        task._shard_mapper = partial(_map_shards, task._shard_mapper)
        task._parse_responses = parse_responses
        task._shard_reducer = reduce_shards
    return task


def make_textcat_task(
    labels: list[str] | str = [],  # noqa: B006 (as in spacy-llm's registry)
    template: str | None = None,
    label_definitions: dict[str, str] | None = None,
    examples: ExamplesConfigType = None,
    prompt_example_type: type[FewshotExample] | None = None,
    shard_mapper: ShardMapper | None = None,
    shard_reducer: ShardReducer | None = None,
    normalizer: Callable[[str], str] | None = None,
    exclusive_classes: bool = False,
    allow_none: bool = True,
    scorer: Scorer | None = None,
    reasoning: bool = False,
    format: Literal["text", "json"] = "text",
) -> TextCatTask:
    """Registered as instaner.TextCat.v1: spacy-llm's TextCat v3 prompt and options, but
    answers are read by us: see read_labels.

    labels (Union[List[str], str]): Labels, as a list or separated by commas; if it is
        one, whether a text has it. Empty: the labels of label_definitions.
    template (Optional[str]): Jinja2 template of the prompt. None: spacy-llm's; with
        reasoning or JSON our own, as theirs forbids both.
    examples (ExamplesConfigType): Examples, each a text and its answer: a label, or
        several separated by commas; POS or NEG if there is one label. With reasoning, a
        reason, too.
    reasoning (bool): Have the model give a reason before it gives the label.
    format (Literal["text", "json"]): What is asked for: text, or JSON that the server
        is told to hold to a schema. Either is read.
    RETURNS (TextCatTask): The task. For the other arguments see spacy.TextCat.v3.
    RAISES (InstaNERError): On no labels, a label in the definitions or examples that is
        not one of them, or an example without what it needs.
    """
    names = split_labels(labels) or list(label_definitions or {})
    if not names:
        raise InstaNERError(
            "instaner.TextCat.v1 needs labels: set labels or label_definitions in the "
            "task's config."
        )
    raw_examples = list((examples() if callable(examples) else examples) or [])
    _check_labels(label_definitions or {}, names, "label_definitions")
    is_binary = len(set(names)) == 1
    for example in raw_examples:
        _check_example(example, [_POS, _NEG] if is_binary else names, reasoning)
    needs_own = reasoning or format == "json"
    task = make_textcat_task_v3(
        parse_responses=None,
        prompt_example_type=prompt_example_type or Example,
        labels=names,
        template=template or (_TEMPLATE if needs_own else DEFAULT_TEXTCAT_TEMPLATE_V3),
        label_definitions=label_definitions,
        examples=raw_examples or None,
        shard_mapper=shard_mapper or make_shard_mapper(_estimate_tokens),
        normalizer=normalizer,
        exclusive_classes=exclusive_classes or is_binary,
        allow_none=allow_none,
        scorer=scorer,
    )
    adopt(task)
    task.format, task.reasoning = format, reasoning
    if shard_reducer is not None:
        task._shard_reducer = shard_reducer
    return task


def _check_example(example: Any, names: list[str], reasoning: bool) -> None:
    is_whole = isinstance(example, Mapping) and all(
        isinstance(example.get(field), str)
        for field in ("text", "answer", *(["reason"] if reasoning else []))
    )
    if not is_whole:
        wanted = "text, answer and reason" if reasoning else "text and answer"
        raise InstaNERError(
            f'An example needs {wanted}: "{str(example)[:100]}". Mend it.'
        )
    given = [label.strip() for label in example["answer"].split(",") if label.strip()]
    used = [label for label in given if label != _NONE]
    _check_labels(used, names, f'the example "{example["text"][:60]}"')


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
        each unknown label beside known ones.
    """
    said = drop_thoughts(answer.replace("\r\n", "\n"))
    findings: list[_Said] | None = None
    if not _THINKING.match(said):  # else it was cut off before it answered
        findings = _Reader(task, text).read(said)
    if findings is None:
        return None, [lose(answer.strip()[:200])]
    if not findings:
        return [], [Reading(Status.NO_ENTITY, said.strip()[:200], "")]
    readings = []
    for said, label in findings:
        if label is None:
            status = Status.UNKNOWN_LABEL
        else:
            status = Status.EXACT if said.strip() == label else Status.NORMALISED
        name = task.labels[0] if task.use_binary else label or said
        if label == _OTHER:
            readings.append(Reading(Status.NO_ENTITY, said, name))
        else:
            readings.append(Reading(status, said, name))
    labels = [label for _, label in findings if label and label != _OTHER]
    return labels, readings


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


class _Reader:
    """Reads what was said about a text."""

    def __init__(self, task: TextCatTask, text: str) -> None:
        self._judge = Judge(cast(Any, task), text)
        self._exclusive = task.exclusive_classes
        self._allow_none = task.allow_none and not task.exclusive_classes
        self._text = text
        names = dict(self._judge.labels)
        if task.use_binary:
            (label,) = task.labels
            names.update(pos=label, neg=_OTHER)
            more: dict[str, str | None] = {
                "yes": label,
                "true": label,
                "no": _OTHER,
                "false": _OTHER,
            }
            if self._judge.fold(label) not in ("positive", "negative"):
                more.update(positive=label, negative=_OTHER)
            own = self._judge.fold(label)
            more.update({f"not {own}": _OTHER, f"non {own}": _OTHER})
            self._judge.labels = {**more, **names}
        self._binary = task.labels[0] if task.use_binary else None
        parts = [r"[\s_-]*".join(map(re.escape, name.split())) for name in names]
        longest = "|".join(sorted(filter(None, parts), key=len, reverse=True))
        self._name = re.compile(
            rf"(?<![^\W_])(?<!\w-)(?:{longest or '(?!)'})(?![^\W_])(?!-\w)",
            re.IGNORECASE,
        )

    def read(self, said: str) -> list[_Said] | None:
        """RETURNS (Optional[List[_Said]]): What it says; None if nothing clear."""
        said = _FENCE.sub("", said)
        if len(self._text) > 2 * _LONGEST:
            said = said.replace(self._text, " ")
        said = re.sub(r"\n(?: ?\n)+", "\n\n", re.sub(r"[^\S\n]+", " ", said))
        # A model may go on with texts of its own.
        for match in islice(_NEXT_TEXT.finditer(said), _MOST_TEXTS):
            before = said[: match.start()]
            if (found := self._find_clear(before)) is not None:
                return self._decide(found)
        found = self._find_clear(said)
        if found is None and not _JSON.match(said.strip()):
            found = self._find_in_prose(said)
        return None if found is None else self._decide(found)

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
        found: list[_Said] = []
        end, is_json = 0, False
        while match := _JSON.search(said, end):
            value, stop, is_whole = parse_loosely(said, match.start(), self._find)
            end = max(stop, match.end())
            if is_whole and (isinstance(value, (list, tuple)) or self._find(value)):
                found += self._find_in_value(value)
                is_json = True
        return found or ([_Said(said, None)] if is_json else None)

    def _find_in_value(self, value: Any) -> Iterator[_Said]:
        if isinstance(value, str):
            yield from self._read_value(value)
        elif value is None or value == []:
            yield _Said(_NONE, None)
        elif isinstance(value, list):
            for item in value:
                yield from self._find_in_value(item)
        elif isinstance(value, tuple):
            scores = [(key, item) for key, item in value if self._find(key)]
            named = [item for key, item in value if _LABEL_FIELD.fullmatch(key)]
            rest = [item for key, item in value if not _OTHER_FIELD.fullmatch(key)]
            if named:
                for item in named:
                    yield from self._find_in_value(item)
            elif scores and all(_get_score(item) is not None for _, item in scores):
                yield from self._choose(scores)
            else:
                for item in rest:
                    if isinstance(item, (list, tuple)):
                        yield from self._find_in_value(item)
                    elif isinstance(item, str) and (label := self._find(item)):
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
                is_final = bool(match["final"] or _FINAL.search(match["line"] or ""))
                marks.append((is_final, match["line"] is not None, found))
        if not marks:
            return None
        for kind in (0, 1):
            if chosen := [mark[2] for mark in marks if mark[kind]]:
                return chosen[-1] if kind == 0 else list(chain.from_iterable(chosen))
        return marks[-1][2]

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
        least = max(score for _, score in scores) if is_contest else _LEAST
        chosen = [name for name, score in scores if score >= least and score > 0]
        for name in chosen:
            yield _Said(name, self._find(name))
        if not chosen:
            denied = self._binary and self._find(scores[0][0]) == self._binary
            yield _Said(scores[0][0], _OTHER) if denied else _Said(_NONE, None)

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
        bullet = _BULLET.match(line)
        line = line[bullet.end() if bullet else 0 :].lstrip(MARKS)
        match = self._name.match(line) or (self._binary and _WORD.match(line))
        if not match or not (
            _LEAD.match(line, match.end()) or match.end() == len(line)
        ):
            return None
        label = None if _DENIAL.match(line, match.end()) else self._find(match[0])
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
        return " " * len(match[0]) if self._judge.has(inner) else match[0]

    def _find_mentions(self, said: str) -> Iterator[_Mention]:
        """Labels in prose. What is denied of the only label says so."""
        names = list(self._name.finditer(said))
        masked = self._name.sub(lambda m: "\ue000" * len(m[0]), said)
        ends = [0, *(match.end() for match in _CLAUSE.finditer(masked))]
        nots = [match.start() for match in _NOT.finditer(masked)]
        hedges = [match.start() for match in _HEDGE.finditer(masked)]
        for match in names:
            label = self._find(match[0])
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
        known = [self._find(part) for part in parts]
        if self._exclusive or not any(known):
            yield from mentions or [_Said(value, None)]
            return
        for part, label in zip(parts, known, strict=True):
            if part and not _NOT.search(part):
                yield _Said(part, label)

    def _read_list(self, line: str) -> list[_Said] | None:
        """Labels, if a line has nothing else."""
        bullet = _BULLET.match(line)
        line = line[bullet.end() if bullet else 0 :].strip()
        if label := self._find(line):
            return [_Said(line.strip(MARKS), label)]
        if _is_none(line):
            return [_Said(line, None)]
        if _REASON.match(line):
            return None
        parts = [part for part in _PART.split(line) if part.strip(MARKS)]
        labels = [self._find(part) for part in parts]
        if not parts or not all(labels):
            return None
        return [_Said(p.strip(MARKS), x) for p, x in zip(parts, labels, strict=True)]

    def _find(self, said: str) -> str | None:
        return self._judge.find_label(said)


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


def _is_none(said: str) -> bool:
    plain = said.strip(MARKS)
    return not plain or is_nothing(plain) or bool(_NO_LABEL.fullmatch(plain))


def _get_score(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return float(bool(value))
    said = str(value).strip(MARKS).lower()
    if said in _SCORES:
        return _SCORES[said]
    if not re.fullmatch(r"\d+(?:\.\d+)? ?%?", said):
        return None
    return float(said.rstrip(" %")) / (100 if said.endswith("%") else 1)
