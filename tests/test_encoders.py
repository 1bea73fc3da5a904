import shutil
import sys
from pathlib import Path

import pytest

from instaner.encoders import ENCODERS, check_encoder, find_encoder, get_encoder
from instaner.errors import InstaNERError

from .conftest import ROOT


@pytest.fixture
def package(tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a Python package with an encoder in its folder "model"."""
    shutil.copytree(tiny_encoder, tmp_path / "site" / "tiny_bert" / "model")
    (tmp_path / "site" / "tiny_bert" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    return "tiny_bert"


def test_folder_is_found(tiny_encoder: Path) -> None:
    assert find_encoder(str(tiny_encoder)) == str(tiny_encoder)


def test_folder_of_a_package_is_found(package: str, tmp_path: Path) -> None:
    folder = tmp_path / "site" / "tiny_bert" / "model"
    assert find_encoder(f"{package}/model") == str(folder)


def test_package_is_not_imported(package: str) -> None:
    find_encoder(f"{package}/model")
    assert package not in sys.modules


def test_path_is_relative_where_it_can_be(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_encoder(f"{package}/model")
    assert Path(found) == Path("site", "tiny_bert", "model")


@pytest.mark.parametrize(
    "name", ["", "no-such-encoder", "no/such/folder", "spacy/no_model", "/nowhere", "!"]
)
def test_unknown_encoder_is_named(name: str) -> None:
    with pytest.raises(InstaNERError, match=f'Encoder "{name}" cannot be loaded') as e:
        find_encoder(name)
    assert "\n" not in str(e.value)


def test_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match="holds no transformers model"):
        find_encoder(str(tmp_path))


def test_folder_without_weights_is_named(tiny_encoder: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_encoder / "config.json", tmp_path)
    with pytest.raises(InstaNERError, match="holds no weights"):
        find_encoder(str(tmp_path))


def test_missing_transformers_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InstaNERError, match=r"pip install 'instaner\[transformers\]'"):
        find_encoder("bert-base-cased")


def test_advice_names_the_two_ways_out() -> None:
    with pytest.raises(InstaNERError, match="the hub cannot be reached") as e:
        find_encoder("no-such-encoder")
    assert "--paths.encoder FOLDER" in str(e.value)
    assert "configs/student_cnn.cfg" in str(e.value)


@pytest.mark.parametrize("lang", ["nl", "ja"])
def test_language_has_its_own_encoder(lang: str) -> None:
    assert get_encoder(lang) == ENCODERS[lang] != ENCODERS["xx"]


@pytest.mark.parametrize("lang", ["tlh", "xx", ""])
def test_other_languages_share_one_encoder(lang: str) -> None:
    assert get_encoder(lang).name == "FacebookAI/xlm-roberta-base"


@pytest.mark.parametrize("lang", ENCODERS)
def test_encoder_has_a_name_a_licence_and_a_source(lang: str) -> None:
    encoder = ENCODERS[lang]
    assert encoder.name.count("/") == 1
    assert encoder.licence
    assert encoder.source.startswith("https://")


def test_missing_needs_of_a_tokenizer_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("fugashi", "unidic_lite"):
        monkeypatch.setitem(sys.modules, module, None)
    message = "bert-base-japanese-v3.* needs .*: pip install fugashi unidic-lite"
    with pytest.raises(InstaNERError, match=message):
        find_encoder(ENCODERS["ja"].name)


def test_encoder_to_use_elsewhere_is_a_name_or_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my bert").mkdir()
    monkeypatch.chdir(tmp_path)
    assert check_encoder("./my bert") == (tmp_path / "my bert").as_posix()
    for name in ("bert-base-cased", "FacebookAI/xlm-roberta-base"):
        assert check_encoder(name) == name


@pytest.mark.parametrize("name", ["./bert", "a/b/c", r"C:\bert", "~/bert", "a bert"])
def test_encoder_that_is_neither_folder_nor_name_is_named(name: str) -> None:
    with pytest.raises(InstaNERError, match="there is no such folder, and no name"):
        check_encoder(name)


def _render_rows() -> list[str]:
    return [
        f"| {lang} | {e.name} | {e.licence} | {e.source} | {' '.join(e.needs) or '-'} |"
        for lang, e in ENCODERS.items()
    ]


def test_page_has_the_table() -> None:
    lines = (ROOT / "docs" / "encoders.md").read_text("utf8").splitlines()
    _, *rows = [line for line in lines if line.startswith("| ")]
    assert rows == _render_rows()
