import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaner.tasks.ner import make_ner_task
from instaner.tasks.verify import Case, make_prompt, read_verdict

_TEXT = "I ate pad thai and green curry."
_SHORT = (6, 9, "DISH")
_LONG = (6, 14, "DISH")
_TASK = make_ner_task(
    label_definitions={"DISH": "A prepared dish.", "TOOL": "A tool."},
    description="Mark the shortest span.",
)
_CASE = Case(_TEXT, 6, 14, ((_LONG,), (_SHORT,), ()))


def test_prompt_says_what_is_asked() -> None:
    prompt = make_prompt(_TASK, _CASE)
    for part in (
        "- DISH: A prepared dish.\n- TOOL: A tool.\n",
        "Mark the shortest span.\n",
        "Text: I ate [[pad thai]] and green curry.\n",
        '1. "pad thai" is DISH\n2. "pad" is DISH\n3. no entity\nAnswer:',
    ):
        assert part in prompt


def test_all_before_the_text_is_constant() -> None:
    prompt = make_prompt(_TASK, _CASE)
    other = make_prompt(_TASK, Case("Eat!", 0, 3, (((0, 3, "DISH"),), ())))
    assert prompt[: prompt.constant] == other[: other.constant]
    assert prompt[prompt.constant :].startswith("Text: I ate")


def test_long_text_is_cut_around_the_place() -> None:
    text = "a" * 5000 + " pad " + "b" * 5000
    prompt = make_prompt(_TASK, Case(text, 5001, 5004, (((5001, 5004, "DISH"),), ())))
    assert len(prompt) < 2000
    assert "Text: …aaa" in prompt
    assert "aaa [[pad]] bbb" in prompt
    assert "bbb…\n" in prompt


def test_definitions_are_not_needed() -> None:
    assert "- DISH\n" in make_prompt(make_ner_task("DISH"), _CASE)


def test_task_of_ones_own_needs_no_labels() -> None:
    assert "- DISH\n" in make_prompt(object(), _CASE)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("1", (_LONG,)),
        ("2.", (_SHORT,)),
        (" 3\n", ()),
        ("**2**", (_SHORT,)),
        ("Answer: 2", (_SHORT,)),
        ("Reading 2 is right.", (_SHORT,)),
        ('2. "pad" is DISH', (_SHORT,)),
        ("\n2\nBecause it is shorter: 1 is too long.", (_SHORT,)),
        ("thai | DISH", ((10, 14, "DISH"),)),
        ('"ate pad thai" | tool', ((2, 14, "TOOL"),)),
        ("pad thai ｜ DISH", (_LONG,)),
        ("The answer is 2", (_SHORT,)),
        ("The right reading is 2.", (_SHORT,)),
        ("<think>1 or 2?</think>\n2", (_SHORT,)),
        ("```\n2\n```", (_SHORT,)),
        ("no entity", ()),
        ("None.", ()),
        ("1. thai | DISH", ((10, 14, "DISH"),)),
        ("- thai | True | DISH", ((10, 14, "DISH"),)),
        ("1 or 2", None),
        ("1, 2", None),
        ("4", None),
        ("0", None),
        ("", None),
        ("I do not know.", None),
        ("thai | FOOD", None),
        ("green curry | DISH", None),  # somewhere else
        ("ramen | DISH", None),
        (" | DISH", None),
    ],
)
def test_verdict_is_read(answer: str, verdict: tuple[tuple[int, int, str]]) -> None:
    assert read_verdict(_TASK, _CASE, answer) == verdict


def test_surface_that_occurs_often_is_meant_at_the_place() -> None:
    case = Case("wok wok wok", 4, 7, (((4, 7, "TOOL"),), ()))
    assert read_verdict(_TASK, case, "wok | DISH") == ((4, 7, "DISH"),)


@given(st.text())
def test_no_answer_breaks_it(answer: str) -> None:
    for start, end, label in read_verdict(_TASK, _CASE, answer) or ():
        assert 0 <= start < end <= len(_TEXT)
        assert label in ("DISH", "TOOL")
