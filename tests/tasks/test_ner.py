from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab
from spacy_llm.tasks.ner import make_ner_task_v3
from spacy_llm.tasks.ner.util import NERCoTExample
from spacy_llm.tasks.span import parse_responses_cot

from instaner.errors import InstaNERError
from instaner.tasks.generate import make_generate_task
from instaner.tasks.grounding import READINGS, Mention, Reading, Status
from instaner.tasks.ner import adopt, make_ner_task, parse_responses, read_answer

from ..conftest import LABELS

_TASK = make_ner_task(LABELS)
_VOCAB = Vocab()
_WOK = Mention("wok", "EQUIPMENT")
_PIECES = st.sampled_from(
    [*"\n\t|:1.-*", " ", "True", "false", "wok", "ramen", "DISH", "Tool", "==NONE=="]
)
_ANSWERS = st.text(max_size=40) | st.lists(_PIECES, max_size=30).map("".join)


def _parse(answer: str, doc: Doc) -> list[tuple[int, int, str]]:
    (spans,) = next(iter(parse_responses(_TASK, [[doc]], [[answer]])))
    return [(span.start, span.end, span.label_) for span in spans]


@pytest.mark.parametrize(
    "line",
    [
        "1. wok | True | EQUIPMENT | is a pan",
        "1) wok | True | EQUIPMENT | is a pan",
        "wok | True | EQUIPMENT | is a pan",
        "- wok | True | EQUIPMENT | is a pan",
        "  12.  wok|true|equipment|is a pan",
        "1. wok | True | EQUIPMENT",
        "1. wok | True | EQUIPMENT | a | b",
    ],
)
def test_line_is_read(line: str) -> None:
    assert read_answer(_TASK, line) == ([_WOK], [])


@pytest.mark.parametrize("surface", ["7up", "1.5 l pot", "a | b", "True", "-"])
def test_odd_surface_is_read(surface: str) -> None:
    mentions, unread = read_answer(_TASK, f"1. {surface} | True | DISH | why")
    assert (mentions, unread) == ([Mention(surface, "DISH")], [])


def test_lines_are_read_in_order() -> None:
    answer = "1. wok | True | EQUIPMENT | a pan\n\n2. ramen | True | DISH | a soup\n"
    assert read_answer(_TASK, answer)[0] == [_WOK, Mention("ramen", "DISH")]


def test_what_is_no_entity_is_no_mention() -> None:
    mentions, others = read_answer(_TASK, "1. box | False | ==NONE== | packaging")
    assert not mentions
    assert others == [Reading(Status.NO_ENTITY, "box", "")]


@pytest.mark.parametrize(
    "answer", ["No entities found.", "There are no entities", "None", "**None**"]
)
def test_no_entities_is_an_answer(answer: str) -> None:
    mentions, others = read_answer(_TASK, answer)
    assert not mentions
    assert [other.status for other in others] == [Status.NO_ENTITY]


def test_unknown_label_is_counted() -> None:
    _, unread = read_answer(_TASK, "1. wok | True | TOOL | a pan")
    assert unread == [Reading(Status.UNKNOWN_LABEL, "wok", "TOOL")]


@pytest.mark.parametrize("line", ["Sure, here they are:", "1. wok", "wok | EQUIPMENT"])
def test_unreadable_line_is_counted(line: str) -> None:
    mentions, unread = read_answer(_TASK, f"{line}\n1. wok | True | EQUIPMENT | a pan")
    assert mentions == [_WOK]
    assert unread == [Reading(Status.UNREADABLE, line, "")]


@pytest.mark.parametrize("answer", ["", " \n"])
def test_empty_answer_is_unreadable(answer: str) -> None:
    assert read_answer(_TASK, answer) == ([], [Reading(Status.UNREADABLE, "", "")])


@given(_ANSWERS)
def test_any_answer_is_read(answer: str) -> None:
    mentions, unread = read_answer(_TASK, answer)
    assert {mention.label for mention in mentions} <= set(LABELS)
    assert all(mention.text.strip() for mention in mentions)
    n_lines = len([line for line in answer.splitlines() if line.strip()])
    assert len(mentions) + len(unread) <= max(1, n_lines)


def test_answer_becomes_spans() -> None:
    doc = Doc(_VOCAB, words=["wok", "ramen"])
    answer = "1. Ramen | True | DISH | a soup\n2. wok | True | EQUIPMENT | a pan"
    assert _parse(answer, doc) == [(0, 1, "EQUIPMENT"), (1, 2, "DISH")]


def test_readings_are_kept_with_the_doc() -> None:
    doc = Doc(_VOCAB, words=["wok"])
    _parse("1. wok | True | EQUIPMENT | a pan\nThat is all.", doc)
    assert doc.user_data[READINGS] == [
        Reading(Status.EXACT, "wok", "EQUIPMENT"),
        Reading(Status.UNREADABLE, "That is all.", ""),
    ]


@given(_ANSWERS)
def test_any_answer_can_be_set_as_entities(answer: str) -> None:
    doc = Doc(_VOCAB, words=["wok", "ramen", "1", "Tool"])
    (spans,) = next(iter(parse_responses(_TASK, [[doc]], [[answer]])))
    doc.set_ents(list(spans))
    assert len(doc.ents) == len(spans)


def test_prompt_is_that_of_spacy_llm() -> None:
    doc = Doc(_VOCAB, words=["wok", "ramen"])
    settings: dict[str, Any] = {
        "labels": LABELS,
        "label_definitions": {"DISH": "Something to eat."},
        "description": "Only food.",
    }
    theirs = make_ner_task_v3(
        parse_responses_cot, NERCoTExample, examples=None, **settings
    )
    ours = make_ner_task(**settings)
    ((our_prompts, _),) = ours.generate_prompts([doc])
    ((their_prompts, _),) = theirs.generate_prompts([doc])
    assert list(our_prompts) == list(their_prompts)


@pytest.mark.parametrize("labels", [LABELS, "DISH, EQUIPMENT", "DISH,EQUIPMENT"])
def test_labels_are_a_list_or_a_string(labels: list[str] | str) -> None:
    assert make_ner_task(labels).labels == tuple(LABELS)


def test_labels_default_to_those_defined() -> None:
    task = make_ner_task(label_definitions={"DISH": "Something to eat."})
    assert task.labels == ("DISH",)


def test_no_labels_is_an_error() -> None:
    with pytest.raises(InstaNERError, match=r"instaner\.NER\.v1 needs labels"):
        make_ner_task()


def test_definition_of_no_label_is_named() -> None:
    message = 'Label "TOOL" in label_definitions is not one of the labels'
    with pytest.raises(InstaNERError, match=message):
        make_ner_task(LABELS, label_definitions={"TOOL": "A tool."})


def _make_examples(label: str, *, is_entity: bool) -> list[dict[str, Any]]:
    span = {"text": "wok", "is_entity": is_entity, "label": label, "reason": "why"}
    return [{"text": "A wok.", "spans": [span]}]


def test_example_of_no_label_is_named() -> None:
    message = 'Label "TOOL" in the example "A wok." is not one of the labels'
    with pytest.raises(InstaNERError, match=message):
        make_ner_task(LABELS, examples=_make_examples("TOOL", is_entity=True))


def test_example_of_no_entity_needs_no_label() -> None:
    task = make_ner_task(LABELS, examples=_make_examples("==NONE==", is_entity=False))
    assert len(task._prompt_examples) == 1


def test_adopt_reads_answers_of_spacy_llms_task() -> None:
    task = make_ner_task_v3(parse_responses_cot, NERCoTExample, labels=LABELS)
    adopt(task)
    assert task._parse_responses is parse_responses


def test_adopt_leaves_a_parser_of_ones_own() -> None:
    def parse(*args: Any) -> Any:
        return []

    task = make_ner_task_v3(parse, NERCoTExample, labels=LABELS)
    adopt(task)
    assert task._parse_responses is parse


def test_adopt_leaves_other_tasks() -> None:
    task = make_generate_task({"DISH": "Something to eat."})
    before = dict(vars(task))
    adopt(task)
    assert vars(task) == before
