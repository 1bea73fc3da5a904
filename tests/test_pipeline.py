import sys
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.pipeline import EntityRuler

from instaner.errors import InstaNERError
from instaner.llm.chat import Chat
from instaner.pipeline import (
    get_llm_names,
    get_llms,
    load_pipeline,
    load_teacher,
    make_blank,
    read_config,
)

from .conftest import ROOT, MakeTeacher

_TEACHER = """
[paths]
labels = ["DISH"]

[nlp]
lang = "en"
pipeline = ["sentencizer","llm"]

[components]

[components.sentencizer]
factory = "sentencizer"

[components.llm]
factory = "llm"

[components.llm.task]
@llm_tasks = "instaner.NER.v1"
labels = ${paths.labels}

[components.llm.model]
@llm_models = "instaner.Chat.v1"
name = "m"
"""


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.cfg"
    path.write_text(_TEACHER, "utf8")
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Folder of a pipeline without an llm component."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    ruler = nlp.add_pipe("entity_ruler")
    assert isinstance(ruler, EntityRuler)
    ruler.add_patterns([{"label": "DISH", "pattern": "ramen"}])
    nlp.to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_read_config_reads_a_file(config_path: Path) -> None:
    config = read_config(str(config_path))
    assert config["components"]["llm"]["task"]["labels"] == ["DISH"]


def test_read_config_reads_a_folder(saved: Path) -> None:
    assert read_config(str(saved))["nlp"]["pipeline"] == ["sentencizer", "entity_ruler"]


def test_read_config_takes_overrides(config_path: Path) -> None:
    config = read_config(str(config_path), overrides={"paths.labels": ["TOOL"]})
    assert config["components"]["llm"]["task"]["labels"] == ["TOOL"]


@pytest.mark.parametrize("load", [read_config, load_pipeline, load_teacher])
def test_missing_source_is_named(load: object, tmp_path: Path) -> None:
    assert callable(load)
    with pytest.raises(InstaNERError, match=r"nowhere.cfg not found"):
        load(str(tmp_path / "nowhere.cfg"))


def test_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match=r"config.cfg is missing"):
        read_config(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"wok", b"[nlp\n", b"[nlp]\nlang = wok\n", b"[nlp]\na = ${b.c}", b"\xff"],
)
def test_broken_config_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.cfg"
    path.write_bytes(content)
    with pytest.raises(InstaNERError, match=r"broken.cfg") as caught:
        load_pipeline(str(path))
    assert "\n" not in str(caught.value)


def test_override_of_no_section_is_one_line(config_path: Path) -> None:
    with pytest.raises(InstaNERError, match=r"teacher.cfg: ") as caught:
        read_config(str(config_path), overrides={"nowhere.name": 1})
    assert "\n" not in str(caught.value)


def test_llm_names_are_those_of_the_pipeline(config_path: Path) -> None:
    assert get_llm_names(read_config(str(config_path))) == ["llm"]


def test_llms_are_in_order(make_teacher: MakeTeacher) -> None:
    nlp = make_teacher({}, names=("b", "a"))
    nlp.add_pipe("sentencizer", first=True)
    assert [name for name, _ in get_llms(nlp)] == ["b", "a"]


def test_config_is_assembled(config_path: Path) -> None:
    nlp = load_pipeline(str(config_path))
    assert isinstance(nlp, Language)
    assert nlp.pipe_names == ["sentencizer", "llm"]


def test_assembling_makes_no_warning(
    config_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    load_pipeline(str(config_path))
    assert not [w for w in recwarn if "shard" in str(w.message).lower()]


def test_folder_is_loaded(saved: Path) -> None:
    doc = load_pipeline(str(saved))("my ramen")
    assert [ent.text for ent in doc.ents] == ["ramen"]


@pytest.mark.parametrize("kind", ["config", "folder"])
def test_excluded_components_are_not_made(
    kind: str, config_path: Path, saved: Path
) -> None:
    source = config_path if kind == "config" else saved
    nlp = load_pipeline(str(source), exclude=["llm", "entity_ruler"])
    assert nlp.component_names == ["sentencizer"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("components.llm.factory", "nothing", "nothing"),
        ("components.llm.task.@llm_tasks", "instaner.Nothing.v1", "instaner.Nothing"),
        ("components.llm.model.nothing", 1, "nothing"),
        ("components.llm.model.name", [1], "name"),
        ("paths.labels", [], "instaner.NER.v1 needs labels"),
        ("nlp.lang", "nothing", "nothing"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(
    config_path: Path, name: str, value: object, message: str
) -> None:
    with pytest.raises(InstaNERError, match=message) as caught:
        load_pipeline(str(config_path), overrides={name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lang", ["en", "nl", "zh", "xx"])
def test_blank_pipeline_is_of_its_language(lang: str) -> None:
    nlp = make_blank(lang)
    assert (nlp.lang, nlp.pipe_names) == (lang, [])


def test_unknown_language_is_named() -> None:
    with pytest.raises(InstaNERError, match='does not know the language "tlh"') as e:
        make_blank("tlh")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("lang", "module", "packages"),
    [
        ("ja", "sudachipy", "sudachipy sudachidict_core"),
        ("ko", "natto", "natto-py"),
        ("th", "pythainlp", "pythainlp"),
        ("vi", "pyvi", "pyvi"),
    ],
)
def test_tokenizer_that_is_not_installed_is_named(
    config_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lang: str,
    module: str,
    packages: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    message = f'language "{lang}" needs more packages: pip install {packages}\\.'
    with pytest.raises(InstaNERError, match=message):
        make_blank(lang)
    with pytest.raises(InstaNERError, match=rf"teacher.cfg cannot be .*{message}"):
        load_pipeline(str(config_path), overrides={"nlp.lang": lang})


def test_tokenizer_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(nlp: Language, text: str) -> None:
        raise RuntimeError("libmecab.so\ncould not be found")

    monkeypatch.setattr(Language, "make_doc", fail)
    with pytest.raises(InstaNERError, match="does not work: libmecab.so could not be"):
        make_blank("en")


def test_teacher_has_an_llm_component(config_path: Path) -> None:
    assert len(get_llms(load_teacher(str(config_path)))) == 1


def test_pipeline_without_an_llm_component_is_no_teacher(saved: Path) -> None:
    with pytest.raises(InstaNERError, match="has no llm component, so it is no teach"):
        load_teacher(str(saved))


def test_model_of_the_teacher_can_be_set(config_path: Path) -> None:
    ((_, llm),) = get_llms(load_teacher(str(config_path), llm="other"))
    assert llm._model.name == "other"


def test_model_of_a_recording_cannot_be_set(
    config_path: Path, make_teacher: MakeTeacher
) -> None:
    make_teacher({}).to_disk(config_path.with_name("recorded"))
    with pytest.raises(InstaNERError, match="The model cannot be set to other"):
        load_teacher(str(config_path.with_name("recorded")), llm="other")


@pytest.mark.parametrize("name", ["teacher_live", "generator_live"])
def test_live_configs_need_no_key_and_make_no_store_to_be_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    store = tmp_path / "responses.db"
    nlp = load_teacher(
        f"configs/{name}.cfg", overrides={"paths.store": str(store)}, llm="m"
    )
    ((_, llm),) = get_llms(nlp)
    assert isinstance(llm._model, Chat)
    assert llm._model.store is not None
    assert (llm._model.name, llm._model.store.path) == ("m", store)
    assert not store.exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("budget", 1.0, "The budget for m needs store"),
        ("max_concurrency", 0, "max_concurrency of m has to be a number from 1"),
        ("params", {"messages": []}, '"messages" cannot be in the params'),
        ("max_concurrency", "many", "max_concurrency"),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    config_path: Path, name: str, value: object, message: str
) -> None:
    with pytest.raises(InstaNERError, match=message) as caught:
        load_teacher(
            str(config_path), overrides={f"components.llm.model.{name}": value}
        )
    assert "\n" not in str(caught.value)
