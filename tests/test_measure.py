import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.pipeline import EntityRuler
from spacy.training import Example
from spacy.util import import_file

from instaner.errors import InstaNERError
from instaner.measure import measure

measure_module = import_module("instaner.measure")

_TEXTS = ["My wok is full of ramen.", "Nothing here."] * 10
# A component that prints what looks like a result.
_CODE = """
from spacy.language import Language


@Language.component("shouts")
def shout(doc):
    print('{"words_per_second": 0}')
    return doc
"""


def _make_student(nlp: Language, folder: Path) -> Path:
    ruler = nlp.add_pipe("entity_ruler")
    assert isinstance(ruler, EntityRuler)
    ruler.add_patterns([{"label": "EQUIPMENT", "pattern": "wok"}])
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def speed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("speed")
    code = folder / "code.py"
    code.write_text(_CODE, "utf8")
    import_file("measured_code", code)
    nlp = spacy.blank("en")
    nlp.add_pipe("shouts")
    student = _make_student(nlp, folder / "student")
    held = b"what is held here is not the pipeline's" * 25_000_000
    try:
        return measure(str(student), _TEXTS, code=code, seconds=0.2)
    finally:
        del held


def test_speed_is_measured(speed: dict[str, Any]) -> None:
    assert speed["words_per_second"] > 100
    assert 0 < speed["latency_p50"] <= speed["latency_p95"] < 1
    assert speed["texts"] == len(_TEXTS)
    assert speed["load_seconds"] > 0
    assert speed["device"] == "cpu"
    assert 0 < speed["cores"] <= (os.cpu_count() or 1)


def test_memory_is_that_of_the_pipeline_alone(speed: dict[str, Any]) -> None:
    # A gigabyte and a half is held by this process.
    assert 20e6 < speed["peak_memory"] < 1e9


def test_energy_is_told_with_its_method(speed: dict[str, Any]) -> None:
    pytest.importorskip("codecarbon")
    assert 0 < speed["kwh_per_million_words"] < 1
    assert speed["energy_method"].startswith("codecarbon, by the ")


def test_meter_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("codecarbon")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODECARBON_SAVE_TO_FILE", "true")
    monkeypatch.setenv("CODECARBON_OUTPUT_METHODS", "csv,api")
    monkeypatch.setenv("CODECARBON_EMISSIONS_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("CODECARBON_LOG_LEVEL", "debug")
    addresses = []
    monkeypatch.setattr("socket.socket.connect", lambda _, to: addresses.append(to))

    def work() -> int:
        time.sleep(0.2)
        return 1000

    kwh, _ = measure_module._weigh(work, -1)
    assert kwh is not None
    assert addresses == []
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_without_codecarbon_energy_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    kwh, method = measure_module._weigh(lambda: 1, -1)
    assert kwh is None
    assert "pip install codecarbon" in method


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0\n", r"ZeroDivisionError: division by zero \(exit status 0\)"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
            r"its process was ended \(exit status -9\)",
        ),
    ],
)
def test_failed_measurement_has_its_reason(
    tmp_path: Path, code: str, reason: str
) -> None:
    path = tmp_path / "code.py"
    path.write_text(code, "utf8")
    student = _make_student(spacy.blank("en"), tmp_path / "student")
    with pytest.raises(InstaNERError, match=f"student cannot be measured: {reason}"):
        measure(str(student), _TEXTS, code=path)


def test_student_of_categories_is_measured(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    doc = nlp.make_doc(_TEXTS[0])
    nlp.add_pipe("textcat")
    nlp.initialize(lambda: [Example.from_dict(doc, {"cats": {"BILL": 1, "SHIP": 0}})])
    nlp.to_disk(tmp_path / "student")
    speed = measure(str(tmp_path / "student"), _TEXTS[:2], seconds=0.1)
    assert speed["words_per_second"] > 0


def test_missing_pipeline_is_named() -> None:
    with pytest.raises(InstaNERError, match="nowhere not found"):
        measure("nowhere", _TEXTS)


def test_teacher_is_not_asked(tmp_path: Path) -> None:
    config = tmp_path / "teacher.cfg"
    config.write_text(
        '[nlp]\nlang = "en"\npipeline = ["llm"]\n[components]\n'
        '[components.llm]\nfactory = "llm"\n',
        "utf8",
    )
    with pytest.raises(InstaNERError, match="has an llm component"):
        measure(str(config), _TEXTS)


def test_no_texts_are_an_error(tmp_path: Path) -> None:
    student = _make_student(spacy.blank("en"), tmp_path / "student")
    with pytest.raises(InstaNERError, match="no texts to measure"):
        measure(str(student), ["", " "])
