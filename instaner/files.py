"""Reading lines and writing outputs: what is bad is named, nothing is half-written."""

import hashlib
import json
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import srsly

from .errors import InstaNERError

_PACKAGES = (
    "instaner",
    "spacy",
    "spacy-llm",
    "spacy-transformers",
    "torch",
    "transformers",
    "openai",
    "genai-prices",
    "ecologits",
)


def check_exists(path: Path, what: str) -> None:
    """Check that an input is there.

    path (Path): File or folder.
    what (str): What it is, for the message.
    RAISES (InstaNERError): If it is not.
    """
    if not path.exists():
        raise InstaNERError(f"{what} not found: {path}. Check the path.")


def check_file(path: Path, what: str) -> None:
    """Check that an input is there, and no folder.

    path (Path): File.
    what (str): What it is, for the message.
    RAISES (InstaNERError): If it is not.
    """
    check_exists(path, what)
    if path.is_dir():
        raise InstaNERError(f"{what} {path} is a folder. Give a file.")


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the objects of a JSONL file, one at a time.

    path (Path): UTF-8 file, one JSON object per line; empty lines are skipped.
    YIELDS (tuple[int, dict]): Line number, counted from 1, and the object.
    RAISES (InstaNERError): On a missing file, or a line that is no JSON object.
    """
    check_file(path, "JSONL file")
    with path.open("rb") as file_:
        for number, raw in enumerate(file_, 1):
            try:
                line = raw.decode("utf-8-sig").strip()
                row = json.loads(line, parse_constant=_refuse) if line else None
                if "\\u" in line:  # half of a surrogate pair cannot be written
                    json.dumps(row, ensure_ascii=False).encode("utf8")
            except (RecursionError, ValueError) as err:  # UnicodeErrors too
                raise InstaNERError(
                    f"{path}, line {number}: broken JSON ({err}). "
                    "Mend or remove the line."
                ) from err
            if not line:
                continue
            if not isinstance(row, dict):
                raise InstaNERError(
                    f"{path}, line {number}: a JSON object is expected, "
                    f"found {type(row).__name__}."
                )
            yield number, row


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def get_field(row: dict[str, Any], key: str, path: Path, number: int) -> str:
    """Get a string that a line has to have.

    row (dict[str, Any]): The line's object.
    key (str): The field.
    path (Path): The file, for the message.
    number (int): The line number, for the message.
    RETURNS (str): The value.
    RAISES (InstaNERError): If the field is missing or no string.
    """
    value = row.get(key)
    if not isinstance(value, str):
        raise InstaNERError(
            f'{path}, line {number}: "{key}" has to be a string, found {value!r}.'
        )
    return value


@contextmanager
def write_whole(path: Path, *, holds: Iterable[str] | None = None) -> Iterator[Path]:
    """Give a place beside a file or folder to write to, and move what was written
    there in one step, so that a killed or failed run leaves what was there before. An
    empty folder is filled: a shell may stand in it.

    path (Path): Final path of the file or folder.
    holds (Optional[Iterable[str]]): For a folder, patterns of what may be in it, which
        is replaced. None: the path is a file.
    YIELDS (Path): Path to write to.
    RAISES (InstaNERError): If the path is a folder with anything else in it or lies in
        a file, or another run is writing to it.
    """
    path = path.resolve()
    if holds is not None and path.is_file():
        raise InstaNERError(f"{path} is a file. Give a folder as output.")
    if path.is_dir():
        patterns = tuple(holds or ())
        for entry in path.iterdir():
            if not any(entry.match(pattern) for pattern in patterns):
                raise InstaNERError(
                    f"{path} would be replaced, but holds {entry.name}, which is of no "
                    "earlier run. Give another output."
                )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as err:
        raise InstaNERError(
            f"{path} cannot be written: it would lie in a file. Give another output."
        ) from err
    part = path.with_name(f".{path.name}.part")
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # killed between the two renames below
        old.rename(path)
    for left_over in (part, old):
        _remove(left_over)
    try:
        yield part
        if path.is_dir() and not any(path.iterdir()):
            for entry in part.iterdir():
                entry.rename(path / entry.name)
            part.rmdir()
            return
        if path.is_dir():  # a folder cannot be replaced in one step
            path.rename(old)
        part.replace(path)
    except (FileExistsError, FileNotFoundError) as err:
        if part.name not in f"{err.filename}":
            raise
        raise InstaNERError(
            f"Another run was writing {path} at the same time. Run again alone, or "
            "give another output."
        ) from err
    except BaseException:  # Ctrl-C too; it goes on to the caller
        _remove(part)
        raise
    _remove(old)


def write_meta(output: Path, *, config: Path | None = None, **values: Any) -> Path:
    """Write what a step did beside its output, as OUTPUT.meta.json.

    output (Path): Output file or folder of the step.
    config (Optional[Path]): Config file of the step, whose hash is kept.
    values (Any): JSON values: counts, seed, seconds, configs with their hashes.
    RETURNS (Path): The file.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    if config is not None:
        values["config"] = {"path": str(config), "sha256": hash_file(config)}
    path = output.with_name(f"{output.name.removesuffix('.jsonl')}.meta.json")
    with write_whole(path) as part:
        srsly.write_json(part, {**values, "versions": versions})
    return path


def hash_file(path: Path) -> str:
    """RETURNS (str): SHA-256 of a file's bytes, as hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
