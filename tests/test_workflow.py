"""The whole workflow, as a user runs it, on a dozen texts with a tiny encoder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spacy
import srsly
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
)
from spacy.scorer import Scorer
from spacy.training import Example

from instaner.gold import read_gold

from .conftest import ROOT

BRIEFS = 2
TEXTS = 6  # of each brief
STEPS = 10


def _weasel(project: Path, name: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "weasel", "run", name, ".", *args],
        cwd=project,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


def _run(project: Path, *args: str) -> list[str]:
    """RETURNS (List[str]): Names of the commands that were run, not skipped."""
    done = _weasel(project, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = re.split(r"=+ ([a-z-]+) =+", done.stdout)[1:]
    return [
        name
        for name, output in zip(parts[::2], parts[1::2], strict=True)
        if "nothing changed" not in output
    ]


def _get_vars(encoder: Path) -> list[str]:
    values = {"dev": "0.5", "encoder": str(encoder), "curve": "50,100"}
    return [word for name in values for word in (f"--vars.{name}", values[name])]


def _cut_briefs(path: Path) -> None:
    """Leave some texts of each of a few briefs."""
    rows = list(srsly.read_jsonl(path))
    briefs = list(dict.fromkeys(row["brief"] for row in rows))[: 3 * BRIEFS]
    kept = [row for brief in briefs for row in rows if row["brief"] == brief]
    srsly.write_jsonl(path, [row for k, row in enumerate(kept) if k % 10 < TEXTS])


def _cut(path: Path, count: int) -> None:
    rows = list(srsly.read_jsonl(path))[:count]
    srsly.write_jsonl(path, rows)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with two briefs, six texts each."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("assets", "configs", "scripts"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "project.yml", folder)
    _cut(folder / "assets/briefs.jsonl", BRIEFS)
    _cut(folder / "assets/gold.jsonl", TEXTS)
    recording = folder / "assets/recordings/generate.jsonl"
    _cut(recording, BRIEFS)
    rows = list(srsly.read_jsonl(recording))
    for row in rows:
        row["response"] = "\n".join(row["response"].split("\n")[:TEXTS])
    srsly.write_jsonl(recording, rows)
    for name in ("texts", "gold"):
        _cut_briefs(folder / f"assets/textcat/{name}.jsonl")
    for name in ("student", "student_cnn", "textcat", "textcat_cnn"):
        config = folder / "configs" / f"{name}.cfg"
        text = config.read_text("utf8")
        text = re.sub(r"max_steps = \d+", f"max_steps = {STEPS}", text)
        text = re.sub(r"eval_frequency = \d+", f"eval_frequency = {STEPS}", text)
        text = re.sub(r"warmup_steps = \d+", "warmup_steps = 1", text)
        config.write_text(text, "utf8")
    return folder


@pytest.fixture(scope="module")
def first_run(project: Path, tiny_encoder: Path) -> list[str]:
    return _run(project, "all", *_get_vars(tiny_encoder))


def test_everything_is_there_after_a_run(first_run: list[str], project: Path) -> None:
    steps = "generate annotate split debug train train-cnn evaluate-teacher evaluate"
    assert first_run == [*steps.split(), "curve", "report", "package", "swap"]
    for name in ("train", "dev", "test"):
        assert (project / f"corpus/{name}.spacy").is_file()
    for name in ("student", "student_cnn"):
        nlp = spacy.load(project / "training" / name / "model-best")
        assert nlp.pipe_names == ["ner"]
    swapped = spacy.load(project / "training/swapped")
    assert swapped.pipe_names == ["sentencizer", "ner", "merge_entities"]
    assert len(list(project.glob("training/packages/*/dist/*.whl"))) == 1
    comparison = json.loads(
        (project / "training/metrics/comparison.json").read_text("utf8")
    )
    assert list(comparison["systems"]) == ["teacher", "student", "student_cnn"]
    assert comparison["systems"]["teacher"]["ents_f"] > 0.9
    report = project / "training/report"
    assert "Does the student replace the LLM?" in (report / "index.html").read_text(
        "utf8"
    )
    assert (report / "report.md").is_file()
    found = srsly.read_json(report / "comparison.json")
    assert found["verdict"] == comparison["verdict"]
    assert found["costs"]["systems"]["teacher"]["usd_per_million_texts"] > 0
    assert [point["share"] for point in found["curve"]["points"]] == [50, 100]
    assert found["run"] == srsly.read_json(project / "training/run.json")
    meta = json.loads((project / "corpus/annotated.meta.json").read_text("utf8"))
    assert meta["texts"] == BRIEFS * TEXTS


def test_scores_are_found_again_by_other_ways(
    first_run: list[str], project: Path
) -> None:
    comparison = srsly.read_json(project / "training/metrics/comparison.json")
    nlp = spacy.blank("en")
    for name, result in comparison["systems"].items():
        spans = srsly.read_json(project / f"training/metrics/{name}.json")["spans"]
        golds = list(read_gold(project / "corpus/test.spacy", nlp))
        examples, wanted, given = [], [], []
        for number, (gold, found) in enumerate(zip(golds, spans, strict=True)):
            doc = nlp.make_doc(gold.text)
            doc.ents = [doc.char_span(*span[:2], label=span[2]) for span in found]
            examples.append(Example(doc, gold))
            wanted += [(number, e.start_char, e.end_char, e.label_) for e in gold.ents]
            given += [(number, *span) for span in found]
        theirs = Scorer.score_spans(examples, "ents")
        assert result["ents_f"] == pytest.approx(theirs["ents_f"])
        tokens = [
            (a.ent_type_, b.ent_type_)
            for example in examples
            for a, b in zip(example.predicted, example.reference, strict=True)
        ]
        assert result["token_acc"] == pytest.approx(
            accuracy_score(*zip(*tokens, strict=True))
        )
        keys = sorted({*wanted, *given})
        truth, answer = ([key in side for key in keys] for side in (wanted, given))
        assert result["ents_f"] == pytest.approx(f1_score(truth, answer))
        for label, scores in result["ents_per_type"].items():
            of = [k for k, key in enumerate(keys) if key[3] == label]
            p, r, f, _ = precision_recall_fscore_support(
                [truth[k] for k in of],
                [answer[k] for k in of],
                average="binary",
                zero_division=0,
            )
            assert (scores["p"], scores["r"], scores["f"]) == pytest.approx((p, r, f))


def test_second_run_runs_nothing(
    first_run: list[str], project: Path, tiny_encoder: Path
) -> None:
    args = _get_vars(tiny_encoder)
    assert _run(project, "all", *args) == []


def test_variable_runs_what_depends_on_it(
    first_run: list[str], project: Path, tiny_encoder: Path
) -> None:
    args = _get_vars(tiny_encoder)
    done = _run(project, "all", *args, "--vars.description", "Other words")
    assert done == ["package"]
    (meta,) = project.glob("training/packages/*/en_cooking_ner/meta.json")
    assert json.loads(meta.read_text("utf8"))["description"] == "Other words"
    card = (meta.parents[1] / "README.md").read_text("utf8")
    assert card.startswith("---\n")
    assert "model-index" in card
    assert "Other words" in card


def test_config_alone_swaps_too(first_run: list[str], project: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "spacy",
        "assemble",
        "configs/swap.cfg",
        "by_config",
    ]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    by_config = spacy.load(project / "by_config")
    by_command = spacy.load(project / "training/swapped")
    text = "I sear tofu in a wok."
    assert by_config.pipe_names == ["sentencizer", "llm", "merge_entities"]
    assert by_config(text).to_json()["ents"] == by_command(text).to_json()["ents"]


def test_changed_prompt_is_one_line_and_nothing_is_lost(
    first_run: list[str], project: Path
) -> None:
    labels = project / "assets/labels.yml"
    kept = labels.read_text("utf8")
    shards = sorted((project / "corpus/annotated").iterdir())
    labels.write_text(kept.replace("kitchen", "workshop"), "utf8")
    try:
        done = _weasel(project, "annotate")
    finally:
        labels.write_text(kept, "utf8")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.search(r"Text train-00-00: No answer \(sample 0\) recorded in .*", line)
    assert sorted((project / "corpus/annotated").iterdir()) == shards


def _get_categories(path: Path) -> list[str]:
    """The category that was found in each text, or "" where two have the same score."""
    return [spans[0][2] if spans else "" for spans in srsly.read_json(path)["spans"]]


def test_second_workflow_sorts_texts(project: Path, tiny_encoder: Path) -> None:
    args = _get_vars(tiny_encoder)
    steps = "annotate split train train-cnn evaluate report package swap".split()
    assert _run(project, "textcat", *args) == [f"textcat-{step}" for step in steps]
    assert _run(project, "textcat", *args) == []
    swapped = spacy.load(project / "training/textcat/swapped")
    assert swapped.pipe_names == ["sentencizer", "textcat"]
    labels = list(srsly.read_yaml(project / "assets/textcat/labels.yml"))
    assert sorted(swapped("Where is my parcel?").cats) == sorted(labels)
    report = project / "training/textcat/report"
    assert "accuracy" in (report / "report.md").read_text("utf8")
    comparison = srsly.read_json(report / "comparison.json")
    nlp = spacy.blank("en")
    golds = list(read_gold(project / "corpus/textcat/test.spacy", nlp))
    wanted = [max(doc.cats, key=lambda la: doc.cats[la]) for doc in golds]
    for name, result in comparison["systems"].items():
        path = project / f"training/textcat/metrics/{name}.json"
        found = _get_categories(path)
        accuracy = accuracy_score(wanted, found)
        assert result["cats_acc"] == pytest.approx(accuracy)
        assert result["cats_micro_f"] == pytest.approx(accuracy)
        occurring = sorted({*wanted, *found} - {""})
        macro = f1_score(wanted, found, average="macro", labels=occurring)
        assert result["cats_macro_f"] == pytest.approx(macro)
        balanced = balanced_accuracy_score(wanted, found)
        assert result["cats_balanced_acc"] == pytest.approx(balanced)
    student = spacy.load(project / "training/textcat/student/model-best")
    docs = list(student.pipe(doc.text for doc in golds))
    scores = [max(doc.cats.values()) for doc in docs]
    best = [max(doc.cats, key=lambda la: doc.cats[la]) for doc in docs]
    right = np.array(best) == np.array(wanted)
    bins = np.minimum((np.array(scores) * 10).astype(int), 9)
    error = sum(
        abs(right[bins == k].mean() - np.array(scores)[bins == k].mean())
        * (bins == k).mean()
        for k in set(bins.tolist())
    )
    calibration = comparison["systems"]["student"]["calibration"]
    assert calibration["ece"] == pytest.approx(error, abs=1e-6)
