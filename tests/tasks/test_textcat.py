from typing import Any

import pytest
import spacy
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab
from spacy_llm.registry import registry
from spacy_llm.tasks.textcat import make_textcat_task_v3
from spacy_llm.ty import supports_sharding, validate_type_consistency

from instaner.errors import InstaNERError
from instaner.llm.store import Prompt
from instaner.tasks.categories import read_labels
from instaner.tasks.grounding import Reading, Status, load_readings
from instaner.tasks.textcat import make_textcat_task

_MOODS = ["negative", "neutral", "positive"]
_TOPICS = ["Billing", "Card payment", "Shipping"]
_ONE = make_textcat_task(_MOODS, exclusive_classes=True)
_EN = spacy.blank("en")
_VOCAB = Vocab()


def test_answer_becomes_cats() -> None:
    (doc,) = _ONE.parse_responses([[_EN.make_doc("Sales rose.")]], [["Positive"]])
    assert doc.cats == {"negative": 0.0, "neutral": 0.0, "positive": 1.0}
    assert load_readings(doc) == [Reading(Status.NORMALISED, "Positive", "positive")]


def test_reason_survives_a_file() -> None:
    answer = "Reason: Sales rose.\nLabel: positive"
    (doc,) = _ONE.parse_responses([[_EN.make_doc("Sales rose.")]], [[answer]])
    (reading,) = load_readings(Doc(_VOCAB).from_bytes(doc.to_bytes())) or ()
    assert (reading.label, reading.reason) == ("positive", "Sales rose.")


def test_types_are_those_that_spacy_llm_checks() -> None:
    make_model = registry.get("llm_models", "spacy.NoOp.v1")
    validate_type_consistency(_ONE, make_model())
    assert supports_sharding(_ONE)


def test_answer_that_cannot_be_read_sets_nothing() -> None:
    (doc,) = _ONE.parse_responses([[_EN.make_doc("Sales rose.")]], [["bullish"]])
    assert doc.cats == {}
    assert load_readings(doc) == [Reading(Status.UNREADABLE, "bullish", "")]


@pytest.mark.parametrize(
    "options",
    [
        {"labels": _MOODS, "exclusive_classes": True},
        {"labels": _MOODS},
        {"labels": _MOODS, "allow_none": False},
        {"labels": "spam", "exclusive_classes": True},
        {"labels": _MOODS, "label_definitions": {"neutral": "Facts alone."}},
        {"labels": _MOODS, "examples": [{"text": "Up!", "answer": "positive"}]},
    ],
)
def test_prompt_is_that_of_spacy_llm(options: dict[str, Any]) -> None:
    docs = [_EN.make_doc("Sales rose.")]
    ((our_prompts, _),) = make_textcat_task(**options).generate_prompts(docs)
    ((their_prompts, _),) = make_textcat_task_v3(**options).generate_prompts(docs)
    assert list(our_prompts) == list(their_prompts)


def _ask(**options: Any) -> Prompt:
    task = make_textcat_task(**options)
    ((prompts, _),) = task.generate_prompts([_EN.make_doc("Sales rose.")])
    (prompt,) = prompts
    return prompt


def test_all_before_the_text_is_constant() -> None:
    prompt = _ask(labels=_MOODS, exclusive_classes=True)
    assert prompt[prompt.constant :].startswith("Sales rose.")
    prompt = _ask(labels=_MOODS, exclusive_classes=True, reasoning=True)
    assert prompt[prompt.constant :] == "Text: Sales rose.\nReason:"


def test_reason_is_asked_for_before_the_label() -> None:
    prompt = _ask(
        labels=_MOODS,
        exclusive_classes=True,
        reasoning=True,
        label_definitions={"neutral": "Facts alone."},
        examples=[{"text": "Up!", "answer": "positive", "reason": "It went up."}],
    )
    assert "Reason: …\nLabel: …" in prompt
    assert "- neutral: Facts alone." in prompt
    assert "Text: Up!\nReason: It went up.\nLabel: positive\n" in prompt
    assert prompt.response_format is None


def test_json_is_asked_for_with_a_schema() -> None:
    prompt = _ask(
        labels=_MOODS,
        exclusive_classes=True,
        reasoning=True,
        format="json",
        examples=[{"text": "Up!", "answer": "positive", "reason": 'It "went" up.'}],
    )
    assert '{"reason": "…", "label": "…"}' in prompt
    assert 'Answer: {"reason": "It \\"went\\" up.", "label": "positive"}' in prompt
    assert prompt.response_format is not None
    wanted = prompt.response_format["json_schema"]
    assert wanted["strict"] is True
    assert list(wanted["schema"]["properties"]) == ["reason", "label"]
    assert wanted["schema"]["properties"]["label"]["enum"] == _MOODS


def test_json_of_several_labels_is_a_list() -> None:
    prompt = _ask(
        labels=_TOPICS,
        format="json",
        examples=[
            {"text": "A bill, a parcel.", "answer": "Billing, Shipping"},
            {"text": "Hello!", "answer": "==NONE=="},
        ],
    )
    assert 'Answer: {"labels": ["Billing", "Shipping"]}' in prompt
    assert 'Answer: {"labels": []}' in prompt
    assert prompt.response_format is not None
    schema = prompt.response_format["json_schema"]["schema"]
    assert schema["properties"]["labels"]["items"]["enum"] == _TOPICS


def test_json_of_one_label_says_whether() -> None:
    prompt = _ask(labels="spam", format="json")
    assert prompt.response_format is not None
    schema = prompt.response_format["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == ["POS", "NEG"]


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("task", [_MOODS, "spam"])
def test_answers_in_the_form_of_the_examples_are_read(task: Any, format: str) -> None:
    answer = "POS" if task == "spam" else "positive"
    example = {"text": "Up!", "answer": answer, "reason": "It is not neutral."}
    options: dict[str, Any] = {"format": format, "exclusive_classes": True}
    prompt = _ask(labels=task, examples=[example], reasoning=True, **options)
    shown = prompt.split("Text: Up!\n")[1].split("\n\nText:")[0]
    read, _ = read_labels(make_textcat_task(task, exclusive_classes=True), shown)
    assert read == ["spam" if task == "spam" else "positive"]


def test_labels_default_to_those_defined() -> None:
    task = make_textcat_task(label_definitions={"Billing": "Invoices.", "Other": ""})
    assert task.labels == ("Billing", "Other")


def test_no_labels_is_an_error() -> None:
    with pytest.raises(InstaNERError, match=r"instaner\.TextCat\.v1 needs labels"):
        make_textcat_task()


def test_definition_of_no_label_is_named() -> None:
    message = 'Label "Returns" in label_definitions is not one of the labels'
    with pytest.raises(InstaNERError, match=message):
        make_textcat_task(_TOPICS, label_definitions={"Returns": "Sent back."})


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"text": "Up!", "answer": "bullish"}, 'Label "bullish" in the example "Up!"'),
        ({"text": "Up!"}, "An example needs text and answer"),
        ({"text": "Up!", "answer": 1}, "An example needs text and answer"),
        ("Up!", "An example needs text and answer"),
    ],
)
def test_broken_example_is_named(example: Any, message: str) -> None:
    with pytest.raises(InstaNERError, match=message):
        make_textcat_task(_MOODS, examples=[example])


def test_example_of_reasoning_needs_a_reason() -> None:
    example = {"text": "Up!", "answer": "positive"}
    with pytest.raises(InstaNERError, match="needs text, answer and reason"):
        make_textcat_task(_MOODS, examples=[example], reasoning=True)


def test_split_text_has_the_share_of_each_label() -> None:
    text = "Sales rose.  Costs\n\nrose, too. " * 20
    ((prompts, _),) = _ONE.generate_prompts([_EN.make_doc("")])
    length = int(len(next(iter(prompts)).encode("utf8")) / 3 * 1.1) + 60
    ((prompts, found),) = _ONE.generate_prompts([_EN.make_doc(text)], length)
    shards = list(found)
    assert len(shards) == len(list(prompts)) > 2
    answers = ["positive", "bullish", *["neutral"] * (len(shards) - 2)]
    lengths = [len(shard) for shard in shards]
    (doc,) = _ONE.parse_responses([shards], [answers])
    assert doc.text == text
    share = lengths[0] / (sum(lengths) - lengths[1])
    assert doc.cats["positive"] == pytest.approx(share)
    assert sum(doc.cats.values()) == pytest.approx(1)
    statuses = [reading.status for reading in load_readings(doc) or ()]
    assert statuses.count(Status.UNREADABLE) == 1


def test_split_text_of_which_nothing_was_read_has_no_label() -> None:
    shards = [Doc(_VOCAB, words=["up"]), Doc(_VOCAB, words=["down"])]
    (doc,) = _ONE.parse_responses([shards], [["bullish", "bearish"]])
    assert doc.cats == {}


def test_labels_score_as_those_of_spacy_llm() -> None:
    doc = _EN.make_doc("Up!")
    (read,) = _ONE.parse_responses([[doc.copy()]], [["positive"]])
    doc.cats = {"negative": 0.0, "neutral": 0.0, "positive": 1.0}
    assert _ONE.scorer([Example(read, doc)])["cats_macro_f"] == pytest.approx(1 / 3)


def test_example_without_a_label_where_there_has_to_be_one() -> None:
    example = {"text": "Hm.", "answer": "==NONE=="}
    with pytest.raises(InstaNERError, match="==NONE=="):
        make_textcat_task(["A", "B"], examples=[example], exclusive_classes=True)
