from typing import Any

import pytest
import spacy
from hypothesis import given, settings
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


_EN = spacy.blank("en")
_WORDS = ["wok", "ramen", "don't", "it's", "gonna", "U.S.", "pots.Then", "(wok)", "😀"]
_SPACES = [" ", "  ", "\n", "\n\n", "\t", "\u00a0", " \n ", "\u3000"]
_TEXTS = st.lists(
    st.sampled_from([word + space for word in _WORDS for space in _SPACES]),
    min_size=5,
    max_size=50,
).map("".join)
_TASKS = {
    "instaner.NER.v1": make_ner_task(LABELS),
    "spacy.NER.v3": adopt(
        make_ner_task_v3(parse_responses_cot, NERCoTExample, labels=LABELS)
    ),
}
_KITCHEN = {"wok": "EQUIPMENT", "ramen": "DISH"}


def _answer(shard: Doc) -> str:
    """An answer that names each word of _KITCHEN."""
    found = [token.text for token in shard if token.text in _KITCHEN]
    return "\n".join(f"{word} | True | {_KITCHEN[word]} | why" for word in found)


def _read(name: str, text: str, length: int | None) -> tuple[Doc, int]:
    """RETURNS (Tuple[Doc, int]): The doc as it was read, and the number of shards."""
    task = _TASKS[name]
    ((prompts, found),) = task.generate_prompts([_EN.make_doc(text)], length)
    shards = list(found)
    assert len(list(prompts)) == len(shards)
    (doc,) = task.parse_responses([shards], [[_answer(shard) for shard in shards]])
    return doc, len(shards)


def _get_offsets(doc: Doc) -> list[tuple[int, int, str]]:
    return [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]


def _get_base(name: str) -> int:
    """RETURNS (int): A context length with room for few words of text."""
    ((prompts, _),) = _TASKS[name].generate_prompts([_EN.make_doc("")])
    (prompt,) = prompts
    if name == "spacy.NER.v3":  # whose own estimate is by spaces
        return int(len(prompt.split()) * 1.1) + 8
    return int(len(prompt.encode("utf8")) / 3 * 1.1) + 12


_BASES = {name: _get_base(name) for name in _TASKS}


@pytest.mark.parametrize("name", _TASKS)
@settings(deadline=None, max_examples=60)
@given(text=_TEXTS)
def test_split_text_is_read_as_if_it_were_whole(name: str, text: str) -> None:
    whole, _ = _read(name, text, None)
    doc, _ = _read(name, text, _BASES[name])
    assert doc.text == whole.text == text
    assert [token.text for token in doc] == [token.text for token in whole]
    assert _get_offsets(doc) == _get_offsets(whole)
    offsets = [(start, text[start:end]) for start, end, _ in _get_offsets(doc)]
    assert offsets == [(t.idx, t.text) for t in whole if t.text in _KITCHEN]


@pytest.mark.parametrize("name", _TASKS)
def test_long_text_is_split(name: str) -> None:
    text = "My wok isn't\n\nfull of  ramen. " * 20
    doc, number = _read(name, text, _BASES[name])
    assert number > 4
    assert (doc.text, len(doc.ents)) == (text, 40)


@pytest.mark.parametrize("name", _TASKS)
def test_readings_of_a_split_text_are_kept(name: str) -> None:
    text = "My wok is full of ramen. " * 20
    doc, _ = _read(name, text, _BASES[name])
    readings = doc.user_data[READINGS]
    assert len(readings) == 40
    assert {reading[0] for reading in readings} == {Status.EXACT}


def test_prompts_of_shards_fit_the_context() -> None:
    length = _BASES["instaner.NER.v1"] + 60
    text = "Мой вок полон рамена. " * 40  # two bytes a letter
    task = _TASKS["instaner.NER.v1"]
    ((prompts, shards),) = task.generate_prompts([_EN.make_doc(text)], length)
    assert "".join(shard[:].text_with_ws for shard in shards) == text
    assert max(len(prompt.encode("utf8")) // 3 for prompt in prompts) <= length


@pytest.mark.parametrize("name", _TASKS)
def test_text_that_fits_is_not_split(name: str) -> None:
    doc, number = _read(name, "My wok.", 10_000)
    assert (number, _get_offsets(doc)) == (1, [(3, 6, "EQUIPMENT")])


def test_context_too_short_for_the_prompt_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"context_length \(10 tokens\)"):
        list(_TASKS["instaner.NER.v1"].generate_prompts([_EN.make_doc("a b c")], 10))


@pytest.mark.parametrize("text", ["", "wok"])
def test_text_of_one_word_is_never_split(text: str) -> None:
    docs = [_EN.make_doc(text)]
    ((prompts, _),) = _TASKS["instaner.NER.v1"].generate_prompts(docs, 10)
    assert len(list(prompts)) == 1
