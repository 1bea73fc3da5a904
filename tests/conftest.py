"""What the tests share."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab
from thinc.api import Config

from instaner.corpus import PROVENANCE
from instaner.decisions import REVIEWS, Answer, Decision, Decisions
from instaner.llm.store import hash_prompt
from instaner.targets import Offsets

from .server import ChatServer, serve

# Read when transformers is imported, which none of the above does: a test that names
# an unknown encoder is not to wait for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


# The files that take longest come first, so that no process ends long after the others.
_LONGEST = ["test_faults", "test_new", "test_workflow", "test_scripts", "test_browser"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: -k for k, name in enumerate(reversed(_LONGEST), 1)}
    items.sort(key=lambda item: rank.get(item.path.stem, 0))


def pytest_configure(config: pytest.Config) -> None:
    # Texts are only split where a context length is set; that is no news.
    config.addinivalue_line("filterwarnings", "ignore:Task supports sharding")


ROOT = Path(__file__).parent.parent
LABELS = ["DISH", "EQUIPMENT"]
CATEGORIES = ["BILL", "SHIP", "SIZE"]
KEY = "sk-very-secret"
GOLD = {
    "id": "gold-0",
    "text": "Nothing beats a cast iron skillet.",
    "spans": [{"start": 16, "end": 33, "label": "EQUIPMENT"}],
}

WriteRows = Callable[..., Path]
Record = Callable[[Mapping[str, str | list[str]]], Path]
MakeTeacher = Callable[..., Language]


def make_doc(nlp: Language, number: int, *, text: str = "", brief: str = "") -> Doc:
    """A doc with one entity, and a text like no other."""
    unlike = " ".join(3 * ["salt", "rice", "corn", "leek", "kale", "lime"][number % 6])
    doc = nlp.make_doc(text or f"Wok {number} {unlike} {number**5}")
    doc.set_ents([Span(doc, 0, 1, "EQUIPMENT")])
    doc.user_data[PROVENANCE] = {"id": f"t{number}", "brief": brief or f"b{number}"}
    return doc


def decide(
    reviews: Decisions,
    *marks: Offsets,
    text: str,
    reviewer: str = "anna",
    attr: str = "ents",
    answer: Answer = Answer.ACCEPT,
    **values: Any,
) -> None:
    """Store what somebody decided about a text."""
    reviews.add(Decision(text, attr, reviewer, answer, marks, **values))


@pytest.fixture
def reviews(tmp_path: Path) -> Decisions:
    return Decisions(tmp_path / REVIEWS)


@pytest.fixture
def vocab() -> Vocab:
    return Vocab()


@pytest.fixture(scope="session")
def nlp() -> Language:
    """A tokenizer. It is shared: a test that adds components makes its own."""
    return spacy.blank("en")


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Writes rows to a JSONL file of a name."""

    def write(*rows: Any, name: str = "rows.jsonl") -> Path:
        srsly.write_jsonl(tmp_path / name, rows)
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, which Playwright drives."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium, as `chromium` on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def gold(write_rows: WriteRows) -> Path:
    return write_rows(GOLD, name="gold.jsonl")


@pytest.fixture
def record(write_rows: WriteRows) -> Record:
    """Writes a recording: from each prompt to its answer, or to one for each sample."""

    def write(answers: Mapping[str, str | list[str]]) -> Path:
        rows = [
            {"prompt_sha256": hash_prompt(prompt), "sample": k, "response": answer}
            for prompt, given in answers.items()
            for k, answer in enumerate([given] if isinstance(given, str) else given)
        ]
        return write_rows(*rows, name="recording.jsonl")

    return write


@pytest.fixture
def make_teacher(record: Record) -> MakeTeacher:
    """Makes a pipeline with an llm component that answers about texts from a recording,
    which is written for it."""
    from instaner.tasks.ner import make_ner_task

    def make(
        answers: Mapping[str, str | list[str]],
        *,
        task: str = "instaner.NER.v1",
        names: tuple[str, ...] = ("llm",),
    ) -> Language:
        teacher = spacy.blank("en")
        prompts = {}
        for text, given in answers.items():
            docs = [teacher.make_doc(text)]
            ((shard_prompts, _),) = make_ner_task(LABELS).generate_prompts(docs)
            (prompt,) = shard_prompts
            prompts[prompt] = given
        path = str(record(prompts))
        for name in names:
            config = {
                "task": {"@llm_tasks": task, "labels": LABELS},
                "model": {"@llm_models": "instaner.Replay.v1", "path": path},
            }
            teacher.add_pipe("llm", name=name, config=config)
        return teacher

    return make


@pytest.fixture
def make_classifier(record: Record) -> MakeTeacher:
    """The same, with answers that name categories."""
    from instaner.tasks.textcat import make_textcat_task

    def make(
        answers: Mapping[str, str | list[str]], *, exclusive: bool = True
    ) -> Language:
        teacher = spacy.blank("en")
        task = {"labels": CATEGORIES, "exclusive_classes": exclusive}
        prompts = {}
        for text, given in answers.items():
            docs = [teacher.make_doc(text)]
            ((shard_prompts, _),) = make_textcat_task(**task).generate_prompts(docs)
            prompts[next(iter(shard_prompts))] = given
        model = {"@llm_models": "instaner.Replay.v1", "path": str(record(prompts))}
        task = {"@llm_tasks": "instaner.TextCat.v1", **task}
        teacher.add_pipe("llm", config={"task": task, "model": model})
        return teacher

    return make


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A running server; the key is set."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as server:
        yield server


@pytest.fixture(scope="session")
def categorizer_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a CNN student of categories that exclude each other: small, and
    soon trained."""
    config = Config().from_disk(ROOT / "configs" / "student_cnn.cfg", interpolate=False)
    tok2vec = {
        "@architectures": "spacy.HashEmbedCNN.v2",
        "pretrained_vectors": None,
        "width": 16,
        "depth": 1,
        "embed_size": 200,
        "window_size": 1,
        "maxout_pieces": 2,
        "subword_features": True,
    }
    reduce = {f"use_reduce_{name}": True for name in ("first", "last", "max", "mean")}
    model = {
        "@architectures": "spacy.TextCatReduce.v1",
        "exclusive_classes": True,
        "nO": None,
        "tok2vec": tok2vec,
        **reduce,
    }
    config["nlp"]["pipeline"] = ["textcat"]
    config["components"] = {"textcat": {"factory": "textcat", "model": model}}
    for corpus, sample in (("train", True), ("dev", False)):
        augmenter = {"@augmenters": "instaner.SampleLabels.v1", "sample": sample}
        config["corpora"][corpus]["augmenter"] = {**augmenter, "copies": 10}
    config["training"].update(max_steps=40, eval_frequency=20, dropout=0.0)
    config["training"]["logger"]["console_output"] = False
    config["training"]["optimizer"]["learn_rate"] = 0.01
    config["training"]["score_weights"] = {"cats_score": 1.0}
    path = tmp_path_factory.mktemp("categorizer") / "textcat.cfg"
    config.to_disk(path, interpolate=False)
    return path


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder of random weights: two layers, 32 wide."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    # Threads that wait for each other take longer than this model does.
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny") / "encoder"
    letters = "abcdefghijklmnopqrstuvwxyz.,"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    tokens += [f"##{letter}" for letter in letters]
    vocab_path = folder.with_name("vocab.txt")
    vocab_path.write_text("\n".join(tokens), "utf8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(vocab_path), model_max_length=512).save_pretrained(folder)
    return folder
