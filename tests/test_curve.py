import json
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import spacy
import srsly
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from instaner.corpus import PROVENANCE, get_brief, read_docs, write_docs
from instaner.curve import fit_curve, make_curve, parse_shares
from instaner.errors import InstaNERError
from instaner.intervals import Bootstrap

from .conftest import ROOT

curve_module = import_module("instaner.curve")

# configs/student_cnn.cfg, smaller and shorter.
_SMALL = {
    "components.ner.model.hidden_width": 16,
    "components.ner.model.tok2vec.embed.width": 16,
    "components.ner.model.tok2vec.embed.rows": [50, 50, 50, 50],
    "components.ner.model.tok2vec.encode.width": 16,
    "components.ner.model.tok2vec.encode.depth": 1,
    "training.max_steps": 5,
    "training.eval_frequency": 5,
    "training.logger.console_output": False,
}
_KILLED = """
import os, signal, sys
from pathlib import Path
import srsly
from instaner.curve import make_curve

settings = srsly.json_loads(sys.argv[1])
paths = {name: Path(settings.pop(name)) for name in ("train", "dev", "gold")}
make_curve(
    Path(settings.pop("config")),
    Path(settings.pop("output")),
    on_point=lambda point: os.kill(os.getpid(), signal.SIGKILL),
    **paths,
    **settings,
)
"""


class Setup(NamedTuple):
    """What a curve is made from."""

    train: Path
    gold: Path

    def get_settings(self, output: Path, **settings: Any) -> dict[str, Any]:
        return {
            "config": ROOT / "configs" / "student_cnn.cfg",
            "output": output,
            "train": self.train,
            "dev": self.gold,
            "gold": self.gold,
            "shares": [50, 20, 100],
            "overrides": _SMALL,
            "resamples": 100,
            **settings,
        }


def _write_corpus(path: Path, number: int) -> Path:
    vocab = Vocab()
    docs = []
    for i in range(number):
        doc = Doc(vocab, words=["my", f"wok{i}", "is", "hot"])
        doc.set_ents([Span(doc, 1, 2, "EQUIPMENT")])
        doc.user_data[PROVENANCE] = {"id": f"t{i}", "brief": f"b{i // 2}"}
        docs.append(doc)
    write_docs(docs, path)
    return path


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(
        _write_corpus(tmp_path / "train.spacy", 20),
        _write_corpus(tmp_path / "gold.spacy", 5),
    )


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Briefs of each training's texts. It is none: the student finds nothing."""
    calls = []

    def train(config: Path, output: Path, *, overrides: Any, **settings: Any) -> None:
        docs = read_docs(Path(overrides["paths.train"]), Vocab())
        calls.append([get_brief(doc) for doc in docs])
        output.mkdir()
        spacy.blank("en").to_disk(output / "model-best")

    monkeypatch.setattr(curve_module, "train_student", train)
    return calls


@pytest.mark.parametrize(
    ("text", "shares"),
    [("10,25,50,100", [10, 25, 50, 100]), ("100", [100]), (" 50 , 5", [5, 50])],
)
def test_shares(text: str, shares: list[int]) -> None:
    assert parse_shares(text) == shares


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", '"0" is no whole percentage'),
        ("10,150", '"150" is no whole percentage'),
        ("ten", '"ten" is no whole percentage'),
        ("-5", '"-5" is no whole percentage'),
        ("2.5", '"2.5" is no whole percentage'),
        ("10,", '"" is no whole percentage'),
        ("²", '"²" is no whole percentage'),
        ("10,50,10", "10 occurs a second time"),
    ],
)
def test_shares_that_are_none_are_named(text: str, message: str) -> None:
    with pytest.raises(InstaNERError, match=message):
        parse_shares(text)


@pytest.fixture
def categories(setup: Setup, tmp_path: Path) -> Setup:
    """Texts of one of two categories each."""
    vocab = Vocab()
    for name, number in (("train", 20), ("gold", 10)):
        docs = []
        for i in range(number):
            doc = Doc(vocab, words=["my", ["wok", "pan"][i % 2], "is", "hot"])
            doc.cats = {"WOK": 1.0 - i % 2, "PAN": float(i % 2)}
            doc.user_data[PROVENANCE] = {"id": f"t{i}", "brief": f"b{i // 2}"}
            docs.append(doc)
        write_docs(docs, tmp_path / f"{name}.spacy")
    return setup


def test_curve_of_categories_is_of_the_accuracy(
    categories: Setup, tmp_path: Path, categorizer_config: Path
) -> None:
    settings = categories.get_settings(
        tmp_path / "curve.json", config=categorizer_config, overrides={}
    )
    stopped = {**settings, "on_point": _raise}
    with pytest.raises(KeyboardInterrupt):
        make_curve(**stopped)
    curve = make_curve(**settings)  # goes on with what was found
    assert [point["cats_micro_f"] for point in curve["points"]] == [1, 1, 1]
    assert (curve["score"], curve["student"]) == ("accuracy", "CNN")
    assert "an accuracy above 0 and below 1; there are 0" in curve["why"]


def _raise(point: dict[str, Any]) -> None:
    raise KeyboardInterrupt


def test_killed_run_goes_on(setup: Setup, tmp_path: Path) -> None:
    output = tmp_path / "metrics" / "curve.json"
    settings = setup.get_settings(output)
    argument = srsly.json_dumps(
        {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    )
    run = subprocess.run(
        [sys.executable, "-c", _KILLED, argument], cwd=ROOT, capture_output=True
    )
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    assert not output.exists()
    (kept_path,) = output.parent.iterdir()
    kept = srsly.read_json(kept_path)
    # A time that no training takes: this point is not made again.
    kept["points"]["20"]["seconds"] = 12345.6
    srsly.write_json(kept_path, kept)

    curve = make_curve(**settings)
    assert [(p["share"], p["texts"]) for p in curve["points"]] == [
        (20, 4),
        (50, 10),
        (100, 20),
    ]
    assert curve["points"][0]["seconds"] == 12345.6
    assert curve["points"][1]["seconds"] < 1000
    assert curve["student"] == "CNN"
    assert json.loads(output.read_text("utf8")) == curve
    assert list(output.parent.iterdir()) == [output]


def test_other_inputs_begin_anew(
    setup: Setup, tmp_path: Path, trainings: list[list[str]]
) -> None:
    output = tmp_path / "curve.json"

    def stop(point: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    for overrides, number in ((_SMALL, 1), (_SMALL, 1), ({"system.seed": 1}, 2)):
        settings = setup.get_settings(output, overrides=overrides, on_point=stop)
        with pytest.raises(KeyboardInterrupt):
            make_curve(**settings)
        assert len(trainings) == number


def test_larger_share_holds_the_smaller_in_whole_briefs(
    setup: Setup, tmp_path: Path, trainings: list[list[str]]
) -> None:
    curve = make_curve(**setup.get_settings(tmp_path / "curve.json"))
    for briefs in trainings:
        assert all(briefs.count(brief) == 2 for brief in briefs)
    small, middle, large = (set(briefs) for briefs in trainings)
    assert small < middle < large
    assert [point["ents_f"] for point in curve["points"]] == [0, 0, 0]
    assert curve["fit"] is None
    assert "F1 above 0 and below 1; there are 0" in curve["why"]


def test_missing_corpus_is_named(setup: Setup, tmp_path: Path) -> None:
    settings = setup.get_settings(tmp_path / "curve.json", train=Path("nowhere.spacy"))
    with pytest.raises(InstaNERError, match="Corpus not found: nowhere.spacy"):
        make_curve(**settings)


def test_transformer_is_told_from_its_config() -> None:
    config = curve_module.read_config(str(ROOT / "configs" / "student.cfg"))
    assert curve_module._name_student(config) == "transformer"


def test_bag_of_words_is_told_from_its_config() -> None:
    model = {"@architectures": "spacy.TextCatBOW.v3"}
    components = {"textcat": {"factory": "textcat", "model": model}}
    assert curve_module._name_student({"components": components}) == "bag of words"
    mixed = {"@architectures": "spacy.TextCatEnsemble.v2", "linear_model": model}
    components["textcat"]["model"] = {**mixed, "tok2vec": {}}
    assert curve_module._name_student({"components": components}) == "CNN"


def _make_counts(*scores: float, texts: int = 200) -> Any:
    """Students with that F1: as many wrong entities as missed ones."""
    rng = np.random.default_rng(0)
    shares = np.full(texts, 1 / texts)
    students = []
    for score in scores:
        right = round(1000 * score)
        tp, fp, fn = (rng.multinomial(n, shares) for n in (right, *[1000 - right] * 2))
        students.append(np.stack([tp, fp, fn, tp], axis=-1))
    return np.stack(students, axis=1)


def test_power_law_is_found() -> None:
    # 1 - F1 = 2 n^-0.5
    numbers = [100, 400, 1600]
    fit, why = fit_curve(numbers, _make_counts(0.8, 0.9, 0.95), Bootstrap(200))
    assert fit is not None
    assert why is None
    assert fit["a"] == pytest.approx(2)
    assert fit["b"] == pytest.approx(0.5)
    assert fit["doubled_texts"] == 3200
    assert fit["doubled_f"] == pytest.approx(1 - 2 * 3200**-0.5)
    low, high = fit["interval"]
    assert 0.9 < low < fit["doubled_f"] < high < 1


@pytest.mark.parametrize(
    ("numbers", "scores", "why"),
    [
        ([10, 20], [0.5, 0.6], "there are 2"),
        ([10, 20, 40], [0.0, 0.6, 0.7], "there are 2"),
        ([10, 20, 40], [0.5, 0.6, 1.0], "there are 2"),
        ([10, 10, 20], [0.5, 0.5, 0.6], "there are 2"),
        ([10, 20, 40], [0.7, 0.6, 0.5], "do not rise"),
    ],
)
def test_without_a_fit_there_is_a_reason(
    numbers: list[int], scores: list[float], why: str
) -> None:
    fit, reason = fit_curve(numbers, _make_counts(*scores), Bootstrap(200))
    assert fit is None
    assert why in str(reason)


def test_formula_is_of_what_is_scored() -> None:
    counts = _make_counts(0.8, 0.9, 0.95)
    fit, _ = fit_curve([100, 400, 1600], counts, Bootstrap(200), score="accuracy")
    assert fit is not None
    assert fit["formula"] == "1 - accuracy = a * n^-b"
