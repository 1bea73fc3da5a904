from pathlib import Path

import pytest
import srsly
from typer.testing import CliRunner

from instaner.cli import app

from .conftest import Report

pytest.importorskip("matplotlib")


def _write(path: Path, report: Report) -> list[str]:
    srsly.write_json(path / "comparison.json", report["comparison"])
    srsly.write_json(path / "curve.json", report["curve"])
    return ["report", str(path / "comparison.json"), str(path / "report")]


def test_report_says_the_verdict(report: Report, tmp_path: Path) -> None:
    args = _write(tmp_path, report)
    srsly.write_json(tmp_path / "annotated.meta.json", {"texts": 948})
    args += ["--corpus", str(tmp_path / "annotated")]
    args += ["--curve", str(tmp_path / "curve.json"), "--title", "Now?"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert "Keep the LLM for now: the student’s F1 is 0.174 below" in result.output
    page = (tmp_path / "report" / "index.html").read_text("utf8")
    assert "<title>Now?</title>" in page
    assert "948 annotated texts" in page
    assert "More texts would still help" in page


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
