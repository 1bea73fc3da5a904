from pathlib import Path
from typing import Any

import pytest
from spacy.tokens import Doc

from instaner.annotate import FAILED, Summary, annotate
from instaner.corpus import PROVENANCE, read_docs
from instaner.errors import InstaNERError
from instaner.evaluate import evaluate
from instaner.files import read_jsonl
from instaner.gold import read_gold_texts
from instaner.pipeline import get_llms, get_target, load_teacher
from instaner.split import split
from instaner.targets import Target
from instaner.tasks.grounding import load_readings
from instaner.vote import Policy, Remedy, Rule

from .conftest import CATEGORIES, ROOT, MakeTeacher, WriteRows

_TEXT = "Why was I charged twice?"


def _annotate(nlp: Any, texts: Path, **settings: Any) -> tuple[Summary, list[Doc]]:
    output = texts.with_name("annotated")
    summary = annotate(nlp, texts, output, **{"max_failures": 1, **settings})
    return summary, list(read_docs(output, nlp.vocab))


def test_samples_become_proportions(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    answers = ["BILL", "ship", "Label: **Bill**"]
    summary, (doc,) = _annotate(
        make_classifier({_TEXT: answers}), write_rows({"text": _TEXT}), samples=3
    )
    assert doc.cats == {"BILL": 0.6667, "SHIP": 0.3333, "SIZE": 0}
    assert not doc.has_annotation("ENT_IOB")
    rows = {row["label"]: row for row in doc.user_data[PROVENANCE]["spans"]}
    assert list(rows["BILL"]["votes"]) == ["llm/0", "llm/2"]
    assert rows["BILL"]["standing"] == "trusted"
    assert rows["SHIP"]["standing"] == "dropped"
    assert summary.target == Target("cats", tuple(CATEGORIES), True)
    assert summary.agreement.to_json()["f1"] == pytest.approx(1 / 3, abs=1e-4)


def test_several_categories(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_classifier({_TEXT: ["BILL, SHIP", "BILL", "BILL"]}, exclusive=False)
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), samples=3)
    assert doc.cats == {"BILL": 1, "SHIP": 0.3333, "SIZE": 0}


def test_answer_that_names_no_category_is_a_failure(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_classifier({_TEXT: ["It could be anything.", "BILL"]})
    path = write_rows({"text": _TEXT})
    summary, (doc,) = _annotate(nlp, path, samples=2)
    assert doc.cats == {"BILL": 1, "SHIP": 0, "SIZE": 0}
    assert summary.failures.count() == {"unreadable answer": 1}
    ((_, row),) = read_jsonl(path.with_name("annotated") / FAILED)
    assert (row["voter"], row["detail"]) == ("llm/0", "It could be anything.")


def test_text_without_an_answer_that_can_be_read_is_left_out(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_classifier({_TEXT: "Hm.", "How wide?": "SIZE"})
    path = write_rows({"text": _TEXT, "id": "a"}, {"text": "How wide?"})
    summary, (doc,) = _annotate(nlp, path)
    assert (doc.text, summary.unanswered) == ("How wide?", ["a"])


@pytest.mark.parametrize("votes", ["SIZE", ["SIZE"], {"SIZE": 1.0}])
def test_people_have_the_last_word(
    make_classifier: MakeTeacher, write_rows: WriteRows, votes: Any
) -> None:
    nlp = make_classifier({_TEXT: "BILL"})
    rows = write_rows({"text": _TEXT, "votes": {"human": votes}})
    _, (doc,) = _annotate(nlp, rows)
    assert doc.cats == {"BILL": 0, "SHIP": 0, "SIZE": 1}


def test_votes_that_do_not_fit_are_counted(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_classifier({_TEXT: "BILL"})
    rows = write_rows({"text": _TEXT, "votes": {"ann": ["BILL", "COLOUR", "SIZE"]}})
    summary, (doc,) = _annotate(nlp, rows)
    assert doc.cats == {"BILL": 1, "SHIP": 0, "SIZE": 0}
    assert [(row["voter"], row["status"], row["label"]) for row in summary.unread] == [
        ("ann", "unknown label", "COLOUR"),
        ("ann", "overlap", "SIZE"),
    ]


def test_opinions_about_entities_are_none_about_categories(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_classifier({_TEXT: "BILL"})
    mark = {"start": 0, "end": 3, "label": "WORD"}
    rows = write_rows({"text": _TEXT, "spans": [], "votes": {"human": [mark]}})
    _, (doc,) = _annotate(nlp, rows)
    assert list(doc.user_data[PROVENANCE]["voters"]) == ["llm/0"]


def test_writer_votes(make_classifier: MakeTeacher, write_rows: WriteRows) -> None:
    nlp = make_classifier({_TEXT: "BILL"})
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT, "cats": "SHIP"}))
    assert doc.cats == {}  # one vote each


def test_tie_can_leave_the_text_out(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_classifier({_TEXT: ["BILL", "SHIP"], "How wide?": ["SIZE", "SIZE"]})
    rows = write_rows({"text": _TEXT, "id": "a"}, {"text": "How wide?"})
    policy = Policy(rule=Rule.SOFT, disputed=Remedy.TEXT)
    summary, docs = _annotate(nlp, rows, samples=2, policy=policy)
    assert ([doc.text for doc in docs], summary.disputed) == (["How wide?"], ["a"])


def test_disputed_texts_are_not_trained_on(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    texts = [f"{word} is late" for word in "Tea Rice Soap Milk Flour Salt".split()]
    answers = {text: ["SHIP", "SHIP"] for text in texts[1:]}
    nlp = make_classifier({texts[0]: ["BILL", "SHIP"], **answers})
    path = write_rows(*({"text": text} for text in texts))
    _annotate(nlp, path, samples=2)
    gold = write_rows({"text": "How wide is it?", "cats": "SIZE"}, name="gold.jsonl")
    counts = split(path.with_name("annotated"), gold, path.with_name("corpus"), nlp)
    assert (counts.train + counts.dev, counts.disputed) == (5, 1)
    assert counts.labels == {"SHIP": 5}
    (text,) = read_gold_texts(path.with_name("corpus") / "test.spacy")
    assert text.spans == [(-1, 0, "SIZE")]


def test_teacher_says_what_it_sets(make_classifier: MakeTeacher) -> None:
    one, many = make_classifier({}), make_classifier({}, exclusive=False)
    for nlp, exclusive in ((one, True), (many, False)):
        ((_, llm),) = get_llms(nlp)
        target = Target("cats", tuple(CATEGORIES), exclusive)
        assert get_target(llm.task, nlp) == target


def test_components_have_to_agree_on_what_excludes_what(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_classifier({_TEXT: "BILL"})
    other = make_classifier({_TEXT: "BILL"}, exclusive=False)
    config = {k: other.get_pipe_config("llm")[k] for k in ("task", "model")}
    nlp.add_pipe("llm", name="other", config=config)
    with pytest.raises(InstaNERError, match="Set exclusive_classes alike"):
        _annotate(nlp, write_rows({"text": _TEXT}))


def test_readings_are_kept_with_the_reason(make_classifier: MakeTeacher) -> None:
    nlp = make_classifier({_TEXT: "Reason: it is about money.\nLabel: BILL"})
    readings = load_readings(nlp(_TEXT)) or []
    assert [r.reason for r in readings] == ["it is about money."]


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ({"BILL": 0.4, "SHIP": 0.35, "SIZE": 0.25}, "BILL"),
        ("size", "SIZE"),
        # No opinion at all, so that the teacher's holds.
        (["COLOUR"], "SHIP"),
        ([], "SHIP"),
        ({"BILL": 0.5, "SIZE": 0.5}, "SHIP"),
    ],
)
def test_what_people_say_is_read_or_left_out(
    make_classifier: MakeTeacher, write_rows: WriteRows, votes: Any, label: str
) -> None:
    nlp = make_classifier({_TEXT: "SHIP"})
    rows = write_rows({"text": _TEXT, "votes": {"human": votes}})
    _, (doc,) = _annotate(nlp, rows)
    assert doc.cats == {other: float(other == label) for other in CATEGORIES}


def test_people_can_say_that_there_is_no_category(
    make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_classifier({_TEXT: "SHIP"}, exclusive=False)
    rows = write_rows({"text": _TEXT, "votes": {"human": {"SHIP": 0}}})
    _, (doc,) = _annotate(nlp, rows)
    assert doc.cats == dict.fromkeys(CATEGORIES, 0)


def test_component_for_something_else_is_not_asked(
    make_teacher: MakeTeacher, make_classifier: MakeTeacher, write_rows: WriteRows
) -> None:
    nlp = make_teacher({_TEXT: "None"})
    sorter = make_classifier({}).get_pipe_config("llm")
    config = {key: sorter[key] for key in ("task", "model")}
    nlp.add_pipe("llm", name="sorter", config=config)
    summary, _ = _annotate(nlp, write_rows({"text": _TEXT}))
    assert (summary.voters, summary.left_out) == (["llm/0"], ["sorter"])


def test_demo_is_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # assets/README.md says so
    nlp = load_teacher("configs/textcat_teacher.cfg")
    texts = ROOT / "assets" / "textcat" / "texts.jsonl"
    annotate(nlp, texts, tmp_path / "annotated", samples=3)
    docs = list(read_docs(tmp_path / "annotated", nlp.vocab))
    assert len(docs) == 240
    assert sum(1 not in doc.cats.values() for doc in docs) == 1
    assert len({doc.user_data[PROVENANCE]["brief"] for doc in docs}) == 24
    result = evaluate(nlp, ROOT / "assets" / "textcat" / "gold.jsonl")
    assert (result["texts"], result["cats_acc"]) == (60, 1)
