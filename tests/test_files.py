import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import srsly
from hypothesis import given
from hypothesis import strategies as st

from instaner.errors import InstaNERError
from instaner.files import (
    check_exists,
    get_field,
    hash_file,
    read_jsonl,
    write_meta,
    write_whole,
)


def _fail_after_writing(path: Path, *, holds: list[str] | None = None) -> None:
    with write_whole(path, holds=holds) as part:
        part.write_text("half", "utf8")
        raise KeyboardInterrupt


def test_check_exists_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match=r"Corpus not found: .*nowhere"):
        check_exists(tmp_path / "nowhere", "Corpus")


def test_folder_for_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match=r"JSONL file .* is a folder\. Give a file"):
        list(read_jsonl(tmp_path))


@pytest.mark.parametrize("output", ["file/output", "file/folder/output"])
def test_write_whole_writes_into_no_file(output: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstaNERError, match="it would lie in a file"):
        with write_whole(tmp_path / output):
            pass


def test_read_jsonl_counts_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": "ü"}\n', "utf8")
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": "ü"})]


def test_read_jsonl_is_lazy(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{', "utf8")
    assert next(read_jsonl(path)) == (1, {"a": 1})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2: broken JSON"),
        (b"\xff", "line 2: broken JSON"),
        (b"[1]", "line 2: a JSON object is expected, found list"),
        (b"null", "line 2: a JSON object is expected, found NoneType"),
    ],
)
def test_read_jsonl_names_the_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n" + line + b"\n")
    with pytest.raises(InstaNERError, match=f"rows.jsonl, {message}"):
        list(read_jsonl(path))


@given(content=st.binary(max_size=40))
def test_read_jsonl_fails_in_one_way(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    try:
        rows = [row for _, row in read_jsonl(path)]
    except InstaNERError:
        return
    assert all(isinstance(row, dict) for row in rows)


def test_get_field_gets_a_string() -> None:
    assert get_field({"text": "wok"}, "text", Path("f"), 3) == "wok"


@pytest.mark.parametrize("row", [{}, {"text": None}, {"text": 5}])
def test_get_field_names_the_line(row: dict[str, object]) -> None:
    with pytest.raises(InstaNERError, match='f, line 3: "text" has to be a string'):
        get_field(row, "text", Path("f"), 3)


def test_write_whole_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in ("one", "two"):
        with write_whole(path) as part:
            part.write_text(content, "utf8")
    assert path.read_text("utf8") == "two"
    assert list(path.parent.iterdir()) == [path]


def test_write_whole_replaces_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for name in ("one", "two"):
        with write_whole(path, holds=["one"]) as part:
            part.mkdir()
            (part / name).touch()
    assert [file_.name for file_ in path.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_fills_an_empty_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    node = path.stat().st_ino
    with write_whole(path, holds=[]) as part:
        part.mkdir()
        (part / "one").touch()
    assert [file_.name for file_ in path.iterdir()] == ["one"]
    assert path.stat().st_ino == node
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", "utf8")
    with pytest.raises(KeyboardInterrupt):
        _fail_after_writing(path)
    assert path.read_text("utf8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_keeps_the_old_folder_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(KeyboardInterrupt):
        _fail_after_writing(path, holds=["old"])
    assert [file_.name for file_ in path.iterdir()] == ["old"]


@pytest.mark.parametrize("holds", [None, ["*.spacy"]])
def test_write_whole_replaces_no_folder_of_another_kind(
    holds: list[str] | None, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InstaNERError, match=r"holds thesis\.txt"):
        with write_whole(tmp_path, holds=holds):
            pass
    assert (tmp_path / "thesis.txt").exists()


def test_write_whole_starts_anew_after_a_killed_run(tmp_path: Path) -> None:
    left_over = tmp_path / ".folder.part"
    left_over.mkdir()
    (left_over / "half").touch()
    with write_whole(tmp_path / "folder") as part:
        part.mkdir()
    assert list((tmp_path / "folder").iterdir()) == []


def test_write_meta_writes_values_and_versions(tmp_path: Path) -> None:
    write_meta(tmp_path / "texts.jsonl", seed=3)
    meta = srsly.read_json(tmp_path / "texts.meta.json")
    assert meta["seed"] == 3
    assert meta["versions"]["python"] == platform.python_version()
    assert "spacy" in meta["versions"]


def test_hash_file_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert hash_file(path) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_folder_lost_between_two_renames_comes_back(tmp_path: Path) -> None:
    old = tmp_path / ".out.old"
    old.mkdir()
    (old / "kept.txt").write_text("kept", "utf8")
    with pytest.raises(KeyboardInterrupt), write_whole(tmp_path / "out"):
        raise KeyboardInterrupt
    assert (tmp_path / "out" / "kept.txt").read_text("utf8") == "kept"


def test_two_runs_on_one_output_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def write(name: str, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        with write_whole(folder, holds=["*"]) as part:
            part.mkdir()
            meanwhile()
            (part / name).write_text(name, "utf8")

    with pytest.raises(InstaNERError, match="Another run was writing .*out"):
        write("lost", meanwhile=lambda: write("whole"))
    assert [path.name for path in folder.iterdir()] == ["whole"]
