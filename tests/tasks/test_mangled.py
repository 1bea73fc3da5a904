"""Two hundred answers, mangled in twenty ways that models are known to mangle answers.

Each way makes ten answers out of ten texts with their entities, and knows what has to
come of them without reading them: which entities, and how many losses of which kind.
Its docstring names where the way was seen.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import pytest
import spacy
from spacy.language import Language

from instaner.tasks.grounding import Status, load_readings
from instaner.tasks.ner import make_ner_task

Pairs = tuple[tuple[str, str], ...]

_LABELS = ["DISH", "INGREDIENT", "KITCHEN_EQUIPMENT"]
_DISH, _FOOD, _TOOL = _LABELS
_TASK = make_ner_task(_LABELS)


class Base(NamedTuple):
    """A text with its entities, in the order of the text."""

    language: str
    text: str
    pairs: Pairs


_BASES = (
    Base(
        "en",
        "Toss the noodles in a wok with soy sauce, then serve the pad thai.",
        (("noodles", _FOOD), ("wok", _TOOL), ("soy sauce", _FOOD), ("pad thai", _DISH)),
    ),
    Base(
        "de",
        "Für die Maultaschen brauche ich Brät, Spinat und einen Dampfgarer.",
        (
            *(("Maultaschen", _DISH), ("Brät", _FOOD), ("Spinat", _FOOD)),
            ("Dampfgarer", _TOOL),
        ),
    ),
    Base(
        "fr",
        "J'ai goûté le coq au vin et la crème brûlée ; ma cocotte est trop petite.",
        (("coq au vin", _DISH), ("crème brûlée", _DISH), ("cocotte", _TOOL)),
    ),
    Base(
        "es",
        "La paella lleva azafrán y la paella se hace en una paellera ancha.",
        (
            *(("paella", _DISH), ("azafrán", _FOOD), ("paella", _DISH)),
            ("paellera", _TOOL),
        ),
    ),
    Base(
        "zh",
        "我用炒锅做麻婆豆腐，还放了花椒。",
        (("炒锅", _TOOL), ("麻婆豆腐", _DISH), ("花椒", _FOOD)),
    ),
    Base(
        "ru",
        "Борщ варю в большой кастрюле, а свёклу запекаю в духовке.",
        (
            *(("Борщ", _DISH), ("кастрюле", _TOOL), ("свёклу", _FOOD)),
            ("духовке", _TOOL),
        ),
    ),
    Base(  # bars in the text, and a surface twice
        "en",
        "Today: fish | chips with peas . I fry the fish | chips in a deep fryer .",
        (
            *(("fish | chips", _DISH), ("peas", _FOOD), ("fish | chips", _DISH)),
            ("deep fryer", _TOOL),
        ),
    ),
    Base(  # quotes in the text
        "en",
        'She calls it "Dragon Soup" , with ginger , cooked in a "Big Green Egg" .',
        (('"Dragon Soup"', _DISH), ("ginger", _FOOD), ('"Big Green Egg"', _TOOL)),
    ),
    Base(  # a surface in another one
        "it",
        "Il risotto allo zafferano vuole brodo, zafferano e una casseruola.",
        (
            *(("risotto allo zafferano", _DISH), ("brodo", _FOOD)),
            *(("zafferano", _FOOD), ("casseruola", _TOOL)),
        ),
    ),
    Base(
        "ar",
        "أطبخ الكسكس في قدر كبير مع الحمص .",
        (("الكسكس", _DISH), ("قدر", _TOOL), ("الحمص", _FOOD)),
    ),
)


class Case(NamedTuple):
    """An answer, and what has to come of it.

    language (str): Language of the text.
    text (str): The text.
    said (int): Number of entities that the answer names.
    answer (str): The answer.
    pairs (Tuple[Tuple[str, str], ...]): Entities, in the order of the text.
    losses (Dict[Status, int]): Losses by status.
    """

    language: str
    text: str
    said: int
    answer: str
    pairs: Pairs
    losses: dict[Status, int]


Way = Callable[[Base, int], "str | tuple[str, Pairs, dict[Status, int]]"]
_WAYS: list[Way] = []


def _way(function: Way) -> Way:
    _WAYS.append(function)
    return function


def _row(surface: str, label: str, flag: str = "True") -> str:
    return f"{surface} | {flag} | {label} | is what it is"


def _rows(pairs: Iterable[tuple[str, str]], mark: str = "{}. ") -> str:
    return "\n".join(
        mark.format(number) + _row(*pair) for number, pair in enumerate(pairs, 1)
    )


@_way
def _bullets(base: Base, k: int) -> str:
    """Numbers and bullets of all kinds, or none.

    https://github.com/yoheinakajima/babyagi/issues/22
    https://github.com/monarch-initiative/ontogpt/issues/133
    """
    marks = ["{}) ", "{}: ", "({}) ", "- ", "* ", "• ", "", "**{}.** ", "[{}] "]
    return _rows(base.pairs, [*marks, "- {}. "][k])


@_way
def _bold(base: Base, k: int) -> str:
    """Markdown round the words that matter.

    https://github.com/crewAIInc/crewAI/issues/103 (**Action:**)
    https://github.com/conradry/open-coscientist-agents/issues/18
    """
    marks = ["**{}**", "*{}*", "`{}`", "__{}__", "_{}_", "***{}***", "**`{}`**"]
    if k < len(marks):
        return _rows((marks[k].format(s), marks[k].format(n)) for s, n in base.pairs)
    mark = ["**{}. **", "**{}. ", "- **"][k - len(marks)]
    lines = _rows(base.pairs, mark).splitlines()
    return "\n".join(line if k == len(marks) else f"{line}**" for line in lines)


@_way
def _quotes(base: Base, k: int) -> str:
    """Quotes round surfaces and labels, which sometimes belong to the surface.

    https://github.com/HKUDS/LightRAG/issues/948 (types come in quotes)
    https://github.com/HKUDS/LightRAG/issues/2862 (names that have quotes)
    """
    marks = ['"{}"', "'{}'", "“{}”", "„{}“", "「{}」", "«{}»", "‘{}’", "{}", "‹{}›"]
    mark = [*marks, "`{}`"][k]
    return _rows((mark.format(surface), f'"{label}"') for surface, label in base.pairs)


@_way
def _fence(base: Base, k: int) -> str:
    """A code fence round the answer.

    https://github.com/langchain-ai/langchain/issues/23297
    https://github.com/vectorize-io/hindsight/issues/645
    """
    begins = ["```", "```text", "```plaintext", "~~~", "Answer:\n```", "``` csv"]
    begin = begins[k % len(begins)]
    end = "~~~" if begin == "~~~" else "```"
    return f"{begin}\n{_rows(base.pairs)}\n{end}" + "\n" * (k % 2)


@_way
def _prose(base: Base, k: int) -> str:
    """Something friendly before and after it.

    https://github.com/lingodotdev/lingo.dev/pull/2006
    https://github.com/Q00/ouroboros/pull/1734
    """
    before = [
        "Sure!",
        "Here are the entities:",
        "Certainly! Here is the list of entities found in the paragraph:",
        "**Entities:**",
        "## Named entities",
        "Okay, here's what I found:\n\n---",
        "Based on the paragraph, the entities of type DISH, INGREDIENT and "
        "KITCHEN_EQUIPMENT are:",
        "Voici les entités :",
        "Of course.\n\nOutput:",
        "以下是实体：",
    ]
    after = ["I hope this helps!", "Let me know if you need anything else.", "---", ""]
    return f"{before[k]}\n\n{_rows(base.pairs)}\n\n{after[k % len(after)]}"


@_way
def _thoughts(base: Base, k: int) -> str:
    """What a model thinks before it answers; the first tag is often lost.

    https://github.com/langchain-ai/local-deep-researcher/pull/88
    https://github.com/open-webui/open-webui/issues/9808 (only </think>)
    """
    draft = f"Let me see.\n\n{_row('sugar', _FOOD)}\nor is it {_DISH}?"
    before = [
        f"<think>\n{draft}\n</think>\n\n",
        f"{draft}\n</think>\n\n",
        "<think>\n\n</think>\n\n",
        f"<thinking>{draft}</thinking>",
        f"<reasoning>\n{draft}\n</reasoning>\n",
    ]
    answers = [_rows(base.pairs), _dump(base.pairs)]
    return before[k % len(before)] + answers[k // len(before)]


def _dump(
    pairs: Iterable[tuple[str, str]], text: str = "text", label: str = "label"
) -> str:
    return json.dumps([{text: s, label: name} for s, name in pairs], ensure_ascii=False)


@_way
def _objects(base: Base, k: int) -> str:
    """JSON instead of lines, whose fields have any names, with offsets that are wrong.

    https://github.com/getzep/graphiti/issues/796 (entity_name; no list was asked for)
    https://github.com/google/langextract/issues/259 (models cannot count characters)
    """
    names = [
        *(("text", "label"), ("entity", "type"), ("name", "entity_type")),
        *(("entity_name", "type"), ("span", "category"), ("surface", "tag")),
        *(("mention", "type"), ("word", "entity_group"), ("value", "entity")),
        ("Entity Text", "Entity Label"),
    ]
    objects = [
        {"id": n, names[k][0]: surface, names[k][1]: label, "start": 0, "end": 3 * n}
        for n, (surface, label) in enumerate(base.pairs)
    ]
    wraps = [objects, {"entities": objects}, {"extracted_entities": objects, "n": 3}]
    answer = json.dumps(
        wraps[k % len(wraps)], ensure_ascii=bool(k % 2), indent=[None, 2][k % 2]
    )
    return [answer, f"```json\n{answer}\n```", f"Here is the JSON: {answer}"][k % 3]


@_way
def _by_label(base: Base, k: int) -> str:
    """JSON with a list for each label; what has none gets "None".

    https://github.com/Red-Hat-AI-Innovation-Team/sdg_hub/pull/416
    """
    nothing = [["None"], [], None, "None", ["N/A"]][k % 5]
    value = {
        label: [s for s, name in base.pairs if name == label] or nothing
        for label in [*_LABELS[k % 3 :], *_LABELS[: k % 3]]
    }
    if k % 3 == 2:
        return "\n".join(f"{key}: {json.dumps(value[key])}" for key in value)
    return json.dumps({"entities": value} if k % 2 else value, ensure_ascii=False)


@_way
def _literals(base: Base, k: int) -> str:
    """Literals of Python: tuples, single quotes, None; also with O for no label.

    https://github.com/qcri/LLMeBench/issues/61 (Output: [('…', 'LOC'), ('-', 'O'), …])
    https://github.com/eosphoros-ai/DB-GPT/issues/1367 (single quotes)
    """
    objects = [{"text": s, "label": label, "note": None} for s, label in base.pairs]
    flagged = [{**item, "is_entity": True} for item in objects]
    answer = [
        repr(list(base.pairs)),
        repr([*base.pairs, ("salt", "O")]),
        repr(objects),
        repr([*flagged, {"text": "x", "label": None, "is_entity": False}]),
        repr({"entities": objects}),
    ][k % 5]
    return [answer, f"Output: {answer}"][k // 5]


@_way
def _bad_json(base: Base, k: int) -> str:
    """JSON that no parser takes: commas too many or too few, quotes not escaped.

    https://github.com/bytedance/deer-flow/pull/2372 (commas)
    https://github.com/mozilla/kitsune/pull/6749 (quotes in the reason)
    https://github.com/mangiucugna/json_repair/issues/10 (single quotes)
    """
    answer = _dump(base.pairs)
    if k % 5 == 0:
        return answer.replace("}", ",}").replace("]", ",]")
    if k % 5 == 1:
        return answer.replace("}", ', "reason": "it is "good", I say"}')
    if k % 5 == 2:
        escaped = answer.replace('\\"', '"')  # what base 7 is for
        return escaped.replace(', "label"', ',\n"label"')
    if k % 5 == 3:
        return answer.replace("}, {", "} {").replace('"text":', "text:")
    return answer.replace("}, ", "},  // one more\n")[:-1]  # never closed


@_way
def _cut_json(base: Base, k: int) -> tuple[str, Pairs, dict[Status, int]]:
    """JSON that ended at the limit of tokens, in the middle of the last object.

    https://github.com/mangiucugna/json_repair/issues/59
    https://github.com/run-llama/llama_index/pull/22918
    """
    objects = [{"text": s, "label": label} for s, label in base.pairs]
    wrapped = {"entities": objects} if k % 2 else objects
    answer = json.dumps(wrapped, ensure_ascii=False, indent=[None, 1][k // 5])
    last = answer.rindex('"text"')
    inside = answer.rindex("}", last, len(answer) - k % 2 * 2) - last
    cut = answer[: last + 1 + inside * (k % 5) // 5]
    return cut, base.pairs[:-1], {Status.UNREADABLE: 1}


@_way
def _cut_line(base: Base, k: int) -> tuple[str, Pairs, dict[Status, int]]:
    """A last line that ended at the limit of tokens.

    https://github.com/explosion/spacy-llm/issues/379
    """
    surface, label = base.pairs[-1]
    rest = base.pairs[:-1]
    end, loss = [
        (surface[:2], Status.UNREADABLE),
        (surface, Status.UNREADABLE),
        (f"{surface} |", Status.UNREADABLE),
        (f"{surface} | Tr", Status.UNREADABLE),
        (f"{surface} | True |", Status.UNKNOWN_LABEL),
        (f"{surface} | True | {label[:-2]}", Status.UNKNOWN_LABEL),
        (f"{surface} | True | {label}", None),
        (f"{surface} | True | {label} |", None),
        (f"{surface} | True | {label} | is wh", None),
        (f"{surface} | True", Status.UNKNOWN_LABEL),
    ][k]
    answer = f"{_rows(rest)}\n{len(base.pairs)}. {end}"
    return (answer, rest, {loss: 1}) if loss else (answer, base.pairs, {})


@_way
def _headings(base: Base, k: int) -> str:
    """Lists under a heading for each label, or behind it.

    https://github.com/explosion/spacy-llm/issues/464
    https://github.com/monarch-initiative/ontogpt/pull/214 (commas)
    """
    heading = ["{}:", "**{}:**", "### {}", "**{}**", "- {}:", "{}: "][k % 6]
    blocks = []
    for label in _LABELS:
        surfaces = [s for s, name in base.pairs if name == label]
        if k == 5:
            blocks.append(f"{label}: {', '.join(surfaces) or 'None'}")
            continue
        items = surfaces or ["None"]
        marks = ["- {1}", "* {1}", "{0}. {1}", "  - {1}", "- **{1}**"]
        mark = marks[k % 5] + (" (one of them)" if k > 6 and surfaces else "")
        lines = [mark.format(n, item) for n, item in enumerate(items, 1)]
        title = label.replace("_", " ").title() if k % 2 else label
        blocks.append("\n".join([heading.format(title), *lines]))
    return "\n\n".join(blocks)


@_way
def _flags(base: Base, k: int) -> str:
    """Yes or no, a tick or a number, instead of True or False.

    https://github.com/langchain-ai/langchain/issues/5396
    https://github.com/llm-exe/llm-exe/issues/147
    """
    yes, no = [
        *(("yes", "no"), ("Yes", "No"), ("TRUE", "FALSE"), ("1", "0"), ("✓", "✗")),
        *(("✔️", "✘"), ("✅", "❌"), ("true", "false"), ("**True**", "**False**")),
        ("True.", "False."),
    ][k]
    lines = [f"{n}. {_row(*pair, yes)}" for n, pair in enumerate(base.pairs, 1)]
    return "\n".join([*lines, f"9. {_row('lid', '==NONE==', no)}"])


@_way
def _label_spelling(base: Base, k: int) -> tuple[str, Pairs, dict[Status, int]]:
    """Labels in other case, with spaces or hyphens, in the plural, or two at once.

    https://github.com/Egonex-AI/Understand-Anything/pull/43 ("bi-directional")
    https://github.com/langchain-ai/langchain/issues/11408 ("Yes, …" for YES)
    """
    spell: Callable[[str], str] = [
        str.lower,
        str.title,
        lambda label: label.replace("_", " "),
        lambda label: label.replace("_", "-").lower(),
        lambda label: label.replace("_", " ").title(),
        lambda label: f"[{label}]",
        lambda label: f"<{label}>",
        lambda label: f"{label}.",
        lambda label: f"{label}S",
        lambda label: f"{label}/FOOD",
    ][k]
    answer = _rows((surface, spell(label)) for surface, label in base.pairs)
    if k < 8:
        return answer, base.pairs, {}
    return answer, (), {Status.UNKNOWN_LABEL: len(base.pairs)}


@_way
def _invented(base: Base, k: int) -> tuple[str, Pairs, dict[Status, int]]:
    """A label that is none of those asked for, or none at all.

    https://github.com/refuel-ai/autolabel/pull/922
    https://github.com/Egonex-AI/Understand-Anything/pull/43
    """
    labels = ["FOOD", "B-DISH", "OTHER", "Gericht", "锅", "", "?", "DISH?", "MISC"]
    label = [*labels, "Tool"][k]
    *rest, (surface, _) = base.pairs
    pairs = [*rest, (surface, label)]
    answer = _rows(pairs) if k % 2 or not label else _dump(pairs)
    return answer, tuple(rest), {Status.UNKNOWN_LABEL: 1}


@_way
def _nothing(base: Base, k: int) -> tuple[str, Pairs, dict[Status, int]]:
    """That there is nothing, said politely or not.

    https://github.com/google/langextract/issues/301
    https://github.com/crewAIInc/crewAI/issues/4186 (None, N/A)
    """
    answer = [
        "No entities",
        "There are no named entities in the given paragraph.",
        "I'm sorry, but the text does not contain any relevant entities.",
        "==NONE==",
        "1. None",
        "N/A",
        '```json\n{"entities": []}\n```',
        "Here are the entities:\n\n[]",
        "None | None | None | None",
        "{}",
    ][k]
    return answer, (), {}


@_way
def _bars(base: Base, k: int) -> str:
    """Delimiters that are not quite those asked for, or stand in what they separate.

    https://github.com/HKUDS/LightRAG/pull/2035 (< | >, <||>)
    https://github.com/HKUDS/LightRAG/pull/3438 (delimiters in a description)
    """
    lines = []
    for surface, label in base.pairs:
        escaped = surface.replace("|", r"\|")
        lines.append(
            [
                f"{surface}|True|{label}|why",
                f"{surface}\tTrue\t{label}\twhy",
                f"{surface}｜True｜{label}｜why",
                f"{surface}  |  True|{label}  | a | b || c",
                f"| {surface} | True | {label} | why |",
                f"{surface} | {label}",
                f"| {escaped} | True | {label} | a \\| b |",
                f"{surface} | {label} | why",
                f"{surface} | {label} | True | why",
                f"{surface} | True | {label} | True or false | why",
            ][k]
        )
    if lines[0].startswith("|"):
        lines[:0] = ["| Text | Is entity | Label | Reason |", "|---|:---:|:---|---|"]
    return "\n".join(lines)


@_way
def _second_thoughts(base: Base, k: int) -> str:
    """A draft, doubts, and then the final answer, which may have less or more in it.

    https://github.com/langchain-ai/langchain/issues/21912
    https://github.com/crewAIInc/crewAI/issues/1545
    """
    draft = [*base.pairs[k % 2 :], ("sugar", _FOOD), base.pairs[0]]
    heading = [
        *("Final answer:", "**Final Answer:**", "### Final list:", "Revised answer:"),
        *("So the final answer is:", "Here is the corrected list:", "Final Output :"),
        *("_Updated entities:_", "My final answer:", "FINAL ANSWER:"),
    ][k]
    doubt = "Wait, let me double check. There is no sugar in it."
    answer = _dump(base.pairs) if k % 3 == 2 else _rows(base.pairs)
    return f"{_rows(draft)}\n\n{doubt}\n\n{heading}\n{answer}"


@_way
def _echo(base: Base, k: int) -> str:
    """The text, or the end of the prompt, once more before the answer.

    https://github.com/pytorch/executorch/issues/3692
    https://github.com/vllm-project/vllm/issues/8864
    """
    rows = _rows(base.pairs)
    text = base.text
    objects = [{"text": s, "label": label} for s, label in base.pairs]
    question = (
        "Q: Given the paragraph below, identify a list of entities, and for each "
    )
    return [
        f"Paragraph: {text}\nAnswer:\n{rows}",
        f"{question}entry explain why it is or is not an entity:\n\n"
        f"Paragraph: {text}\nAnswer:\n{rows}",
        f"Text: {text}\n\n{rows}",
        f"{text}\n\n{rows}",
        f'Paragraph: "{text}"\n{rows}',
        json.dumps({"text": text, "entities": objects}),
        json.dumps({"paragraph": text, "entities": objects}, ensure_ascii=False),
        f"**Paragraph:** {text}\n\n**Answer:**\n{rows}",
        f"{rows}\n\nParagraph: {text}",
        f"Paragraph:\n{text}\n\nAnswer: {rows}",
    ][k]


@lru_cache
def _get_nlp(language: str) -> Language:
    return spacy.blank(language)


def _make_cases() -> list[Any]:
    cases = []
    for way in _WAYS:
        for k, base in enumerate(_BASES):
            made = way(base, k)
            answer, pairs, losses = (
                (made, base.pairs, {}) if isinstance(made, str) else made
            )
            said = 0 if way is _nothing else len(base.pairs)
            case = Case(base.language, base.text, said, answer, pairs, losses)
            cases.append(pytest.param(case, id=f"{way.__name__.strip('_')}-{k}"))
    return cases


def test_there_are_twenty_ways() -> None:
    assert len(_WAYS) == 20
    assert all("https://" in (way.__doc__ or "") for way in _WAYS)
    assert len(_make_cases()) == 200


@pytest.mark.parametrize("case", _make_cases())
def test_mangled_answer_is_read(case: Case) -> None:
    doc = _get_nlp(case.language).make_doc(case.text)
    (doc,) = _TASK.parse_responses([[doc]], [[case.answer]])
    readings = load_readings(doc)
    assert readings
    losses = Counter(reading.status for reading in readings if reading.status.is_loss)
    assert tuple((ent.text, ent.label_) for ent in doc.ents) == case.pairs, readings
    assert losses == case.losses, readings
    assert len(doc.ents) + losses.total() == case.said  # nothing is lost silently
