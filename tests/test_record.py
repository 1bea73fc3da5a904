import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import srsly

from instaner.errors import InstaNERError
from instaner.llm.store import Request, Response, Store
from instaner.record import (
    CURRENT,
    RECORD,
    compare_records,
    find_record,
    keep_record,
    make_record,
    read_records,
    write_record,
)

from .conftest import KEY, ROOT

PROJECT = """
vars:
  name: "garden"
  seed: 0
  llm: ""
  teacher: "configs/teacher.cfg"
commands:
  - name: annotate
    script:
      - "annotate ${vars.teacher} -m '${vars.llm}' --seed ${vars.seed} -n ${vars.llm}"
    deps: ["assets/plan.yml"]
"""
TEACHER = """
[paths]
labels = "assets/labels.yml"
store = "corpus/answers.db"

[system]
seed = 7

[components.llm.task]
description = "{}"
""".format("Long, and no path. " * 30)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that was run."""
    for name in ("assets", "configs", "corpus/annotated", "training/metrics"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "project.yml").write_text(PROJECT, "utf8")
    (tmp_path / "configs/teacher.cfg").write_text(TEACHER, "utf8")
    (tmp_path / "assets/labels.yml").write_text('PLANT: "A plant"\n', "utf8")
    (tmp_path / "assets/plan.yml").write_text("domain: x\n", "utf8")
    (tmp_path / "corpus/annotated/00000.spacy").write_bytes(b"docs")
    (tmp_path / "corpus/generated.jsonl").write_text("{}\n", "utf8")
    meta = {"seconds": 3.5, "seed": 1, "samples": 2, "versions": {}}
    srsly.write_json(tmp_path / "corpus/annotated.meta.json", meta)
    run = "annotate configs/teacher.cfg -m 'gpt-4o' --seed 3 -n gpt-4o"
    dep = {"path": "assets/plan.yml", "md5": "0"}
    step = {"script": [run], "deps": [dep], "outs": []}
    srsly.write_yaml(tmp_path / "project.lock", {"annotate": step})
    _write_scores(tmp_path, 0.5)
    return tmp_path


def _write_scores(root: Path, f: float) -> None:
    scores = {
        "ents_p": f,
        "ents_r": f,
        "ents_f": f,
        "ents_per_type": {"PLANT": {"f": f}},
    }
    scores |= {"words_per_second": 1000.0, "spans": [[[0, 1, "PLANT"]]]}
    srsly.write_json(root / "training/metrics/student.json", scores)
    systems = {"student": {**scores, "error_examples": {"missed": ["a text"]}}}
    both = {"systems": systems, "differences": [{"text": "a text"}]}
    srsly.write_json(root / "training/metrics/comparison.json", both)


def _run(root: Path) -> None:
    write_record(root, root / RECORD)


def test_record_has_what_went_in_and_what_came_out(project: Path) -> None:
    store = Store(project / "corpus/answers.db")
    messages = [{"role": "user", "content": "A prompt"}]
    store.put(Request("gpt-4o", messages, {}, 0), Response("yes", prompt_tokens=2))
    store.close()
    record = make_record(project)
    assert record["created"].endswith("+00:00")
    assert record["project"]["text"] == PROJECT
    assert record["commands"]["annotate"]["deps"][0]["md5"] == "0"
    assert record["steps"]["corpus/annotated"]["samples"] == 2
    assert record["configs"] == {"configs/teacher.cfg": TEACHER}
    assert set(record["inputs"]) == {"assets/labels.yml", "assets/plan.yml"}
    assert set(record["hashes"]) == {
        "assets/labels.yml",
        "assets/plan.yml",
        "corpus/annotated/00000.spacy",
        "corpus/generated.jsonl",
    }
    assert record["seconds"] == {"corpus/annotated": 3.5}
    seeds = {"vars.seed": 3, "corpus/annotated": 1, "configs/teacher.cfg": 7}
    assert record["seeds"] == seeds
    assert record["scores"]["student"]["ents_f"] == 0.5
    (stored,) = record["store"]["corpus/answers.db"]
    assert (stored["model"], stored["prompt_tokens"]) == ("gpt-4o", 2)
    assert {"instaner", "spacy"} <= set(record["versions"])
    assert {"python", "platform", "cores"} == set(record["system"])


def test_record_has_variables_as_they_were_used(project: Path) -> None:
    values = {"name": "garden", "seed": 3, "llm": "gpt-4o"}
    expected = {**values, "teacher": "configs/teacher.cfg"}
    assert make_record(project)["project"]["vars"] == expected


def test_record_reads_what_weasel_writes(project: Path) -> None:
    path = project / "project.yml"
    text = PROJECT.replace('"annotate ', '"python -c pass ')
    path.write_text(f"title: x\n{text}", "utf8")
    command = [sys.executable, "-m", "weasel", "run", "annotate", "."]
    subprocess.run([*command, "--vars.llm", "gpt-5"], cwd=project, check=True)
    assert make_record(project)["project"]["vars"]["llm"] == "gpt-5"


def test_record_has_no_texts_of_the_gold(project: Path) -> None:
    dumped = json.dumps(make_record(project)["scores"])
    assert "a text" not in dumped
    assert "spans" not in dumped


def test_half_a_run_is_recorded(tmp_path: Path) -> None:
    assert set(make_record(tmp_path)) == {"created", "versions", "system"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("project.yml", "vars: [}"),
        ("project.lock", "- a list"),
        ("corpus/annotated.meta.json", "{"),
        ("training/metrics/student.json", ""),
    ],
)
def test_broken_file_is_named(name: str, text: str, project: Path) -> None:
    (project / name).write_text(text, "utf8")
    with pytest.raises(InstaNERError, match=Path(name).name):
        make_record(project)


SECRETS = [
    "sk-abcdef-0123456789",
    "a-key-without-a-form",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    "hf_abcdefghijklmnop0123",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_record_never_has_a_key(
    secret: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ODDLY_NAMED", "what-weasel-put-in")
    text = (project / "project.yml").read_text("utf8")
    text = text.replace(
        "vars:", f'env:\n  k: ODDLY_NAMED\nvars:\n  api_key: "{secret}"'
    )
    (project / "project.yml").write_text(text, "utf8")
    line = f"run {KEY} what-weasel-put-in {secret} --model.api_key other-secret"
    srsly.write_yaml(project / "project.lock", {"annotate": {"script": [line]}})
    with (project / "configs/teacher.cfg").open("a", encoding="utf8") as file_:
        file_.write(
            f'api_key = "cfg-secret"\nurl = "http://u:url-secret@host"\n# {KEY}\n'
        )
    overrides = {"overrides": {"components.llm.model.api_key": "short"}, KEY: 1}
    overrides["note"] = "Authorization: Bearer bearer-secret"
    srsly.write_json(project / "corpus/x.meta.json", overrides)
    dumped = json.dumps(make_record(project))
    values = [KEY, secret, "what-weasel-put-in", "other-secret", "cfg-secret"]
    for value in [*values, "url-secret", "short", "bearer-secret"]:
        assert value not in dumped
    assert "[hidden]" in dumped


@pytest.mark.parametrize(
    "line",
    [
        'authorization = "Basic WORD"',
        'api_key = "WORD with spaces"',
        'key = "WORD"  # mine',
        "token: WORD",
        'url = "https://WORD@host/v1"',
        'url = "https://host/v1?key=WORD"',
        'dbpassword: "WORD"',
        '{"api_keys": ["WORD"]}',
        "header = Authorization: Basic WORD",
    ],
)
def test_key_of_any_form_is_hidden(line: str, project: Path) -> None:
    (project / "configs/teacher.cfg").write_text(
        line.replace("WORD", "hushhush"), "utf8"
    )
    assert "hushhush" not in json.dumps(make_record(project))


def test_what_is_no_key_is_not_hidden(project: Path) -> None:
    text = """
key_variable = "OPENAI_API_KEY"
max_tokens = 4000
tokens_per_minute = 100000
description = "The key: understanding of a password authentication by token"
"""
    (project / "configs/teacher.cfg").write_text(text, "utf8")
    (project / "assets/monkey").write_text("bananas")
    assert os.environ.get("OPENAI_API_KEY") != "OPENAI_API_KEY"
    assert "[hidden]" not in json.dumps(make_record(project))


def test_own_project_has_nothing_to_hide() -> None:
    assert "[hidden]" not in json.dumps(make_record(ROOT))


def test_files_of_others_are_not_recorded(project: Path) -> None:
    other = project.parent / "other.txt"
    other.write_text("private", "utf8")
    with (project / "configs/teacher.cfg").open("a", encoding="utf8") as file_:
        file_.write(f'template = "{other}"\nexamples = "../other.txt"\n')
    assert "private" not in json.dumps(make_record(project)["inputs"])


def test_runs_are_compared(project: Path) -> None:
    _run(project)
    keep_record(project, "first")
    text = TEACHER.replace("seed = 7", "seed = 8")
    (project / "configs/teacher.cfg").write_text(text, "utf8")
    lock = (project / "project.lock").read_text("utf8")
    (project / "project.lock").write_text(lock.replace("gpt-4o", "gpt-5"), "utf8")
    (project / "corpus/generated.jsonl").unlink()
    (project / "corpus/more.jsonl").write_text("{}\n")
    _write_scores(project, 0.75)
    _run(project)
    records = read_records(project)
    assert list(records) == ["first", CURRENT]
    after: dict[str, Any] = records[CURRENT]
    after["versions"]["spacy"] = "9"
    found = compare_records(records["first"], after)
    assert found["settings"] == {"vars.llm": ("gpt-4o", "gpt-5")}
    lines = ["@@ -7 +7 @@", "-seed = 7", "+seed = 8"]
    assert found["texts"] == {"configs/teacher.cfg": lines}
    assert found["hashes"] == {
        "corpus/generated.jsonl": "gone",
        "corpus/more.jsonl": "new",
    }
    assert [new for _, new in found["versions"].values()] == ["9"]
    assert found["scores"]["student F1"] == (0.5, 0.75)
    assert found["scores"]["student F1 PLANT"] == (0.5, 0.75)


def test_run_is_kept_whole(project: Path) -> None:
    _run(project)
    (project / "training/report").mkdir()
    (project / "training/report/index.html").write_text("<p>", "utf8")
    folder = keep_record(project, "a-1")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert files == [
        "metrics/comparison.json",
        "metrics/student.json",
        "report/index.html",
        "run.json",
    ]
    assert find_record(project, "a-1") == find_record(project, CURRENT)
    assert find_record(project, str(folder)) == find_record(project, CURRENT)


def test_kept_run_is_not_overwritten(project: Path) -> None:
    _run(project)
    keep_record(project, "a")
    with pytest.raises(InstaNERError, match="kept already"):
        keep_record(project, "a")


def test_run_that_cannot_be_copied_leaves_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError("No space left")

    _run(project)
    monkeypatch.setattr("shutil.copytree", fail)
    with pytest.raises(InstaNERError, match="No space left"):
        keep_record(project, "a")
    assert not list((project / "training/runs").iterdir())


@pytest.mark.parametrize("name", ["", "../a", ".a", "a/b", CURRENT])
def test_run_needs_a_name(name: str, project: Path) -> None:
    _run(project)
    with pytest.raises(InstaNERError, match="cannot be called"):
        keep_record(project, name)


def test_vars_are_those_of_the_project_file() -> None:
    project = srsly.read_yaml(ROOT / "project.yml")
    assert set(make_record(ROOT)["project"]["vars"]) == set(project["vars"])
