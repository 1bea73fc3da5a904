"""What the user sees: every command through the app, and each mistake as one line."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import spacy
import srsly
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from typer.testing import CliRunner

from instaner.cli import app
from instaner.corpus import write_docs
from instaner.decisions import Answer, Decision, Decisions

from ..conftest import KEY, ROOT
from ..server import RETRY_AT_ONCE, ChatServer, Reply, complete, reply

COMMANDS = [
    "generate",
    "annotate",
    "estimate",
    "responses",
    "split",
    "train",
    "evaluate",
    "swap",
    "try",
]
TEXT = "Salmon in a wok."

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a project whose assets and configs are copies."""
    for name in ("assets", "configs"):
        (tmp_path / name).mkdir()
    for path in [*(ROOT / "assets").glob("*.*"), *(ROOT / "configs").iterdir()]:
        text = path.read_text("utf8")
        (tmp_path / path.parent.name / path.name).write_text(text, "utf8")
    (tmp_path / "assets/recordings").symlink_to(ROOT / "assets/recordings")
    srsly.write_jsonl(tmp_path / "texts.jsonl", [{"id": "t", "text": TEXT}])
    monkeypatch.chdir(tmp_path)

    def call(*args: str, stdin: str = "") -> Result:
        return CliRunner().invoke(app, list(args), input=stdin)

    return call


def _check_one_line(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, run: Run) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_spacy_has_the_commands_too() -> None:
    command = [sys.executable, "-m", "spacy", "instaner", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "annotate" in done.stdout


def test_prompt_that_is_not_recorded(run: Run) -> None:
    result = run("annotate", "configs/teacher.cfg", "texts.jsonl", "out")
    _check_one_line(result, "Text t:", "SHA-256", TEXT, "live teacher")
    assert not Path("out").exists()
    assert not Path("out.meta.json").exists()


def test_missing_asset(run: Run) -> None:
    Path("assets/examples.yml").unlink()
    result = run("annotate", "configs/teacher.cfg", "texts.jsonl", "out")
    _check_one_line(result, "configs/teacher.cfg", "assets/examples.yml")


@pytest.mark.parametrize("line", ['{"text": "half', "[1]", '{"text": 3}', "\udcff"])
def test_broken_line(line: str, run: Run) -> None:
    with Path("texts.jsonl").open("a", errors="surrogateescape") as file_:
        file_.write(line)
    result = run("annotate", "configs/teacher.cfg", "texts.jsonl", "out")
    _check_one_line(result, "texts.jsonl, line 2")


def test_label_of_examples_that_is_not_a_label(run: Run) -> None:
    path = Path("assets/examples.yml")
    path.write_text(path.read_text("utf8").replace("EQUIPMENT", "TOOL"), "utf8")
    result = run("annotate", "configs/teacher.cfg", "texts.jsonl", "out")
    _check_one_line(result, '"TOOL"', "DISH, INGREDIENT, EQUIPMENT")


def test_label_of_examples_that_is_not_a_label_in_foreign_task(run: Run) -> None:
    for path, old, new in [
        (Path("assets/examples.yml"), "EQUIPMENT", "TOOL"),
        (Path("configs/teacher.cfg"), "instaner.NER.v1", "spacy.NER.v3"),
    ]:
        path.write_text(path.read_text("utf8").replace(old, new), "utf8")
    result = run("annotate", "configs/teacher.cfg", "texts.jsonl", "out")
    _check_one_line(result, "TOOL")


def test_no_texts(run: Run) -> None:
    Path("texts.jsonl").write_text("", "utf8")
    result = run("annotate", "configs/teacher.cfg", "texts.jsonl", "out")
    _check_one_line(result, "None of the 0 texts in texts.jsonl")
    assert not Path("out").exists()


def test_empty_corpus(run: Run) -> None:
    Path("annotated").mkdir()
    result = run("split", "annotated", "assets/gold.jsonl", "corpus")
    _check_one_line(result, "annotated has 0 texts")
    assert not Path("corpus").exists()


def _write_annotated(count: int = 12) -> None:
    nlp, docs = spacy.blank("en"), []
    for number in range(count):
        name = ["Rice", "Leek", "Kale", "Plum"][number % 4]
        doc = nlp.make_doc(f"{name} {number**5} {name} {number} {name} {number**4}.")
        doc.set_ents([doc.char_span(0, 4, label="INGREDIENT")])
        docs.append(doc)
    Path("annotated").mkdir()
    write_docs(docs, Path("annotated/00000.spacy"))


def test_split_without_gold_is_silver(run: Run) -> None:
    _write_annotated()
    result = run("split", "annotated", "", "corpus", "--real", "")
    assert result.exit_code == 0, result.output
    assert "2 texts are held out to test on. 2 of them are silver" in result.stdout
    assert "how well the student imitates the teacher" in result.stdout
    meta = srsly.read_json("corpus/split.meta.json")
    assert (meta["test"], meta["test_share"], meta["real"]) == (2, 0.1, [])


def test_split_mixes_real_texts_in(run: Run) -> None:
    _write_annotated()
    args = ["--real", "assets/gold.jsonl", "--real-weight", "2", "--dev-real"]
    result = run("split", "annotated", "", "corpus", *args)
    assert result.exit_code == 0, result.output
    meta = srsly.read_json("corpus/split.meta.json")
    assert meta["texts"]["train"]["generated"] == 10
    assert list(meta["texts"]["dev"]) == ["real"]
    assert f"  dev: {meta['dev']} real" in result.stdout
    assert "Only real texts have DISH" in result.stdout


def test_split_drops_leaks_when_told_to(run: Run) -> None:
    _write_annotated()
    row = srsly.read_jsonl("assets/gold.jsonl")
    text = next(iter(row))["text"]
    srsly.write_jsonl(
        "mine.jsonl",
        [{"id": f"m{n}", "text": t, "spans": []} for n, t in enumerate([text, *"ABC"])],
    )
    args = ["split", "annotated", "assets/gold.jsonl", "corpus", "--real", "mine.jsonl"]
    _check_one_line(run(*args), f'm0 "{text[:80]}', "--drop-leaks")
    result = run(*args, "--drop-leaks")
    assert result.exit_code == 0, result.output
    assert (
        "1 texts were left out: they are, or nearly are, a test text" in result.stdout
    )


def test_split_takes_the_gold_as_an_option(run: Run) -> None:
    _write_annotated()
    result = run("split", "annotated", "corpus", "--gold", "assets/gold.jsonl")
    assert "gold texts to test on" in result.stdout, result.output
    for args in (["out"], ["a.jsonl", "out", "--gold", "b.jsonl"]):
        _check_one_line(run("split", "annotated", *args), "ANNOTATED GOLD OUTPUT")
    assert not Path("out").exists()


def test_split_tests_on_what_was_reviewed(run: Run) -> None:
    _write_annotated()
    args = ["split", "annotated", "corpus", "--gold", "reviewed"]
    _check_one_line(run(*args), "Run `instaner review`")
    reviews = Decisions(Path("reviews.db"))
    for queue in ("disputed", "random"):
        marks = ((0, 4, "INGREDIENT"),)
        reviews.add(
            Decision(f"Kale {queue}", "ents", "anna", Answer.ACCEPT, marks, queue=queue)
        )
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert "1 of the 2 test texts were drawn at random" in result.stdout
    meta = srsly.read_json("corpus/split.meta.json")
    assert (meta["test"], meta["at_random"], meta["test_share"]) == (2, 1, None)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--real-weight", "0"], "weight"),
        (["--dev-real"], "--dev-real"),
        (["--real", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--test", "1"], "share for test"),
    ],
)
def test_split_with_wrong_options(args: list[str], word: str, run: Run) -> None:
    _write_annotated()
    _check_one_line(run("split", "annotated", "", "corpus", *args), word)


def test_unknown_language(run: Run) -> None:
    Path("annotated").mkdir()
    result = run("split", "annotated", "assets/gold.jsonl", "out", "--lang", "tlh")
    _check_one_line(result, '"tlh"')


def _write_corpus() -> list[str]:
    doc = spacy.blank("en").make_doc(TEXT)
    doc.set_ents([doc.char_span(0, 6, label="INGREDIENT")])
    write_docs([doc], Path("docs.spacy"))
    return ["--paths.train", "docs.spacy", "--paths.dev", "docs.spacy"]


def test_encoder_that_cannot_be_found(run: Run) -> None:
    corpora = _write_corpus()
    result = run(
        *("train", "configs/student.cfg", "out", *corpora),
        *("--paths.encoder", "no/such-encoder"),
    )
    _check_one_line(result, '"no/such-encoder"', "CNN student")
    assert not Path("out").exists()


def test_empty_training_corpus(run: Run) -> None:
    write_docs([], Path("docs.spacy"))
    corpora = ["--paths.train", "docs.spacy", "--paths.dev", "docs.spacy"]
    result = run("train", "configs/student_cnn.cfg", "out", *corpora)
    _check_one_line(result, "docs.spacy is empty")


@pytest.mark.parametrize(
    "args",
    [
        ("swap", "configs/pipeline.cfg", "--student", "assets", "--output", "out"),
        ("evaluate", "assets", "--gold", "assets/gold.jsonl"),
        ("try", "assets"),
    ],
)
def test_folder_that_is_no_model(args: tuple[str, ...], run: Run) -> None:
    _check_one_line(run(*args), "assets is no spaCy pipeline")


def test_no_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = run("annotate", "configs/teacher_live.cfg", "texts.jsonl", "out")
    _check_one_line(result, "OPENAI_API_KEY")


def test_recording_has_no_model_to_set(run: Run) -> None:
    args = ("annotate", "configs/teacher.cfg", "texts.jsonl", "out")
    _check_one_line(run(*args, "--llm", "m"), "cannot be set to m", "teacher_live")


def test_no_gpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    corpora = _write_corpus()
    args = ("train", "configs/student_cnn.cfg", "out", *corpora, "--gpu-id", "99")
    _check_one_line(run(*args), "GPU 99 cannot be used")


def test_code_that_fails(run: Run) -> None:
    Path("code.py").write_text("1 / 0", "utf8")
    _check_one_line(run("try", "assets", "--code", "code.py"), "division by zero")


def test_result_of_other_gold(run: Run) -> None:
    _write_predictions("g.spacy", ["wok"])
    args = ("evaluate", "old=g.spacy", "--gold", "g.spacy", "--output", ".")
    assert run(*args).exit_code == 0
    args = ("evaluate", "old.json", "--gold", "assets/gold.jsonl")
    _check_one_line(run(*args), "Evaluate that system anew")


def _write_predictions(path: str, *found: list[str]) -> None:
    """A DocBin of twenty texts, in which words are found in turn."""
    nlp = spacy.blank("en")
    docs = []
    for number in range(20):
        doc = nlp(f"a wok and a pan {number}")
        words = found[number % len(found)]
        doc.ents = [Span(doc, t.i, t.i + 1, "TOOL") for t in doc if t.text in words]
        docs.append(doc)
    write_docs(docs, Path(path))


def test_anybodys_predictions_are_compared(run: Run) -> None:
    both = ["wok", "pan"]
    _write_predictions("gold.spacy", both)
    _write_predictions("a.spacy", both)
    _write_predictions("b.spacy", both, ["wok"], [])
    args = ("evaluate", "a.spacy", "b.spacy", "--gold", "gold.spacy")
    result = run(*args, "--output", "out")
    assert result.exit_code == 0, result.output
    assert "On 20 texts of gold.spacy, with 40 entities:" in result.stdout
    assert "b in the place of a:" in result.stdout
    assert "keep a" in result.stdout
    comparison = srsly.read_json("out/comparison.json")
    assert comparison["verdict"]["b"]["all"]["decision"] == "keep"
    # A margin that allows it, and what was scored before.
    args = ("evaluate", "out/a.json", "out/b.json", "--gold", "gold.spacy")
    result = run(*args, "--margin", "0.9")
    assert "b in the place of a:" in result.stdout
    assert "keep a" not in result.stdout


def _write_categories(path: str, *found: dict[str, float]) -> None:
    """A DocBin of twenty texts, which are given categories in turn."""
    nlp = spacy.blank("en")
    docs = []
    for number in range(20):
        doc = nlp(f"where is my money {number}")
        doc.cats = found[number % len(found)]
        docs.append(doc)
    write_docs(docs, Path(path))


def test_predictions_of_one_category_are_compared(run: Run) -> None:
    pay, ship = {"PAY": 0.9, "SHIP": 0.1}, {"PAY": 0.2, "SHIP": 0.8}
    _write_categories("gold.spacy", pay, ship)
    _write_categories("a.spacy", pay, ship)
    _write_categories("b.spacy", pay, ship, pay, pay)
    args = ("evaluate", "a.spacy", "b.spacy", "--gold", "gold.spacy")
    result = run(*args, "--output", "out")
    assert result.exit_code == 0, result.output
    for line in (
        r"On 20 texts of gold.spacy, with one category each:",
        r"F1 PAY +1\.000 .*0\.800 ",
        r"accuracy +1\.000 .*0\.750 ",
        r"macro F1 +1\.000 +0\.733",
        r"balanced accuracy +1\.000 +0\.750",
        r"calibration error +0\.150 +0\.",
        r"score +won or lost +95% interval",
        r"accuracy +-0\.250 ",
        r"F1 PAY +-0\.200 ",
    ):
        assert re.search(line, result.stdout), (line, result.stdout)
    for word in ("overlap", "precision", "entities"):
        assert word not in result.stdout
    args = ("evaluate", "out/a.json", "out/b.json", "--gold", "gold.spacy")
    assert result.stdout.startswith(run(*args).stdout)


def test_predictions_of_several_categories_are_compared(run: Run) -> None:
    both, ship = {"PAY": 0.9, "SHIP": 0.8}, {"PAY": 0.2, "SHIP": 0.8}
    _write_categories("gold.spacy", both, ship)
    _write_categories("b.spacy", both)
    args = ("evaluate", "a=gold.spacy", "b.spacy", "--gold", "gold.spacy")
    result = run(*args)
    assert result.exit_code == 0, result.output
    for line in (
        r"On 20 texts of gold.spacy, with 30 categories:",
        r"F1 +1\.000 .*0\.857 ",
        r"precision +1\.000 .*0\.750 ",
        r"texts all right +1\.000 +0\.500",
        r"categories +F1 won or lost",
        r"all +-0\.143 ",
    ):
        assert re.search(line, result.stdout), (line, result.stdout)
    assert "accuracy" not in result.stdout


def test_curve_of_categories_is_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: Path, output: Path, **settings: Any) -> None:
        output.mkdir()
        nlp = spacy.blank("en")
        nlp.add_pipe("test_categories")
        nlp.to_disk(output / "model-best")

    monkeypatch.setattr(import_module("instaner.curve"), "train_student", train)
    _write_categories("gold.spacy", {"PAY": 1, "SHIP": 0}, {"PAY": 0, "SHIP": 1})
    corpora = ("--train", "gold.spacy", "--dev", "gold.spacy", "--gold", "gold.spacy")
    result = run("evaluate", "--curve", "50,100", *corpora, "--output", "out")
    assert result.exit_code == 0, result.output
    assert re.search(r"texts +accuracy", result.stdout)
    assert re.search(r"20 +0\.500 ", result.stdout)
    assert "with an accuracy above 0" in result.stdout


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spans", []),
        ("spans", [[[1, 2]]]),
        ("spans", 3),
        ("error_examples", None),
        ("ents_per_type", None),
    ],
)
def test_result_that_is_none(key: str, value: Any, run: Run) -> None:
    _write_predictions("g.spacy", ["wok"])
    run("evaluate", "a=g.spacy", "--gold", "g.spacy", "--output", ".")
    result = srsly.read_json("a.json")
    result[key] = value
    if value is None:
        del result[key]
    srsly.write_json("a.json", result)
    args = ("evaluate", "a.json", "--gold", "g.spacy")
    _check_one_line(run(*args), "a.json is no result of an evaluation")


@pytest.mark.parametrize("name", ["../evil", "comparison", "curve", ""])
def test_name_of_a_system_is_that_of_its_file(name: str, run: Run) -> None:
    _write_predictions("g.spacy", ["wok"])
    args = ("evaluate", f"{name}=g.spacy", "--gold", "g.spacy", "--output", "out")
    _check_one_line(run(*args), f'cannot be called "{name}"')
    assert not Path("out").exists()


def test_output_that_is_a_file(run: Run) -> None:
    args = ("evaluate", "nowhere", "--gold", "assets/gold.jsonl")
    output = ("--output", "texts.jsonl")
    _check_one_line(run(*args, *output), "texts.jsonl is a file")


def test_margin_that_is_none_is_named(run: Run) -> None:
    args = ("evaluate", "x", "--gold", "assets/gold.jsonl", "--margin", "5")
    _check_one_line(run(*args), "--margin: Input should be less than 1, found 5")


def test_teachers_labels_decide_nothing(run: Run) -> None:
    _write_predictions("gold.spacy", ["wok"])
    args = ("evaluate", "a=gold.spacy", "b=gold.spacy", "--gold", "gold.spacy")
    assert "Silver" not in run(*args).stdout
    assert "Silver" in run(*args, "--silver").stdout


def test_text_that_a_pipeline_cannot_read(run: Run) -> None:
    spacy.blank("en").to_disk("model")
    text = "a" * 1_000_001
    srsly.write_jsonl("gold.jsonl", [{"text": text, "spans": []}])
    _check_one_line(run("evaluate", "model", "--gold", "gold.jsonl"), "E088")


def test_curve_needs_a_place(run: Run) -> None:
    args = ("evaluate", "--curve", "50,100", "--gold", "assets/gold.jsonl")
    _check_one_line(run(*args), "--curve needs --output")


def test_nothing_to_evaluate(run: Run) -> None:
    _check_one_line(run("evaluate", "--gold", "assets/gold.jsonl"), "no system")


def test_live_teacher_by_options_alone(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    answer = (
        "1. Salmon | True | INGREDIENT | a fish\nwhat else?\n2. pot | True | DISH | x"
    )
    chat_server.behave = lambda body: complete(answer)
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    Decisions(Path("reviews.db")).add(Decision(TEXT, "ents", "anna", Answer.ACCEPT))
    result = run(
        *("annotate", "configs/teacher_live.cfg", "texts.jsonl", "out"),
        *("--llm", "my-model", "--samples", "2"),
    )
    assert result.exit_code == 0, result.output
    assert {request.body["model"] for request in chat_server.requests} == {"my-model"}
    assert len(chat_server.requests) == 2
    assert "1 texts were reviewed by people: 0 of them were rejected" in result.stdout
    # What could not be used is shown, and kept.
    assert "not in text: pot DISH" in result.stdout
    assert "unreadable: what else?" in result.stdout
    meta = json.loads(Path("out.meta.json").read_text("utf8"))
    assert len(meta["unread"]) == 4
    everything = result.output + json.dumps(meta)
    assert KEY not in everything


def test_try_reads_standard_input(run: Run) -> None:
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "EQUIPMENT", "pattern": "wok"}])
    nlp.to_disk("model")
    result = run("try", "model", stdin=f"{TEXT}\n\nNo tool.\n")
    assert result.stdout.splitlines() == ["Salmon in a [wok](EQUIPMENT).", "No tool."]


def test_try_shows_student_and_teacher(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    answer = "1. Salmon | True | INGREDIENT | a fish"
    chat_server.behave = lambda body: complete(answer)
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    spacy.blank("en").to_disk("model")
    args = ("try", "model", "--teacher", "configs/teacher_live.cfg")
    result = run(*args, stdin=TEXT)
    assert result.stdout.splitlines() == [
        f"student: {TEXT}",
        "teacher: [Salmon](INGREDIENT) in a wok.",
    ]


TEXTCAT = """
[nlp]
lang = "en"
pipeline = ["llm"]

[components]

[components.llm]
factory = "llm"

[components.llm.task]
@llm_tasks = "spacy.TextCat.v3"
labels = ["PAY", "SHIP", "SIZE"]
exclusive_classes = true

[components.llm.model]
@llm_models = "instaner.Chat.v1"
name = "m"
"""


@Language.component("test_categories", assigns=["doc.cats"])
def set_categories(doc: Doc) -> Doc:
    doc.cats = {"SHIP": 0.021, "PAY": 0.97, "SIZE": 0.004, "OTHER": 0.005}
    return doc


def test_try_shows_categories(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    answers = iter(["PAY, SIZE", "Who knows?", "==NONE=="])
    chat_server.behave = lambda body: complete(next(answers))
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    config = TEXTCAT.replace("exclusive_classes = true", "")
    Path("teacher.cfg").write_text(config, "utf8")
    nlp = spacy.blank("en")
    nlp.add_pipe("test_categories")
    nlp.to_disk("model")
    result = run("try", "model", "--teacher", "teacher.cfg", stdin="One.\nTwo.\n3.\n")
    scores = "PAY 0.97  SHIP 0.02  OTHER 0.01"
    assert result.stdout.splitlines() == [
        f"student: One. → {scores}",
        "teacher: One. → PAY  SIZE",
        f"student: Two. → {scores}",
        "teacher: Two. → no category could be read",
        f"student: 3. → {scores}",
        "teacher: 3. → no category",
    ]


def test_annotated_categories_are_split_and_told_as_such(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    answers = {
        "0": ["PAY"] * 3,
        "1": ["SHIP", "SHIP", "PAY"],
        "2": ["SIZE", "?", "PAY"],
    }
    given = {number: iter(given * 4) for number, given in answers.items()}

    def answer(body: Any) -> Reply:
        text = body["messages"][-1]["content"].split("Text:")[-1]
        return complete(next(given[text.strip("\n'")[-1]]))

    chat_server.behave = answer
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    Path("teacher.cfg").write_text(TEXTCAT, "utf8")
    names = ["rice", "leek", "kale", "plum"]
    texts = [f"{n} {n} {k**7} {n} {k}" for n in names for k in (10, 21, 32)]
    srsly.write_jsonl("texts.jsonl", [{"text": text} for text in texts])
    args = ("--samples", "3", "--max-failures", "0.5")
    result = run(
        *("annotate", "teacher.cfg", "texts.jsonl", "corpus/annotated", *args),
        "--components.llm.model.max_concurrency=1",
    )
    assert result.exit_code == 0, result.output
    for line in (
        "What was answered, by whom, and how it was read:",
        "What their votes are worth, in categories:",
        r"of the categories are disputed",
        r"labels or lines made no category:",
    ):
        assert re.search(line, result.stdout), (line, result.stdout)
    for word in ("span", "entit"):
        assert word not in result.stdout
    result = run("split", "corpus/annotated", "", "corpus")
    assert result.exit_code == 0, result.output
    assert "4 disputed texts are not trained on" in result.stdout
    assert re.search(r"label +texts", result.stdout)
    meta = srsly.read_json("corpus/split.meta.json")
    assert (meta["attr"], meta["disputed"]) == ("cats", 4)


def test_killed_run_leaves_what_was_there(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    Path("out").mkdir()
    Path("out/00000.spacy").write_bytes(b"earlier")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    command = [sys.executable, "-m", "instaner", "annotate"]
    command += ["configs/teacher_live.cfg", "texts.jsonl", "out"]
    process = subprocess.Popen(command, env=dict(os.environ))

    def kill(body: object) -> Reply:
        process.kill()
        return reply(500, {})

    chat_server.behave = kill
    assert process.wait(60) == -9
    assert Path("out/00000.spacy").read_bytes() == b"earlier"


def test_saved_pipeline_is_a_teacher(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    chat_server.behave = lambda body: complete("1. Salmon | True | DISH | fish")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    nlp = spacy.blank("en")
    config = {
        "task": {"@llm_tasks": "spacy.NER.v3", "labels": "DISH"},
        "model": {"@llm_models": "instaner.Chat.v1", "name": "m"},
    }
    nlp.add_pipe("llm", config=config)
    nlp.to_disk("teacher")
    result = run("annotate", "teacher", "texts.jsonl", "out")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("out.meta.json").read_text("utf8"))["texts"] == 1


def test_teacher_that_sets_no_entities(run: Run) -> None:
    path = Path("configs/teacher_live.cfg")
    text = path.read_text("utf8").replace("instaner.NER.v1", "spacy.SpanCat.v3")
    start, end = text.index("description"), text.index("[components.llm.model]")
    path.write_text(text[:start] + text[end:], "utf8")
    result = run("annotate", str(path), "texts.jsonl", "out")
    _check_one_line(result, "No llm component of the teacher sets entities or")


def test_output_that_holds_something_else(run: Run) -> None:
    args = ("generate", "configs/generator.cfg", "assets/briefs.jsonl", "configs")
    _check_one_line(run(*args), "would be replaced", ".cfg")
    assert Path("configs/teacher.cfg").exists()


def test_brief_of_a_prompt_that_is_not_recorded(run: Run) -> None:
    path = Path("assets/briefs.jsonl")
    path.write_text(path.read_text("utf8").replace("breakfast", "brunch"), "utf8")
    result = run("generate", "configs/generator.cfg", str(path), "out.jsonl")
    _check_one_line(result, "Brief train-01: No answer", "SHA-256")


@pytest.mark.parametrize(
    "args", [("--training.max_steps", "many"), ("--nlp.lang", "tlh"), ("--what", "1")]
)
def test_training_settings_that_cannot_be(args: tuple[str, str], run: Run) -> None:
    result = run("train", "configs/student_cnn.cfg", "out", *_write_corpus(), *args)
    _check_one_line(result)
    assert not Path("out").exists()


def test_students_take_the_tokenizer_of_their_language(run: Run) -> None:
    steps = ("--training.max_steps", "1", "--training.eval_frequency", "1")
    args = ("train", "configs/student_cnn.cfg", "out", *_write_corpus(), *steps)
    result = run(*args, "--nlp.lang", "zh")
    assert result.exit_code == 0, result.output
    text = "我喜欢豆腐"
    expected = [token.text for token in spacy.blank("zh").make_doc(text)]
    found = [token.text for token in spacy.load("out/model-best").make_doc(text)]
    assert found == expected != [text]


def test_swap_says_and_keeps_what_it_found(run: Run) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("ner").add_label("DISH")
    nlp.initialize()
    nlp.to_disk("student")
    args = ("swap", "configs/pipeline.cfg", "--student", "student", "--output", "out")
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert "labels the student does not know: EQUIPMENT, INGREDIENT" in result.stdout
    assert "order: sentencizer → ner → merge_entities" in result.stdout
    meta = json.loads(Path("out.meta.json").read_text("utf8"))
    assert meta["contract"]["missing"] == ["EQUIPMENT", "INGREDIENT"]


def test_swap_says_what_sets_categories_too(run: Run) -> None:
    config = TEXTCAT.replace('["llm"]', '["topic", "llm"]').replace(
        "[components]\n",
        '[components]\n\n[components.topic]\nfactory = "test_categories"\n',
        1,
    )
    Path("teacher.cfg").write_text(config, "utf8")
    nlp = spacy.blank("en")
    cats = {"PAY": 1, "SHIP": 0, "SIZE": 0}
    example = Example.from_dict(nlp.make_doc("One."), {"cats": cats})
    nlp.add_pipe("textcat")
    nlp.initialize(lambda: [example])
    nlp.to_disk("student")
    result = run("swap", "teacher.cfg", "--student", "student", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "labels: the same" in result.stdout
    assert "topic set categories before: the student keeps them" in result.stdout
    assert srsly.read_json("out.meta.json")["contract"]["attr"] == "cats"


LIVE = ("configs/teacher_live.cfg", "texts.jsonl")
PRICES = '--components.llm.model.prices={"input": 1, "output": 10}'


@pytest.fixture
def live(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, run: Run
) -> ChatServer:
    """A server that the live configs ask about a hundred texts."""
    chat_server.behave = lambda body: complete(
        "No entities", prompt_tokens=1000, completion_tokens=20
    )
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    rows = [{"id": str(n), "text": f"Text {n}."} for n in range(100)]
    srsly.write_jsonl("texts.jsonl", rows)
    return chat_server


def _read_table(output: str) -> dict[str, str]:
    lines = (line.strip().split("   ", 1) for line in output.splitlines())
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def test_estimate_sends_nothing_and_guesses_nothing(live: ChatServer, run: Run) -> None:
    result = run("estimate", *LIVE, "--samples", "2")
    assert result.exit_code == 0, result.output
    table = _read_table(result.stdout)
    assert (table["documents"], table["to be asked"]) == ("100", "200")
    assert "--pilot" in table["cost"]
    assert live.requests == []
    assert not Path("corpus").exists()


def test_estimate_of_a_pilot_is_what_the_run_takes(live: ChatServer, run: Run) -> None:
    pace = "--components.llm.model.requests_per_minute=6000"
    result = run("estimate", *LIVE, PRICES, pace, "--pilot", "10")
    assert result.exit_code == 0, result.output
    table = _read_table(result.stdout)
    assert len(live.requests) == 10
    assert (table["stored already"], table["to be asked"]) == ("10", "90")
    # Prompts differ by a digit.
    tokens = int(table["prompt tokens"].replace(",", ""))
    assert tokens == pytest.approx(90_000, rel=0.01)
    assert table["answer tokens"] == "1,800"
    assert table["cost"].startswith("0.108")
    assert table["energy"] == "energy not known"
    result = run("annotate", *LIVE, "out", PRICES)
    assert "90 answers, 10 more were stored, 90,000 + 1,800 tokens, 0.1080" in (
        result.stdout
    )
    (bill,) = json.loads(Path("out.meta.json").read_text("utf8"))["bills"]
    assert (bill["answers"], bill["stored"], bill["cost"]) == (90, 10, 0.108)


def test_estimate_of_a_generator(run: Run) -> None:
    args = ("configs/generator.cfg", "assets/briefs.jsonl")
    table = _read_table(run("estimate", *args).stdout)
    assert (table["requests"], table["to be asked"]) == ("100", "0")


def test_estimate_of_an_unknown_model_says_so(live: ChatServer, run: Run) -> None:
    result = run("estimate", *LIVE, "--pilot", "5", "--llm", "nobody-knows-me")
    assert _read_table(result.stdout)["cost"].startswith("price not known")


def test_responses_are_shown_moved_and_pruned(live: ChatServer, run: Run) -> None:
    assert run("annotate", *LIVE, "out", PRICES).exit_code == 0
    shown = run("responses").stdout
    assert "gpt-4o-mini" in shown
    assert "100,000" in shown
    assert "0.1200 US dollars" in shown
    assert run("responses", "export", "rec.jsonl").exit_code == 0
    result = run("responses", "--store", "other.db", "import", "rec.jsonl")
    assert "100 new answers: other.db" in result.stdout
    live.requests.clear()
    result = run("annotate", *LIVE, "out2", "--paths.store", "other.db")
    assert (result.exit_code, live.requests) == (0, [])
    # A recording is just such an export.
    path = Path("configs/teacher.cfg")
    text = path.read_text("utf8").replace("assets/recordings/annotate", "rec")
    path.write_text(text, "utf8")
    assert run("annotate", str(path), "texts.jsonl", "out3").exit_code == 0
    shards = [Path(f"{name}/00000.spacy").read_bytes() for name in ("out", "out2")]
    assert [*shards, Path("out3/00000.spacy").read_bytes()] == [shards[0]] * 3
    result = run("responses", "prune", "--all")
    assert "100 answers removed" in result.stdout
    assert "is empty" in run("responses").stdout


def test_demo_recording_can_be_imported(run: Run) -> None:
    path = "assets/recordings/annotate.jsonl"
    result = run("responses", "--store", "new.db", "import", path)
    assert "2256 new answers" in result.stdout
    args = ("--store", "new.db", "export", "again.jsonl")
    assert run("responses", *args).exit_code == 0
    assert Path("again.jsonl").read_bytes() == Path(path).read_bytes()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), ["Response store not found: corpus/responses.db"]),
        (("prune",), ["--failed"]),
        (("import", "nowhere.jsonl"), ["nowhere.jsonl"]),
        (("import", "texts.jsonl"), ["texts.jsonl, line 1", "prompt_sha256"]),
        (("export", "configs"), ["corpus/responses.db"]),
    ],
)
def test_wrong_use_of_responses(
    args: tuple[str, ...], words: list[str], run: Run
) -> None:
    _check_one_line(run("responses", *args), *words)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("max_concurrency=0", ["max_concurrency", "from 1 to 1000"]),
        ("max_concurrency=5000", ["max_concurrency", "1000"]),
        ("max_retries=-1", ["max_retries"]),
        ("params.stream=true", ['"stream"']),
        ("budget=1", ["price", "prices in the config"]),
        ('prices={"input": 1}', ["prices", "output"]),
        ("context_length=100", ["Text 0", "context_length (100 tokens)"]),
    ],
)
def test_settings_of_a_model_that_cannot_be(
    setting: str, words: list[str], live: ChatServer, run: Run
) -> None:
    option = f"--components.llm.model.{setting}"
    _check_one_line(run("annotate", *LIVE, "out", option), *words)
    assert live.requests == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "usage", "prompt_tokens", "error"]
            ),
            values,
            max_size=3,
        )
    ),
    max_leaves=9,
)


# One project for all examples is what is wanted.
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    body=_JSON
    | st.builds(lambda value: {"choices": [{"message": {"content": value}}]}, _JSON)
    | st.builds(
        lambda a, b: {"choices": [{"message": {"content": a}}], "usage": b},
        st.text(),
        _JSON,
    ),
    status=st.sampled_from([200, 200, 200, 400, 429, 500]),
)
def test_whatever_the_server_sends_is_at_most_one_line(
    body: Any, status: int, live: ChatServer, run: Run
) -> None:
    content = json.dumps(body).encode("utf8")
    headers = {"Content-Type": "application/json", **RETRY_AT_ONCE}
    live.behave = lambda _: (status, headers, content)
    srsly.write_jsonl("texts.jsonl", [{"text": TEXT}])
    for path in Path().glob("fresh.db*"):
        path.unlink()
    once = ("--paths.store=fresh.db", "--components.llm.model.max_retries=1")
    result = run("annotate", *LIVE, "fresh", *once)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == int(result.exit_code == 1)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--vote.rule", "most"), ("[vote] rule", "majority, unanimous")),
        (("--vote.drop", "2"), ("[vote] drop", "0 to 1")),
        (("--vote.weights", '{"ann": 2}'), ('no voter "ann"', "llm/0")),
        (("--vote.rules", "majority"), ('no setting "rules"',)),
    ],
)
def test_policies_that_cannot_be(
    args: tuple[str, str], words: tuple[str, ...], run: Run
) -> None:
    result = run("annotate", "configs/teacher.cfg", "texts.jsonl", "out", *args)
    _check_one_line(result, *words)
    assert not Path("out").exists()


def test_what_voters_said_is_shown_and_kept(live: ChatServer, run: Run) -> None:
    srsly.write_jsonl("texts.jsonl", [{"id": "t", "text": TEXT}])
    fish = "2. Salmon | True | FISH | an animal"
    samples = iter([f"1. wok | True | EQUIPMENT | a pan\n{fish}", "No entities"])
    live.behave = lambda body: complete(
        "1" if "[[" in body["messages"][-1]["content"] else next(samples)
    )
    result = run(
        *("annotate", "configs/teacher_live.cfg", "texts.jsonl", "corpus/out"),
        *("--samples", "2", "--vote.disputed", "ask"),
        *("--components.llm.model.max_concurrency", "1"),
    )
    assert result.exit_code == 0, result.output
    for line in (
        r"voter +no entity +exact +unknown label",
        r"llm/0 +0 +1 +1",
        r"llm/1 +1 +0 +0",
        r"EQUIPMENT +1 +0",
        r"\(other\) +0 +1",
        r"Agreement of the voters: F1 0\.000, Krippendorff's alpha",
        r"label +trusted",
        r"Asked again about 1 places: entity 1",
    ):
        assert re.search(line, result.output), (line, result.output)
    meta = json.loads(Path("corpus/out.meta.json").read_text("utf8"))
    assert meta["agreement"]["f1"] == 0
    assert meta["asked_again"] == {"entity": 1}
    assert meta["standings"] == [
        {"label": "EQUIPMENT", "standing": "trusted", "count": 1}
    ]


def test_saved_ruler_votes_with_its_weight(run: Run) -> None:
    rules = spacy.blank("en")
    ruler = rules.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "EQUIPMENT", "pattern": "wok"}])  # type: ignore[attr-defined]
    rules.to_disk("my_rules")
    config = Path("configs/teacher.cfg").read_text("utf8")
    config = config.replace('["llm"]', '["rules", "llm"]').replace(
        "[components]\n",
        "[components]\n\n[components.rules]\n"
        'source = "my_rules"\ncomponent = "entity_ruler"\n',
        1,
    )
    Path("configs/with_rules.cfg").write_text(config, "utf8")
    briefs = ("configs/generator.cfg", "assets/briefs.jsonl", "texts.jsonl")
    assert run("generate", *briefs).exit_code == 0
    args = ("configs/with_rules.cfg", "texts.jsonl", "out")
    weights = ("--vote.rule", "threshold", "--vote.trust", "0.9")
    weights += ("--vote.weights", '{"rules": 20}')
    result = run("annotate", *args, *weights)
    assert result.exit_code == 0, result.output
    docs = [doc for doc in DocBin().from_disk("out/00000.spacy").get_docs(rules.vocab)]
    assert {ent.text for doc in docs for ent in doc.ents} == {"wok"}
    assert any(doc.spans["llm/0"] for doc in docs)


def test_labels_are_asked_for_until_they_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["", "A|B", "TOOL", "A tool.", "TOOL", "tool", "", "", "en", "m", "\n"]
    monkeypatch.setattr(
        "instaner.cli.new.sys",
        SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)),
    )
    folder = tmp_path / "my garden"
    done = CliRunner().invoke(app, ["new", str(folder)], input="\n".join(answers))
    assert done.exit_code == 0, done.output
    assert srsly.read_yaml(folder / "assets" / "labels.yml") == {"TOOL": "A tool."}
    for part in ("has characters", "is there already", "one and the same"):
        assert part in done.output
    assert f"cd '{folder}' && weasel run all" in done.output


def test_whether_texts_have_several_labels_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["y", "A", "one", "B", "two", "", "y", "", "en", "m", "\n"]
    monkeypatch.setattr(
        "instaner.cli.new.sys",
        SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)),
    )
    folder = tmp_path / "mail"
    done = CliRunner().invoke(app, ["new", str(folder)], input="\n".join(answers))
    assert done.exit_code == 0, done.output
    teacher = (folder / "configs" / "teacher.cfg").read_text("utf8")
    assert "exclusive_classes = false" in teacher
    assert 'weights = {"generator": 0.1}' in teacher


def test_figure_that_is_no_svg_is_named_before_anything_is_asked(run: Run) -> None:
    done = run(
        "generate",
        "configs/generator.cfg",
        "assets/briefs.jsonl",
        "out.jsonl",
        "--figure",
        "x.png",
    )
    assert done.exit_code == 1
    assert "only SVG can be drawn" in done.stderr
    assert not Path("out.jsonl").exists()


def test_texts_for_testing_alone_are_not_measured(run: Run) -> None:
    briefs = srsly.read_jsonl("assets/briefs.jsonl")
    srsly.write_jsonl("tests.jsonl", [b for b in briefs if b["split"] == "test"])
    done = run("generate", "configs/generator.cfg", "tests.jsonl", "out.jsonl")
    assert done.exit_code == 0, done.stderr
    assert "All texts are for testing" in done.stdout
    assert srsly.read_json("out.meta.json")["variety"] is None
