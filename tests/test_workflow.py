"""The whole workflow, as a user runs it, on a dozen texts with a tiny encoder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
import srsly

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
    return ["--vars.dev", "0.5", "--vars.encoder", str(encoder)]


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
    for name in ("student.cfg", "student_cnn.cfg"):
        config = folder / "configs" / name
        text = config.read_text("utf8")
        text = re.sub(r"max_steps = \d+", f"max_steps = {STEPS}", text)
        text = re.sub(r"eval_frequency = \d+", f"eval_frequency = {STEPS}", text)
        text = re.sub(r"warmup_steps = \d+", "warmup_steps = 1", text)
        config.write_text(text, "utf8")
    return folder


@pytest.fixture(scope="module")
def first_run(project: Path, tiny_encoder: Path) -> list[str]:
    return _run(
        project, "all", "--vars.dev", "0.5", "--vars.encoder", str(tiny_encoder)
    )


def test_everything_is_there_after_a_run(first_run: list[str], project: Path) -> None:
    steps = "generate annotate split debug train train-cnn evaluate-teacher evaluate"
    assert first_run == [*steps.split(), "package", "swap"]
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
    for name, result in comparison["systems"].items():
        own = json.loads((project / f"training/metrics/{name}.json").read_text("utf8"))
        assert own == result
    assert comparison["systems"]["teacher"]["ents_f"] > 0.9
    meta = json.loads((project / "corpus/annotated.meta.json").read_text("utf8"))
    assert meta["texts"] == BRIEFS * TEXTS


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
