from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.errors import InstaNERError
from instaner.tasks.generate import (
    BRIEF,
    TEXTS,
    GenerateTask,
    make_generate_task,
    read_marks,
    read_texts,
)
from instaner.tasks.grounding import READINGS, Reading, Status

from ..conftest import LABELS

_DEFINITIONS = {"DISH": "Something to eat.", "EQUIPMENT": "A tool."}
_BRIEF = {"id": "b", "author": "a cook", "topic": "soup", "form": "a forum"}
_PLAIN = st.text(st.characters(exclude_characters="[]"), max_size=8)
_SURFACES = st.text(st.characters(exclude_characters="[]"), min_size=1, max_size=8)
_PIECES = st.sampled_from(["[", "]", "(", ")", "](", "DISH", "wok", "1.", " ", "\n"])
_ANSWERS = st.text(max_size=40) | st.lists(_PIECES, max_size=30).map("".join)


def _render(task: GenerateTask) -> str:
    doc = Doc(Vocab())
    doc.user_data[BRIEF] = _BRIEF
    ((prompts, docs),) = task.generate_prompts([doc])
    (prompt,) = prompts
    assert list(docs) == [doc]
    return str(prompt)


def test_marks_are_taken_out() -> None:
    (text, spans), _ = read_marks("A [wok](EQUIPMENT) of [pad thai](DISH).", LABELS)
    assert text == "A wok of pad thai."
    assert spans == [(2, 5, "EQUIPMENT"), (9, 17, "DISH")]


def test_marks_are_counted() -> None:
    _, readings = read_marks("[wok](EQUIPMENT) [pan](TOOL)", LABELS)
    assert readings == [
        Reading(Status.EXACT, "wok", "EQUIPMENT"),
        Reading(Status.UNKNOWN_LABEL, "pan", "TOOL"),
    ]


def test_unknown_label_leaves_plain_text() -> None:
    marked, _ = read_marks("A [pan](TOOL) and [wok](EQUIPMENT)", LABELS)
    assert marked == ("A pan and wok", [(10, 13, "EQUIPMENT")])


@pytest.mark.parametrize(
    "line", ["no marks", "a [b] c", "a (b) c", "[](DISH)", "[a] (b)"]
)
def test_what_is_no_mark_stays(line: str) -> None:
    assert read_marks(line, LABELS) == ((line, []), [])


@given(st.lists(st.tuples(_PLAIN, _SURFACES, st.sampled_from(LABELS)), max_size=5))
def test_spans_are_the_surfaces(pieces: list[tuple[str, str, str]]) -> None:
    line = "".join(f"{plain}[{surface}]({la})" for plain, surface, la in pieces)
    (text, spans), _ = read_marks(line, LABELS)
    assert text == "".join(plain + surface for plain, surface, _ in pieces)
    assert [(text[start:end], label) for start, end, label in spans] == [
        (surface, label) for _, surface, label in pieces
    ]


def test_numbered_lines_are_texts() -> None:
    texts, readings = read_texts("1. One wok.\n2) Two.\n 3:  Three. \n", LABELS)
    assert [text.text for text in texts] == ["One wok.", "Two.", "Three."]
    assert readings == []


def test_line_without_a_number_is_unreadable() -> None:
    texts, readings = read_texts("Here you are:\n\n1. One.", LABELS)
    assert len(texts) == 1
    assert readings == [Reading(Status.UNREADABLE, "Here you are:", "")]


@pytest.mark.parametrize("answer", ["", "\n \n"])
def test_empty_answer_is_unreadable(answer: str) -> None:
    texts, readings = read_texts(answer, LABELS)
    assert texts == []
    assert {reading.status for reading in readings} == {Status.UNREADABLE}


@given(_ANSWERS)
def test_any_answer_is_read(answer: str) -> None:
    texts, readings = read_texts(answer, LABELS)
    marks = [text[start:end] for text, spans in texts for start, end, _ in spans]
    assert marks == [r.text for r in readings if r.status is Status.EXACT]
    assert texts or readings


@given(_ANSWERS)
def test_marks_of_any_answer_do_not_overlap(answer: str) -> None:
    for _, spans in read_texts(answer, LABELS)[0]:
        ends = [offset for start, end, _ in spans for offset in (start, end)]
        assert ends == sorted(ends)


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
    with pytest.raises(InstaNERError, match=r"instaner\.Generate\.v1 needs labels"):
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


@pytest.mark.parametrize(
    "text",
    [
        "I love my [wok](EQUIPMENT for real",
        "Use a [pan] (EQUIPMENT) daily",
        "[[pad thai](DISH)](DISH) good",
    ],
)
def test_text_with_a_broken_mark_is_left_out_and_counted(text: str) -> None:
    texts, readings = read_texts(f"1. {text}\n2. Fine.", _DEFINITIONS)
    assert [marked.text for marked in texts] == ["Fine."]
    assert [reading.status for reading in readings] == [Status.UNREADABLE]
