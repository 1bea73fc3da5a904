import json
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instaner.tasks.categories import read_labels
from instaner.tasks.grounding import Reading, Status
from instaner.tasks.textcat import make_textcat_task

_MOODS = ["negative", "neutral", "positive"]
_TOPICS = ["Billing", "Card payment", "Shipping"]
_ONE = make_textcat_task(_MOODS, exclusive_classes=True)
_MANY = make_textcat_task(_TOPICS)
_SPAM = make_textcat_task("spam")


def _read(task: Any, answer: str) -> list[str] | None:
    labels, readings = read_labels(task, answer)
    assert readings
    lost = {reading.status for reading in readings} == {Status.UNREADABLE}
    assert lost is (labels is None)
    return labels


@pytest.mark.parametrize(
    "answer",
    [
        "positive",
        "Positive",
        " POSITIVE.\n",
        "**Positive**",
        "`positive`",
        '"positive"',
        "[positive]",
        "- positive",
        "1. positive",
        "\\boxed{positive}",
        "```\npositive\n```",
        "```text\nPositive\n```",
        "<think>It may be negative, no, neutral.</think>\npositive",
        "Label: positive",
        "label: Positive",
        "Answer: positive",
        "**Answer:** positive",
        "**Label**: *positive*",
        "### Final answer: positive",
        "Label:\npositive",
        "## Label\n\npositive",
        "Category = positive",
        "Sentiment: positive",
        "The predicted label: positive",
        "Label: positive (profits rose, nothing negative)",
        "Label: slightly positive",
        "Label: not negative, but positive",
        "Label: positive, not neutral",
        "Label: positive because the loss, a negative thing, shrank",
        "Reason: Sales fell, which is negative, but less than feared.\nLabel: positive",
        "Label: positive\nReason: It is neither neutral nor negative.",
        "Label: neutral\nOn second thoughts that is wrong.\nFinal label: positive",
        "Profit rose. Label: positive",
        "Positive. The text says that profits rose.",
        "Positive - profits rose, no negative news",
        "Positive (the loss was negative before, but shrank)",
        "Positive, because profits rose",
        "Positive\n\nThe text mentions a negative trend that has ended.",
        "Losses are negative, but these shrank.\n\nPositive",
        "Is it negative or neutral? The loss shrank.\npositive",
        "The label is positive.",
        "The sentiment of this text is positive.",
        "I would label this text as positive.",
        "This text can be classified as positive.",
        "It is positive.",
        "It's clearly positive!",
        "The text is not negative, it is positive.",
        "It is positive rather than neutral.",
        "It is neither negative nor neutral, but positive.",
        "No doubt positive",
        "An overall positive text",
        "Not only is there growth; therefore, the text is positive.",
        "There is no negative news in it, so it is positive.",
        "Losses could be negative for investors. However, they shrank. Overall, the "
        "sentiment is positive.",
        "Although the outlook is negative, the text is positive.",
        'The text says "we are neutral on this". The right label is positive, as '
        "sales grew.",
        '{"label": "positive"}',
        '{"label": "Positive"}',
        '{"reason": "A negative trend ended.", "label": "positive"}',
        '{"label": "positive", "reason": "It is not neutral."}',
        '{"sentiment": "positive"}',
        '{"final_label": "positive"}',
        '{"output": "positive", "text": "neutral"}',
        '{"labels": ["positive"]}',
        '["positive"]',
        '{"result": {"label": "positive", "confidence": 0.9}}',
        '{"positive": true, "negative": false, "neutral": false}',
        '{"positive": 0.7, "negative": 0.1, "neutral": 0.2}',
        "{'reason': 'It is not negative.', 'label': 'positive'}",
        'Here it is:\n```json\n{"label": "positive"}\n```\nI hope this helps!',
        '{"reason": "The "negative" trend ended", "label": "positive"}',
        '{"reason": "Sales rose", "label": "positive"',
        "{reason: Sales rose, label: positive}",
        '"reason": "neutral news", "label": "positive"',
        "positive: yes\nnegative: no\nneutral: no",
        "Positive: 80%, negative: 15%, neutral: 5%",
        "Label: positive\n\nText: Sales fell.\nLabel: negative",
    ],
)
def test_label_is_read(answer: str) -> None:
    assert _read(_ONE, answer) == ["positive"]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "...",
        "bullish",
        "Label: bullish",
        "Label: n/a\nReason: It is positive for nobody.",
        "Label:",
        "==NONE==",
        "none",
        "cannot be labeled",
        "I'm sorry, but I cannot tell whether this is positive.",
        "positive, negative",
        "positive/negative",
        "positive or neutral",
        "positive\nnegative",
        "- positive\n- neutral",
        "Label: neutral leaning towards positive",
        "Label: positive\nLabel: negative",
        '["positive", "negative"]',
        '{"label": ["positive", "neutral"]}',
        '{"label": null}',
        '{"label": "bullish", "reason": "positive news"}',
        '{"reason": "It is positive"}',
        "{}",
        "[]",
        "not positive",
        "Not positive.",
        "non-positive",
        "Label: not positive",
        "The label is not positive.",
        "It isn't positive.",
        "It is not a positive text.",
        "It does not sound positive",
        "I do not think that it is positive.",
        "There is nothing positive in it.",
        "It lacks a positive tone.",
        "It is neither positive nor negative.",
        "Therefore, it is neither positive, negative, nor neutral.",
        "It is anything but positive.",
        "It is far from positive.",
        "Positive? No.",
        "positive: no",
        "Positive is wrong.",
        "Positive does not fit.",
        "The labels positive or negative cannot be assigned.",
        "It may be positive.",
        "It could be seen as positive.",
        "Is it positive?",
        "Der Text ist nicht positiv, nicht positive.",
        "An increase is positive for investors, but this text says too little of it.",
        "The positive and the negative news are of one weight.",
        "The sentiment is positive for some, and for others it is negative. So the "
        "label is positive or negative.",
        "<think>It is positive",
        "unpositive",
        "positives",
        '{"positive": true, "neutral": true}',
        "We went there in order to see how the positive pole of the battery works.",
    ],
)
def test_what_is_not_clear_is_not_read(answer: str) -> None:
    assert _read(_ONE, answer) is None


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("Billing", ["Billing"]),
        ("Billing, Shipping", ["Billing", "Shipping"]),
        ("shipping,billing", ["Shipping", "Billing"]),
        ("Billing and Shipping", ["Billing", "Shipping"]),
        ("card_payment; CARD-PAYMENT", ["Card payment"]),
        ("- Billing\n- Card payment", ["Billing", "Card payment"]),
        ("Labels: Billing, Shipping", ["Billing", "Shipping"]),
        ("Labels:\n- Billing\n- Shipping", ["Billing", "Shipping"]),
        ("Labels: Billing, Returns, not Shipping", ["Billing"]),
        ("Reason: no shipping in it.\nLabels: Billing", ["Billing"]),
        ("It is about billing and shipping.", ["Billing", "Shipping"]),
        ("It is about billing, not about shipping.", ["Billing"]),
        ("Billing: an invoice\nShipping: a parcel", ["Billing", "Shipping"]),
        ("Billing: yes, Card payment: no, Shipping: yes", ["Billing", "Shipping"]),
        ('{"labels": ["Billing", "Shipping"]}', ["Billing", "Shipping"]),
        ('{"labels": "Billing, Shipping"}', ["Billing", "Shipping"]),
        ('{"Billing": 0.9, "Shipping": 0.6, "Card payment": 0.1}', _TOPICS[::2]),
        ("==NONE==", []),
        ("none", []),
        ("Labels: ==NONE==", []),
        ("Labels: none\nReason: It is not about billing.", []),
        ("None of the labels apply.", []),
        ('{"labels": []}', []),
        ("[]", []),
        ("Returns", None),
        ("Not about billing", None),
        ("", None),
    ],
)
def test_several_labels_are_read(answer: str, labels: list[str] | None) -> None:
    assert _read(_MANY, answer) == labels


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        *(("POS", ["spam"]), ("pos.", ["spam"]), ("Positive", ["spam"])),
        *(("NEG", []), ("Label: NEG", []), ("negative", [])),
        *(("yes", ["spam"]), ("No", []), ("No. It asks a question.", [])),
        *(("spam", ["spam"]), ("not spam", []), ("It is not spam.", [])),
        *(('{"label": "POS"}', ["spam"]), ('{"label": "NEG"}', [])),
        *(('{"spam": false}', []), ('{"spam": 0.2}', []), ('{"spam": 1}', ["spam"])),
        *(("POS, NEG", None), ("perhaps", None), ("It may be spam.", None)),
    ],
)
def test_one_label_is_had_or_not(answer: str, labels: list[str] | None) -> None:
    assert _read(_SPAM, answer) == labels


def test_longest_label_is_meant() -> None:
    task = make_textcat_task(["urgent", "not urgent"], exclusive_classes=True)
    assert _read(task, "The label is not urgent.") == ["not urgent"]
    assert _read(task, "The label is urgent.") == ["urgent"]
    task = make_textcat_task(["urgent", "not urgent"])
    assert _read(task, "Labels: not urgent, new") == ["not urgent"]


def test_what_two_labels_may_mean_is_not_read() -> None:
    task = make_textcat_task(["a b", "a-b", "c"], exclusive_classes=True)
    assert _read(task, "The label is a_b.") is None
    assert _read(task, "The label is a-b.") == ["a-b"]


def test_text_that_is_repeated_is_no_answer() -> None:
    text = "What a positive surprise, and a negative one"
    answer = f"Text: {text}\nThe text is neutral."
    assert read_labels(_ONE, answer, text)[0] == ["neutral"]
    answer = 'It says "a positive surprise" but is neutral.'
    assert read_labels(_ONE, answer, text)[0] == ["neutral"]


def test_none_is_no_answer_where_it_is_not_allowed() -> None:
    task = make_textcat_task(_TOPICS, allow_none=False)
    assert _read(task, "==NONE==") is None


@pytest.mark.parametrize(
    ("answer", "readings"),
    [
        ("positive", [Reading(Status.EXACT, "positive", "positive")]),
        ("Label: POSITIVE", [Reading(Status.NORMALISED, "POSITIVE", "positive")]),
        ("no idea", [Reading(Status.UNREADABLE, "no idea", "")]),
    ],
)
def test_readings_say_how_it_was_read(answer: str, readings: list[Reading]) -> None:
    assert read_labels(_ONE, answer)[1] == readings


def test_unknown_label_beside_known_ones_is_counted() -> None:
    labels, readings = read_labels(_MANY, '{"labels": ["Billing", "Returns"]}')
    assert labels == ["Billing"]
    assert readings == [
        Reading(Status.EXACT, "Billing", "Billing"),
        Reading(Status.UNKNOWN_LABEL, "Returns", "Returns"),
    ]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("positive", ""),
        ("Reason: Sales rose.\nLabel: positive", "Sales rose."),
        ("**Reason:** Sales rose.\n\n**Label:** positive", "Sales rose."),
        ("Reason:\n\nSales rose.\n  Twice.\n\npositive", "Sales rose. Twice."),
        ("Label: positive\nExplanation: Sales rose.", "Sales rose."),
        ("Reason: Sales rose. Label: positive", "Sales rose."),
        ("Reason: Sales rose.\nLabel: bullish", "Sales rose."),
        ("Reason: Sales rose.\n```\npositive\n```", "Sales rose."),
        ("<think>Reason: no.</think>Reason: Sales rose.\npositive", "Sales rose."),
        ("Label: positive\n\nText: Up!\nReason: Up.\nLabel: positive", ""),
        ("Text: Up!\nReason: Sales rose.\nLabel: positive", "Sales rose."),
        ('{"reason": "Sales rose.", "label": "positive"}', "Sales rose."),
        ('{"result": {"label": "positive", "Reasoning": "Up."}}', "Up."),
        ('{"label": "positive", "reason": null}', ""),
        ('Reason: Sales rose.\n{"label": "positive"}', "Sales rose."),
        ("Reason: " + "Sales rose. " * 99 + "\npositive", ("Sales rose. " * 99)[:500]),
    ],
)
def test_reason_is_kept(answer: str, reason: str) -> None:
    assert [reading.reason for reading in read_labels(_ONE, answer)[1]] == [reason]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Sales rose.\nLabel: positive", "Sales rose."),
        (" Sales rose.\n\npositive", "Sales rose."),
        ("Sure:\nReason: Sales rose.\nLabel: positive", "Sales rose."),
        ("It says that sales rose, so it is positive.", None),
        ("positive", ""),
        ('{"label": "positive"}', ""),
    ],
)
def test_what_completes_the_prompt_is_a_reason(answer: str, reason: str | None) -> None:
    task = make_textcat_task(_MOODS, exclusive_classes=True, reasoning=True)
    wanted = answer if reason is None else reason
    labels, (reading,) = read_labels(task, answer)
    assert (labels, reading.reason) == (["positive"], wanted)


def test_each_label_has_the_reason() -> None:
    answer = '{"reason": "A bill in a parcel.", "labels": ["Billing", "Shipping"]}'
    readings = read_labels(_MANY, answer)[1]
    assert [reading.reason for reading in readings] == ["A bill in a parcel."] * 2


def test_no_label_is_a_reading() -> None:
    assert [r.status for r in read_labels(_MANY, "==NONE==")[1]] == [Status.NO_ENTITY]
    assert [r.status for r in read_labels(_SPAM, "NEG")[1]] == [Status.NO_ENTITY]


_PIECES = st.sampled_from(
    [
        *"\n\t|:;,.-*#`\"'“()[]{}=/?1",
        *(" ", "positive", "Negative", "neutral", "not ", "no", "true", "0.5", "50%"),
        *("Label:", "Final answer:", "```", "<think>", "</think>", "Text:", "label"),
        *('{"label": "', '"}', "is ", "but ", "None", "Reason:", "therefore ", "or "),
    ]
)
_ANSWERS = st.text(max_size=60) | st.lists(_PIECES, max_size=30).map("".join)


@settings(deadline=None)
@given(_ANSWERS)
def test_any_answer_is_one_label_or_a_failure(answer: str) -> None:
    labels = _read(_ONE, answer)
    assert labels is None or (len(labels) == 1 and labels[0] in _MOODS)
    if labels is not None:
        assert labels[0] in answer.lower()


@pytest.mark.parametrize(
    "task",
    [
        make_textcat_task(_MOODS),
        make_textcat_task(_MOODS, allow_none=False),
        make_textcat_task("positive", reasoning=True),
        make_textcat_task(_MOODS, exclusive_classes=True, reasoning=True),
    ],
)
@settings(deadline=None)
@given(answer=_ANSWERS)
def test_any_answer_has_labels_of_the_task_or_fails(task: Any, answer: str) -> None:
    labels, readings = read_labels(task, answer)
    assert labels is None or len(set(labels) & set(task.labels)) == len(labels)
    assert all(len(reading.reason) <= 500 for reading in readings)
    named = [r for r in readings if r.status in (Status.EXACT, Status.NORMALISED)]
    assert Counter(r.label for r in named) == Counter(labels or [])


_FORMS = (
    "{}",
    "{}.",
    "**{}**",
    "Label: {}",
    "Final answer: {}",
    "The label is {}.",
    '{{"label": "{}"}}',
    "```json\n{{\"label\": '{}'}}\n```",
)
_REASONS = (
    "",
    "Sales grew, which is positive.\n",
    "It is neither positive nor negative.\n",
    "Reason: not neutral, as far as I see\n",
    "It may be negative, it may be positive. Who knows?\n\n",
)


@pytest.mark.parametrize("change", [str, str.upper, str.title])
@pytest.mark.parametrize("form", _FORMS)
@given(label=st.sampled_from(_MOODS), reason=st.sampled_from(_REASONS))
def test_reasons_do_not_hide_the_label(
    form: str, change: Any, label: str, reason: str
) -> None:
    assert _read(_ONE, reason + form.format(change(label))) == [label]


_DENIALS = (
    "not {}",
    "It is not {}.",
    "It isn't {}",
    "no {} sentiment",
    "This is never {}.",
    "Label: not {}",
    "The label cannot be {}.",
    "without any {} sign",
    "It is hardly {}, I think.",
    "{}: no",
    "{} is not the right label.",
)


@given(st.sampled_from(_DENIALS), st.sampled_from(_MOODS))
def test_label_that_is_denied_is_never_read(denial: str, label: str) -> None:
    assert _read(_ONE, denial.format(label)) is None


@given(st.lists(st.sampled_from(_MOODS), min_size=1, max_size=4))
def test_several_labels_are_one_only_if_they_are_equal(labels: list[str]) -> None:
    wanted = labels[:1] if len(set(labels)) == 1 else None
    for joint in (", ", " / ", "\n", " and "):
        assert _read(_ONE, joint.join(labels)) == wanted
    assert _read(_ONE, json.dumps({"labels": labels})) == wanted


@pytest.mark.parametrize(
    "piece",
    [
        *("positive ", "not positive, ", "Label:\n", "Label: ", "{", '{"label": ['),
        *(" ", "\n", "'a ", '"', "Text:\n", "is is is ", "positive: 1 ", "so ", "- "),
        *("label is ", "a b c ", "* ", "positive or ", "\u3000"),
        *("Reason: x\n", "Reason: ", "{'reason': [", "reason "),
    ],
)
def test_long_answers_are_read_fast(piece: str) -> None:
    start = time.perf_counter()
    read_labels(_ONE, piece * (60_000 // len(piece)) + "x")
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("**C#**", "C#"),
        ("Label: C# because of the semicolons", "C#"),
        ("The language is C#.", "C#"),
        ("The language is C.", "C"),
        ("Label: C", "C"),
    ],
)
def test_labels_that_differ_at_their_edges(answer: str, label: str) -> None:
    task = make_textcat_task(["C", "C#"], exclusive_classes=True)
    assert _read(task, answer) == [label]


@pytest.mark.parametrize(
    "answer",
    [
        "Label: negative\nActually, no: Label: positive",
        "I think negative, no wait, positive.",
        "It is neutral. On second thought, it is positive.",
    ],
)
def test_what_is_taken_back_does_not_hold(answer: str) -> None:
    assert _read(_ONE, answer) == ["positive"]
