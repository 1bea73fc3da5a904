import inspect
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import srsly
from click.testing import Result
from typer.testing import CliRunner

from instaner.cli import app

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training").mkdir()
    return lambda *args: CliRunner().invoke(app, list(args))


def _write_run(f: float, *, day: int = 1, **values: Any) -> None:
    scores = {
        "student": {"ents_f": f, "ents_p": f, "ents_r": f},
        "curve": {"fit": None},
    }
    record = {"created": f"2026-01-0{day}T10:00:00+00:00", "scores": scores, **values}
    srsly.write_json("training/run.json", record)


def _check_one_line(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


def test_runs_are_listed_with_what_changed(run: Run) -> None:
    _write_run(0.5, versions={"spacy": "1"}, configs={"a.cfg": "x"})
    assert run("runs", "--keep", "first").exit_code == 0
    _write_run(0.75, day=2, versions={"spacy": "2"}, configs={"a.cfg": "y"})
    head, _, first, current = run("runs").stdout.strip().splitlines()
    assert head.split() == ["run", "when", "(UTC)", "F1", "student", "changed"]
    assert first.split() == ["first", "2026-01-01T10:00", "0.500", "–"]
    assert current.startswith("current   2026-01-02T10:00")
    assert current.rstrip().endswith("0.750   a.cfg, versions: 1")


def test_runs_are_compared(run: Run) -> None:
    _write_run(0.75, configs={"a.cfg": "seed = 0"}, project={"vars": {"llm": "a"}})
    run("runs", "--keep", "first")
    _write_run(0.5, day=2, configs={"a.cfg": "seed = 1"}, hashes={"b": "0"})
    result = run("runs", "first", "training/run.json")
    assert result.exit_code == 0
    for words in ("vars.llm: a → –", "-seed = 0", "+seed = 1", "b: new", "-0.250"):
        assert words in result.stdout
    same = run("runs", "first", "training/runs/first")
    assert "Nothing changed." in same.stdout
    assert "+0.000" in same.stdout


def test_runs_of_categories_are_listed_and_compared(run: Run) -> None:
    for day, f in ((1, 0.5), (2, 0.75)):
        _write_run(f, day=day)
        record = srsly.read_json("training/run.json")
        record["scores"]["student"] = {
            **{f"cats_micro_{key}": f for key in "prf"},
            "cats_macro_f": f,
            "cats_balanced_acc": f,
            "cats_f_per_type": {"RETURN": {"f": f}},
        }
        record["scores"]["several"] = {**dict.fromkeys(("cats_micro_f",), f)}
        srsly.write_json("training/run.json", record)
        if day == 1:
            run("runs", "--keep", "first")
    head, _, *_, current = run("runs").stdout.strip().splitlines()
    assert "accuracy student   F1 several   changed" in head
    assert current.split()[2:4] == ["0.750", "0.750"]
    rows = run("runs", "first", "current").stdout.splitlines()
    names = ["accuracy", "macro F1", "F1 RETURN"]
    assert [row.split("  ")[0] for row in rows if row.startswith("student")] == [
        f"student {name}" for name in names
    ]
    assert "student accuracy    0.500     0.750       +0.250" in "\n".join(rows)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "No run in . yet"),
        (("--keep", "a"), "run.json not found"),
        (("a", "current"), 'No run "a"'),
        (("a",), "Give two runs"),
        (("a", "b", "--keep", "c"), "Either"),
    ],
)
def test_mistakes_are_one_line(args: tuple[str, ...], words: str, run: Run) -> None:
    _check_one_line(run("runs", *args), words)


@pytest.mark.parametrize("text", ["{", "[]", "", "{}", '{"created": "x", "scores": 1}'])
def test_broken_record_is_one_line(text: str, run: Run) -> None:
    Path("training/run.json").write_text(text, "utf8")
    _check_one_line(run("runs"), "training/run.json")
    _check_one_line(run("runs", "--keep", "a"), "training/run.json")


CARD = "---\ntags: [spacy]\n---\n\n# Äpfel\n"


def _write_wheel(card: str = CARD) -> str:
    name = "en_x-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(name, "w") as file_:
        text = f"Metadata-Version: 2.4\nName: en_x\n\n{card}\n"
        file_.writestr("en_x-0.1.0.dist-info/METADATA", text)
    return name


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was pushed to a hub that is not there."""
    pushed: dict[str, Any] = {}

    def push(
        whl_path: Path,
        namespace: str | None = None,
        commit_msg: str = "",
        *,
        silent: bool = False,
        verbose: bool = False,
    ) -> dict[str, str]:
        if "error" in pushed:
            raise pushed["error"]
        pushed["push"] = (str(whl_path), namespace, commit_msg)
        return {"url": f"https://huggingface.co/{namespace or 'me'}/en_x"}

    class HfApi:
        def upload_file(self, **values: Any) -> None:
            pushed["card"] = values

    for name, values in (
        ("spacy_huggingface_hub", {"push": push}),
        ("huggingface_hub", {"HfApi": HfApi}),
    ):
        module = types.ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return pushed


def test_wheel_is_pushed_with_its_card(run: Run, hub: dict[str, Any]) -> None:
    wheel = _write_wheel()
    result = run("push", wheel, "--org", "explosion", "--message", "Add")
    assert result.exit_code == 0, result.output
    assert "https://huggingface.co/explosion/en_x" in result.stdout
    assert hub["push"] == (wheel, "explosion", "Add")
    assert hub["card"] == {
        "path_or_fileobj": CARD.encode(),
        "path_in_repo": "README.md",
        "repo_id": "explosion/en_x",
        "commit_message": "Add",
    }


def test_wheel_without_our_card_has_the_hubs(run: Run, hub: dict[str, Any]) -> None:
    assert run("push", _write_wheel("A readme")).exit_code == 0
    assert hub["push"][1] is None
    assert "card" not in hub


@pytest.mark.parametrize(
    "error", [OSError("Token is required\nmore"), SystemExit(1), ValueError()]
)
def test_push_that_fails_is_one_line(
    error: BaseException, run: Run, hub: dict[str, Any]
) -> None:
    hub["error"] = error
    _check_one_line(run("push", _write_wheel()), "cannot be pushed", "hf auth login")


def test_push_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy_huggingface_hub", None)
    _check_one_line(run("push", _write_wheel()), "pip install")


def test_push_wants_a_wheel(run: Run, hub: dict[str, Any]) -> None:
    Path("a.whl").write_text("no wheel", "utf8")
    _check_one_line(run("push", "a.whl"), "a.whl is no wheel")
    _check_one_line(run("push", "b.whl"), "not found")


def test_push_fits_the_real_package() -> None:
    hub = pytest.importorskip("spacy_huggingface_hub")
    signature = inspect.signature(hub.push)
    signature.bind(Path("x.whl"), namespace=None, commit_msg="", silent=True)
    upload = pytest.importorskip("huggingface_hub").HfApi.upload_file
    names = {"path_or_fileobj", "path_in_repo", "repo_id", "commit_message"}
    assert names <= set(inspect.signature(upload).parameters)
