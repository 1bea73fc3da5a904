import json
import random
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.training import Corpus, Example
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import load_model_from_config
from thinc.api import Config, fix_random_seed

from instaner.corpus import write_docs
from instaner.errors import InstaNERError
from instaner.pipeline import read_config
from instaner.soft import Cats, make_label_sampler
from instaner.swap import swap
from instaner.train import train as train_student

from .conftest import ROOT

_NLP = spacy.blank("en")
_SOFT = {"good": 2 / 3, "bad": 1 / 3, "neither": 0.0}
_HARD = {"good": 0.0, "bad": 1.0, "neither": 0.0}
_CONFIG = """
[nlp]
lang = "en"
pipeline = ["textcat"]

[components]

[components.textcat]
factory = "textcat"

[corpora]

[corpora.train]
@readers = "spacy.Corpus.v1"

[corpora.train.augmenter]
@augmenters = "instaner.SampleLabels.v1"
copies = 6

[corpora.dev]
@readers = "spacy.Corpus.v1"

[corpora.dev.augmenter]
@augmenters = "instaner.SampleLabels.v1"
sample = false

[training]
seed = 0
gpu_allocator = null
max_steps = 80
eval_frequency = 80
dropout = 0.0

[training.score_weights]
cats_macro_f = 1.0
"""


@pytest.fixture(autouse=True)
def seed() -> None:
    random.seed(0)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The augmenter by its name, for an instaner that is not installed."""
    if "instaner.SampleLabels.v1" not in spacy.registry.augmenters:
        spacy.registry.augmenters.register(
            "instaner.SampleLabels.v1", func=make_label_sampler
        )


def _make_example(cats: Cats) -> Example:
    doc = Doc(_NLP.vocab, words=["so", "so"], spaces=[True, False])
    doc.cats = cats
    return Example(doc.copy(), doc)


def _sample(cats: Cats, **settings: bool | int) -> list[Cats]:
    augment = make_label_sampler(**settings)  # type: ignore[arg-type]
    return [eg.reference.cats for eg in augment(_NLP, _make_example(cats))]


def _get_labels(sampled: list[Cats]) -> list[str]:
    """The label of each, which has to be the only one."""
    for cats in sampled:
        assert sorted(cats.values()) == [0.0] * (len(cats) - 1) + [1.0]
    return [max(cats, key=cats.__getitem__) for cats in sampled]


@pytest.mark.parametrize("copies", [3, 6, 30])
def test_whole_shares_are_exact(copies: int) -> None:
    for _ in range(100):
        counts = Counter(_get_labels(_sample(_SOFT, copies=copies)))
        assert counts == {"good": copies * 2 // 3, "bad": copies // 3}


@pytest.mark.parametrize("copies", [1, 2, 4])
def test_other_shares_are_right_on_average(copies: int) -> None:
    labels = [
        label
        for _ in range(6000 // copies)
        for label in _get_labels(_sample(_SOFT, copies=copies))
    ]
    assert labels.count("good") / len(labels) == pytest.approx(2 / 3, abs=0.02)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=5).filter(sum),
    st.integers(1, 7),
)
def test_drawn_as_often_as_expected(scores: list[float], copies: int) -> None:
    total = sum(scores) * 1.0000001
    cats = {str(i): score / total for i, score in enumerate(scores)}
    counts = Counter(_get_labels(_sample(cats, copies=copies)))
    assert sum(counts.values()) == copies
    for label, score in cats.items():
        expected = copies * score / sum(cats.values())
        assert abs(counts[label] - expected) < 1 + 1e-6
        assert score or not counts[label]


def test_each_label_is_drawn_by_itself() -> None:
    cats = {"long": 0.75, "funny": 0.75, "new": 0.0, "old": 1.0}
    sampled = _sample(cats, exclusive_classes=False, copies=4000)
    for label, share in cats.items():
        assert sum(drawn[label] for drawn in sampled) == share * 4000
    both = sum(drawn["long"] * drawn["funny"] for drawn in sampled)
    assert both / 4000 == pytest.approx(0.75 * 0.75, abs=0.02)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("sample", [True, False])
def test_hard_labels_are_untouched(exclusive: bool, sample: bool) -> None:
    example = _make_example(_HARD)
    sampled = list(make_label_sampler(exclusive, sample=sample)(_NLP, example))
    assert sampled[0] is example
    assert [eg.reference.cats for eg in sampled] == [_HARD] * (3 if sample else 1)


def test_each_copy_has_a_doc_of_its_own() -> None:
    # A transformer failed to align a batch with the same doc twice.
    sampled = list(make_label_sampler()(_NLP, _make_example(_HARD)))
    assert len({id(eg.reference) for eg in sampled}) == 3


@pytest.mark.parametrize("sample", [True, False])
@pytest.mark.parametrize("cats", [{}, {"good": 0.0, "bad": 0.0}])
def test_text_without_annotation_is_left_out(cats: Cats, sample: bool) -> None:
    assert _sample(cats, sample=sample) == []


def test_text_without_any_of_several_labels_is_kept() -> None:
    cats = {"long": 0.0, "funny": 0.0}
    assert _sample(cats, exclusive_classes=False, copies=1) == [cats]


def test_invalid_votes_take_no_part() -> None:
    # Two votes of three, the third was none of the labels.
    assert set(_get_labels(_sample({"good": 2 / 3, "bad": 0.0}))) == {"good"}


def test_most_probable_label_is_chosen() -> None:
    cats = {"good": 0.4, "bad": 0.3, "neither": 0.3}
    assert _get_labels(_sample(cats, sample=False)) == ["good"]


@pytest.mark.parametrize(
    "cats", [{"good": 0.5, "bad": 0.5}, {"good": 1 / 3, "bad": 1 / 3, "neither": 1 / 3}]
)
def test_disputed_text_is_left_out(cats: Cats) -> None:
    assert _sample(cats, sample=False) == []


def test_disputed_one_of_several_labels_is_missing() -> None:
    cats = {"long": 0.5, "funny": 0.6, "new": 0.4}
    sampled = _sample(cats, exclusive_classes=False, sample=False)
    assert sampled == [{"funny": 1.0, "new": 0.0}]


def test_docs_of_the_corpus_keep_their_scores() -> None:
    example = _make_example(dict(_SOFT))
    assert len(list(make_label_sampler()(_NLP, example))) == 3
    assert example.reference.cats == _SOFT


def test_draws_follow_the_seed() -> None:
    draws = []
    for number in (1, 1, 2):
        fix_random_seed(number)
        draws.append([_sample(_SOFT, copies=1) for _ in range(20)])
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("cats", "message"),
    [
        ({"good": 1.5}, 'The text "so so" has 1.5 for good: it has to be 0 to 1'),
        ({"good": float("nan")}, "has nan for good"),
        ({"good": -0.1}, "has -0.1 for good"),
        ({"good": 1.0, "bad": 1.0}, r"sum to 2, .* set exclusive_classes = false"),
    ],
)
def test_what_is_no_proportion_is_named(cats: Cats, message: str) -> None:
    with pytest.raises(InstaNERError, match=message):
        _sample(cats)


def test_too_few_copies_are_named() -> None:
    with pytest.raises(InstaNERError, match=r"copies = 0: it has to be 1 or more"):
        make_label_sampler(copies=0)


def _make_docs() -> Iterator[Doc]:
    texts = {
        "what a wonderful day": {"good": 1.0, "bad": 0.0},
        "a wonderful evening": {"good": 2 / 3, "bad": 1 / 3},
        "an awful day": {"good": 0.0, "bad": 1.0},
        "what an awful evening": {"good": 1 / 3, "bad": 2 / 3},
        "a day": {"good": 0.5, "bad": 0.5},
        "what": {},
    }
    for text, cats in texts.items():
        doc = Doc(_NLP.vocab, words=text.split())
        doc.cats = cats
        yield doc


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_docs(_make_docs(), tmp_path / "docs.spacy")
    return tmp_path / "docs.spacy"


def test_spacy_alone_does_not_train_on_soft_labels(corpus: Path) -> None:
    nlp = spacy.blank("en")
    textcat = nlp.add_pipe("textcat")
    with pytest.raises(ValueError, match="E851"):
        textcat.initialize(lambda: Corpus(corpus)(nlp), nlp=nlp)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("registered")
def test_trains_on_soft_labels(corpus: Path) -> None:
    config = Config().from_str(_CONFIG)
    for name in ("train", "dev"):
        config["corpora"][name]["path"] = str(corpus)
    nlp = init_nlp(config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(nlp)
    scores = {doc.text.strip(): nlp(doc.text).cats["good"] for doc in _make_docs()}
    assert scores["what a wonderful day"] > 0.9
    assert scores["an awful day"] < 0.1
    # What was trained on is the proportion, and not the more probable label.
    assert scores["a wonderful evening"] == pytest.approx(2 / 3, abs=0.1)
    assert scores["what an awful evening"] == pytest.approx(1 / 3, abs=0.1)
    assert scores["a day"] == pytest.approx(1 / 2, abs=0.1)


# configs/textcat.cfg and textcat_cnn.cfg, shorter.
_SHORT = {
    "training.dropout": 0.0,
    "training.max_steps": 60,
    "training.eval_frequency": 60,
    "training.logger.console_output": False,
}
_TINY = {
    **_SHORT,
    "training.optimizer.learn_rate.initial_rate": 0.005,
    "training.optimizer.learn_rate.warmup_steps": 5,
}


@pytest.fixture(params=["textcat", "textcat_cnn"])
def config(
    request: pytest.FixtureRequest, corpus: Path, tiny_encoder: Path
) -> tuple[Path, dict[str, Any]]:
    """A training config, and its values for the test."""
    values = {"paths.train": str(corpus), "paths.dev": str(corpus)}
    if request.param == "textcat":
        values.update({**_TINY, "paths.encoder": str(tiny_encoder)})
    else:
        values.update(_SHORT)
    return ROOT / "configs" / f"{request.param}.cfg", values


@pytest.mark.usefixtures("registered")
def test_student_learns_and_needs_nothing_of_instaner(
    config: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, values = config
    nlp = train_student(path, tmp_path / "student", overrides=values)
    texts = ["what a wonderful day", "an awful day"]
    scores = [nlp(text).cats["good"] for text in texts]
    assert scores[0] > 0.5 > scores[1]
    code = (
        "import sys, spacy\n"
        "sys.modules['instaner'] = None\n"
        f"nlp = spacy.load({str(tmp_path / 'student' / 'model-last')!r})\n"
        f"print([doc.cats['good'] for doc in nlp.pipe({texts})])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout, run.stderr
    assert json.loads(run.stdout) == pytest.approx(scores, abs=1e-4)


@pytest.mark.usefixtures("registered")
def test_transformer_student_is_sourced_with_its_layers(
    corpus: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    values = {"paths.train": str(corpus), "paths.dev": str(corpus), **_TINY}
    values.update({"paths.encoder": str(tiny_encoder), "training.max_steps": 20})
    path = ROOT / "configs" / "textcat.cfg"
    nlp = train_student(path, tmp_path / "student", overrides=values)
    student = tmp_path / "student" / "model-last"
    alone = spacy.blank("en").config.copy()
    alone["nlp"]["pipeline"] = ["llm"]
    alone["components"] = {
        "llm": {
            "source": str(student),
            "component": "textcat",
            "replace_listeners": ["model.tok2vec"],
        }
    }
    pipeline = tmp_path / "pipeline.cfg"
    pipeline.write_text(
        '[nlp]\nlang = "en"\npipeline = ["llm"]\n[components]\n'
        '[components.llm]\nfactory = "llm"\n'
        '[components.llm.task]\n@llm_tasks = "spacy.TextCat.v3"\n'
        'labels = ["good", "bad"]\nexclusive_classes = true\n'
        '[components.llm.model]\n@llm_models = "instaner.Chat.v1"\nname = "m"\n',
        "utf8",
    )
    swap(str(pipeline), str(student), tmp_path / "swapped")
    by_config = load_model_from_config(alone, auto_fill=True)
    swapped = spacy.load(tmp_path / "swapped")
    assert by_config.pipe_names == ["llm"]
    assert swapped.pipe_names == ["textcat"]
    texts = ["what a wonderful day", "an awful day", "a day that was long " * 30]
    expected = [nlp(text).cats for text in texts]
    assert len({round(cats["good"], 3) for cats in expected}) == len(texts)
    for other in (by_config, swapped):
        for cats, doc in zip(expected, other.pipe(texts), strict=True):
            assert doc.cats == pytest.approx(cats, abs=1e-4)


def _find_exclusive(block: Any, where: str = "") -> list[str]:
    """The dotted names of a config's exclusive_classes."""
    if not isinstance(block, dict):
        return []
    return [
        name
        for key in block
        for name in (
            [f"{where}{key}"]
            if key == "exclusive_classes"
            else _find_exclusive(block[key], f"{where}{key}.")
        )
    ]


@pytest.mark.usefixtures("registered")
def test_student_learns_several_labels(
    config: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, values = config
    docs = []
    for doc in _make_docs():
        # A mood and a time, of which a text may have both, one or none.
        mood = doc.cats.get("good", 0.0)
        doc.cats = {"good": mood, "night": float("evening" in doc.text)}
        docs.append(doc)
    write_docs(docs, Path(values["paths.train"]))
    values["components.textcat.factory"] = "textcat_multilabel"
    values.update({name: False for name in _find_exclusive(read_config(str(path)))})
    nlp = train_student(path, tmp_path / "student", overrides=values)
    cats = nlp("a wonderful evening").cats
    assert cats["good"] > 0.5
    assert cats["night"] > 0.5
    assert nlp("an awful day").cats["night"] < 0.5
