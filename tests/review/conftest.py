"""A small project with an annotated corpus, and its review page's server."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import srsly

from instaner.llm.store import hash_prompt
from instaner.pipeline import load_teacher

CONFIG = """\
[paths]
examples = "examples.yml"

[nlp]
lang = "en"
pipeline = ["llm"]

[components]

[components.llm]
factory = "llm"

[components.llm.task]
@llm_tasks = "{task}"
{options}

[components.llm.task.examples]
@misc = "spacy.FewShotReader.v1"
path = ${{paths.examples}}

[components.llm.model]
@llm_models = "instaner.Replay.v1"
path = "recording.jsonl"
"""
NER = (
    "instaner.NER.v1",
    'label_definitions = {"DISH": "Is served.", "EQUIPMENT": "A <b>tool</b>, a pot."}',
    """\
# One that is ours.
- text: We had goulash from the big pot.
  spans:
    - text: goulash
      is_entity: true
      label: DISH
      reason: is served
""",
)
TEXTCAT = (
    "instaner.TextCat.v1",
    "exclusive_classes = true\n"
    'label_definitions = {"PRAISE": "Is glad.", "BLAME": "Is not."}',
    "- text: Never again.\n  answer: BLAME\n",
)
# Each text with the answers of two samples.
DISHES = {
    "I ate ramen from a deep bowl.": (
        "1. ramen | True | DISH | is a noodle soup\n2. bowl | True | EQUIPMENT | holds",
        "1. ramen | True | DISH | is a soup\n2. deep bowl | True | EQUIPMENT | holds",
    ),
    "<script>document.title = 'got you'</script> <b>Pizza</b> & a pan 🍕": (
        "1. Pizza | True | DISH | is flat\n2. pan | True | EQUIPMENT | is hot",
    )
    * 2,
    "The wok was too small for the paella.": (
        "1. wok | True | DISH | is round\n2. paella | True | DISH | is rice",
    )
    * 2,
    "Nothing to eat today.": ("1. today | False | ==NONE== | is a day",) * 2,
    "A ladle of borscht, please.": (
        "1. ladle | True | EQUIPMENT | is a spoon\n2. borscht | True | DISH | is soup",
    )
    * 2,
    "My oven burns every cake.": (
        "1. oven | True | EQUIPMENT | is hot\n2. cake | True | DISH | is sweet",
    )
    * 2,
    "Grandma's dumplings need no sauce.": (
        "1. dumplings | True | DISH | are served",
        "1. Grandma's dumplings | True | DISH | are served",
    ),
    "Tacos tonight, in the skillet.": (
        "1. Tacos | True | DISH | are served\n2. skillet | True | EQUIPMENT | is a pan",
    )
    * 2,
}
OPINIONS = {
    "Best noodles in town.": ("PRAISE", "PRAISE"),
    "The waiter was rude.": ("BLAME", "PRAISE"),
    "I loved every bite.": ("PRAISE", "PRAISE"),
    "Cold soup, again.": ("BLAME", "BLAME"),
}

Call = Callable[..., str]


def call(*args: str) -> str:
    """RETURNS (str): What a command prints."""
    command = [sys.executable, "-m", "instaner", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _make_project(
    folder: Path, kind: tuple[str, str, str], texts: dict[str, tuple[str, ...]]
) -> Path:
    """Write a teacher, its recording and the texts, and have it annotate them."""
    task, options, examples = kind
    config = CONFIG.format(task=task, options=options)
    (folder / "examples.yml").write_text(examples, "utf8")
    (folder / "teacher.cfg").write_text(config, "utf8")
    (folder / "recording.jsonl").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        nlp = load_teacher("teacher.cfg")
        rows = []
        for text, answers in texts.items():
            task_ = nlp.get_pipe("llm").task  # type: ignore[attr-defined]
            ((prompts, _),) = task_.generate_prompts([nlp.make_doc(text)])
            (prompt,) = prompts
            rows += [
                {"prompt_sha256": hash_prompt(prompt), "sample": k, "response": answer}
                for k, answer in enumerate(answers)
            ]
        srsly.write_jsonl(folder / "recording.jsonl", rows)
        named = [{"id": f"t{k}", "text": text} for k, text in enumerate(texts)]
        srsly.write_jsonl(folder / "texts.jsonl", named)
        annotate()
    return folder


def annotate() -> str:
    """Annotate the texts of the folder that one is in."""
    args = ("teacher.cfg", "texts.jsonl", "corpus/annotated", "--samples", "2")
    return call("annotate", *args)


@pytest.fixture(scope="session")
def annotated_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which texts about dishes are annotated; to be copied."""
    return _make_project(tmp_path_factory.mktemp("dishes"), NER, DISHES)


@pytest.fixture
def project(
    annotated_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of it, in which one is."""
    shutil.copytree(annotated_project, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sorted_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, of texts with categories."""
    monkeypatch.chdir(tmp_path)
    return _make_project(tmp_path, TEXTCAT, OPINIONS)


class Served:
    """A page's server, in a process of its own."""

    def __init__(self, *args: str, folder: Path | None = None) -> None:
        self._args = args
        self._folder = folder
        self.start()

    def start(self, port: str = "0") -> None:
        command = [sys.executable, "-m", "instaner", "review", "corpus/annotated"]
        options = ["--teacher", "teacher.cfg", "--suspects", "0", "--port", port]
        self.process = subprocess.Popen(
            [*command, *options, *self._args],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, "")
        self.address = next(line for line in lines if "http://" in line).split()[-1]

    def kill(self) -> None:
        """Kill it as kill -9 does, and start it again at the same port."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.start(self.address.rstrip("/").rpartition(":")[2])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="session")
def served(
    annotated_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of which nothing is asked but to show texts."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(annotated_project, folder, dirs_exist_ok=True)
    server = Served(folder=folder)
    yield server
    server.stop()


@pytest.fixture
def serve_page() -> Iterator[Callable[..., Served]]:
    """Starts a server."""
    served = []

    def serve(*args: str) -> Served:
        served.append(Served(*args))
        return served[-1]

    yield serve
    for server in served:
        server.stop()
