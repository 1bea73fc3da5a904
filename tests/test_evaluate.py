import json
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.pipeline import EntityRuler
from spacy.tokens import Doc, Span

from instaner.corpus import PROVENANCE, write_docs
from instaner.errors import InstaNERError
from instaner.evaluate import compare, evaluate, evaluate_docs, get_size
from instaner.llm.store import Store
from instaner.pipeline import get_llms

from .conftest import LABELS, MakeTeacher, WriteRows
from .server import ChatServer, complete

_TEXT = "My wok is full of ramen"
_SPANS = [
    {"start": 3, "end": 6, "label": "EQUIPMENT"},
    {"start": 18, "end": 23, "label": "DISH"},
]
_WOK = "1. wok | True | EQUIPMENT | a pan"


def _make_rules(**labels: str) -> Language:
    """A pipeline that gives words their labels."""
    nlp = spacy.blank("en")
    rules: list[Any] = [
        {"label": label, "pattern": word} for word, label in labels.items()
    ]
    ruler = nlp.add_pipe("entity_ruler")
    assert isinstance(ruler, EntityRuler)
    ruler.add_patterns(rules)
    return nlp


@pytest.fixture
def live_teacher(chat_server: ChatServer) -> Language:
    """A teacher behind the server."""
    chat_server.behave = lambda body: complete(_WOK, prompt_tokens=123)
    config = {
        "task": {"@llm_tasks": "instaner.NER.v1", "labels": LABELS},
        "model": {
            "@llm_models": "instaner.Chat.v1",
            "name": "m",
            "base_url": chat_server.url,
        },
    }
    nlp = spacy.blank("en")
    nlp.add_pipe("llm", config=config)
    return nlp


@pytest.fixture
def gold(write_rows: WriteRows) -> Path:
    return write_rows({"text": _TEXT, "spans": _SPANS}, name="gold.jsonl")


def test_all_right_is_one(gold: Path) -> None:
    result = evaluate(_make_rules(wok="EQUIPMENT", ramen="DISH"), gold)
    assert (result["ents_p"], result["ents_r"], result["ents_f"]) == (1, 1, 1)


def test_precision_is_not_recall(gold: Path) -> None:
    result = evaluate(_make_rules(wok="EQUIPMENT"), gold)
    assert (result["ents_p"], result["ents_r"]) == (1, 0.5)


def test_wrong_label_is_wrong(gold: Path) -> None:
    result = evaluate(_make_rules(wok="DISH", ramen="DISH"), gold)
    assert (result["ents_p"], result["ents_r"]) == (0.5, 0.5)


def test_scores_are_per_label_with_support(gold: Path) -> None:
    result = evaluate(_make_rules(wok="EQUIPMENT", full="TOOL"), gold)
    scores = {
        label: tuple(values[name] for name in ("p", "r", "f", "acc", "support"))
        for label, values in result["ents_per_type"].items()
    }
    assert scores == {
        "DISH": (0, 0, 0, 0, 1),
        "EQUIPMENT": (1, 1, 1, 1, 1),
        "TOOL": (0, 0, 0, 0, 0),
    }


def test_texts_and_words_are_counted(gold: Path) -> None:
    result = evaluate(_make_rules(wok="EQUIPMENT"), gold)
    assert (result["texts"], result["words"]) == (1, 6)
    assert result["words_per_second"] > 0


def test_student_has_no_prompt_tokens(gold: Path) -> None:
    assert "answers" not in evaluate(_make_rules(wok="EQUIPMENT"), gold)


def test_result_is_json(gold: Path) -> None:
    result = evaluate(_make_rules(wok="EQUIPMENT"), gold)
    assert json.loads(json.dumps(result, allow_nan=False))["ents_f"] == result["ents_f"]


def test_empty_gold_is_named(write_rows: WriteRows) -> None:
    with pytest.raises(InstaNERError, match=r"gold.jsonl has no texts"):
        evaluate(_make_rules(wok="EQUIPMENT"), write_rows(name="gold.jsonl"))


def test_recorded_teacher_is_scored(make_teacher: MakeTeacher, gold: Path) -> None:
    result = evaluate(make_teacher({_TEXT: _WOK}), gold)
    assert (result["ents_p"], result["ents_r"]) == (1, 0.5)


def test_recorded_answers_have_no_speed(make_teacher: MakeTeacher, gold: Path) -> None:
    assert evaluate(make_teacher({_TEXT: _WOK}), gold)["words_per_second"] is None


def test_tokens_of_a_recording_are_estimated(
    make_teacher: MakeTeacher, gold: Path
) -> None:
    nlp = make_teacher({_TEXT: _WOK})
    ((_, llm),) = get_llms(nlp)
    ((prompts, _),) = llm.task.generate_prompts([nlp.make_doc(_TEXT)])
    answers = evaluate(nlp, gold)["answers"]
    assert answers["prompt_tokens"] == round(len("".join(prompts).encode("utf8")) / 4)
    assert answers["completion_tokens"] == round(len(_WOK) / 4)
    assert answers["estimated"]
    assert answers["latency_p50"] is None


def test_unknown_prompt_is_an_error(make_teacher: MakeTeacher, gold: Path) -> None:
    with pytest.raises(InstaNERError, match="No answer"):
        evaluate(make_teacher({}), gold)


def test_tokens_of_a_server_are_its_own(live_teacher: Language, gold: Path) -> None:
    for _ in range(2):  # what was used before is not counted
        answers = evaluate(live_teacher, gold)["answers"]
        assert answers["prompt_tokens"] == 123
        assert answers["completion_tokens"] > 0
    assert not answers["estimated"]
    assert answers["model"] == "m"


def test_live_answers_have_a_speed(live_teacher: Language, gold: Path) -> None:
    assert evaluate(live_teacher, gold)["words_per_second"] > 0


def test_stored_answers_have_tokens_but_no_speed(
    live_teacher: Language, gold: Path, tmp_path: Path
) -> None:
    ((_, llm),) = get_llms(live_teacher)
    llm._model.store = Store(tmp_path / "responses.db")
    first, second = (evaluate(live_teacher, gold) for _ in range(2))
    assert first["words_per_second"] > 0
    assert second["words_per_second"] is None
    assert second["answers"]["prompt_tokens"] == 123
    assert second["answers"]["latency_p50"] > 0
    assert second["answers"] == first["answers"]


def test_every_text_is_asked_once(
    live_teacher: Language, gold: Path, chat_server: ChatServer
) -> None:
    evaluate(live_teacher, gold)
    assert len(chat_server.requests) == 1


def test_what_made_no_span_is_counted(make_teacher: MakeTeacher, gold: Path) -> None:
    nlp = make_teacher({_TEXT: f"2. something\n{_WOK}\n3. sushi | True | DISH | fish"})
    assert evaluate(nlp, gold)["unread"] == 2


def test_unknown_labels_are_named(gold: Path) -> None:
    assert evaluate(_make_rules(wok="EQUIPMENT"), gold)["unknown_labels"] == ["DISH"]


def test_pipeline_without_labels_knows_none_to_be_unknown(gold: Path) -> None:
    assert evaluate(spacy.blank("en"), gold)["unknown_labels"] == []


def test_tokens_have_an_accuracy(gold: Path) -> None:
    # My wok is full of ramen: ramen is missed, and full is none.
    result = evaluate(_make_rules(wok="EQUIPMENT", full="TOOL"), gold)
    assert result["token_acc"] == pytest.approx(4 / 6)


def test_another_tokenization_is_scored_by_characters(write_rows: WriteRows) -> None:
    # Half a token of the pipeline's, which it cannot find, and a whole one.
    spans = [
        {"start": 0, "end": 3, "label": "A"},
        {"start": 7, "end": 10, "label": "A"},
    ]
    gold = write_rows({"text": "wokpan wok", "spans": spans}, name="gold.jsonl")
    result = evaluate(_make_rules(wok="A"), gold)
    assert (result["ents_p"], result["ents_r"]) == (1, 0.5)


def test_overlapping_gold_is_named(write_rows: WriteRows) -> None:
    spans = [{"start": 0, "end": 3, "label": "A"}, {"start": 2, "end": 6, "label": "A"}]
    gold = write_rows({"text": "wokpan", "spans": spans}, name="gold.jsonl")
    with pytest.raises(InstaNERError, match=r"line 1: the spans 0:3 and 2:6 overlap"):
        evaluate(_make_rules(wok="A"), gold)


def _write(path: Path, *texts: tuple[str, list[str]], **data: Any) -> Path:
    """A DocBin of texts, with the words that are entities."""
    nlp = spacy.blank("en")
    docs = []
    for text, words in texts:
        doc = nlp(text)
        places = [text.index(word) for word in words]
        doc.ents = [
            doc.char_span(place, place + len(word), label="A")
            for place, word in zip(places, words, strict=True)
        ]
        doc.user_data[PROVENANCE] = data
        docs.append(doc)
    write_docs(docs, path)
    return path


def test_predictions_of_elsewhere_are_scored(tmp_path: Path) -> None:
    gold = _write(tmp_path / "g.spacy", ("a wok", ["wok"]), ("a pan", ["pan"]))
    path = _write(tmp_path / "a.spacy", ("a wok", ["wok"]), ("a pan", []))
    result = evaluate_docs(path, gold)
    assert (result["ents_p"], result["ents_r"]) == (1, 0.5)
    assert result["spans"] == [[(2, 5, "A")], []]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([("a wok", []), ("a lid", [])], "text 2 is not that of"),
        ([("a wok", [])], "has 1 texts, and .*g.spacy 2"),
        ([("a wok", []), ("a pan", []), ("b", [])], "has 3 texts, and .*g.spacy 2"),
    ],
)
def test_predictions_for_other_texts_are_named(
    tmp_path: Path, texts: list[tuple[str, list[str]]], message: str
) -> None:
    gold = _write(tmp_path / "g.spacy", ("a wok", []), ("a pan", []))
    with pytest.raises(InstaNERError, match=message):
        evaluate_docs(_write(tmp_path / "a.spacy", *texts), gold)


def test_unannotated_gold_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.spacy"
    write_docs([spacy.blank("en")("a wok")], path)
    with pytest.raises(InstaNERError, match="has no annotated text"):
        evaluate_docs(path, path)


def test_what_nobody_knows_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    nlp = _make_rules(wok="A", pan="A")
    doc = spacy.blank("en")("a wok and a pan")
    wok = Span(doc, 1, 2, label="A")
    doc.set_ents([wok], missing=[doc[4:5]], default="outside")
    write_docs([doc], tmp_path / "g.spacy")
    result = evaluate(nlp, tmp_path / "g.spacy")
    assert (result["ents_p"], result["ents_r"], result["token_acc"]) == (1, 1, 1)


@pytest.fixture
def comparison(tmp_path: Path) -> dict[str, Any]:
    """Of a and b on ten texts, half of which b gets wrong."""
    texts = [f"a wok {number}" for number in range(10)]
    gold = _write(tmp_path / "g.spacy", *((text, ["wok"]) for text in texts))
    wrong = [(text, ["a"] if n % 2 else ["wok"]) for n, text in enumerate(texts)]
    _write(tmp_path / "b.spacy", *wrong)
    systems = {
        name: evaluate_docs(path, gold)
        for name, path in (("a", gold), ("b", tmp_path / "b.spacy"))
    }
    return compare(systems, gold)


def test_comparison_is_json(comparison: dict[str, Any]) -> None:
    assert json.dumps(comparison, allow_nan=False)


def test_student_is_compared_with_the_reference(comparison: dict[str, Any]) -> None:
    assert (comparison["reference"], comparison["student"]) == ("a", "b")
    found = comparison["paired"]["b"]["all"]
    assert found["difference"] == -0.5
    low, high = found["interval"]
    assert low < -0.5 < high < 0
    assert found["p_value"] < 0.05
    assert comparison["paired"]["b"]["per_type"] == {"A": found}


def test_verdict_is_overall_and_by_label(comparison: dict[str, Any]) -> None:
    verdict = comparison["verdict"]["b"]
    assert verdict["all"]["decision"] == "keep"
    assert verdict["per_type"]["A"]["decision"] == "keep"


def test_scores_have_intervals(comparison: dict[str, Any]) -> None:
    result = comparison["systems"]["b"]
    low, high = result["interval"]["f"]
    assert low < result["ents_f"] == 0.5 < high
    assert result["ents_per_type"]["A"]["interval"] == result["interval"]


def test_texts_that_differ_are_shown(comparison: dict[str, Any]) -> None:
    assert len(comparison["differences"]) == 5
    assert comparison["differences"][0] == {
        "text": "a wok 1",
        "gold": [(2, 5, "A")],
        "systems": {"a": [(2, 5, "A")], "b": [(0, 1, "A")]},
    }


def test_comparison_has_the_labels_of_all(gold: Path) -> None:
    systems = {
        "a": evaluate(_make_rules(wok="TOOL"), gold),
        "b": evaluate(_make_rules(ramen="DISH"), gold),
    }
    found = compare(systems, gold)
    assert found["labels"] == ["DISH", "EQUIPMENT", "TOOL"]
    assert found["support"] == {"DISH": 1, "EQUIPMENT": 1, "TOOL": 0}
    for name, result in systems.items():
        assert found["systems"][name]["ents_f"] == result["ents_f"]
        assert list(found["systems"][name]["ents_per_type"]) == found["labels"]


def test_teacher_is_the_reference(make_teacher: MakeTeacher, gold: Path) -> None:
    systems = {
        "student": evaluate(_make_rules(wok="TOOL"), gold),
        "teacher": evaluate(make_teacher({_TEXT: _WOK}), gold),
    }
    assert compare(systems, gold)["reference"] == "teacher"
    assert compare(systems, gold, reference="student")["reference"] == "student"
    with pytest.raises(InstaNERError, match='no system "x".*only student, teacher'):
        compare(systems, gold, reference="x")


@pytest.mark.parametrize(
    ("data", "silver"),
    [({}, False), ({"source": "real"}, False), ({"source": "generated"}, True)],
)
def test_silver_gold_decides_nothing(
    tmp_path: Path, data: dict[str, Any], silver: bool
) -> None:
    gold = _write(tmp_path / "g.spacy", *[("a wok", ["wok"])] * 99, **data)
    systems = {name: evaluate_docs(gold, gold) for name in ("a", "b")}
    found = compare(systems, gold)
    assert found["gold"]["silver"] is silver
    assert found["verdict"]["b"]["all"]["decision"] == (
        "undecided" if silver else "swap"
    )


def test_generated_texts_are_silver(write_rows: WriteRows) -> None:
    gold = write_rows({"text": _TEXT, "spans": _SPANS}, name="texts.jsonl")
    result = evaluate(_make_rules(wok="EQUIPMENT"), gold)
    assert not compare({"a": result}, gold)["gold"]["silver"]
    gold.with_name("texts.meta.json").write_text("{}", "utf8")
    assert compare({"a": result}, gold)["gold"]["silver"]


def test_one_system_has_no_verdict(gold: Path) -> None:
    found = compare({"a": evaluate(_make_rules(wok="A"), gold)}, gold)
    assert (found["student"], found["verdict"], found["differences"]) == (None, {}, [])


def test_gold_without_entities_is_scored(write_rows: WriteRows) -> None:
    gold = write_rows({"text": _TEXT, "spans": []}, name="gold.jsonl")
    systems = {name: evaluate(spacy.blank("en"), gold) for name in ("a", "b")}
    found = compare(systems, gold)
    assert found["systems"]["a"]["ents_f"] is None
    assert found["paired"]["b"]["all"] is None
    assert found["verdict"]["b"]["all"]["decision"] == "undecided"


def test_ten_thousand_texts_are_compared_in_seconds(tmp_path: Path) -> None:
    labels = "ABCDEFGHIJKL"
    random = Random(0)

    def draw() -> list[Any]:
        ends = sorted(random.sample(range(60), 6))
        pairs = zip(ends[::2], ends[1::2], strict=True)
        return [(start, end, random.choice(labels)) for start, end in pairs]

    gold = tmp_path / "gold.jsonl"
    rows = [
        {
            "text": f"{number:060}",
            "spans": [
                {"start": start, "end": end, "label": label}
                for start, end, label in draw()
            ],
        }
        for number in range(10_000)
    ]
    srsly.write_jsonl(gold, rows)
    one = evaluate(spacy.blank("en"), gold)
    systems = {
        name: {**one, "spans": [draw() for _ in rows], "ents_f": 0.1}
        for name in "abcde"
    }
    start = time.perf_counter()
    compare(systems, gold)
    assert time.perf_counter() - start < 30


def test_size_is_that_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / "model").write_bytes(b"12345")
    (tmp_path / "config.cfg").write_bytes(b"123")
    assert get_size(tmp_path) == 8


def test_size_of_no_folder_is_0(tmp_path: Path) -> None:
    assert get_size(tmp_path / "nowhere") == 0


def _make_sorter(**scores: dict[str, float]) -> Language:
    """A pipeline that gives texts scores of categories, by their first word."""
    nlp = spacy.blank("en")
    nlp.add_pipe("test_sorter", config={"scores": scores})
    return nlp


@Language.factory("test_sorter")
def _make_sort(nlp: Language, name: str, scores: dict[str, dict[str, float]]) -> Any:
    def sort(doc: Doc) -> Doc:
        doc.cats = dict(scores[doc[0].text])
        return doc

    return sort


_SORTED = [
    {"text": "Bill please", "cats": "BILL"},
    {"text": "Where is it", "cats": "SHIP"},
    {"text": "Wide enough?", "cats": "SIZE"},
]


def test_categories_are_scored(write_rows: WriteRows) -> None:
    nlp = _make_sorter(
        Bill={"BILL": 0.8, "SHIP": 0.2},
        Where={"BILL": 0.4, "SHIP": 0.6},
        Wide={"BILL": 0.1, "SHIP": 0.9},
    )
    result = evaluate(nlp, write_rows(*_SORTED))
    assert result["cats_acc"] == result["cats_micro_f"] == pytest.approx(2 / 3)
    assert result["cats_macro_f"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert result["cats_balanced_acc"] == pytest.approx(2 / 3)
    assert result["cats_f_per_type"]["SIZE"]["support"] == 1
    assert result["spans"][2] == [(-1, 0, "SHIP")]
    assert result["confusion"]["SIZE"] == {"SHIP": 1}
    # 0.8 and 0.6 hold, 0.9 does not.
    assert result["calibration"]["ece"] == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert "ents_f" not in result


def test_teacher_and_student_are_compared_on_categories(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    gold = write_rows(*_SORTED, name="gold.jsonl")
    teacher = make_classifier(
        {"Bill please": "BILL", "Where is it": "I do not know.", "Wide enough?": "SIZE"}
    )
    certain = {"BILL": 0.0, "SHIP": 0.0, "SIZE": 1.0}
    student = _make_sorter(Bill=certain, Where=certain, Wide=certain)
    results = {"teacher": evaluate(teacher, gold), "student": evaluate(student, gold)}
    assert results["teacher"]["cats_micro_f"] == pytest.approx(2 / 3)
    assert results["teacher"]["calibration"] is None
    comparison = compare(results, gold)
    assert comparison["gold"]["attr"] == "cats"
    assert comparison["gold"]["one_category"]
    pair = comparison["paired"]["student"]["all"]
    assert pair["difference"] == pytest.approx(-1 / 3)
    assert comparison["systems"]["student"]["cats_f_per_type"]["BILL"]["f"] == 0
    assert comparison["systems"]["teacher"]["errors"]["missed"] == 1


def test_several_categories_are_chosen_by_their_scores(write_rows: WriteRows) -> None:
    gold = write_rows({"text": "Bill it", "cats": ["BILL", "SHIP"]})
    result = evaluate(_make_sorter(Bill={"BILL": 0.9, "SHIP": 0.5, "SIZE": 0.4}), gold)
    assert result["cats_acc"] == 1
    assert result["cats_balanced_acc"] is None


def test_gold_of_both_kinds_is_read_for_the_system(write_rows: WriteRows) -> None:
    gold = write_rows({"text": _TEXT, "spans": _SPANS, "cats": "BILL"})
    certain = {"BILL": 0.9, "SHIP": 0.1}
    nlp = spacy.blank("en")
    nlp.add_pipe("test_sorter", config={"scores": {"My": certain}})
    nlp.get_pipe_meta("test_sorter").assigns = ["doc.cats"]
    assert evaluate(nlp, gold)["cats_acc"] == 1
    rules = _make_rules(wok="EQUIPMENT", ramen="DISH")
    assert evaluate(rules, gold)["ents_f"] == 1


def test_naming_several_is_no_accuracy(write_rows: WriteRows) -> None:
    gold = write_rows({"text": "Bill it", "cats": "BILL"})
    result = evaluate(_make_sorter(Bill={"BILL": 0.9, "SHIP": 0.8}), gold)
    assert result["cats_acc"] == 0
    assert result["cats_balanced_acc"] is None
    assert result["cats_micro_f"] == pytest.approx(2 / 3)
    assert not compare({"a": result, "b": result}, gold)["gold"]["one_category"]
