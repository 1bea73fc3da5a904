"""JSON as models write it: with single quotes, literals of Python, commas too many or
too few, quotes that should have been escaped, comments; cut off; and with fields of
many names."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Object = tuple[tuple[str, Any], ...]
FindLabel = Callable[[str], str | None]

TEXT_FIELDS = (
    *("text", "surface", "span", "word", "mention", "phrase", "entity_text"),
    *("entity_name", "name", "value", "entity"),
)
LABEL_FIELDS = (
    *("label", "type", "category", "entity_type", "entity_label", "class", "tag"),
    *("entity_group", "entity"),
)
_REASON_FIELDS = ("reason", "reasoning", "explanation", "rationale", "justification")
_FIELDS = {*TEXT_FIELDS, *LABEL_FIELDS}

# A quote ends a string if what follows it can follow a string.
_AFTER = r"\s*(?:[:\]})]|,\s*(?:[\"'\[{(\]})\d/-]|\w+\s*[:,\]})]|\Z)|\Z)|[^\S\n]*\n"
_STRING = "|".join(
    rf"{q}(?:[^{q}\\]|\\.|{q}(?!{_AFTER}))*{q}(?={_AFTER})" for q in "\"'"
)
_TOKEN = re.compile(
    rf"(?:[\s,:]|//[^\n]*(?:\n|\Z))*(?:(?P<string>{_STRING})|(?P<open>[\[{{(])|"
    r"(?P<close>[\]})])|(?P<word>[\w.+-]+(?=\s*[,:\]})])))",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\.|\"", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None, "none": None}
_DEEPEST = 20  # brackets in brackets


class Pair(NamedTuple):
    """A surface and its label, as they stand in JSON.

    text (str): The surface.
    label (str): The label, or "".
    is_entity (Any): What is said of it, or None.
    reason (str): Why, or "".
    """

    text: str
    label: str
    is_entity: Any = None
    reason: str = ""


def parse_loosely(
    text: str, start: int, find_label: FindLabel
) -> tuple[Any, int, bool]:
    """Parse a value in brackets, as far as it goes.

    text (str): Text with the value in it.
    start (int): Where the value begins.
    find_label (Callable[[str], Optional[str]]): Tells labels. An object that was cut
        off is left out, unless each of its fields means something by itself.
    RETURNS (Tuple[Any, int, bool]): The value, in which objects are tuples of pairs, as
        a key can stand there twice, and numbers are strings; where what could be read
        of it ends; and whether that is all of it.
    """
    # Brackets that are open: which, where, and what stands in each, and ends where.
    opened: list[tuple[str, int, list[tuple[Any, int]]]] = [("", start, [])]
    stop = start
    while len(opened) <= _DEEPEST and (token := _TOKEN.match(text, stop)):
        stop = token.end()
        value: Any
        if token["open"]:
            opened.append((token["open"], token.start("open"), []))
            continue
        if token["close"]:
            bracket, begin, items = opened.pop()
            odd = bracket == "{" and len(items) % 2
            value = text[begin:stop] if odd else _build(bracket, items)
        elif token["string"]:
            value = _decode(token["string"])
        else:
            value = _WORDS.get(token["word"].lower(), token["word"])
        opened[-1][2].append((value, stop))
        if len(opened) == 1:
            return value, stop, True
    good = -1
    while len(opened) > 1:
        bracket, begin, items = opened.pop()
        if bracket == "{" and len(items) % 2:
            items.pop()  # a key without a value
        if good < 0:
            good = items[-1][1] if items else begin + 1
        value = _build(bracket, items)
        if isinstance(value, list) or _is_free(value, find_label):
            opened[-1][2].append((value, good))
        elif value or len(opened) > 1:
            good = begin
    ((_, _, items),) = opened
    return items[0][0] if items else [], good, False


def _build(bracket: str, items: list[tuple[Any, int]]) -> Any:
    values = [value for value, _ in items]
    if bracket == "{":
        return tuple(zip(map(str, values[::2]), values[1::2], strict=True))
    return values


def _decode(token: str) -> str:
    inner = _ESCAPE.sub(lambda m: {'"': '\\"', "\\'": "'"}.get(m[0], m[0]), token[1:-1])
    try:
        text: str = json.loads(f'"{inner}"', strict=False)
    except ValueError:  # of an escape that JSON has not
        return token[1:-1]
    return text.encode("utf8", "replace").decode("utf8")  # half of a surrogate pair


def find_pairs(value: Any, label: str, find_label: FindLabel) -> Iterator[Pair]:
    """Find surfaces and labels: in objects with a field for each, from label to
    surfaces, from surface to label, or side by side in a list.

    value (Any): A value that parse_loosely gave.
    label (str): The label that it stands under, or "".
    find_label (Callable[[str], Optional[str]]): Tells labels.
    YIELDS (Pair): The pairs, in order. Without a label: what has none.
    """
    if isinstance(value, tuple):
        yield from _find_in_object(value, label, find_label)
    elif isinstance(value, list):
        named = find_label(label)
        alone = not named and _is_pair(value) and find_label(value[1])
        for item in [value] if alone else value:
            if not named and _is_pair(item):
                yield Pair(item[0], item[1])
            else:
                yield from find_pairs(item, label, find_label)
    elif isinstance(value, str) and value.strip():
        yield Pair(value, label)


def _find_in_object(pairs: Object, label: str, find_label: FindLabel) -> Iterator[Pair]:
    fields = {_fold(key): value for key, value in pairs}
    text = next((n for n in TEXT_FIELDS if isinstance(fields.get(n), str)), "")
    names = [n for n in LABEL_FIELDS if n != text and n in fields]
    name = next((n for n in names if isinstance(fields[n], str | None)), "")
    lists = [value for _, value in pairs if isinstance(value, list)]
    is_record = not any(isinstance(item, tuple) for items in lists for item in items)
    if text and is_record and (name or find_label(label)):
        given = (fields[name] or "none") if name else label
        reasons = [fields[n] for n in _REASON_FIELDS if isinstance(fields.get(n), str)]
        reason = next(iter(reasons), "")
        yield Pair(fields[text], given, fields.get("is_entity"), reason)
        if len(fields) == len(pairs):
            return
    if (text or name) and not _is_free(pairs, find_label):
        source = {key: value for key, value in pairs}
        yield Pair(json.dumps(source, ensure_ascii=False), "")
        return
    if name and not find_label(name):
        label = fields[name] or ""  # of a list beside it
    for key, value in pairs:
        if isinstance(value, (list, tuple)):
            under = label if label and not find_label(key) else key
            yield from find_pairs(value, under, find_label)
        elif isinstance(value, str) and value.strip():
            if find_label(key) and not find_label(value):
                yield Pair(value, key)
            elif not lists or (find_label(value) and _fold(key) not in _FIELDS):
                yield Pair(key, value)


def _is_free(pairs: Object, find_label: FindLabel) -> bool:
    """RETURNS (bool): Whether each field of an object means something by itself."""
    if any(isinstance(value, (list, tuple)) for _, value in pairs):
        return True
    if any(_fold(key) in _FIELDS and not find_label(key) for key, _ in pairs):
        return False
    return any(find_label(str(part)) for pair in pairs for part in pair)


def _is_pair(value: Any) -> bool:
    """RETURNS (bool): Whether it is a list of a surface and a label, and offsets."""
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(item, str) for item in value)
        and all(item.isdecimal() for item in value[2:])
    )


def _fold(key: str) -> str:
    return re.sub(r"[\s-]+", "_", key.strip().lower())
