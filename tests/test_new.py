"""A project of one's own, as a new user makes and runs it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import spacy
import srsly
from spacy.language import Language

from instaner.briefs import Plan, read_plan
from instaner.corpus import read_docs
from instaner.errors import InstaNERError
from instaner.new import TEMPLATE, Settings, make_project
from instaner.pipeline import load_teacher, read_config
from instaner.tasks.marks import read_texts

from .conftest import KEY, ROOT
from .server import Reply, complete, serve

_LABELS = {"DISH": "A named dish.", "TOOL": "A kitchen tool."}
_SETTINGS = Settings(_LABELS)
_STEPS = 20
_N = 30  # texts, all that the written answers hold


class Run(NamedTuple):
    """A project that was made and run."""

    folder: Path
    lang: str
    labels: dict[str, str]
    output: str


class _Writer:
    """Gives the answers that were written down for a language, as a model would.

    path (Path): YAML with labels, domain, lists and answers.
    """

    def __init__(self, path: Path) -> None:
        self.given: dict[str, Any] = srsly.read_yaml(path)
        self._texts = {
            text: spans
            for answer in self.given["answers"]
            for text, spans in read_texts(answer, self.given["labels"])[0]
        }
        self._generated: list[str] = []

    def __call__(self, body: Mapping[str, Any]) -> Reply:
        prompt = "\n".join(message["content"] for message in body["messages"])
        answers = self.given["answers"]
        if wanted := re.search(r"List \d+ different (.*)", prompt):
            return complete(self._list(wanted[1]))
        if "You write realistic" in prompt:
            if prompt not in self._generated:
                self._generated.append(prompt)
            return complete(answers[self._generated.index(prompt) % len(answers)])
        text = prompt.rsplit("Paragraph:", 1)[1].removesuffix("Answer:").strip()
        rows = [
            f"{number}. {text[start:end]} | True | {label} | as defined"
            for number, (start, end, label) in enumerate(self._texts[text], 1)
        ]
        return complete("\n".join(rows) or "No entities")

    def _list(self, wanted: str) -> str:
        lists = self.given["lists"]
        starts = {"people": "author", "topics": "topic", "forms": "form"}
        named = re.search(r"of the kind .* of (.+?) in ", wanted)
        things = (
            lists[starts[wanted.split()[0]]]
            if wanted.split()[0] in starts
            else lists[named[1]]
            if named
            else ["A", "B"]
        )
        return "\n".join(f"{i}. {thing}" for i, thing in enumerate(things, 1))


class _CategoryWriter(_Writer):
    """The same for categories: the answers are by category."""

    def __init__(self, path: Path) -> None:
        self.given = srsly.read_yaml(path)
        self.texts = {
            text: label
            for label, answers in self.given["answers"].items()
            for answer in answers
            for text, _ in read_texts(answer, self.given["labels"], has_marks=False)[0]
        }
        self._asked: Counter[str] = Counter()

    def __call__(self, body: Mapping[str, Any]) -> Reply:
        prompt = "\n".join(message["content"] for message in body["messages"])
        if wanted := re.search(r"List \d+ different (.*)", prompt):
            return complete(self._list(wanted[1]))
        if wanted := re.search(r"belongs to the category (\w+)", prompt):
            answers = self.given["answers"][wanted[1]]
            self._asked[wanted[1]] += 1
            return complete(answers[self._asked[wanted[1]] % len(answers)])
        (label,) = {label for text, label in self.texts.items() if text in prompt}
        return complete(f"Reason: That is asked for.\nLabel: {label}")


def _weasel(folder: Path, *args: str, url: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "weasel", "run", *args],
        cwd=folder,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": url,
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
    )


_LANGS = {"en": "English", "nl": "Dutch", "ja": "Japanese"}


def _make_and_run(lang: str, folder: Path, encoder: Path) -> Run:
    """`instaner new`, then `weasel run all` with a server that answers."""
    writer = _Writer(ROOT / "tests" / "data" / f"new_{lang}.yml")
    labels = writer.given["labels"]
    command = [sys.executable, "-m", "instaner", "new", str(folder), "--lang", lang]
    for label, definition in labels.items():
        command += ["--label", f"{label}={definition}"]
    command += ["--domain", writer.given["domain"], "--n", str(_N)]
    # In English the whole way, with an encoder of random weights; else the CNN alone.
    command += ["--encoder", str(encoder)] if lang == "en" else ["--cnn"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    _shorten_training(folder)
    with serve(writer) as server:
        done = _weasel(folder, "all", url=server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(folder, lang, labels, done.stdout)


def _shorten_training(folder: Path) -> None:
    for config in (folder / "configs").glob("student*.cfg"):
        text = config.read_text("utf8")
        for name in ("max_steps", "eval_frequency"):
            text = re.sub(rf"{name} = \d+", f"{name} = {_STEPS}", text)
        config.write_text(text, "utf8")


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path
) -> dict[str, Future[Run]]:
    """All projects, of which two are made at a time: most steps use one core."""
    folder = tmp_path_factory.mktemp("new")
    with ThreadPoolExecutor(2) as pool:
        return {
            lang: pool.submit(_make_and_run, lang, folder / f"my-{lang}", tiny_encoder)
            for lang in _LANGS
        }


@pytest.fixture(scope="module", params=_LANGS, ids=_LANGS.values())
def run(request: pytest.FixtureRequest, runs: dict[str, Future[Run]]) -> Run:
    return runs[request.param].result()


def test_new_project_ends_in_a_student(run: Run) -> None:
    name = "student" if run.lang == "en" else "student_cnn"
    nlp = spacy.load(run.folder / "training" / name / "model-best")
    assert nlp.lang == run.lang
    assert set(nlp.get_pipe("ner").labels) == set(run.labels)
    assert (run.folder / "training/student").exists() == (run.lang == "en")


def test_new_project_swaps_and_packages_its_student(run: Run) -> None:
    assert spacy.load(run.folder / "training" / "swapped").lang == run.lang
    assert list((run.folder / "training" / "packages").glob("*/dist/*.whl"))


def test_new_project_has_all_written_texts_with_their_spans(run: Run) -> None:
    rows = list(srsly.read_jsonl(run.folder / "corpus" / "generated.jsonl"))
    assert len(rows) == _N
    writer = _Writer(ROOT / "tests" / "data" / f"new_{run.lang}.yml")
    assert {
        row["text"]: [(s["start"], s["end"], s["label"]) for s in row["spans"]]
        for row in rows
    } == writer._texts
    meta = srsly.read_json(run.folder / "corpus" / "generated.meta.json")
    languages = meta["variety"]["languages"]
    assert next(iter(languages["found"])) == languages["lang"] == run.lang
    assert languages["share"] > 0.9
    assert (run.folder / "training" / "generated.svg").exists()


def test_new_project_makes_briefs_from_the_lists(run: Run) -> None:
    briefs = list(srsly.read_jsonl(run.folder / "corpus" / "briefs.jsonl"))
    assert any("names" in brief for brief in briefs)
    assert {brief.get("focus") for brief in briefs} == {None, *run.labels}
    assert {type(brief.get("lookalikes")) for brief in briefs} == {type(None), list}


def test_new_project_trains_on_what_was_voted(run: Run, nlp: Language) -> None:
    docs = list(read_docs(run.folder / "corpus" / "train.spacy", nlp.vocab))
    assert len(docs) >= _N / 2
    assert {ent.label_ for doc in docs for ent in doc.ents} == set(run.labels)


def test_new_project_says_that_its_test_set_is_silver(run: Run) -> None:
    assert "silver" in run.output


def test_second_run_runs_nothing(run: Run) -> None:
    done = _weasel(run.folder, "all", url="http://127.0.0.1:1/v1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running command" not in done.stdout


def test_new_project_for_categories_ends_in_a_pipeline(tmp_path: Path) -> None:
    writer = _CategoryWriter(ROOT / "tests" / "data" / "new_textcat.yml")
    folder = tmp_path / "my-mail"
    settings = Settings(
        writer.given["labels"],
        task="textcat",
        domain=writer.given["domain"],
        is_cnn=True,
        n=len(writer.texts),
    )
    make_project(folder, settings)
    _shorten_training(folder)
    with serve(writer) as server:
        done = _weasel(folder, "all", url=server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "training" / "report" / "index.html").exists()
    swapped = spacy.load(folder / "training" / "swapped")
    assert swapped.pipe_names == ["sentencizer", "textcat"]
    rows = list(srsly.read_jsonl(folder / "corpus" / "generated.jsonl"))
    assert {row["text"]: row["cats"] for row in rows} == writer.texts
    meta = srsly.read_json(folder / "corpus" / "generated.meta.json")
    assert meta["labels"] == meta["variety"]["categories"]
    assert (folder / "training" / "generated.svg").exists()
    briefs = list(srsly.read_jsonl(folder / "corpus" / "briefs.jsonl"))
    assert not any("names" in brief or "lookalikes" in brief for brief in briefs)
    nlp = spacy.load(folder / "training" / "student_cnn" / "model-best")
    assert set(nlp.get_pipe("textcat").labels) == set(settings.labels)
    docs = list(read_docs(folder / "corpus" / "train.spacy", nlp.vocab))
    assert docs
    assert all(
        set(doc.user_data["instaner"]["voters"]) == {"generator", "llm/0", "llm/1"}
        and doc.cats[writer.texts[doc.text]] == 1
        for doc in docs
    )


_CATEGORIES = Settings({"DELIVERY": "a", "RETURN": "b"}, task="textcat")


def _read_task(folder: Path, config: str = "teacher") -> dict[str, Any]:
    config_ = read_config(str(folder / "configs" / f"{config}.cfg"))
    return dict(config_["components"]["llm"]["task"])


def _list_exclusive(folder: Path) -> dict[str, list[str]]:
    found = {
        path.stem: re.findall("^exclusive_classes = (.*)", path.read_text("utf8"), re.M)
        for path in (folder / "configs").glob("*.cfg")
    }
    return {name: sorted(set(values)) for name, values in found.items() if values}


def test_project_for_categories_has_what_one_for_entities_has(tmp_path: Path) -> None:
    make_project(tmp_path / "ner" / "mine", replace(_CATEGORIES, task="ner"))
    make_project(tmp_path / "textcat" / "mine", _CATEGORIES)
    files, projects = zip(
        *(
            (
                {str(path.relative_to(folder)) for path in folder.rglob("*")},
                srsly.read_yaml(folder / "project.yml"),
            )
            for folder in (tmp_path / "ner" / "mine", tmp_path / "textcat" / "mine")
        ),
        strict=True,
    )
    assert files[0] == files[1]
    for key in ("commands", "workflows", "assets"):
        assert projects[0][key] == projects[1][key]
    assert set(projects[0]["workflows"]) == {"all"}
    assert not any(c["name"].startswith("textcat") for c in projects[0]["commands"])


def test_configs_for_categories_are_filled_in(tmp_path: Path) -> None:
    make_project(tmp_path / "project", _CATEGORIES)
    folder = tmp_path / "project" / "configs"
    assert _read_task(tmp_path / "project")["@llm_tasks"] == "instaner.TextCat.v1"
    assert _read_task(tmp_path / "project", "generator")["task"] == "textcat"
    labels = _read_task(tmp_path / "project", "pipeline")["labels"]
    assert labels == list(_CATEGORIES.labels)
    swapped = read_config(str(folder / "swap.cfg"))
    assert swapped["nlp"]["pipeline"] == ["sentencizer", "llm"]
    assert swapped["components"]["llm"] == {
        "source": "training/student/model-best",
        "component": "textcat",
        "replace_listeners": ["model.tok2vec"],
    }
    exclusive = _list_exclusive(tmp_path / "project")
    assert set(exclusive) == {"pipeline", "student", "student_cnn", "teacher"}
    assert all(values == ["true"] for values in exclusive.values())
    plan = read_plan(tmp_path / "project" / "assets" / "plan.yml")
    assert plan == Plan()


@pytest.mark.parametrize(
    "changes", [{"is_several": True}, {"labels": {"DELIVERY": "a"}}]
)
def test_texts_can_have_several_labels_or_none(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    make_project(tmp_path / "project", replace(_CATEGORIES, **changes))
    exclusive = _list_exclusive(tmp_path / "project")
    assert all(values == ["false"] for values in exclusive.values())
    for name in ("student", "student_cnn"):
        config = read_config(str(tmp_path / "project" / "configs" / f"{name}.cfg"))
        assert config["components"]["textcat"]["factory"] == "textcat_multilabel"


@pytest.mark.parametrize(
    ("changes", "answers"),
    [
        ({}, ["RETURN", "DELIVERY"]),
        ({"is_several": True}, ["RETURN, DELIVERY", "==NONE=="]),
        ({"labels": {"RETURN": "b"}}, ["POS", "NEG"]),
    ],
)
def test_examples_of_categories_go_into_both_prompts(
    changes: dict[str, Any],
    answers: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cats = "RETURN" if len(answers[0].split()) == 1 else ["RETURN", "DELIVERY"]
    path = tmp_path / "examples.jsonl"
    other = [] if changes else "DELIVERY"
    rows = [
        {"text": "Back [1]\nit goes.", "cats": cats},
        {"text": "Hi.", "cats": other},
    ]
    srsly.write_jsonl(path, rows)
    folder = tmp_path / "project"
    make_project(folder, replace(_CATEGORIES, examples=path, **changes))
    lines = (folder / "assets" / "generate_examples.txt").read_text("utf8")
    assert lines == "Back [1] it goes.\nHi.\n"
    shots = srsly.read_yaml(folder / "assets" / "examples.yml")
    assert [shot["answer"] for shot in shots] == answers
    task = _read_task(folder)
    assert task["examples"]["path"] == "assets/examples.yml"
    assert task["reasoning"] is False
    monkeypatch.chdir(folder)
    load_teacher("configs/teacher.cfg")


def test_gold_keeps_its_categories(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    srsly.write_jsonl(path, [{"text": "Back it goes.", "cats": "RETURN"}])
    make_project(tmp_path / "project", replace(_CATEGORIES, gold=path))
    (row,) = srsly.read_jsonl(tmp_path / "project" / "assets" / "gold.jsonl")
    assert row == {"text": "Back it goes.", "cats": {"RETURN": 1.0}}


@pytest.mark.parametrize(
    ("changes", "cats", "message"),
    [
        ({}, "REFUND", 'label "REFUND" is not one of the labels'),
        ({}, ["RETURN", "DELIVERY"], "has RETURN and DELIVERY. Give --several"),
        (
            {},
            [],
            r'gold.jsonl: "Back it goes." has no categories. Give each text its cats',
        ),
        ({"task": "ner"}, "RETURN", "not entities. Give --task textcat"),
        ({"task": "ner", "is_several": True}, "RETURN", "--several is for texts"),
    ],
)
def test_bad_categories_are_named_and_nothing_written(
    changes: dict[str, Any], cats: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "gold.jsonl"
    srsly.write_jsonl(path, [{"text": "Back it goes.", "cats": cats}])
    with pytest.raises(InstaNERError, match=message):
        make_project(tmp_path / "project", replace(_CATEGORIES, gold=path, **changes))
    assert not (tmp_path / "project").exists()


def test_template_of_a_checkout_is_the_project_itself() -> None:
    assert TEMPLATE == ROOT


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", "utf8")
    with pytest.raises(InstaNERError, match="exists already, and nothing in it is"):
        make_project(tmp_path, _SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_empty_folder_is_filled_with_a_shell_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_project(Path("."), _SETTINGS)
    assert Path("project.yml").exists()  # from the same folder, not from a deleted one
    assert not list(tmp_path.parent.glob(".*.part"))


@pytest.mark.parametrize("domain", ['The "best" posts', "a\\b", "a\tb", "It's\\"])
@pytest.mark.parametrize("label", ["L'étang", "Viewers' Rating"])
def test_whatever_domain_and_label_the_commands_can_be_run(
    domain: str, label: str, tmp_path: Path
) -> None:
    from weasel.util.config import load_project_config

    folder = tmp_path / 'my $ "\\project'
    make_project(folder, Settings({label: "A thing."}, domain=domain))
    commands = {c["name"]: c for c in load_project_config(folder)["commands"]}
    (package,) = commands["package"]["script"]
    words = shlex.split(package)
    described = words[words.index("--description") + 1]
    assert described.startswith(f"{label.replace(chr(39), '’')} in ")
    config = read_config(str(folder / "configs" / "teacher.cfg"))
    assert config["components"]["llm"]["task"]["description"] == f"The texts: {domain}"
    assert srsly.read_yaml(folder / "assets" / "plan.yml")["domain"] == domain


def test_own_texts_take_the_place_of_generated_ones(tmp_path: Path) -> None:
    texts = tmp_path / "mine.txt"
    texts.write_text("I like soup.\n\nA wok, please.\n", "utf8")
    folder = tmp_path / "project"
    make_project(folder, Settings(_LABELS, texts=texts))
    project = srsly.read_yaml(folder / "project.yml")
    assert project["workflows"]["all"][0] == "annotate"
    assert project["vars"]["texts"] == "assets/texts.jsonl"
    assert [row["text"] for row in srsly.read_jsonl(folder / "assets/texts.jsonl")] == [
        "I like soup.",
        "A wok, please.",
    ]
    assert not (folder / "configs" / "generator.cfg").exists()


@pytest.mark.parametrize(("own_texts", "samples"), [(True, 3), (False, 2)])
def test_votes_on_a_category_are_odd_in_number(
    own_texts: bool, samples: int, tmp_path: Path
) -> None:
    texts = tmp_path / "mine.txt"
    texts.write_text("Where is it?\n", "utf8")
    settings = replace(_CATEGORIES, texts=texts if own_texts else None)
    make_project(tmp_path / "project", settings)
    project = srsly.read_yaml(tmp_path / "project" / "project.yml")
    assert project["vars"]["samples"] == samples  # and the writer's, if there is one


def test_spans_of_own_texts_are_no_votes(tmp_path: Path) -> None:
    row = {"id": "a", "text": "A wok.", "brief": "b"}
    path = tmp_path / "mine.jsonl"
    srsly.write_jsonl(path, [{**row, "spans": [], "note": 1}])
    make_project(tmp_path / "project", Settings(_LABELS, texts=path))
    assert list(srsly.read_jsonl(tmp_path / "project/assets/texts.jsonl")) == [row]


def test_folder_of_the_encoder_is_found_from_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weasel.util.config import load_project_config

    (tmp_path / "my bert").mkdir()
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path / "project", Settings(_LABELS, encoder="my bert"))
    commands = {c["name"]: c for c in load_project_config(Path("project"))["commands"]}
    (train,) = commands["train"]["script"]
    words = shlex.split(train)
    assert words[words.index("--paths.encoder") + 1] == str(tmp_path / "my bert")


def test_what_the_tokenizer_of_the_encoder_needs_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("fugashi", "unidic_lite"):
        monkeypatch.setitem(sys.modules, module, None)
    settings = Settings(_LABELS, lang="pl", encoder="tohoku-nlp/bert-base-japanese-v3")
    (warning,) = make_project(tmp_path / "project", settings)
    assert "pip install fugashi unidic-lite" in warning


def test_label_is_written_composed(tmp_path: Path) -> None:
    make_project(tmp_path / "project", Settings({"cafe\u0301": "A place."}))
    labels = srsly.read_yaml(tmp_path / "project" / "assets" / "labels.yml")
    assert list(labels) == ["caf\u00e9"]


def test_name_of_the_language_is_in_words(tmp_path: Path) -> None:
    make_project(tmp_path / "project", Settings(_LABELS, lang="grc"))
    config = read_config(str(tmp_path / "project" / "configs" / "generator.cfg"))
    assert config["components"]["llm"]["task"]["language"] == "Ancient Greek"


@pytest.mark.parametrize("literal", ["[b](c)", "[b](TOOL)"])
def test_brackets_that_read_as_a_mark_are_named(literal: str, tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    srsly.write_jsonl(path, [{"text": f"A {literal}.", "spans": []}])
    with pytest.raises(InstaNERError, match="what stands in brackets reads as a mark"):
        make_project(tmp_path / "project", Settings(_LABELS, examples=path))


def test_examples_go_into_both_prompts(tmp_path: Path) -> None:
    examples = tmp_path / "examples.txt"
    examples.write_text("My [wok](TOOL) is hot.\nThanks!\n", "utf8")
    folder = tmp_path / "project"
    make_project(folder, Settings(_LABELS, examples=examples))
    lines = (folder / "assets" / "generate_examples.txt").read_text("utf8")
    assert lines == "My [wok](TOOL) is hot.\nThanks!\n"
    (shot,) = srsly.read_yaml(folder / "assets" / "examples.yml")
    assert (shot["text"], shot["spans"][0]["text"]) == ("My wok is hot.", "wok")
    config = read_config(str(folder / "configs" / "teacher.cfg"))
    assert config["components"]["llm"]["task"]["examples"]["path"]


def test_model_server_and_language_are_filled_in(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    url = "http://localhost:8000/v1"
    make_project(folder, Settings(_LABELS, lang="nl", llm="mine", base_url=url))
    for name in ("generator", "teacher"):
        config = read_config(str(folder / "configs" / f"{name}.cfg"))
        model = config["components"]["llm"]["model"]
        assert (model["name"], model["base_url"]) == ("mine", url)
        assert config["nlp"]["lang"] == "nl"
    assert config["components"]["llm"]["task"].get("examples") is None
    generator = read_config(str(folder / "configs" / "generator.cfg"))
    assert generator["components"]["llm"]["task"]["language"] == "Dutch"
    config = read_config(str(folder / "configs" / "pipeline.cfg"))
    assert config["components"]["llm"]["task"]["labels"] == list(_LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {}}, "There are no labels"),
        ({"labels": {"A|B": "x"}}, r'Label "A\|B" has characters'),
        ({"labels": {"A B": "x", "a_b": "y"}}, "are one and the same"),
        ({"lang": "zz"}, "zz"),
        ({"encoder": "./nowhere"}, "there is no such folder"),
        ({"n": 0}, "--n has to be 1 or more"),
        ({"domain": "for $5"}, r"--domain has to be one line without \$"),
        ({"base_url": "http://${HOME}/v1"}, "--base-url has to be one line"),
    ],
)
def test_bad_setting_is_named_and_nothing_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    settings = Settings(**{**vars(_SETTINGS), **changes})
    with pytest.raises(InstaNERError, match=message):
        make_project(tmp_path / "project", settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("examples", "A [wok](POT).\n", r'examples, line 1: label "POT" is not one'),
        ("examples", "A [wok](TOO\n", "examples, line 1: .*unreadable"),
        ("examples", "\n", "examples has no texts"),
        ("texts", "\n", "texts has no texts"),
        ("gold", "", "gold has no texts"),
        ("gold", "{", "gold, line 1: broken JSON"),
        (
            "gold",
            '{"text": "A wok", "spans": [{"start": 2, "end": 5, "label": "POT"}]}',
            'label "POT" is not one of the labels',
        ),
    ],
)
def test_bad_file_is_named_and_nothing_written(
    option: str, content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / option
    path.write_text(content, "utf8")
    settings = Settings(**{**vars(_SETTINGS), option: path})
    with pytest.raises(InstaNERError, match=message):
        make_project(tmp_path / "project", settings)
    assert [path.name for path in tmp_path.iterdir()] == [option]


def test_warnings_are_returned(tmp_path: Path) -> None:
    labels = {"PRODUCT": "A thing.", "PRODUCTS": ""}
    warnings = make_project(tmp_path / "project", Settings(labels))
    assert len(warnings) == 2
    assert "nearly the same" in warnings[0]
    assert "no definition" in warnings[1]


def test_weasel_takes_each_dependency_for_a_path_of_its_own(tmp_path: Path) -> None:
    from weasel.util.config import load_project_config

    make_project(tmp_path / "project", _SETTINGS)
    for folder in (ROOT, tmp_path / "project"):
        for command in load_project_config(folder)["commands"]:
            assert not any("," in dep for dep in command.get("deps", []))


def test_installed_wheel_makes_the_same_project(tmp_path: Path) -> None:
    wheels, installed = tmp_path / "wheels", tmp_path / "installed"
    checkout = tmp_path / "checkout"  # a build leaves files beside the sources
    names = ("instaner", "configs", "scripts", "assets")
    for name in names:
        shutil.copytree(ROOT / name, checkout / name)
    for path in (*ROOT.glob("*.cfg"), *ROOT.glob("*.*ml"), *ROOT.glob("*.md")):
        shutil.copy(path, checkout)
    shutil.copy(ROOT / "LICENSE", checkout)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    pip += ["--no-build-isolation", "--wheel-dir", str(wheels), str(checkout)]
    built = subprocess.run(pip, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("instaner-*.whl")
    shutil.unpack_archive(wheel, installed, "zip")
    folder = tmp_path / "wheel" / "project"
    command = [sys.executable, "-m", "instaner", "new", str(folder)]
    for label, definition in _LABELS.items():
        command += ["--label", f"{label}={definition}"]
    env = {**os.environ, "PYTHONPATH": str(installed)}
    folder.parent.mkdir()
    where = [sys.executable, "-c", "import instaner.new as n; print(n.TEMPLATE)"]
    found = subprocess.check_output(where, cwd=tmp_path, env=env, text=True)
    assert found.strip() == str(installed / "instaner" / "project")
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    other = tmp_path / "other" / "project"
    make_project(other, _SETTINGS)
    assert {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    } == {
        str(path.relative_to(other)): path.read_bytes()
        for path in other.rglob("*")
        if path.is_file()
    }
