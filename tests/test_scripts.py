import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly

from instaner.corpus import write_docs

from .conftest import ROOT


def test_corpora_of_categories_are_debugged(
    categorizer_config: Path, tmp_path: Path
) -> None:
    nlp = spacy.blank("en")
    docs = []
    for number in range(20):
        doc = nlp(f"where is my parcel {number}")
        doc.cats = [{"PAY": 0.0, "SHIP": 1.0}, {"PAY": 0.67, "SHIP": 0.33}][number % 2]
        docs.append(doc)
    corpora = [tmp_path / "train.spacy", tmp_path / "dev.spacy"]
    for path in corpora:
        write_docs(docs, path)
    output = tmp_path / "debug.txt"
    args = map(str, (categorizer_config, *corpora, output))
    command = [sys.executable, "scripts/debug_data.py", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = output.read_text("utf8")
    assert "Text Classification: 2 label(s)" in found
    # Shares of votes are drawn from, and no error.
    assert "Unsupported values" not in found
    assert "mutually-exclusive" not in found


def test_benchmark_of_the_teacher_measures(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "scripts/bench_teacher.py", "--json", str(output)]
    sizes = ["--prompts", "40", "--many", "80", "--stock", "2", "--in-flight", "20"]
    done = subprocess.run(
        [*command, *sizes],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    found = json.loads(output.read_text("utf8"))
    # So few prompts are mostly start and end: the targets are for 2,000.
    assert ("MISSED" in done.stdout) == (done.returncode == 1), done.stderr
    assert found["stock_answers_per_second"] < 5.5
    assert found["answers_per_second"] > 5 * found["stock_answers_per_second"]
    assert found["ideal_per_second"] == 100
    assert found["straggler_ratio"] < 1.3
    assert found["memory_ratio"] < 1.2


def _run_votes(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "scripts/bench_votes.py", *args],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


def test_benchmark_of_the_votes_measures(tmp_path: Path) -> None:
    texts = [f"{name} lives in Rome ." for name in ("Ann", "Bob", "Cem", "Dora")] * 5
    rows: list[dict[str, Any]] = [
        {
            "text": text,
            "n_samples": 5,
            # All agree on people; on the town, which is right, they seldom do.
            "votes": [[text.split()[0], "PERSON", 5], ["Rome", "PLACE", 1]],
            "gold": {text.split()[0]: "PERSON", "Rome": "PLACE"},
        }
        for text in texts
    ]
    srsly.write_jsonl(tmp_path / "train_votes.jsonl", rows)
    srsly.write_jsonl(tmp_path / "test_gold.jsonl", rows[:4])
    output = tmp_path / "votes.json"
    sizes = ["--steps", "60", "--seeds", "2"]
    sizes += ["--only", "majority", "--only", "majority, rest missing"]
    done = _run_votes(str(tmp_path), "--json", str(output), *sizes)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text("utf8"))
    assert set(found) == {"majority", "majority, rest missing"}
    plain = found["majority"]
    assert len(plain["f1_runs"]) == 2
    # Every student learns the people, and none a town that is said to be no entity.
    assert plain["recall_runs"] == [0.5, 0.5]
    assert plain["precision_runs"] == [1.0, 1.0]
    assert plain["f1_mean"] == pytest.approx(2 / 3)


def test_benchmark_of_the_votes_wants_data(tmp_path: Path) -> None:
    done = _run_votes(str(tmp_path))
    assert done.returncode == 1
    assert "has neither train_votes.jsonl nor" in done.stderr


def _tag(sentence: str, **labels: str) -> dict[str, Any]:
    tokens = sentence.split()
    tags = [f"B-{labels[token]}" if token in labels else "O" for token in tokens]
    return {"sentence": sentence, "tokens": tokens, "labels": tags}


def test_benchmark_of_generated_texts_measures(tmp_path: Path) -> None:
    names = ["Alien", "Brazil", "Casablanca", "Dracula"]
    rows = [_tag(f"who is in {name}", **{name: "Title"}) for name in names] * 5
    for name in ("synthetic_simple", "synthetic_diverse_corrected", "test_gold"):
        srsly.write_jsonl(tmp_path / f"{name}.jsonl", rows)
    content = (
        '1. "who is in Alien"\nNamed Entities: [Alien (title)]\n\n'
        "2. is Brazil good?\n"
        "   Named Entities: [Brazil (Title), good (Mood), Rio (Title)]"
    )
    response = {"choices": [{"message": {"content": content}}]}
    srsly.write_jsonl(tmp_path / "raw_api_responses.jsonl", [[{}, response]])
    output = tmp_path / "bench.json"
    command = [sys.executable, "scripts/bench_generated.py", str(tmp_path)]
    command += ["--student", "cnn", "--steps", "40", "--seeds", "1"]
    done = subprocess.run(
        [*command, "--json", str(output)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text("utf8"))
    assert found["synthetic_simple"]["f1_mean"] > 0.8
    assert found["raw_api_responses"] == {
        "texts": 2,
        "statuses": {"exact": 2, "unknown label": 1, "not in text": 1},
    }


def test_benchmark_of_generated_texts_names_missing_data(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/bench_generated.py", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "synthetic_simple.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_case_study_reads_labels_and_trains_on_them(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    labels = ["positive", "neutral", "negative"]
    columns = ["label_llm", "label_llm_cot", "label_llm_cot_multiple"]
    samples = ["sc_iter1", "sc_iter2", "sc_iter3"]

    def write(name: str, n: int, wrong: int) -> None:
        with (tmp_path / f"{name}.csv").open("w", encoding="utf8", newline="") as file_:
            fields = ["text", "label_experts", *columns, *samples]
            writer = csv.DictWriter(file_, fields)
            writer.writeheader()
            for k in range(n):
                row = dict.fromkeys(fields, labels[k % 3])
                row["text"] = f"Profit number {k} was {labels[k % 3]}, they say."
                row["label_llm"] = "Neutral " if k < wrong else labels[k % 3]
                row["sc_iter3"] = "cannot be labelled"
                writer.writerow(row)

    write("train_mixtral", 60, 0)
    names = ["mixtral", "gpt-3.5-turbo-0613", "gpt-3.5-turbo-0125"]
    for name in [*names, "gpt-4-0125-preview"]:
        write(f"test_{name}", 12, 3)  # one of three is neutral
    config = (ROOT / "configs" / "textcat.cfg").read_text("utf8")
    config = re.sub(r"max_steps = \d+", "max_steps = 4", config)
    config = re.sub(r"eval_frequency = \d+", "eval_frequency = 2", config)
    (tmp_path / "textcat.cfg").write_text(config, "utf8")
    output = tmp_path / "rows.json"
    command = [sys.executable, "scripts/case_study.py", str(tmp_path), "--layers", "2"]
    command += ["--config", str(tmp_path / "textcat.cfg"), "--seeds", "0,1"]
    command += ["--encoder", str(tiny_encoder), "--prompts", "majority,soft"]
    command += ["--output", str(tmp_path / "students"), "--json", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text("utf8"))
    assert [(row["system"], row["prompt"]) for row in rows[:3]] == [
        ("Mixtral-8x7B", prompt) for prompt in ("plain", "reasoning", "majority")
    ]
    assert rows[0]["accuracy"] == pytest.approx(10 / 12)
    assert rows[1]["accuracy"] == rows[1]["macro_f1"] == 1
    students = rows[12:]
    assert [row["prompt"] for row in students] == ["majority", "soft"]
    for row in students:
        assert len(row["runs"]) == 2
        assert row["accuracy"] == pytest.approx(sum(row["runs"]) / 2)
        assert row["sentences_per_second"] > 0
    assert students[1]["less_majority"]["low"] <= students[1]["less_majority"]["high"]


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="needs Chromium, as `chromium` on the path"
)
def test_benchmark_of_the_review_page_measures(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "scripts/bench_review.py", "--json", str(output)]
    done = subprocess.run(
        [*command, "--n", "300", "--decisions", "5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    # Beside other tests a target may be missed.
    assert ("MISSED" in done.stdout) == (done.returncode == 1), done.stderr
    found = json.loads(output.read_text("utf8"))
    assert (found["texts"], found["decisions"]) == (300, 5)
    assert 0 < found["next_seconds_median"] <= found["next_seconds_max"]
    assert 50 < found["peak_mb"] < 2000
