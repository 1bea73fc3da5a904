import json
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.pipeline import EntityRuler

from instaner.errors import InstaNERError
from instaner.evaluate import compare, evaluate, get_size
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
    assert result["ents_per_type"] == {
        "DISH": {"p": 0, "r": 0, "f": 0, "support": 1},
        "EQUIPMENT": {"p": 1, "r": 1, "f": 1, "support": 1},
        "TOOL": {"p": 0, "r": 0, "f": 0, "support": 0},
    }


def test_texts_and_words_are_counted(gold: Path) -> None:
    result = evaluate(_make_rules(wok="EQUIPMENT"), gold)
    assert (result["texts"], result["words"]) == (1, 6)
    assert result["words_per_second"] > 0


def test_student_has_no_prompt_tokens(gold: Path) -> None:
    assert "prompt_tokens" not in evaluate(_make_rules(wok="EQUIPMENT"), gold)


def test_result_is_json(gold: Path) -> None:
    result = evaluate(_make_rules(wok="EQUIPMENT"), gold)
    assert json.loads(json.dumps(result)) == result


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
    result = evaluate(nlp, gold)
    assert result["prompt_tokens"] == round(len("".join(prompts).encode("utf8")) / 4)
    assert result["prompt_tokens_estimated"] is True


def test_unknown_prompt_is_an_error(make_teacher: MakeTeacher, gold: Path) -> None:
    with pytest.raises(InstaNERError, match="No answer"):
        evaluate(make_teacher({}), gold)


def test_tokens_of_a_server_are_its_own(live_teacher: Language, gold: Path) -> None:
    for _ in range(2):  # what was used before is not counted
        result = evaluate(live_teacher, gold)
        assert result["prompt_tokens"] == 123
    assert result["prompt_tokens_estimated"] is False


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
    assert (second["prompt_tokens"], second["prompt_tokens_estimated"]) == (123, False)


def test_every_text_is_asked_once(
    live_teacher: Language, gold: Path, chat_server: ChatServer
) -> None:
    evaluate(live_teacher, gold)
    assert len(chat_server.requests) == 1


def test_what_made_no_span_is_counted(make_teacher: MakeTeacher, gold: Path) -> None:
    nlp = make_teacher({_TEXT: f"2. something\n{_WOK}\n3. sushi | True | DISH | fish"})
    assert evaluate(nlp, gold)["unread"] == 2


def test_comparison_has_the_labels_of_all(gold: Path) -> None:
    systems = {
        "a": evaluate(_make_rules(wok="TOOL"), gold),
        "b": evaluate(_make_rules(ramen="DISH"), gold),
    }
    comparison = compare(systems)
    assert comparison["labels"] == ["DISH", "EQUIPMENT", "TOOL"]
    assert comparison["systems"] == systems


def test_size_is_that_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / "model").write_bytes(b"12345")
    (tmp_path / "config.cfg").write_bytes(b"123")
    assert get_size(tmp_path) == 8


def test_size_of_no_folder_is_0(tmp_path: Path) -> None:
    assert get_size(tmp_path / "nowhere") == 0
