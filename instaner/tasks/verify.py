"""Asking again about one place in a text, or its category: which of several readings of
it is right?
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from ..llm.store import Prompt
from ..targets import is_category
from .prompts import get_constant
from .reading import drop_thoughts

_TEMPLATE = jinja2.Template(Path(__file__).with_name("verify.jinja").read_text("utf8"))
_CONTEXT = 400  # characters on either side of the place
_NUMBER = re.compile(
    r"\W*(?:the\W+)?(?:(?:right|correct)\W+)?(?:(?:reading|opinion|answer|option)\W+)?"
    r"(?:is\W+)?(?:(?:reading|opinion)\W+)?(\d+)\b(?!\s*(?:\||,|/|or|and)\s*\S)",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"\W*(?:none|no (?:named )?entity|nothing)\W*", re.IGNORECASE)
_SPAN = re.compile(
    r"(?:answer:)?\s*(?:\d+[.):]\s+|[-*•]\s+)?(?P<text>.+?)\s*[|｜]\s*"
    r"(?:true\s*[|｜]\s*)?(?P<label>[^|｜]+?)\s*",
    re.IGNORECASE,
)
_BEFORE_CATEGORY = re.compile(
    r"(?:\d+[.):]\s+|[-*•]\s+)?\W*(?:the\W+)?(?:(?:right|correct)\W+)?"
    r"(?:(?:category|answer|label)\b\W*)?(?:is\b\W*)?",
    re.IGNORECASE,
)
_MARKS = "\"'`*“”‘’«»[] "

Span = tuple[int, int, str]


class Case(NamedTuple):
    """A place in a text, and the readings of it.

    text (str): The whole text.
    start (int): First character of the place, which of a category is before the text.
    end (int): Character after its last.
    readings (Tuple[Tuple[Span, ...], ...]): Of each reading the spans (start and end
        character and label) that it finds at the place; none for no entity, or that
        the text is not of the category.
    """

    text: str
    start: int
    end: int
    readings: tuple[tuple[Span, ...], ...]


def make_prompt(task: Any, case: Case) -> Prompt:
    """Make the prompt that asks which reading is right.

    task (Any): The spacy-llm task that the readings come from: its labels, definitions
        and description are repeated.
    case (Case): The case.
    RETURNS (Prompt): The prompt, of which all before the text is constant.
    """
    start, end = max(0, case.start), max(0, case.end)
    context = len(case.text) if is_category(case[1:]) else _CONTEXT
    begin, stop = max(0, start - context), min(len(case.text), end + context)
    variables = {
        "is_category": is_category(case[1:]),
        "labels": get_labels(task, case),
        "definitions": getattr(task, "_label_definitions", None) or {},
        "description": getattr(task, "_description", None),
        "is_open": () not in case.readings,
        "readings": [_describe(case, reading) for reading in case.readings],
        "place": case.text[start:end],
    }
    before = "…" * (begin > 0) + case.text[begin:start]
    after = case.text[end:stop] + "…" * (stop < len(case.text))
    prompt = _TEMPLATE.render(**variables, before=before, after=after)
    other = _TEMPLATE.render(**variables, before="\0", after="")
    return Prompt(prompt, constant=len(get_constant(prompt, other)))


def read_verdict(task: Any, case: Case, answer: str) -> tuple[Span, ...] | None:
    """Read the answer.

    task (Any): As for make_prompt.
    case (Case): The case.
    answer (str): The answer.
    RETURNS (Optional[Tuple[Span, ...]]): The spans at the place; None if the answer
        names neither a reading, nor a span of a known label that overlaps the place,
        nor a known category where one is asked for.
    """
    lines = (line.strip() for line in drop_thoughts(answer).splitlines())
    line = next((line for line in lines if line and not line.startswith("```")), "")
    if is_category(case[1:]):
        said = _make_answers(task, case)
        for words in (line, _BEFORE_CATEGORY.sub("", line, count=1)):
            words = _simplify(words)
            if words in said and not _is_number(words, case):
                return said[words]
    match = None if is_category(case[1:]) else _SPAN.fullmatch(line)
    if match is None:
        if _NOTHING.fullmatch(line):
            return () if () in case.readings else None
        number = _NUMBER.match(line)
        if number is None or not _is_number(number[1], case):
            return None
        return case.readings[int(number[1]) - 1]
    labels = {label.strip().lower(): label for label in get_labels(task, case)}
    label = labels.get(match["label"].strip(_MARKS).lower())
    for surface in (match["text"], match["text"].strip(_MARKS)):
        start = case.text.find(surface, max(0, case.start - len(surface) + 1))
        if label is not None and surface and 0 <= start < case.end:
            return ((start, start + len(surface), label),)
    return None


def get_labels(task: Any, case: Case) -> list[str]:
    """RETURNS (List[str]): The task's labels, or those of the case if it has none."""
    named = {label for reading in case.readings for _, _, label in reading}
    return list(getattr(task, "labels", None) or sorted(named))


def _make_answers(task: Any, case: Case) -> dict[str, tuple[Span, ...] | None]:
    """What an answer about categories means that has words instead of a number. Where a
    text can have several, the question is about one, and to name another no answer."""
    is_open = () not in case.readings
    answers: dict[str, tuple[Span, ...] | None] = {
        _simplify(label): ((case.start, case.end, label),) if is_open else None
        for label in get_labels(task, case)
    }
    answers.update((_simplify(_describe(case, r)), r) for r in case.readings)
    return answers


def _simplify(words: str) -> str:
    return words.strip(f"{_MARKS}.。").lower()


def _is_number(words: str, case: Case) -> bool:
    return words.isdecimal() and 1 <= int(words) <= len(case.readings)


def _describe(case: Case, reading: tuple[Span, ...]) -> str:
    if is_category(case[1:]):
        labels = sorted({label for spans in case.readings for *_, label in spans})
        return reading[0][2] if reading else f"not {' or '.join(labels)}"
    text = case.text
    named = [f'"{text[start:end]}" is {label}' for start, end, label in reading]
    return ", ".join(named) or "no entity"
