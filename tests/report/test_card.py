import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly

from instaner.cli.push import _read_card
from instaner.report.card import make_body, make_card, make_performance

from ..conftest import ROOT
from .conftest import Report

META = {
    "lang": "en",
    "name": "garden",
    "version": "0.1.0",
    "license": "GNU GPL 3.0",
    "description": "Plants",
    "spacy_version": ">=3.8",
    "labels": {"ner": ["PLANT", "TOOL"]},
}


def _score(f: float | None) -> dict[str, Any]:
    scores = {"p": f, "r": f, "f": f}
    interval = {key: [0.1, 0.9] for key in scores}
    per_type = {label: {**scores, "interval": interval} for label in ("PLANT", "TOOL")}
    micro = {f"ents_{key}": value for key, value in scores.items()}
    return {**micro, "interval": interval, "ents_per_type": per_type}


def _make_comparison(*, silver: bool = False, f: float | None = 0.75) -> dict[str, Any]:
    verdict = {"decision": "undecided", "reason": "320 more texts would decide."}
    paired = {"difference": -0.05, "interval": [-0.1, 0.01], "p_value": 0.2}
    teacher = {**_score(0.8), "answers": {"model": "gpt-4o"}}
    return {
        "gold": {"texts": 144, "entities": 1234, "silver": silver},
        "labels": ["PLANT", "TOOL"],
        "support": {"PLANT": 80, "TOOL": 70},
        "reference": "teacher",
        "student": "student",
        "rules": {"confidence": 0.95},
        "systems": {"teacher": teacher, "student": _score(f)},
        "paired": {"student": {"all": paired}},
        "verdict": {"student": {"all": verdict, "per_type": {"PLANT": verdict}}},
    }


RECORD = {
    "created": "2026-01-01T00:00:00+00:00",
    "project": {"vars": {"teacher_license": "Ask the provider"}},
    "inputs": {"assets/labels.yml": "PLANT: A plant | or two\n"},
    "steps": {
        "corpus/annotated": {
            "texts": 900,
            "samples": 2,
            "bills": [{"model": "gpt-4o-mini"}],
            "agreement": {"f1": 0.9, "alpha": None},
            "disputed_share": 0.051,
        },
        "corpus/generated": {"texts": 1000, "briefs": 88, "bills": []},
        "corpus/split": {"train": 800, "dev": 100, "test": 144},
    },
    "versions": {"spacy": "3.8.18"},
}


def _read_block(card: str) -> dict[str, Any]:
    _, block, _ = card.split("---\n", 2)
    return dict(srsly.yaml_loads(block))


def test_card_says_what_the_student_is_worth() -> None:
    card = make_card(META, _make_comparison(), RECORD)
    for words in (
        "# en_garden\n",
        "pip install en_garden-0.1.0-py3-none-any.whl",
        'spacy.load("en_garden")',
        "| PLANT | A plant \\| or two |",
        "144 test texts with 1,234 entities",
        "95 % interval",
        "| **all** | 1,234 | 0.750 (0.100 to 0.900) |",
        "0.800 (0.100 to 0.900) | undecided |",
        "−0.050 (−0.100 to +0.010)",
        "320 more texts would decide.",
        "1,000 texts from 88 briefs",
        "gpt-4o-mini: 900 texts, 2 answers to each",
        "F1 of 0.900.",
        "5.1 % of the spans",
        "Trained on 800 texts, chosen on 100, tested on 144",
        "Ask the provider",
        "| spacy, in training | 3.8.18 |",
    ):
        assert words in card
    assert "silver" not in card


def test_metadata_is_that_of_spacys_pipelines_on_the_hub() -> None:
    block = _read_block(make_card(META, _make_comparison()))
    assert block["tags"] == ["spacy", "token-classification"]
    assert block["language"] == ["en"]
    assert block["license"] == "gpl-3.0"
    (index,) = block["model-index"]
    assert index["name"] == "en_garden"
    (result,) = index["results"]
    assert result["task"] == {"name": "NER", "type": "token-classification"}
    assert result["metrics"] == [
        {"name": "NER Precision", "type": "precision", "value": 0.75},
        {"name": "NER Recall", "type": "recall", "value": 0.75},
        {"name": "NER F Score", "type": "f_score", "value": 0.75},
    ]


SUPPORT = {"lang": "en", "name": "support", "version": "1", "labels": {"textcat": []}}


@pytest.mark.parametrize(
    ("report", "metrics", "words"),
    [
        (
            "categories",
            ["Accuracy accuracy", "Macro F Score f_score"],
            "60 test texts, each of one category; of all of them",
        ),
        (
            "several",
            [
                "Precision precision",
                "Recall recall",
                "F Score f_score",
                "Macro F Score f_score",
            ],
            "60 test texts with 100 categories.",
        ),
    ],
    indirect=["report"],
)
def test_card_of_categories(report: Report, metrics: list[str], words: str) -> None:
    comparison = {**report["comparison"], "corpus": report["corpus"]}
    card = make_card(SUPPORT, comparison)
    block = _read_block(card)
    assert block["tags"] == ["spacy", "text-classification"]
    (result,) = block["model-index"][0]["results"]
    assert result["task"] == {"name": "TEXTCAT", "type": "text-classification"}
    found = [f"{m['name']} {m['type']}" for m in result["metrics"]]
    assert found == [f"TEXTCAT {metric}" for metric in metrics]
    student = comparison["systems"]["student"]
    ece = student["calibration"]["ece"]
    for part in (
        "sorts texts into categories",
        "print(doc.cats)",
        words,
        f"| **all** | {comparison['gold']['entities']} | {student['cats_micro_p']:.3f}",
        f"| RETURN | {comparison['support']['RETURN']} |",
        f"calibration error (ECE) {ece:.3f}.",
        "948 texts",
        "7.6 % of the categories",
    ):
        assert part in card
    assert "entit" not in card
    performance = make_performance(comparison)
    assert performance["cats_micro_f"] == student["cats_micro_f"]
    assert performance["cats_f_per_type"]["RETURN"].keys() == {*"prf"}


def test_card_of_categories_without_scores() -> None:
    card = make_card(SUPPORT, {})
    assert _read_block(card)["tags"] == ["spacy", "text-classification"]
    assert "print(doc.cats)" in card


def test_every_silver_figure_is_marked() -> None:
    comparison = _make_comparison(silver=True)
    card = make_card(META, comparison)
    (index,) = _read_block(card)["model-index"]
    assert all("silver" in m["name"] for m in index["results"][0]["metrics"])
    (head,) = (line for line in card.splitlines() if line.startswith("| label | ent"))
    assert head.count("silver") == 6
    assert "Student less teacher, F1, silver: −0.050" in card
    assert "The verdict, silver:" in card
    assert make_performance(comparison)["silver"] is True


@pytest.mark.parametrize("comparison", [{}, {"systems": {}, "student": "x"}])
def test_card_does_without_scores_and_record(comparison: dict[str, Any]) -> None:
    card = make_card({"lang": "xx", "name": "n", "version": "1"}, comparison)
    assert "made without scores" in card
    assert "model-index" not in card
    assert _read_block(card)["language"] == ["multilingual"]
    assert make_performance(comparison) == {}


def test_scores_that_are_not_defined_are_a_dash() -> None:
    comparison = _make_comparison(f=None)
    assert "| **all** | 1,234 | – | – | – |" in make_card(META, comparison)
    assert make_performance(comparison) == {}


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[a](http://b.c)", r"\[a\](http&#58;//b.c)"),
        ("www.b.c *x* `y` __z__ ~", r"www&#46;b.c \*x\* \`y\` \_\_z\_\_ \~"),
        ("# a\n# b", r"\# a # b"),
        ("---", r"\---"),
        ("1. first", r"1\. first"),
        ("1.5 apples & snake_case", "1.5 apples &amp; snake_case"),
        ("a | b \\", r"a \| b \\"),
    ],
)
def test_text_is_text_in_the_card(text: str, escaped: str) -> None:
    lines = make_body({**META, "description": text}, {}).splitlines()
    assert lines[2] == escaped


def test_text_is_text_in_the_metadata() -> None:
    license_ = "mit\n---\ntags: [x]"
    block = _read_block(make_card({**META, "license": license_}, {}))
    assert block["license"] == "mit\n---\ntags:-[x]"
    assert block["tags"] == ["spacy", "token-classification"]


def test_package_has_the_card_and_the_scores(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PLANT", "pattern": "hoe"}])
    nlp.meta["performance"] = {"ents_f": 0.1, "cats_score": 0.3, "ner_loss": 2.0}
    model = tmp_path / "student" / "model-best"
    model.parent.mkdir()
    nlp.to_disk(model)
    srsly.write_json(tmp_path / "comparison.json", _make_comparison(silver=True))
    srsly.write_json(tmp_path / "run.json", RECORD)
    done = _package(
        tmp_path,
        *("--comparison", str(tmp_path / "comparison.json")),
        *("--record", str(tmp_path / "run.json")),
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "packages" / "en_garden-0.1.0"
    card = (folder / "README.md").read_text("utf8")
    assert _read_block(card)["model-index"]
    (wheel,) = folder.glob("dist/*.whl")
    with zipfile.ZipFile(wheel) as file_:
        inner = file_.read("en_garden/en_garden-0.1.0/README.md").decode("utf8")
        meta = json.loads(file_.read("en_garden/en_garden-0.1.0/meta.json"))
    assert card.endswith(f"---\n\n{inner}")
    pushed = _read_card(wheel)
    assert pushed is not None
    assert pushed.decode("utf8") == card
    assert meta["performance"]["ents_f"] == 0.75
    assert meta["performance"]["ner_loss"] == 2.0
    assert meta["performance"]["cats_score"] == 0.3  # not what was measured
    assert meta["performance"]["silver"] is True


def test_package_wants_scores_of_its_student(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    spacy.blank("en").to_disk(tmp_path / "student" / "model-best")
    srsly.write_json(tmp_path / "comparison.json", _make_comparison())
    path = str(tmp_path / "comparison.json")
    done = _package(tmp_path, "--comparison", path, "--student", "studnet")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert 'no scores of "studnet", but of teacher, student' in line


def _package(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "scripts/package.py"]
    command += [str(folder / "student/model-best"), str(folder / "packages")]
    command += ["--name", "garden", "--version", "0.1.0", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
