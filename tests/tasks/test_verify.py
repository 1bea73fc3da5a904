import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaner.targets import Target
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


def test_whole_prompt_about_a_place() -> None:
    assert make_prompt(_TASK, _CASE) == (
        "You check how a text was annotated with named entities. Their labels are:\n"
        "- DISH: A prepared dish.\n"
        "- TOOL: A tool.\n"
        "Mark the shortest span.\n"
        "Part of a text is given, with one place in it between [[ and ]], and numbered "
        "readings of that place. Decide which reading is right.\n"
        "Answer with its number and nothing else. If none of them is right, because an "
        "entity begins or ends elsewhere or has another label, answer with one line "
        "instead: the entity exactly as it is written in the text, a bar, and its "
        "label.\n"
        "\n"
        "Text: I ate [[pad thai]] and green curry.\n"
        "Readings:\n"
        '1. "pad thai" is DISH\n'
        '2. "pad" is DISH\n'
        "3. no entity\n"
        "Answer:"
    )


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


class _Topics:
    """What a task for categories has."""

    labels = ("Price", "Size", "2")

    def __init__(self) -> None:
        self._label_definitions = {"Price": "What it costs."}


_TOPICS = _Topics()
_LONG_TEXT = f"Too small, {'very ' * 500}and dear.\nCan I change it?"
_EXCLUSIVE = Target("cats", _Topics.labels, exclusive=True)
_PRICE, _SIZE, _TWO = ((mark,) for mark in _EXCLUSIVE.make_marks(_Topics.labels))
_ONE_OF = Case(_LONG_TEXT, -1, 0, (_SIZE, _PRICE))
(_HAS_SIZE,) = Target("cats", _Topics.labels).make_marks(["Size"])
_IS_SIZE = Case(_LONG_TEXT, *_HAS_SIZE[:2], ((_HAS_SIZE,), ()))


def test_whole_prompt_about_a_category() -> None:
    assert make_prompt(_TOPICS, _ONE_OF) == (
        "You check how a text was classified. The categories are:\n"
        "- Price: What it costs.\n"
        "- Size\n"
        "- 2\n"
        "A text is given, and numbered opinions on what it is. Decide which opinion is "
        "right.\n"
        "Answer with its number and nothing else. If none of them is right, answer "
        "with the right category instead.\n"
        "\n"
        f"Text: {_LONG_TEXT}\n"
        "Opinions:\n"
        "1. Size\n"
        "2. Price\n"
        "Answer:"
    )


def test_prompt_about_one_of_several_categories() -> None:
    prompt = make_prompt(_TOPICS, _IS_SIZE)
    assert "Answer with its number and nothing else.\n\n" in prompt
    assert prompt.endswith("Opinions:\n1. Size\n2. not Size\nAnswer:")


@pytest.mark.parametrize("case", [_ONE_OF, _IS_SIZE])
def test_all_before_a_classified_text_is_constant(case: Case) -> None:
    prompt = make_prompt(_TOPICS, case)
    other = make_prompt(_TOPICS, case._replace(text="Other"))
    assert prompt[: prompt.constant] == other[: other.constant]
    assert prompt[prompt.constant :].startswith("Text: Too small")


@pytest.mark.parametrize(
    ("answer", "one_of", "is_size"),
    [
        ("1", _SIZE, (_HAS_SIZE,)),
        ("2.", _PRICE, ()),
        ("Opinion 2 is right.", _PRICE, ()),
        ("The right opinion is 2", _PRICE, ()),
        ("<think>1?</think>\n**2**", _PRICE, ()),
        ("size", _SIZE, (_HAS_SIZE,)),
        ("**Size**.", _SIZE, (_HAS_SIZE,)),
        ("1. Size", _SIZE, (_HAS_SIZE,)),
        ("Category: size", _SIZE, (_HAS_SIZE,)),
        ("The right category is Size.", _SIZE, (_HAS_SIZE,)),
        ("1. price", _PRICE, None),  # it numbers what it names itself
        ("PRICE", _PRICE, None),
        ("- 2", _PRICE, ()),  # the number, though a category is called so
        ("not size", None, ()),
        ("2. not Size", _PRICE, ()),
        ("None.", None, ()),
        ("3", None, None),
        ("1 or 2", None, None),
        ("Taste", None, None),
        ("small | Size", None, None),
        ("I do not know.", None, None),
        ("", None, None),
    ],
)
def test_verdict_on_a_category_is_read(
    answer: str,
    one_of: tuple[tuple[int, int, str], ...] | None,
    is_size: tuple[tuple[int, int, str], ...] | None,
) -> None:
    assert read_verdict(_TOPICS, _ONE_OF, answer) == one_of
    assert read_verdict(_TOPICS, _IS_SIZE, answer) == is_size


@given(st.text())
def test_no_answer_about_a_category_breaks_it(answer: str) -> None:
    assert read_verdict(_TOPICS, _ONE_OF, answer) in (_PRICE, _SIZE, _TWO, None)
    assert read_verdict(_TOPICS, _IS_SIZE, answer) in ((_HAS_SIZE,), (), None)
