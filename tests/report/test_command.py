from pathlib import Path

import pytest
import spacy
import srsly
from typer.testing import CliRunner

from instaner.cli import app
from instaner.corpus import write_docs

from .conftest import Report

pytest.importorskip("matplotlib")


def _write(path: Path, report: Report) -> list[str]:
    srsly.write_json(path / "comparison.json", report["comparison"])
    srsly.write_json(path / "curve.json", report["curve"])
    return ["report", str(path / "comparison.json"), str(path / "report")]


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        ("whole", "the student’s F1 is 0.174 below"),
        ("categories", "the student’s accuracy is 0.283 below"),
    ],
    indirect=["report"],
)
def test_report_says_the_verdict(report: Report, tmp_path: Path, verdict: str) -> None:
    args = _write(tmp_path, report)
    srsly.write_json(tmp_path / "annotated.meta.json", {"texts": 948})
    args += ["--corpus", str(tmp_path / "annotated")]
    args += ["--curve", str(tmp_path / "curve.json"), "--title", "Now?"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert f"Keep the LLM for now: {verdict}" in result.output
    page = (tmp_path / "report" / "index.html").read_text("utf8")
    assert "<title>Now?</title>" in page
    assert "948 annotated texts" in page
    assert "More texts would still help" in page


def test_report_reckons_costs_and_records_the_run(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training").mkdir()
    (tmp_path / "project.yml").write_text("vars:\n  seed: 7\n", "utf8")
    (tmp_path / "report.cfg").write_text(
        '[costs]\npriced_as = "gpt-4o-mini"\nusd_per_hour = 1.0\n', "utf8"
    )
    bill = {"model": None, "answers": 10, "stored": 0, "cost": None}
    bill.update(prompt_tokens=10_000, completion_tokens=1_000)
    srsly.write_json("annotated.meta.json", {"texts": 948, "bills": [bill]})
    student = report["comparison"]["student"]
    source = Path("training") / "student" / "model-best"
    report["comparison"]["systems"][student]["source"] = str(source)
    srsly.write_json("training/student.meta.json", {"seconds": 36})
    args = [*_write(tmp_path, report), "--corpus", "annotated"]
    args += ["--config", "report.cfg", "--record", "training/run.json"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    found = srsly.read_json("report/comparison.json")
    assert found["costs"]["made"]["usd"] == pytest.approx(0.01 + 0.0021)
    assert found["costs"]["break_even"]["texts"] > 0
    assert found["run"]["project"]["vars"] == {"seed": 7}
    assert srsly.read_json("training/run.json") == found["run"]


@pytest.mark.parametrize(
    ("text", "args", "message"),
    [
        ("{", [], "is no comparison"),
        ("[1]", [], "is no comparison"),
        ("{}", [], "names no systems"),
        ("{}", ["--generated", "texts.jsonl"], "give --corpus too"),
        ("{}", ["--corpus", "nowhere"], "Account of the step not found"),
    ],
)
def test_report_of_something_else(
    report: Report, tmp_path: Path, text: str, args: list[str], message: str
) -> None:
    command = _write(tmp_path, report)
    (tmp_path / "comparison.json").write_text(text)
    result = CliRunner().invoke(app, [*command, *args])
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "report").exists()


def _write_gold(folder: Path, text: str, *ents: tuple[str, str]) -> None:
    """A gold text, what one system found there, and that another found nothing."""
    nlp = spacy.blank("en")
    doc, other = nlp(text), nlp(text)
    starts = [text.index(surface) for surface, _ in ents]
    doc.ents = [
        doc.char_span(start, start + len(surface), label=label)
        for start, (surface, label) in zip(starts, ents, strict=True)
    ]
    other.ents = []
    for name, found in (("gold", doc), ("a", doc), ("b", other)):
        write_docs([found], folder / f"{name}.spacy")


@pytest.mark.parametrize(
    ("text", "ents"),
    [
        ("Nothing here.", []),
        ("A wok.", [("wok", "TOOL")]),
        ("Eine Pfanne, bitte.", [("Pfanne", "GERÄT")]),
        ("鍋 が好き", [("鍋", "道具")]),
        ("<script>alert(1)</script> wok", [("wok", "<b>TOOL</b>")]),
        ("a\u0301 🍳 \u202e wok\r\n", [("🍳", 'T"O&O`L|')]),
    ],
)
def test_any_gold_makes_a_page(
    tmp_path: Path, text: str, ents: list[tuple[str, str]]
) -> None:
    _write_gold(tmp_path, text, *ents)
    systems = [str(tmp_path / f"{name}.spacy") for name in "ab"]
    gold = ["--gold", str(tmp_path / "gold.spacy"), "--output", str(tmp_path / "m")]
    result = CliRunner().invoke(app, ["evaluate", *systems, *gold])
    assert result.exit_code == 0, result.output
    comparison = str(tmp_path / "m" / "comparison.json")
    result = CliRunner().invoke(app, ["report", comparison, str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "r" / "index.html").read_text("utf8")
    assert "<script" not in page
    for bad in ("None", "nan", "<b>TOOL"):
        assert bad not in page
    markdown = (tmp_path / "r" / "report.md").read_text("utf8")
    assert "<b>" not in markdown
