from pathlib import Path

import pytest
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.errors import InstaNERError
from instaner.tasks.generate import (
    BRIEF,
    TEXTS,
    GenerateTask,
    make_generate_task,
)
from instaner.tasks.grounding import READINGS, Reading, Status

_DEFINITIONS = {"DISH": "Something to eat.", "EQUIPMENT": "A tool."}
_BRIEF = {"id": "b", "author": "a cook", "topic": "soup", "form": "a forum"}


def _render(task: GenerateTask) -> str:
    doc = Doc(Vocab())
    doc.user_data[BRIEF] = _BRIEF
    ((prompts, docs),) = task.generate_prompts([doc])
    (prompt,) = prompts
    assert list(docs) == [doc]
    return str(prompt)


@pytest.mark.parametrize(
    "part",
    [
        "- DISH: Something to eat.",
        "a cook",
        "soup",
        "a forum",
        "Write 7 different texts",
        "realistic Italian text",
    ],
)
def test_prompt_has(part: str) -> None:
    assert part in _render(make_generate_task(_DEFINITIONS, n=7, language="Italian"))


def test_prompt_has_the_examples(tmp_path: Path) -> None:
    path = tmp_path / "examples.txt"
    path.write_text("A [wok](EQUIPMENT).\n\nJust taste.\n", "utf8")
    prompt = _render(make_generate_task(_DEFINITIONS, examples=path))
    assert "\n- A [wok](EQUIPMENT).\n- Just taste.\n" in prompt


def test_template_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ n }} {{ brief.topic }} {{ labels | join }}", "utf8")
    task = make_generate_task(_DEFINITIONS, n=3, template=path)
    assert _render(task) == "3 soup DISHEQUIPMENT"


def test_answer_is_kept_with_the_doc() -> None:
    doc = Doc(Vocab())
    task = make_generate_task(_DEFINITIONS)
    (parsed,) = task.parse_responses([[doc]], [["1. A [wok](EQUIPMENT)."]])
    assert parsed is doc
    assert doc.user_data[TEXTS] == [("A wok.", [(2, 5, "EQUIPMENT")])]
    assert doc.user_data[READINGS] == [Reading(Status.EXACT, "wok", "EQUIPMENT")]


def test_no_labels_is_an_error() -> None:
    with pytest.raises(InstaNERError, match="There are no labels"):
        make_generate_task({})


def test_unknown_label_in_the_examples_is_named(tmp_path: Path) -> None:
    path = tmp_path / "examples.txt"
    path.write_text("A [wok](TOOL).\n", "utf8")
    with pytest.raises(InstaNERError, match=r'Label "TOOL" in .*examples.txt'):
        make_generate_task(_DEFINITIONS, examples=path)


@pytest.mark.parametrize("option", ["examples", "template"])
def test_missing_file_is_named(tmp_path: Path, option: str) -> None:
    path = tmp_path / "nowhere.txt"
    with pytest.raises(InstaNERError, match=r"nowhere.txt cannot be read"):
        make_generate_task(_DEFINITIONS, **{option: path})  # type: ignore[arg-type]


def test_broken_template_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{% for %}", "utf8")
    with pytest.raises(InstaNERError, match=r"mine\.jinja is no Jinja2 template"):
        make_generate_task(_DEFINITIONS, template=path)


def _render_brief(**brief: object) -> str:
    doc = Doc(Vocab())
    doc.user_data[BRIEF] = {"id": "b", "split": "train", **brief}
    ((prompts, _),) = make_generate_task(_DEFINITIONS).generate_prompts([doc])
    (prompt,) = prompts
    return str(prompt)


def test_brief_may_have_any_dimensions() -> None:
    prompt = _render_brief(mood="angry", topic="soup")
    assert "\n- mood: angry\n- what about: soup\n\n" in prompt


def test_domain_is_told() -> None:
    assert "\n- the texts: Notes.\n" in _render_brief(domain="Notes.", topic="soup")


def test_names_are_handed_out_by_label() -> None:
    prompt = _render_brief(topic="soup", names={"DISH": ["pho", "laksa"]})
    assert "\n  - DISH: pho; laksa\n" in prompt


def test_label_is_asked_for() -> None:
    prompt = _render_brief(topic="soup", focus="DISH")
    assert "Each text contains at least one DISH" in prompt
    assert "one text in five" not in prompt


def test_texts_without_entities_are_asked_for() -> None:
    prompt = _render_brief(topic="soup", lookalikes=["wok the talk"])
    assert "so mark nothing. Use words that look like entities" in prompt
    assert "wok the talk" in prompt


def test_unknown_label_to_ask_for_is_named() -> None:
    with pytest.raises(InstaNERError, match='asks for "POT", which is not one of'):
        _render_brief(topic="soup", focus="POT")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"focus": ["DISH"]}, "asks for .*, which is not one of"),
        ({"names": {"DISH": "pho"}}, "names is .* It has to be lists of names"),
        ({"names": ["pho"]}, "names is .* It has to be lists of names by label"),
        ({"names": {"POT": ["pot"]}}, 'asks for "POT", which is not one of'),
        ({"author": None}, "author is None. It has to be given or left out"),
        ({"focus": None}, "focus is None. It has to be given or left out"),
        ({"lookalikes": None}, "lookalikes is None. It has to be a list of words"),
        ({"lookalikes": [1]}, r"lookalikes is \[1\]. It has to be a list of words"),
        ({"split": 1}, "split is 1. It has to be train or test"),
    ],
)
def test_field_of_no_use_is_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InstaNERError, match=message):
        _render_brief(topic="soup", **fields)


def test_texts_without_marks_are_no_failure() -> None:
    doc = Doc(Vocab())
    task = make_generate_task(_DEFINITIONS)
    list(task.parse_responses([[doc]], [["1. Thanks.\n2. Bye.\n3. A [wok"]]))
    assert [status for status, *_ in doc.user_data[READINGS]].count("no entity") == 2


_CATEGORIES = {"DELIVERY": "Where it is.", "RETURN": "It goes back."}


def _render_for(labels: dict[str, str], **brief: object) -> str:
    doc = Doc(Vocab())
    doc.user_data[BRIEF] = {"id": "b", "topic": "a gift", **brief}
    task = make_generate_task(labels, task="textcat")
    ((prompts, _),) = task.generate_prompts([doc])
    (prompt,) = prompts
    return str(prompt)


def test_texts_of_a_category_are_asked_for() -> None:
    prompt = _render_for(_CATEGORIES, focus="RETURN")
    assert "to train a text classifier.\n\nCategories:\n- DELIVERY: Where" in prompt
    assert "Each text belongs to the category RETURN: " in prompt
    assert "hard one, near another category. Write the texts alone" in prompt
    for word in ("entity", "Mark every", "LABEL"):
        assert word not in prompt


def test_texts_of_any_category_are_asked_for() -> None:
    assert "over all of the categories. Write" in _render_for(_CATEGORIES)


def test_texts_that_are_not_of_the_category_are_asked_for() -> None:
    assert "No text belongs to the category, " in _render_for({"RETURN": "Back."})


def test_only_what_a_category_can_have_is_taken() -> None:
    with pytest.raises(InstaNERError, match="names is .* left out, as it is for ent"):
        _render_for(_CATEGORIES, names={"RETURN": ["refund"]})
    with pytest.raises(InstaNERError, match="lookalikes is .* left out, as it is for"):
        _render_for(_CATEGORIES, lookalikes=["refund"])


@pytest.mark.parametrize(
    ("answer", "texts", "lost"),
    [
        (
            "1. It [the lamp](big) goes.\n2. Back [1]",
            ["It [the lamp](big) goes.", "Back [1]"],
            0,
        ),
        ('["Back.", "Return it (RETURN to sender)"]', ["Back."], 1),
        (
            "1. [Back](RETURN).\n2. RETURN: back.\n3. Return: back.",
            ["Return: back."],
            2,
        ),
        ('{"texts": [{"text": "Back.", "labels": ["RETURN"]}]}', ["Back."], 0),
        ("I cannot help with that.", [], 1),
    ],
)
def test_texts_for_a_category_are_read_as_they_are(
    answer: str, texts: list[str], lost: int
) -> None:
    doc = Doc(Vocab())
    task = make_generate_task(_CATEGORIES, task="textcat")
    list(task.parse_responses([[doc]], [[answer]]))
    assert doc.user_data[TEXTS] == [(text, []) for text in texts]
    statuses = [status for status, *_ in doc.user_data[READINGS]]
    assert statuses.count("unreadable") == lost
    assert statuses.count("exact") == len(texts)


def test_examples_of_texts_may_have_brackets(tmp_path: Path) -> None:
    path = tmp_path / "examples.txt"
    path.write_text("It [the lamp](BIG) goes back.\n", "utf8")
    task = make_generate_task(_CATEGORIES, examples=path, task="textcat")
    assert "\n- It [the lamp](BIG) goes back.\n" in _render(task)
