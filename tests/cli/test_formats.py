from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from click.testing import Result
from typer.testing import CliRunner

from instaner.cli import app
from instaner.corpus import PROVENANCE, write_shards
from instaner.decisions import Answer, Decision, Decisions
from instaner.targets import Target

Run = Callable[..., Result]
TEXT = "I had ramen in a wok."
DISH, WOK = (6, 11, "DISH"), (17, 20, "EQUIPMENT")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(app, list(args))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of two annotated texts: in the second, a mark is disputed."""
    nlp = spacy.blank("en")
    docs = []
    for number, text in enumerate(["I had ramen.", TEXT]):
        doc = nlp.make_doc(text)
        standings = [(DISH, "trusted"), (WOK, "disputed"), ((0, 1, "X"), "dropped")]
        rows: list[dict[str, Any]] = [
            {
                "start": mark[0],
                "end": mark[1],
                "label": mark[2],
                "votes": {"llm/0": "exact"},
                "standing": standing,
                "score": 0.75,
                "dispute": None,
            }
            for mark, standing in standings[: number + 1] + standings[2:]
        ]
        doc.set_ents([doc.char_span(*DISH[:2], label="DISH")])
        doc.user_data[PROVENANCE] = {"id": f"t-{number}", "brief": "b", "spans": rows}
        docs.append(doc)
    write_shards(docs, tmp_path / "corpus" / "annotated")
    return tmp_path / "corpus" / "annotated"


def _decide(answer: Answer = Answer.ACCEPT, **values: Any) -> Decision:
    values = {"text": TEXT, "marks": (DISH, WOK), "text_id": "t-1", **values}
    if answer is not Answer.ACCEPT:
        values["marks"] = ()
    return Decision(attr="ents", reviewer="anna", answer=answer, **values)


def _check_one_line(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


def test_votes_and_decisions_are_exported(run: Run, corpus: Path) -> None:
    Decisions(corpus.with_name("reviews.db")).add(_decide())
    result = run("export", str(corpus), "tasks.json", "-f", "label-studio")
    assert result.exit_code == 0, result.output
    first, second = srsly.read_json("tasks.json")
    assert first["data"] == {"text": "I had ramen.", "id": "t-0", "brief": "b"}
    (trusted,) = first["predictions"]
    assert trusted["score"] == 0.75
    assert [p["model_version"] for p in second["predictions"]] == [
        "trusted",
        "disputed",
    ]
    (annotation,) = second["annotations"]
    assert annotation["reviewer"] == "anna"
    values = [result["value"]["text"] for result in annotation["result"]]
    assert values == ["ramen", "wok"]


@pytest.mark.parametrize(("places", "value"), [((-1, -1), "A"), ((-2, -3), ["A"])])
def test_voted_categories_are_exported(
    places: tuple[int, int], value: Any, run: Run
) -> None:
    doc = spacy.blank("en").make_doc(TEXT)
    doc.cats = {"A": 0.75, "B": 0.25, "C": 0.0}
    rows = [
        {
            "start": place,
            "end": place + 1,
            "label": label,
            "votes": {"llm/0": "exact"},
            "standing": standing,
            "score": 0.75,
            "dispute": None,
        }
        for place, label, standing in zip(
            places, "AB", ("trusted", "disputed"), strict=True
        )
    ]
    doc.user_data[PROVENANCE] = {"id": "t", "spans": rows}
    write_shards([doc], Path("annotated"))
    assert run("export", "annotated", "out.json", "-f", "argilla").exit_code == 0
    (row,) = srsly.read_json("out.json")
    assert row["suggestions"]["label"]["value"] == value
    assert '"label": "B"' in row["metadata"]["disputed"][0]


def test_only_disputed_texts_are_exported(run: Run, corpus: Path) -> None:
    args = ("export", str(corpus), "out.jsonl", "--format", "prodigy", "--disputed")
    assert run(*args).exit_code == 0
    (row,) = srsly.read_jsonl("out.jsonl")
    assert row["text"] == TEXT
    assert [span["label"] for span in row["spans"]] == ["DISH"]
    assert [span["label"] for span in row["disputed"]] == ["EQUIPMENT"]


def test_what_is_left_out_is_said(run: Run, corpus: Path) -> None:
    result = run("export", str(corpus), "out.conll")
    assert result.exit_code == 0, result.output
    assert "disputed marks, left out: 1 (t-1)" in result.output
    assert "scores, left out: 2 (t-0, t-1)" in result.output


def test_text_that_cannot_be_held_stops_the_export(run: Run, corpus: Path) -> None:
    Decisions(corpus.with_name("reviews.db")).add(_decide(Answer.REJECT))
    Path("gold.jsonl").write_text("before", "utf8")
    args = ("export", str(corpus), "gold.jsonl", "-f", "jsonl")
    _check_one_line(
        run(*args), "texts that are rejected, to be left out: 1 (t-1)", "--skip"
    )
    assert Path("gold.jsonl").read_text("utf8") == "before"
    assert run(*args, "--skip").exit_code == 0
    assert [row["id"] for row in srsly.read_jsonl("gold.jsonl")] == ["t-0"]


def test_review_store_is_exported(run: Run) -> None:
    store = Decisions(Path("reviews.db"))
    store.add(_decide())
    assert run("export", "reviews.db", "out.csv").exit_code == 0
    assert "I had [ramen](DISH) in a [wok](EQUIPMENT)." in Path("out.csv").read_text()
    store.add(_decide()._replace(attr="cats", marks=((-1, 0, "GOOD"),)))
    _check_one_line(run("export", "reviews.db", "out.csv"), "--attr")
    store.set_target(Target("cats", ("GOOD", "BAD"), True))
    args = ("export", "reviews.db", "out.json", "-f", "argilla", "--attr", "cats")
    assert run(*args).exit_code == 0
    (row,) = srsly.read_json("out.json")
    assert row["responses"]["label"][0]["value"] == "GOOD"


def test_imported_decisions_are_not_doubled(run: Run) -> None:
    rows = [
        {"text": TEXT, "spans": [], "answer": answer, "_annotator_id": name}
        for answer, name in [
            ("accept", "anna"),
            ("reject", "anna"),  # she thought better of it
            ("accept", "bob"),
            ("ignore", "cem"),
        ]
    ]
    srsly.write_jsonl("out.jsonl", rows)
    args = ("import", "out.jsonl", "reviews.db", "--format", "prodigy")
    result = run(*args)
    assert "2 decisions added, 0 were there" in result.output
    assert "answers that decide nothing, left out: 1" in result.output
    assert "0 decisions added, 2 were there" in run(*args).output
    (found,) = Decisions(Path("reviews.db")).read("ents")
    answers = {decision.reviewer: decision.answer for decision in found}
    assert answers == {"anna": Answer.REJECT, "bob": Answer.ACCEPT}


@pytest.mark.parametrize("is_undone", [True, False])
def test_older_export_does_not_win_over_newer_decisions(
    run: Run, is_undone: bool
) -> None:
    rows = [{"text": TEXT, "spans": [], "answer": "accept", "_annotator_id": "anna"}]
    srsly.write_jsonl("out.jsonl", rows)
    args = ("import", "out.jsonl", "reviews.db", "--format", "prodigy")
    assert "1 decisions added" in run(*args).output
    store = Decisions(Path("reviews.db"))
    if is_undone:
        store.undo("anna", "ents")
    else:
        store.add(_decide())
    assert "0 decisions added, 1 were there" in run(*args).output
    marks = [decision.marks for decision in store.find(TEXT, "ents")]
    assert marks == ([] if is_undone else [(DISH, WOK)])


def test_inner_spans_are_no_decision_and_it_is_said(run: Run) -> None:
    spans = [{"start": 0, "end": 11, "label": "X"}]
    spans.append({"start": 6, "end": 11, "label": "DISH"})
    rows = [{"id": "t", "text": TEXT, "spans": spans}]
    srsly.write_jsonl("out.jsonl", rows)
    args = ("import", "out.jsonl", "reviews.db", "-f", "jsonl", "--reviewer", "anna")
    result = run(*args)
    assert "1 decisions added" in result.output
    assert "spans in or across a longer one, left out: 1 (t)" in result.output
    ((decision,),) = Decisions(Path("reviews.db")).read("ents")
    assert decision.marks == ((0, 11, "X"),)
    assert "0 decisions added, 1 were there" in run(*args).output


def test_decisions_of_nobody_get_a_name(run: Run) -> None:
    srsly.write_jsonl("a.jsonl", [{"id": 3, "text": TEXT, "label": ["GOOD"]}])
    args = ("import", "a.jsonl", "reviews.db", "-f", "doccano")
    _check_one_line(run(*args), '"3"', "--reviewer")
    assert run(*args, "--reviewer", "anna").exit_code == 0
    ((decision,),) = Decisions(Path("reviews.db")).read("cats")
    assert (decision.reviewer, decision.marks) == ("anna", ((-1, 0, "GOOD"),))
    target = Decisions(Path("reviews.db")).get_target("cats")
    assert target is not None
    assert target.labels == ("GOOD",)


def test_gold_is_what_people_said(run: Run) -> None:
    span = {"start": 6, "end": 11, "label": "DISH"}
    rows = [
        {"text": TEXT, "spans": [span], "answer": "accept", "meta": {"id": "a"}},
        {"text": "Not yet.", "spans": [], "meta": {"id": "b"}},
    ]
    srsly.write_jsonl("out.jsonl", rows)
    args = ("import", "out.jsonl", "gold.jsonl", "-f", "prodigy")
    result = run(*args)
    assert result.exit_code == 0
    assert "texts without an answer, left out: 1 (b)" in result.stdout
    gold = {"id": "a", "text": TEXT, "spans": [span]}
    assert [*srsly.read_jsonl("gold.jsonl")] == [gold]
    assert run(*args[:2], "gold.spacy", *args[3:]).exit_code == 0
    assert run("export", "gold.spacy", "again.jsonl", "-f", "jsonl").exit_code == 0
    assert [*srsly.read_jsonl("again.jsonl")] == [gold]


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("export", "no", "a.csv"), "not found"),
        (("export", "a.txt", "a.csv"), "is no corpus"),
        (("export", "a.jsonl", "b.jsonl"), "Give --format"),
        (("export", "a.jsonl", "b.csv", "--attr", "x"), "ents or cats"),
        (("export", "a.jsonl", "b.csv", "--disputed"), "no texts with a disputed"),
        (("import", "a.jsonl", "b.txt", "-f", "jsonl"), "is no output"),
        (("import", "a.jsonl", "b.db", "--reviewer", "a/b"), "no name for a reviewer"),
        (("import", "no.csv", "b.db"), "not found"),
    ],
)
def test_wrong_arguments_are_named(args: tuple[str, ...], word: str, run: Run) -> None:
    srsly.write_jsonl("a.jsonl", [{"text": TEXT, "spans": []}])
    Path("a.txt").write_text("a", "utf8")
    _check_one_line(run(*args), word)
