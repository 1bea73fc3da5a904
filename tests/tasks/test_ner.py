import json
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
from instaner.llm.store import Prompt
from instaner.tasks.adopting import adopt
from instaner.tasks.grounding import Reading, Status, load_readings
from instaner.tasks.ner import make_ner_task, parse_responses

from ..conftest import LABELS

_TASK = make_ner_task(LABELS)
_VOCAB = Vocab()
_PIECES = st.sampled_from(
    [*"\n\t|:1.-*", " ", "True", "false", "wok", "ramen", "DISH", "Tool", "==NONE=="]
)
_ANSWERS = st.text(max_size=40) | st.lists(_PIECES, max_size=30).map("".join)


def _parse(answer: str, doc: Doc) -> list[tuple[int, int, str]]:
    (spans,) = next(iter(parse_responses(_TASK, [[doc]], [[answer]])))
    return [(span.start, span.end, span.label_) for span in spans]


def test_answer_becomes_spans() -> None:
    doc = Doc(_VOCAB, words=["wok", "ramen"])
    answer = "1. Ramen | True | DISH | a soup\n2. wok | True | EQUIPMENT | a pan"
    assert _parse(answer, doc) == [(0, 1, "EQUIPMENT"), (1, 2, "DISH")]


def test_readings_are_kept_with_the_doc() -> None:
    doc = Doc(_VOCAB, words=["A", "wok"])
    _parse("1. wok | True | EQUIPMENT | a pan\nThat is all.", doc)
    assert load_readings(doc) == [
        Reading(Status.EXACT, "wok", "EQUIPMENT", 2, 5, "a pan"),
        Reading(Status.UNREADABLE, "That is all.", ""),
    ]


def test_quotes_that_the_text_has_are_part_of_the_surface() -> None:
    answer = '1. "Soup" | True | DISH | why\n2. "ramen" | True | DISH | why'
    doc = spacy.blank("en").make_doc('"Soup" and ramen')
    assert _parse(answer, doc) == [(0, 3, "DISH"), (4, 5, "DISH")]


@pytest.mark.parametrize(("fuzzy", "found"), [(80, 1), (101, 0)])
def test_fuzzy_is_passed_on(fuzzy: float, found: int) -> None:
    task = make_ner_task(LABELS, fuzzy=fuzzy)
    docs = [[Doc(_VOCAB, words=["mozzarella"])]]
    (doc,) = task.parse_responses(docs, [["1. mozarella | True | DISH | why"]])
    assert len(doc.ents) == found


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
    readings = load_readings(doc)
    assert readings
    assert len(readings) == 40
    assert {reading.status for reading in readings} == {Status.EXACT}


@pytest.mark.parametrize("name", _TASKS)
def test_offsets_of_a_split_text_are_those_of_the_whole(name: str) -> None:
    text = "My wok isn't\n\nfull of  ramen. " * 20
    task = _TASKS[name]
    ((_, found),) = task.generate_prompts([_EN.make_doc(text)], _BASES[name])
    shards = list(found)
    answers = [f"{_answer(shard)}\nThat is all." for shard in shards]
    (doc,) = task.parse_responses([shards], [answers])
    readings = load_readings(doc)
    assert readings
    offsets = [(r.start, r.end) for r in readings if r.status is Status.EXACT]
    assert offsets == [(ent.start_char, ent.end_char) for ent in doc.ents]
    rest = [r for r in readings if r.status is Status.UNREADABLE]
    assert rest == [Reading(Status.UNREADABLE, "That is all.", "")] * len(shards)


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


def _ask_for_json(**settings: Any) -> Prompt:
    task = make_ner_task(LABELS, format="json", **settings)
    ((prompts, _),) = task.generate_prompts([_EN.make_doc('My "wok" & 鍋 .')])
    (prompt,) = prompts
    return prompt


def test_json_is_asked_for_with_a_schema() -> None:
    prompt = _ask_for_json()
    wanted = prompt.response_format
    assert wanted is not None
    assert (wanted["type"], wanted["json_schema"]["strict"]) == ("json_schema", True)
    schema = wanted["json_schema"]["schema"]
    entity = schema["properties"]["entities"]["items"]
    assert entity["properties"]["label"]["enum"] == LABELS
    for part in (schema, entity):  # as strict schemas have to
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])


def test_json_prompt_ends_with_the_text() -> None:
    prompt = _ask_for_json(
        label_definitions={"DISH": "Something to eat."}, description="Only <food>."
    )
    assert prompt[prompt.constant :] == 'Text: My "wok" & 鍋 .\nAnswer:'
    constant = prompt[: prompt.constant]
    assert "DISH: Something to eat." in constant
    assert "Only <food>." in constant


def test_json_examples_show_entities_only() -> None:
    spans = [
        {"text": "L'œuf", "is_entity": True, "label": "DISH", "reason": "why"},
        {"text": "box", "is_entity": False, "label": "==NONE==", "reason": "why"},
    ]
    prompt = _ask_for_json(examples=[{"text": "L'œuf & a box", "spans": spans}])
    answer = '{"entities": [{"text": "L\'œuf", "label": "DISH"}]}'
    assert f"Text: L'œuf & a box\nAnswer: {answer}\n" in prompt


def test_json_answer_becomes_spans() -> None:
    task = make_ner_task(LABELS, format="json")
    answer = '{"entities": [{"text": "wok", "label": "EQUIPMENT"}]}'
    (doc,) = task.parse_responses([[_EN.make_doc("A wok.")]], [[answer]])
    assert _get_offsets(doc) == [(2, 5, "EQUIPMENT")]


def test_schema_has_the_labels_that_were_added() -> None:
    task = make_ner_task(LABELS, format="json")
    task.add_label("TOOL")
    ((prompts, _),) = task.generate_prompts([_EN.make_doc("A wok.")])
    (prompt,) = prompts
    assert '"enum": ["DISH", "EQUIPMENT", "TOOL"]' in json.dumps(prompt.response_format)


def test_template_of_ones_own_is_taken_for_json() -> None:
    prompt = _ask_for_json(template="{{ text }}: what is in it?")
    assert prompt == 'My "wok" & 鍋 .: what is in it?'
    assert (prompt.constant, prompt.response_format is None) == (0, False)


def test_lines_are_asked_for_without_a_schema() -> None:
    ((prompts, _),) = make_ner_task(LABELS).generate_prompts([_EN.make_doc("A wok.")])
    (prompt,) = prompts
    assert prompt.response_format is None
