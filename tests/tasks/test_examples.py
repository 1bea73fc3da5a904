import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy_llm.registry import fewshot_reader
from spacy_llm.tasks.ner import make_ner_task_v3

from instaner.annotate import annotate
from instaner.decisions import Answer, Decision, Decisions
from instaner.errors import InstaNERError
from instaner.llm.store import Prompt
from instaner.pipeline import get_llms
from instaner.targets import Target
from instaner.tasks.base import estimate_tokens
from instaner.tasks.examples import (
    add_example,
    make_example,
    make_knn_examples,
    remove_example,
)
from instaner.tasks.ner import make_ner_task
from instaner.tasks.textcat import make_textcat_task

from ..conftest import CATEGORIES, LABELS, ROOT
from ..server import ChatServer, complete

_EN = spacy.blank("en")
_TEXTS = (
    "I fried the onions in a wok.",
    "I fried the rice in a wok.",
    "The soup needs more salt.",
    "My oven broke down last night.",
)
_words = st.sampled_from(["wok", "oven", "rice", "soup", "I", "fried", "鍋", "!", "✓"])
_texts = st.lists(_words, min_size=1, max_size=6).map(" ".join)


def _mark(text: str, surface: str, label: str) -> tuple[int, int, str]:
    return text.index(surface), text.index(surface) + len(surface), label


def _decide(
    text: str, *, reviewer: str = "anna", attr: str = "ents", **values: Any
) -> Decision:
    values = {"answer": Answer.ACCEPT, **values}
    if "marks" not in values and attr == "ents":
        values["marks"] = ((0, len(text.split()[0]), "DISH"),)
    return Decision(text, attr, reviewer, **values)


def _review(path: Path, decisions: Iterable[Decision]) -> Path:
    store = Decisions(path)
    for decision in decisions:
        store.add(decision)
    store.close()
    return path


def _write(path: Path, texts: Iterable[str]) -> Path:
    span = {"text": "x", "is_entity": True, "label": "DISH", "reason": "is food"}
    srsly.write_jsonl(path, [{"text": text, "spans": [span]} for text in texts])
    return path


def _ask(task: Any, text: str, length: int | None = None) -> list[Prompt]:
    ((prompts, _),) = task.generate_prompts([_EN.make_doc(text)], length)
    return list(prompts)


def _show(task: Any, text: str) -> list[str]:
    """RETURNS (List[str]): The texts of the examples in a prompt, in its order."""
    (prompt,) = _ask(task, text)
    assert prompt.endswith(f"Paragraph: {text}\nAnswer:")
    lines = prompt.removesuffix(f"Paragraph: {text}\nAnswer:").splitlines()
    if "Here is an example of the output format" in prompt:
        return []
    return [line.partition(": ")[2] for line in lines if line.startswith("Paragraph: ")]


def _make_task(path: Path, **options: Any) -> Any:
    knn = {k: options.pop(k) for k in ("k", "max_tokens", "encoder") if k in options}
    return make_ner_task(LABELS, examples=make_knn_examples(path, **knn), **options)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    return _review(tmp_path / "reviews.db", map(_decide, _TEXTS))


def test_nearest_is_last_and_a_text_never_its_own_example(reviews: Path) -> None:
    task = _make_task(reviews, k=2)
    assert _show(task, "I fried rice in my oven.")[-1] == _TEXTS[1]
    for text in (_TEXTS[1], "i fried  the RICE in a wok.\n"):
        assert _show(task, text.strip())[-1] == _TEXTS[0]
        assert _TEXTS[1] not in _show(task, text.strip())


def test_encoder_chooses_too(reviews: Path, tiny_encoder: Path) -> None:
    task = _make_task(reviews, k=3, encoder=str(tiny_encoder))
    shown = _show(task, _TEXTS[1].replace("rice", "rica"))
    assert len(shown) == 3
    assert shown[-1] == _TEXTS[1]


@settings(max_examples=40, deadline=None)
@given(st.lists(_texts, min_size=1, max_size=8, unique=True), _texts, st.data())
def test_choice_does_not_depend_on_the_order_of_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    text: str,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("pool")
    mixed = data.draw(st.permutations(texts))
    shown, again = (
        _show(_make_task(_write(folder / name, group), k=3), text)
        for name, group in (("a.jsonl", texts), ("b.jsonl", mixed))
    )
    assert shown == again
    folded = {" ".join(other.casefold().split()) for other in texts}
    assert len(shown) == min(3, len(folded - {text.casefold()}))
    assert text.casefold() not in map(str.casefold, shown)


def test_two_processes_choose_alike(reviews: Path) -> None:
    code = (
        "import json, sys, spacy\n"
        "from instaner.tasks.examples import make_knn_examples\n"
        "from instaner.tasks.ner import make_ner_task\n"
        "examples = make_knn_examples(sys.argv[1], k=3)\n"
        f"task = make_ner_task({LABELS}, examples=examples)\n"
        "docs = map(spacy.blank('en').make_doc, sys.argv[2:])\n"
        "print(json.dumps([[*p] for p, _ in task.generate_prompts(docs)]))"
    )
    command = [sys.executable, "-c", code, str(reviews), *_TEXTS]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    task = _make_task(reviews, k=3)
    assert json.loads(out.stdout) == [_ask(task, text) for text in _TEXTS]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(_texts, min_size=2, max_size=8, unique=True),
    st.integers(1, 120),
    st.sampled_from(["lines", "json"]),
)
def test_examples_stay_in_the_budget(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    max_tokens: int,
    format: str,
) -> None:
    path = _write(tmp_path_factory.mktemp("pool") / "a.jsonl", texts)
    (prompt,) = _ask(_make_task(path, max_tokens=max_tokens, format=format), "A wok")
    field = "Paragraph" if format == "lines" else "Text"
    tail = f"{field}: A wok\nAnswer:"
    assert prompt.endswith(tail)
    examples = prompt[prompt.constant :].removesuffix(tail)
    assert estimate_tokens(examples) <= max_tokens
    if max_tokens >= 100:
        assert examples


def test_what_does_not_fit_makes_room_for_what_does(tmp_path: Path) -> None:
    texts = ["A wok and rice " + "and more " * 50, "A wok"]
    task = _make_task(_write(tmp_path / "a.jsonl", texts), max_tokens=60)
    assert _show(task, "A wok and rice") == ["A wok"]


@pytest.mark.parametrize("format", ["lines", "json"])
def test_constant_ends_before_the_examples(reviews: Path, format: str) -> None:
    task = _make_task(reviews, k=2, format=format)
    prompts = [prompt for text in _TEXTS for prompt in _ask(task, text)]
    (constant,) = {prompt[: prompt.constant] for prompt in prompts}
    assert ", ".join(LABELS) in constant or "DISH" in constant
    assert not any(text in constant for text in _TEXTS)
    field = "Paragraph: " if format == "lines" else "Text: "
    assert all(prompt[prompt.constant :].startswith(field) for prompt in prompts)


def test_constant_is_right_where_examples_begin_alike(tmp_path: Path) -> None:
    texts = ["Dear Sir,\nmy wok broke.", "Dear Sir,\nI ate.", "Soup"]
    task = _make_task(_write(tmp_path / "a.jsonl", texts), k=1)
    prompts = [_ask(task, text)[0] for text in ("my wok broke", "Soup!", "I ate")]
    assert {prompt[: prompt.constant] for prompt in prompts} == {
        prompts[0].partition("Paragraph: ")[0]
    }


@pytest.mark.parametrize("name", ["reviews.db", "examples.yml"])
def test_no_examples_is_the_prompt_without(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "examples.yml":
        path.write_text("# none yet\n", "utf8")
    ((prompt,), (other,)) = (
        _ask(_make_task(path), "A wok"),
        _ask(make_ner_task(LABELS), "A wok"),
    )
    assert (prompt, prompt.constant) == (other, other.constant)
    assert path.exists() is (name == "examples.yml")


def test_file_is_read_once_and_late(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    task = _make_task(path)
    _write(path, ["A wok"])
    assert _show(task, "My wok") == ["A wok"]
    _write(path, ["Rice"])
    assert _show(task, "My wok") == ["A wok"]
    assert _show(_make_task(path), "My wok") == ["Rice"]


def test_all_shards_have_the_doc_s_examples(reviews: Path) -> None:
    text = " ".join(["I fried rice in a pan, says Ada."] * 20)
    task = _make_task(_review(reviews, [_decide(text)]), k=1)
    length = 2 * estimate_tokens(_ask(task, "A wok")[0])
    prompts = _ask(task, text, length)
    assert len(prompts) > 1
    assert all(f"Paragraph: {_TEXTS[1]}\n" in prompt for prompt in prompts)
    assert all(prompt.constant for prompt in prompts)


def test_example_of_a_review_shows_what_was_taken_away(tmp_path: Path) -> None:
    text = "I fried the onions in a wok."
    wok, onions = _mark(text, "wok", "EQUIPMENT"), _mark(text, "onions", "DISH")
    more = (_mark(text, "a wok", "EQUIPMENT"), _mark(text, "wok", "DISH"))
    path = _review(
        tmp_path / "reviews.db",
        [_decide(text, marks=(wok,), proposed=(wok, onions, *more))],
    )
    (prompt,) = _ask(_make_task(path), "My wok")
    assert (
        f"Paragraph: {text}\nAnswer:\n"
        "1. onions | False | ==NONE== | fits the definition of no label\n"
        "2. wok | True | EQUIPMENT | fits the definition of EQUIPMENT\n\n"
    ) in prompt


@pytest.mark.parametrize(("format", "shown"), [("lines", False), ("json", True)])
@pytest.mark.parametrize(("text", "marks"), [("Ta!", ()), ("A\nb", ((0, 3, "DISH"),))])
def test_lines_show_no_answer_that_is_empty_or_breaks_them(
    tmp_path: Path, format: str, shown: bool, text: str, marks: Any
) -> None:
    path = _review(tmp_path / "reviews.db", [_decide(text, marks=marks)])
    (prompt,) = _ask(_make_task(path, format=format), "My wok")
    assert (text in prompt) is shown


@pytest.mark.parametrize(
    ("others", "shown"),
    [
        ([], True),
        ([{}], True),
        ([{"marks": ()}], False),  # a dispute
        ([{"marks": ()}, {}], True),  # outvoted
        ([{"answer": Answer.REJECT, "marks": ()}], True),  # as for gold
        ([{"answer": Answer.REJECT, "marks": ()}] * 2, False),
        ([{"answer": Answer.REJECT, "marks": ()}, {}], True),
        ([{"answer": Answer.SKIP, "marks": ()}], True),
    ],
)
def test_most_reviewers_decide(
    tmp_path: Path, others: list[dict[str, Any]], shown: bool
) -> None:
    values = [{}, *others]
    decisions = [
        _decide("Ramen", reviewer=f"r{k}", **value) for k, value in enumerate(values)
    ]
    path = _review(tmp_path / "reviews.db", decisions)
    (prompt,) = _ask(_make_task(path), "My ramen")
    assert ("Ramen | True | DISH" in prompt) is shown


@pytest.mark.parametrize(("exclusive", "shown"), [(True, True), (False, False)])
def test_labels_are_rivals_only_where_a_text_has_one(
    tmp_path: Path, exclusive: bool, shown: bool
) -> None:
    a, b = (-1, 0, "A"), (-1, 0, "B")
    decisions = [
        _decide("Late.", reviewer=f"r{k}", attr="cats", marks=marks)
        for k, marks in enumerate([(a,), (a,), (b,)])
    ]
    path = _review(tmp_path / "reviews.db", decisions)
    Decisions(path).set_target(Target("cats", ("A", "B"), exclusive))
    answers = [e["answer"] for e in make_knn_examples(path).read("cats", ["A", "B"])]
    assert answers == ["A"] * shown


def test_example_has_all_categories_that_were_accepted(tmp_path: Path) -> None:
    both = ((-1, 0, "A"), (-1, 0, "B"))
    decision = _decide("Late.", attr="cats", marks=both)
    path = _review(tmp_path / "reviews.db", [decision])
    Decisions(path).set_target(Target("cats", ("A", "B"), exclusive=False))
    (example,) = make_knn_examples(path).read("cats", ["A", "B"])
    assert example["answer"] == "A, B"


def test_review_of_a_label_that_is_none_now_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _review(
        tmp_path / "reviews.db",
        [_decide("Ramen!"), _decide("Salt!", marks=((0, 4, "SPICE"),))],
    )
    assert _show(_make_task(path), "Salt and ramen") == ["Ramen!"]
    assert "1 reviewed texts" in caplog.text


@pytest.mark.parametrize(
    ("labels", "options", "marks", "answer"),
    [
        (CATEGORIES, {"exclusive_classes": True}, [(-1, 0, "SHIP")], "SHIP"),
        (CATEGORIES, {}, [(-4, -3, "SIZE"), (-2, -1, "BILL")], "BILL, SIZE"),
        (CATEGORIES, {}, [], "==NONE=="),
        (["BILL"], {}, [(-2, -1, "BILL")], "POS"),
        (["BILL"], {}, [], "NEG"),
    ],
)
def test_categories_are_answers(
    tmp_path: Path,
    labels: list[str],
    options: dict[str, Any],
    marks: list[tuple[int, int, str]],
    answer: str,
) -> None:
    decision = _decide("It came late.", attr="cats", marks=tuple(marks))
    knn = make_knn_examples(_review(tmp_path / "reviews.db", [decision]))
    task = make_textcat_task(labels, examples=knn, **options)
    (prompt,) = _ask(task, "It came.")
    assert f"Text:\n'''\nIt came late.\n'''\n\n{answer}\n" in prompt
    task = make_textcat_task(labels, examples=knn, reasoning=True, **options)
    (prompt,) = _ask(task, "It came.")
    assert "Text: It came late.\nReason: fits the definition of " in prompt


def test_text_that_fits_no_category_is_no_example_where_it_has_to_have_one(
    tmp_path: Path,
) -> None:
    decision = _decide("It came late.", attr="cats", marks=())
    knn = make_knn_examples(_review(tmp_path / "reviews.db", [decision]))
    task = make_textcat_task(CATEGORIES, examples=knn, exclusive_classes=True)
    assert "It came late." not in _ask(task, "It came.")[0]


def _make_nlp(path: Path, **model: Any) -> Language:
    nlp = spacy.blank("en")
    examples = {"@misc": "instaner.KNNExamples.v1", "path": str(path), "k": 1}
    task = {"@llm_tasks": "instaner.NER.v1", "labels": LABELS, "examples": examples}
    nlp.add_pipe("llm", config={"task": task, "model": model})
    return nlp


def test_saved_pipeline_chooses_the_same(reviews: Path, tmp_path: Path) -> None:
    nlp = _make_nlp(reviews, **{"@llm_models": "spacy.NoOp.v1"})
    ((_, llm),) = get_llms(nlp)
    prompts = _ask(llm.task, _TEXTS[0])
    nlp.to_disk(tmp_path / "saved")
    ((_, again),) = get_llms(spacy.load(tmp_path / "saved"))
    assert _ask(again.task, _TEXTS[0]) == prompts
    assert (again.task.prompt_examples, llm.task.prompt_examples) == ([], [])


def test_new_review_asks_anew_only_where_it_is_near(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    chat_server.behave = lambda body: complete("1. wok | True | EQUIPMENT | a pan")
    path = _review(tmp_path / "reviews.db", map(_decide, _TEXTS[1:]))
    texts = tmp_path / "texts.jsonl"
    rows = ["The soup has more salt.", "I fried onions.", "The oven broke."]
    srsly.write_jsonl(texts, [{"text": text} for text in rows])
    model = {"@llm_models": "instaner.Chat.v1", "name": "m"}

    def run() -> list[str]:
        nlp = _make_nlp(path, **model, base_url=chat_server.url)
        before = len(chat_server.requests)
        annotate(nlp, texts, tmp_path / "annotated", max_failures=1)
        return [
            request.body["messages"][-1]["content"].splitlines()[-2]
            for request in chat_server.requests[before:]
        ]

    assert len(run()) == 3
    assert run() == []
    _review(path, [_decide(_TEXTS[0])])
    assert run() == ["Paragraph: I fried onions."]


def test_tasks_of_spacy_llm_refuse_it(reviews: Path) -> None:
    with pytest.raises(InstaNERError, match="Take instaner.NER.v1"):
        make_ner_task_v3(labels=LABELS, examples=make_knn_examples(reviews))


@pytest.mark.parametrize("values", [{"k": 0}, {"max_tokens": 0}])
def test_settings_are_checked(reviews: Path, values: dict[str, int]) -> None:
    with pytest.raises(InstaNERError, match="has to be 1 or more"):
        make_knn_examples(reviews, **values)


def test_missing_library_is_named(
    reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(InstaNERError, match=r'pip install "instaner\[examples\]"'):
        _ask(_make_task(reviews), "A wok")


def test_example_that_does_not_fit_is_named(tmp_path: Path) -> None:
    span = {"text": "A", "is_entity": True, "label": "TOOL", "reason": "r"}
    srsly.write_jsonl(tmp_path / "a.jsonl", [{"text": "A", "spans": [span]}])
    with pytest.raises(InstaNERError, match=r'a.jsonl: Label "TOOL"'):
        _ask(_make_task(tmp_path / "a.jsonl"), "A wok")


_SPAN = {"text": "wok", "is_entity": True, "label": "EQUIPMENT", "reason": "is a pan"}
_WOK = {"text": "My wok: a joy.", "spans": [_SPAN]}
_YAML = """\
# What the teacher sees.
- text: Ramen!   # short
  spans:
    - {text: Ramen, is_entity: true, label: DISH, reason: "is 'a' soup"}

# Of equipment.
- text: 'My wok: a joy.'
  spans: []
  # inside

# Of none.
- text: >
    Thanks
    # all
  spans: []
"""


def test_other_examples_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "examples.yml"
    path.write_text(_YAML, "utf8")
    add_example(path, {"text": "New", "spans": []})
    assert path.read_text("utf8") == f"{_YAML}- text: New\n  spans: []\n"
    assert remove_example(path, "New")
    add_example(path, _WOK)
    old = "- text: 'My wok: a joy.'\n  spans: []\n  # inside\n"
    new = (
        "- text: 'My wok: a joy.'\n  spans:\n    - text: wok\n      is_entity: true\n"
        "      label: EQUIPMENT\n      reason: is a pan\n"
    )
    assert path.read_text("utf8") == _YAML.replace(old, new)
    assert remove_example(path, _WOK["text"])
    assert path.read_text("utf8") == _YAML.replace(old, "")
    assert not remove_example(path, _WOK["text"])


@pytest.mark.parametrize("text", ["[]\n", "", "# none\n", "[{text: a, spans: []}]"])
def test_file_of_another_layout_takes_examples(tmp_path: Path, text: str) -> None:
    path = tmp_path / "examples.yml"
    path.write_text(text, "utf8")
    before = srsly.read_yaml(path) or []
    add_example(path, _WOK)
    assert srsly.read_yaml(path) == [*before, _WOK]
    assert ("# none" in path.read_text("utf8")) is ("# none" in text)
    assert remove_example(path, _WOK["text"])
    assert srsly.read_yaml(path) == before


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["a.yml", "a.json", "a.jsonl"]),
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
            st.booleans(),
        ),
        max_size=5,
    ),
)
def test_file_holds_what_was_added(
    tmp_path_factory: pytest.TempPathFactory, name: str, steps: list[tuple[str, bool]]
) -> None:
    path = tmp_path_factory.mktemp("examples") / name
    held: dict[str, Any] = {}
    for number, (text, more) in enumerate(steps):
        example = {"text": text, "answer": text, "reason": f"{number}"}
        add_example(path, example)
        held[text] = example
        if not more:
            assert remove_example(path, text)
            del held[text]
        assert list(fewshot_reader(path)()) == list(held.values())


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.yml", "- text: [", "a.yml is no YAML"),
        ("a.yml", "text: a", "has to be a list of examples"),
        ("a.yml", "- spans: []", "each with its text"),
        ("a.json", "[", "a.json is no JSON"),
        ("a.jsonl", '{"text": "a"}\n{', "a.jsonl, line 2: broken JSON"),
    ],
)
def test_broken_file_is_named_and_left(
    tmp_path: Path, name: str, text: str, match: str
) -> None:
    path = tmp_path / name
    path.write_text(text, "utf8")
    for edit in (
        lambda: add_example(path, _WOK),
        lambda: remove_example(path, "a"),
        lambda: _ask(_make_task(path), "A wok"),
    ):
        with pytest.raises(InstaNERError, match=match) as info:
            edit()
        assert "\n" not in str(info.value)
    assert path.read_text("utf8") == text


def test_example_without_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match="needs a text"):
        add_example(tmp_path / "a.yml", {"spans": []})


def test_decision_becomes_an_example_in_every_prompt(tmp_path: Path) -> None:
    path = tmp_path / "examples.yml"
    path.write_text(_YAML, "utf8")

    def make() -> Any:
        return make_ner_task(LABELS, examples=fewshot_reader(path))

    (before,) = _ask(make(), "A pan.")
    text = "Rice in a wok."
    wok, rice = _mark(text, "wok", "EQUIPMENT"), _mark(text, "Rice", "DISH")
    decision = _decide(text, marks=(wok,), proposed=(wok, rice))
    reasons = {wok: "is a pan", rice: "is raw"}
    add_example(path, make_example(decision, LABELS, reasons))
    (after,) = _ask(make(), "A pan.")
    shown = (
        f"Paragraph: {text}\nAnswer:\n1. Rice | False | ==NONE== | is raw\n"
        "2. wok | True | EQUIPMENT | is a pan\n\n"
    )
    assert after == before.replace("Paragraph: A pan.", f"{shown}Paragraph: A pan.")
