import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instaner.tasks.grounding import Mention, Reading, Status
from instaner.tasks.loose_json import parse_loosely
from instaner.tasks.ner import make_ner_task
from instaner.tasks.reading import read_answer

_LABELS = ["DISH", "KITCHEN_EQUIPMENT"]
_TASK = make_ner_task(_LABELS)
_TEXT = 'I cook ramen in a wok, "Fish" and fish | chips, then Ramen again.'
_WOK = Mention("wok", "KITCHEN_EQUIPMENT")
_RAMEN = Mention("ramen", "DISH")

_ODD = st.sampled_from(
    [
        *"\n\t|:;,.-*#`\"'“()[]{}=\\/<>｜：1",
        *(" ", "True", "false", "wok", "ramen", "DISH", "Tool", "==NONE==", "**"),
        *("```", "</think>", "<think>", "Final answer:", "->", "Paragraph:", "\r\n"),
        *('{"text": "wok"', '"label": "DISH"}', "[[", "entities"),
    ]
)
_ANSWERS = st.text(max_size=60) | st.lists(_ODD, max_size=40).map("".join)


def _read(answer: str) -> list[Mention]:
    """Read an answer in which nothing is lost, but for its reasons."""
    mentions, others = _read_all(answer, _TEXT)
    assert all(other.status is Status.NO_ENTITY for other in others), others
    return mentions


def _read_all(answer: str, text: str = "") -> tuple[list[Mention], list[Reading]]:
    mentions, others = read_answer(_TASK, answer, text)
    return (
        [mention._replace(reason="") for mention in mentions],
        [other._replace(reason="") for other in others],
    )


def _lose(line: str) -> Reading:
    return Reading(Status.UNREADABLE, line, "")


@pytest.mark.parametrize(
    "line",
    [
        "1. wok | True | KITCHEN_EQUIPMENT | is a pan",
        "1) wok | True | KITCHEN_EQUIPMENT | is a pan",
        "wok | True | KITCHEN_EQUIPMENT | is a pan",
        "- wok | True | KITCHEN_EQUIPMENT | is a pan",
        "  12.  wok|true|kitchen_equipment|is a pan",
        "1. wok | True | KITCHEN_EQUIPMENT",
        "1. wok | True | KITCHEN_EQUIPMENT | a | b",
        "Answer: 1. wok | True | KITCHEN_EQUIPMENT | is a pan",
        "wok | KITCHEN_EQUIPMENT | True",
        "KITCHEN_EQUIPMENT | wok | is a pan",
        "KITCHEN_EQUIPMENT: wok",
        "KITCHEN_EQUIPMENT: wok (a pan)",
        "wok: KITCHEN_EQUIPMENT",
        "- wok (KITCHEN_EQUIPMENT): a pan",
        "wok [kitchen equipment]",
        "wok（KITCHEN_EQUIPMENT）",
        "wok - KITCHEN_EQUIPMENT",
        "wok – kitchen-equipment – a pan",
        "wok -> KITCHEN_EQUIPMENT",
        "wok → Kitchen Equipment",
        '"wok": "KITCHEN_EQUIPMENT",',
        '["wok", "KITCHEN_EQUIPMENT"]',
        "{text: wok, label: KITCHEN_EQUIPMENT}",
        '{"wok": "KITCHEN_EQUIPMENT"}',
        '{"label": "KITCHEN_EQUIPMENT", "entities": ["wok"]}',
        '{"entities": [{"KITCHEN_EQUIPMENT": "wok"}]}',
        '{"text": "wok", "label": "kitchen-equipment", "is_entity": "true"}',
        '{"entities": ["wok | True | KITCHEN_EQUIPMENT | a pan"]}',
        '{"entities": ["wok (KITCHEN_EQUIPMENT)"]}',
        'KITCHEN_EQUIPMENT: ["wok"]',
        '1. {"text": "wok", "label": "KITCHEN_EQUIPMENT"}',
        "```\nwok | True | KITCHEN_EQUIPMENT\n```",
        "KITCHEN_EQUIPMENT:\r\n- wok\r\n",
    ],
)
def test_line_is_read(line: str) -> None:
    assert _read(line) == [_WOK]


@pytest.mark.parametrize("surface", ["7up", "1.5 l pot", "a | b", "True", "-", "🍜"])
def test_odd_surface_is_read(surface: str) -> None:
    mentions, unread = _read_all(f"1. {surface} | True | DISH | why")
    assert (mentions, unread) == ([Mention(surface, "DISH")], [])


@pytest.mark.parametrize(
    "answer",
    [
        "1. wok | True | KITCHEN_EQUIPMENT | a pan\n\n2. ramen | True | DISH | soup\n",
        "wok | True | KITCHEN_EQUIPMENT | a pan; ramen | True | DISH | a soup",
        "1. wok | True | KITCHEN_EQUIPMENT | a pan 2. ramen | True | DISH | a soup",
        "wok (KITCHEN_EQUIPMENT), ramen (DISH)",
        "[('wok', 'KITCHEN_EQUIPMENT', 18, 21), ('ramen', 'DISH', 7, 12)]",
        "KITCHEN_EQUIPMENT: wok\n\nDISH:\n- ramen",
    ],
)
def test_entities_are_read_in_order(answer: str) -> None:
    assert _read(answer) == [_WOK, _RAMEN]


def test_same_line_twice_is_two_mentions() -> None:
    assert _read("ramen | True | DISH | a\nramen | True | DISH | b") == [_RAMEN, _RAMEN]


def test_same_json_twice_is_two_mentions() -> None:
    block = '```json\n[{"text": "ramen", "label": "DISH"}]\n```\n'
    assert _read(block * 2) == [_RAMEN, _RAMEN]


@pytest.mark.parametrize(
    ("surface", "text"),
    [
        ('"Fish"', '"Fish"'),  # as it stands in the text
        ("“Fish”", "“Fish”"),  # so does this, but for the kind of quotes
        ('"ramen"', "ramen"),
        ("*`ramen`*", "ramen"),
        ('"a" and "b"', '"a" and "b"'),
        ("fish | chips", "fish | chips"),
        (r"fish \| chips", "fish | chips"),
    ],
)
def test_marks_are_kept_that_the_text_has(surface: str, text: str) -> None:
    assert _read(f"1. {surface} | True | DISH | why") == [Mention(text, "DISH")]


def test_list_behind_a_label_is_split_if_the_text_has_its_parts() -> None:
    mentions = _read("DISH: ramen, fish | chips, sushi")
    assert [mention.text for mention in mentions] == ["ramen", "fish | chips", "sushi"]
    assert _read("DISH: duck, sushi") == [Mention("duck, sushi", "DISH")]


@pytest.mark.parametrize(
    "line",
    [
        "1. box | False | ==NONE== | packaging",
        "box | ==NONE== | packaging",
        "box | DISH | False",
        "- box: none",
        '{"text": "box", "label": null}',
        '{"text": "box", "label": "DISH", "is_entity": false}',
        '[["box", "O"]]',
    ],
)
def test_what_is_no_entity_is_no_mention(line: str) -> None:
    mentions, others = _read_all(line)
    assert not mentions
    assert others == [Reading(Status.NO_ENTITY, "box", "")]


@pytest.mark.parametrize(
    "line",
    [
        "1. wok | True | KITCHEN_EQUIPMENT | A pan | of  iron.",
        "| wok | True | KITCHEN_EQUIPMENT | A pan | of iron. |",
        "wok | KITCHEN_EQUIPMENT | True | A pan | of iron.",
        "wok | KITCHEN_EQUIPMENT | A pan | of iron.",
        "KITCHEN_EQUIPMENT | wok | A pan | of iron.",
        "- wok (KITCHEN_EQUIPMENT): A pan | of iron.",
        "1. box | False | ==NONE== | A pan | of iron.",
        "box | ==NONE== | A pan | of iron.",
        "1. wok | True | TOOL | A pan | of iron.",
        '{"text": "wok", "label": "TOOL", "reason": "A pan | of iron."}',
        '[{"text": "wok", "label": "DISH", "Reason": "A pan |\\nof iron."}]',
        '{"text": "box", "label": null, "reason": "A pan | of iron."}',
        '{"entities": ["wok | True | KITCHEN_EQUIPMENT | A pan | of iron."]}',
    ],
)
def test_reason_is_kept(line: str) -> None:
    mentions, others = read_answer(_TASK, line, _TEXT)
    assert [piece.reason for piece in (*mentions, *others)] == ["A pan | of iron."]


def test_each_row_of_a_line_has_its_own_reason() -> None:
    answer = "wok | True | KITCHEN_EQUIPMENT | a pan; ramen | True | DISH | a soup"
    mentions, _ = read_answer(_TASK, answer, _TEXT)
    assert [mention.reason for mention in mentions] == ["a pan", "a soup"]


@pytest.mark.parametrize(
    "line", ["wok | True | KITCHEN_EQUIPMENT", "wok (KITCHEN_EQUIPMENT)", "wok | O"]
)
def test_no_reason_is_kept_where_there_is_none(line: str) -> None:
    mentions, others = read_answer(_TASK, line, _TEXT)
    assert [piece.reason for piece in (*mentions, *others)] == [""]


def test_long_reason_is_cut() -> None:
    (mention,), _ = read_answer(_TASK, f"wok | True | DISH | {'so ' * 999}", _TEXT)
    assert mention.reason == ("so " * 999)[:500]


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "No entities found.",
            "There are no entities",
            "None",
            "**None**",
            "[]",
            "{}",
        ),
        *(
            "==NONE==",
            "N/A",
            '{"entities": []}',
            '{"DISH": [], "KITCHEN_EQUIPMENT": null}',
        ),
        *("The text does not contain any named entities.", "Answer: None"),
    ],
)
def test_no_entities_is_an_answer(answer: str) -> None:
    mentions, others = read_answer(_TASK, answer)
    assert not mentions
    assert [other.status for other in others] == [Status.NO_ENTITY]


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("1. wok | True | TOOL | a pan", "TOOL"),
        ("1. wok | True | DISHES | a pan", "DISHES"),
        ("1. wok | True |", ""),
        ('{"text": "wok", "label": "TOOL"}', "TOOL"),
        ('{"TOOL": ["wok"]}', "TOOL"),
        ('{"wok": "TOOL"}', "TOOL"),
    ],
)
def test_unknown_label_is_counted(line: str, label: str) -> None:
    _, unread = _read_all(line)
    assert unread == [Reading(Status.UNKNOWN_LABEL, "wok", label)]


@pytest.mark.parametrize(
    "line",
    [
        "1. wok",
        "wok | TOOL",
        "wok (TOOL)",
        "Label: DISH",
        "That is all.",
        "Note: DISH could also be meant.",
        "I cook <DISH>ramen</DISH>.",
        "I cook [ramen](DISH) in a [wok](KITCHEN_EQUIPMENT).",
        "wok: KITCHEN_EQUIPMENT - DISH",
        "There are no entities except the wok.",
        '{"text": "wok"}',
        "wok:",
    ],
)
def test_unreadable_line_is_counted(line: str) -> None:
    answer = f"{line}\n1. ramen | True | DISH | a soup"
    assert _read_all(answer, _TEXT) == ([_RAMEN], [_lose(line)])


@pytest.mark.parametrize(
    "line",
    [
        *("Sure, here they are:", "Sure!", "I hope this helps!", "---", "# Entities"),
        *("```", "```json", "~~~", "Entities", "**Answer:**", "", "|---|:-:|"),
        *("Text | Label | Reason", _TEXT, f"Paragraph: {_TEXT}", f'"{_TEXT}"'),
    ],
)
def test_wrapping_is_no_loss(line: str) -> None:
    assert _read(f"{line}\n1. ramen | True | DISH | a soup") == [_RAMEN]
    assert _read(f"1. ramen | True | DISH | a soup\n{line}") == [_RAMEN]


def test_header_of_a_table_is_known_by_the_line_under_it() -> None:
    table = "| 単語 | 種類 |\n|---|---|\n| ramen | DISH |\n"
    assert _read(table) == [_RAMEN]
    for rule in ("", "---\n"):
        other = table.replace("|---|---|\n", rule)
        assert read_answer(_TASK, other, _TEXT)[1] == [_lose("| 単語 | 種類 |")]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        *(
            ("", ""),
            (" \n", ""),
            ("Sure, here they are:\n```\n```", "Sure, here they are:"),
        ),
        *(("{", "{"), ("<think>\nwok | True | DISH", "<think>")),
    ],
)
def test_answer_with_nothing_in_it_is_unreadable(answer: str, line: str) -> None:
    assert read_answer(_TASK, answer) == ([], [_lose(line)])


def test_second_row_on_a_line_is_counted() -> None:
    line = "wok | True | KITCHEN_EQUIPMENT | a pan, ramen | True | DISH | a soup"
    lost = "| a pan, ramen | True | DISH | a soup"
    assert read_answer(_TASK, line, _TEXT) == ([_WOK], [_lose(lost)])


@pytest.mark.parametrize(
    "answer",
    [
        "ramen | True | DISH\nIs it?\n\nFinal answer:\nwok | True | KITCHEN_EQUIPMENT",
        'A draft: [{"text": "ramen", "label": "DISH"}]\n**Revised list:**\n'
        '[{"text": "wok", "label": "KITCHEN_EQUIPMENT"}]',
        "ramen (DISH)\nFinal answer:\nramen (DISH)\n"
        "My final answer: wok (KITCHEN_EQUIPMENT)",
    ],
)
def test_final_answer_replaces_the_draft(answer: str) -> None:
    assert _read(answer) == [_WOK]


def test_final_answer_may_be_none() -> None:
    assert _read("ramen | True | DISH | a soup\nFinal answer: none") == []


@pytest.mark.parametrize("end", ["", "It is the wok."])
def test_draft_stays_if_the_final_answer_cannot_be_read(end: str) -> None:
    mentions, _ = read_answer(
        _TASK, f"ramen | True | DISH\nFinal answer:\n{end}", _TEXT
    )
    assert mentions == [_RAMEN]


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        ('[{"text": "ramen", "label": "DISH"}, {"text": "wo', '{"text": "wo'),
        (
            '[{"text": "ramen", "label": "DISH"}, {"text": "wok", "lab',
            '{"text": "wok", "lab',
        ),
        ('{"DISH": ["ramen", "fis', '"fis'),
        ('{"ramen": "DISH", "wok": "KITCH', '"wok": "KITCH'),
        ('[{"text": "ramen", "label": "DISH"}', None),
        ('{"entities": [{"text": "ramen", "label": "DISH"}]', None),
        ('```json\n[{"text": "ramen", "label": "DISH"}\n```', None),
    ],
)
def test_json_that_is_cut_is_read_as_far_as_it_goes(
    answer: str, lost: str | None
) -> None:
    mentions, unread = read_answer(_TASK, answer, _TEXT)
    assert mentions == [_RAMEN]
    assert unread == ([] if lost is None else [_lose(lost)])


def test_lines_after_broken_json_are_read() -> None:
    answer = '{"entities": [{"text": "wo\n\n1. ramen | True | DISH | a soup'
    assert _read_all(answer) == ([_RAMEN], [_lose('{"text": "wo')])


def test_key_that_stands_twice_is_read_twice() -> None:
    assert _read('{"DISH": "ramen", "DISH": "ramen"}') == [_RAMEN, _RAMEN]


def test_label_that_folds_like_another_is_taken_literally() -> None:
    task = make_ner_task(["A-B", "A_B", "C++"])
    answer = "x | True | a-b\ny | True | A B\nz | True | c++"
    mentions, (other,) = read_answer(task, answer)
    assert mentions == [Mention("x", "A-B"), Mention("z", "C++")]
    assert other == Reading(Status.UNKNOWN_LABEL, "y", "A B")


def test_labels_may_be_names_of_fields() -> None:
    task = make_ner_task(["NAME", "TYPE"])
    assert read_answer(task, '{"NAME": ["Ada"], "TYPE": "cook"}')[0] == [
        *(Mention("Ada", "NAME"), Mention("cook", "TYPE"))
    ]
    assert read_answer(task, '{"name": "Ada", "type": "NAME"}')[0] == [
        Mention("Ada", "NAME")
    ]


@pytest.mark.parametrize("part", [" ", "[", '"', '{"a": "', "//", "1. ", "a | ", "\n"])
def test_answer_that_runs_away_is_read_soon(part: str) -> None:
    start = time.process_time()
    for before in ("", "wok", "["):
        read_answer(_TASK, before + part * 5000, _TEXT)
    assert time.process_time() - start < 5


@settings(deadline=None)
@given(answer=_ANSWERS, text=st.sampled_from(["", _TEXT]))
def test_any_answer_is_read(answer: str, text: str) -> None:
    mentions, others = read_answer(_TASK, answer, text)
    assert {mention.label for mention in mentions} <= set(_LABELS)
    assert all(mention.text.strip() for mention in mentions)
    assert mentions or others


def _is_clear(surface: str) -> bool:
    """Whether a surface holds nothing that could as well be the row's own end."""
    cells = [cell.strip(" *_`'\".").lower() for cell in surface.split("|")]
    return not {"true", "false", "yes", "no", "1", "0"} & set(cells)


_SURFACES = (
    st.text(
        st.sampled_from("ab Zß鍋|é'\"“”«»*_`()[]{}:;,.=-–/\\#&1２\u00a0🍜")
        | st.characters(exclude_categories=["C", "Zl", "Zp"]),
        min_size=1,
        max_size=20,
    )
    .map(str.strip)
    .filter(lambda surface: bool(surface) and _is_clear(surface))
)
_MENTIONS = st.lists(
    st.builds(Mention, _SURFACES, st.sampled_from(_LABELS), st.just("")),
    min_size=1,
    max_size=5,
)


def _join(mentions: list[Mention]) -> str:
    return " and ".join(mention.text for mention in mentions)


@settings(deadline=None)
@given(_MENTIONS)
def test_any_lines_are_read(mentions: list[Mention]) -> None:
    lines = [f"{n}. {m.text} | True | {m.label} | x" for n, m in enumerate(mentions, 1)]
    assert _read_all("\n".join(lines), _join(mentions)) == (mentions, [])


@settings(deadline=None)
@given(
    mentions=_MENTIONS,
    names=st.sampled_from([("text", "label"), ("entity", "type"), ("word", "entity")]),
    wrapped=st.booleans(),
    layout=st.fixed_dictionaries(
        {"indent": st.sampled_from([None, 0, 2]), "ensure_ascii": st.booleans()}
    ),
)
def test_any_json_is_read(
    mentions: list[Mention],
    names: tuple[str, str],
    wrapped: bool,
    layout: dict[str, Any],
) -> None:
    items = [dict(zip(names, mention[:2], strict=True)) for mention in mentions]
    answer = json.dumps({"entities": items} if wrapped else items, **layout)
    assert read_answer(_TASK, answer, _join(mentions)) == (mentions, [])


@settings(deadline=None)
@given(mentions=_MENTIONS, data=st.data())
def test_any_cut_json_is_read_as_far_as_it_goes(
    mentions: list[Mention], data: st.DataObject
) -> None:
    items = [mention._asdict() for mention in mentions]
    answer = json.dumps({"entities": items})
    cut = data.draw(st.integers(1, len(answer) - 1))
    read, others = read_answer(_TASK, answer[:cut], _join(mentions))
    whole = answer[:cut].count('"label": ') and len(read)
    assert read == mentions[:whole]
    assert len(others) <= 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
).filter(lambda value: isinstance(value, (list, dict)))


def _simplify(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _simplify(inner)) for key, inner in value.items())
    return [_simplify(inner) for inner in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(_JSON, st.booleans())
def test_any_json_is_parsed(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    parsed = parse_loosely(f"{text} and so on", 0, lambda label: None)
    assert parsed == (_simplify(value), len(text), True)
