import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from instaner.corpus import read_docs, write_docs
from instaner.encoders import get_encoder
from instaner.errors import InstaNERError
from instaner.train import train

from .conftest import ROOT

train_module = import_module("instaner.train")

# configs/student.cfg, smaller and shorter.
_SMALL = {
    "components.ner.model.hidden_width": 32,
    "training.dropout": 0.0,
    "training.max_steps": 60,
    "training.eval_frequency": 20,
    "training.batcher.size": 20,
    "training.batcher.buffer": 4,
    "training.optimizer.learn_rate.initial_rate": 0.005,
    "training.optimizer.learn_rate.warmup_steps": 5,
    "training.logger.console_output": False,
}
_TEXTS = {
    "my wok is hot": [(1, 2, "EQUIPMENT")],
    "i love pad thai": [(2, 4, "DISH")],
    "pad thai in a wok": [(0, 2, "DISH"), (4, 5, "EQUIPMENT")],
    "thanks a lot": [],
}


_CORPORA = ("train", "dev")


class Setup(NamedTuple):
    """What a training needs."""

    corpus: Path
    encoder: Path

    def train(self, output: Path, **paths: str) -> Language:
        """Train the student on the corpus, with other paths where they are given."""
        values = {
            **_SMALL,
            "paths.train": str(self.corpus),
            "paths.dev": str(self.corpus),
            "paths.encoder": str(self.encoder),
            **{f"paths.{name}": value for name, value in paths.items()},
        }
        return train(ROOT / "configs" / "student.cfg", output, overrides=values)


def _get_ents(nlp: Language) -> list[list[tuple[int, int, str]]]:
    docs = (nlp(text) for text in _TEXTS)
    return [[(ent.start, ent.end, ent.label_) for ent in doc.ents] for doc in docs]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Setup:
    vocab = Vocab()
    docs = []
    for text, ents in _TEXTS.items():
        doc = Doc(vocab, words=text.split())
        doc.set_ents([Span(doc, *ent) for ent in ents])
        docs.append(doc)
    corpus = tmp_path_factory.mktemp("setup") / "docs.spacy"
    write_docs(docs, corpus)
    return Setup(corpus, tiny_encoder)


@pytest.fixture(scope="module")
def trained(
    setup: Setup, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Language, Path]:
    """The last student, and its folder."""
    output = tmp_path_factory.mktemp("trained") / "student"
    return setup.train(output), output


@pytest.fixture
def old_student(tmp_path: Path) -> Path:
    """The folder of an earlier training."""
    student = tmp_path / "student"
    student.mkdir()
    spacy.blank("en").to_disk(student / "model-best")
    return student


def _check_is_whole(student: Path) -> None:
    assert [path.name for path in student.iterdir()] == ["model-best"]
    assert spacy.load(student / "model-best").lang == "en"


def test_student_learns(trained: tuple[Language, Path]) -> None:
    assert _get_ents(trained[0]) == list(_TEXTS.values())


def test_loaded_student_predicts_the_same(trained: tuple[Language, Path]) -> None:
    nlp, output = trained
    assert _get_ents(spacy.load(output / "model-last")) == _get_ents(nlp)


def test_best_student_has_learned(trained: tuple[Language, Path]) -> None:
    nlp = spacy.load(trained[1] / "model-best")
    assert _get_ents(nlp) == list(_TEXTS.values())


def test_student_needs_nothing_of_instaner(trained: tuple[Language, Path]) -> None:
    code = (
        "import sys, spacy\n"
        "sys.modules['instaner'] = None\n"
        f"print(spacy.load({str(trained[1] / 'model-best')!r}).pipe_names)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "['ner']\n", run.stderr


def test_encoder_is_not_read_again(trained: tuple[Language, Path]) -> None:
    # An encoder that is gone: the student has its own copy.
    config = {"components": {"ner": {"model": {"tok2vec": {"name": "gone"}}}}}
    nlp = spacy.load(trained[1] / "model-last", config=config)
    assert _get_ents(nlp) == _get_ents(trained[0])


def test_missing_annotation_is_not_trained_on(setup: Setup, tmp_path: Path) -> None:
    docs = list(read_docs(setup.corpus, Vocab()))
    # Were they taken for texts without entities, they would outvote the annotated.
    missing = [
        Doc(doc.vocab, words=[t.text for t in doc]) for doc in docs for _ in "123"
    ]
    for doc in missing:
        doc.set_ents([], default="missing")
    write_docs([*docs, *missing], tmp_path / "docs.spacy")
    nlp = setup.train(tmp_path / "student", train=str(tmp_path / "docs.spacy"))
    assert _get_ents(nlp) == list(_TEXTS.values())


def test_student_of_categories_learns_and_is_loaded_as_it_was(
    categorizer_config: Path, tmp_path: Path
) -> None:
    labels = ["TOOL", "FOOD", "TOOL", "NONE"]
    docs = []
    for text, label in zip(_TEXTS, labels, strict=True):
        doc = Doc(Vocab(), words=text.split())
        doc.cats = {name: 0.8 if name == label else 0.1 for name in sorted({*labels})}
        docs.append(doc)
    write_docs(docs, tmp_path / "docs.spacy")
    corpora = {f"paths.{name}": str(tmp_path / "docs.spacy") for name in _CORPORA}
    nlp = train(categorizer_config, tmp_path / "student", overrides=corpora)
    cats = [nlp(text).cats for text in _TEXTS]
    assert [max(scores, key=lambda la: scores[la]) for scores in cats] == labels
    loaded = spacy.load(tmp_path / "student" / "model-last")
    for text, scores in zip(_TEXTS, cats, strict=True):
        # The weights that are saved are the averages over the steps.
        assert loaded(text).cats == pytest.approx(scores, abs=0.05)
        assert max(loaded(text).cats.values()) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("name", ["train", "dev"])
def test_corpus_that_is_not_set_is_named(
    setup: Setup, tmp_path: Path, name: str
) -> None:
    message = rf"student.cfg has no {name} corpus: set --paths.{name}"
    with pytest.raises(InstaNERError, match=message):
        setup.train(tmp_path / "student", **{name: ""})


@pytest.mark.parametrize("name", ["train", "dev"])
def test_missing_corpus_is_named(setup: Setup, tmp_path: Path, name: str) -> None:
    with pytest.raises(InstaNERError, match=r"Corpus not found: nowhere.spacy"):
        setup.train(tmp_path / "student", **{name: "nowhere.spacy"})


@pytest.mark.parametrize("words", [None, []])
def test_empty_corpus_is_named(
    setup: Setup, tmp_path: Path, words: list[str] | None
) -> None:
    path = tmp_path / "empty.spacy"
    write_docs([] if words is None else [Doc(Vocab(), words=words)], path)
    with pytest.raises(InstaNERError, match=r"The corpus .*empty.spacy is empty"):
        setup.train(tmp_path / "student", train=str(path))


def test_missing_encoder_is_named(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match='Encoder "no-such-encoder" cannot be'):
        setup.train(tmp_path / "student", encoder="no-such-encoder")


@pytest.mark.parametrize("name", [None, ""])
@pytest.mark.parametrize("lang", ["nl", "xx"])
def test_encoder_that_is_not_set_is_the_one_of_the_language(
    setup: Setup, tmp_path: Path, name: str | None, lang: str
) -> None:
    values = {
        "paths.train": str(setup.corpus),
        "paths.dev": str(setup.corpus),
        "paths.encoder": name,
        "nlp.lang": lang,
    }
    message = f'Encoder "{get_encoder(lang).name}" cannot be loaded'
    with pytest.raises(InstaNERError, match=message):
        train(ROOT / "configs/student.cfg", tmp_path / "student", overrides=values)


def test_missing_tokenizer_of_the_language_is_named(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyvi", None)
    values = {
        "paths.train": str(setup.corpus),
        "paths.dev": str(setup.corpus),
        "nlp.lang": "vi",
    }
    with pytest.raises(InstaNERError, match=r"cnn.cfg: .*: pip install pyvi\."):
        train(ROOT / "configs/student_cnn.cfg", tmp_path / "cnn", overrides=values)


def test_encoder_without_weights_is_named(setup: Setup, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(
        setup.encoder, encoder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin")
    )
    with pytest.raises(
        InstaNERError, match=r'Encoder ".*" cannot be loaded: .* weights'
    ):
        setup.train(tmp_path / "student", encoder=str(encoder))


def test_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match=r"nowhere.cfg not found"):
        train(tmp_path / "nowhere.cfg", tmp_path / "student")


def test_old_student_survives_a_training_that_cannot_start(
    setup: Setup, old_student: Path
) -> None:
    with pytest.raises(InstaNERError, match="cannot be loaded"):
        setup.train(old_student, encoder="no-such-encoder")
    _check_is_whole(old_student)


def test_old_student_survives_a_training_that_is_stopped(
    setup: Setup, old_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(nlp: Language, output: Path, **settings: Any) -> None:
        nlp.to_disk(output / "model-last")
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "train_nlp", stop)
    with pytest.raises(KeyboardInterrupt):
        setup.train(old_student)
    _check_is_whole(old_student)
    assert list(old_student.parent.iterdir()) == [old_student]


def test_new_student_replaces_the_old(
    setup: Setup, old_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(nlp: Language, output: Path, **settings: Any) -> tuple[Language, Path]:
        nlp.to_disk(output / "model-last")
        return nlp, output

    monkeypatch.setattr(train_module, "train_nlp", finish)
    setup.train(old_student)
    assert [path.name for path in old_student.iterdir()] == ["model-last"]
