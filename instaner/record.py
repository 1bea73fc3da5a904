"""The record of a run: what went into it, how it was made, and what came out."""

import difflib
import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import srsly

from .errors import InstaNERError
from .files import hash_file, write_whole
from .llm.store import Store
from .scores import find_score

RECORD = Path("training") / "run.json"
CURRENT = "current"  # the name of the record of the latest run
_RUNS = Path("training") / "runs"
_METRICS = Path("training") / "metrics"
_KEPT = (_METRICS, Path("training") / "report")  # beside the record

_MOST_BYTES = 20_000  # of a file whose text is kept; of others, the hash has to do
_NOT_SCORES = ("spans", "error_examples", "differences")
_STEP_SETTINGS = (
    "config",
    "gpu_id",
    "llm",
    "overrides",
    "rechecked",
    "samples",
    "seed",
    "vote",
)

# What a key is called, and what keys look like. The name of a variable that holds one,
# as in `key_variable`, is none.
_NAME = (
    r"(?:(?<![A-Za-z])(?:api|auth|access)?[_-]?(?:keys?|token|authorization)"
    r"|(?:secret|password|passwd|credential)s?)"
)
_SECRET_NAME = re.compile(rf"(?i){_NAME}$")
_QUOTED = r"\"(?P<{0}>[^\"\n]{{4,}})\"|'(?P<{1}>[^'\n]{{4,}})'"
_SECRETS = (
    # A line of a config or of YAML, or a pair in JSON; an option; an address.
    re.compile(
        rf"(?i){_NAME}[\"']?\s*[:=]\s*\[?(?:{_QUOTED.format('secret', 'other')})"
    ),
    re.compile(
        rf"(?im)^\s*[\w.-]*{_NAME}[\"']?\s*[:=]\s*(?![\"'\[{{]|\$\{{|null\b|true\b|false\b)"
        r"(?P<secret>[^\s\"',]{4,}(?:[ \t]+[^\s#\"',]+)*)"
    ),
    re.compile(rf"(?i)--[\w.-]*{_NAME}[\s=]+[\"']?(?P<secret>[^\s\"']{{4,}})"),
    re.compile(
        rf"(?i){_NAME}[\"']?\s*[:=]\s*(?P<secret>(?=[^\s\"']*\d)[^\s\"',{{}}]{{12,}})"
    ),
    re.compile(rf"(?i)[?&]{_NAME}=(?P<secret>[^&\s\"'#]+)"),
    re.compile(
        r"\b(?P<secret>sk-[\w-]{8,}|AIza[\w-]{30,}|AKIA[0-9A-Z]{12,}|"
        r"(?:pk|rk|hf|gsk|xai|ghp|github_pat)[-_](?=[\w-]*\d)[\w-]{16,})"
    ),
    re.compile(r"(?i)\b(?:bearer|basic)\s+(?P<secret>[\w.~+/-]{8,}=*)"),
    re.compile(r"://(?P<secret>[^/\s@]+)@"),
)
_HIDDEN = "[hidden]"

Record = dict[str, Any]


def make_record(root: Path) -> Record:
    """Gather what there is to know about the run of a Weasel project.

    root (Path): The project's folder.
    RETURNS (Dict[str, Any]): created (UTC), project (text; vars as they were used),
        commands (project.lock), steps (what each *.meta.json says), configs and inputs
        (texts by path), hashes (SHA-256 by path), seeds, seconds and scores (by step
        or system), store (by file), versions and system. What the project does not
        have is left out, and what may be a key is hidden.
    RAISES (InstaNERError): On a file that is there, but broken.
    """
    text = _read_text(root / "project.yml") or ""
    project = _parse(root / "project.yml", text, srsly.yaml_loads)
    lock_text = _read_text(root / "project.lock") or ""
    lock = _parse(root / "project.lock", lock_text, srsly.yaml_loads)
    used = _find_vars(project, lock)
    configs = _read_configs(root, used)
    steps = {_get_step(root, path): _read_json(path) for path in _find_metas(root)}
    record = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "project": {"text": text, "vars": used} if text else {},
        "commands": lock,
        "steps": steps,
        "configs": configs,
        "inputs": _read_inputs(root, used, lock, configs),
        "hashes": {_name(root, path): hash_file(path) for path in _find_data(root)},
        "seeds": _find_seeds(used, steps, configs),
        "seconds": {k: v["seconds"] for k, v in steps.items() if "seconds" in v},
        "scores": _read_scores(root),
        "store": _read_stores(root, configs),
        "versions": _find_versions(),
        "system": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
        },
    }
    secrets = _find_secrets(project)
    return _hide({key: value for key, value in record.items() if value}, secrets)


def write_record(root: Path, path: Path) -> None:
    """Write the record of a run.

    root (Path): The project's folder.
    path (Path): The JSON file.
    """
    record = make_record(root)
    with write_whole(path) as part:
        srsly.write_json(part, record)


def read_records(root: Path) -> dict[str, Record]:
    """Read the records of a project.

    root (Path): The project's folder.
    RETURNS (Dict[str, Dict[str, Any]]): Records by name, the oldest first; that of the
        latest run is "current".
    RAISES (InstaNERError): On a broken one.
    """
    paths = {path.name: path / "run.json" for path in _find_kept(root)}
    if (root / RECORD).exists():
        paths[CURRENT] = root / RECORD
    records = {name: read_record(path) for name, path in paths.items()}
    return dict(sorted(records.items(), key=lambda item: item[1]["created"]))


def read_record(path: Path) -> Record:
    """Read the record of a run.

    path (Path): The file.
    RETURNS (Dict[str, Any]): As make_record makes it.
    RAISES (InstaNERError): If it is missing or broken.
    """
    record = _read_json(path)
    groups = ("project", "steps", "configs", "inputs", "hashes", "versions", "scores")
    nested = [
        *(record.get(group, {}) for group in groups),
        *(part for group in ("steps", "scores") for part in _get_parts(record, group)),
    ]
    if not isinstance(record.get("created"), str) or not all(
        isinstance(part, dict) for part in nested
    ):
        raise InstaNERError(f"{path} is no record of a run. Write it anew.")
    return record


def _get_parts(record: Record, group: str) -> list[Any]:
    parts = record.get(group)
    return list(parts.values()) if isinstance(parts, dict) else []


def find_record(root: Path, name: str) -> Record:
    """Read the record that is meant.

    root (Path): The project's folder.
    name (str): The name of a kept run, "current", or a path to a record or its folder.
    RETURNS (Dict[str, Any]): The record.
    RAISES (InstaNERError): If there is none, or it is broken.
    """
    kept = {path.name: path / "run.json" for path in _find_kept(root)}
    path = Path(name)
    if name in kept:
        return read_record(kept[name])
    if name == CURRENT:
        return read_record(root / RECORD)
    if path.exists():
        return read_record(path / "run.json" if path.is_dir() else path)
    names = ", ".join([CURRENT, *kept])
    raise InstaNERError(f'No run "{name}". Give one of {names}, or a path.')


def keep_record(root: Path, name: str) -> Path:
    """Copy a run's record, metrics and report aside.

    root (Path): The project's folder.
    name (str): What to call it.
    RETURNS (Path): The new folder.
    RAISES (InstaNERError): On a name that cannot be, or is taken, and without a run.
    """
    if not re.fullmatch(r"\w[\w.-]*", name) or name == CURRENT:
        raise InstaNERError(
            f'A run cannot be called "{name}". Use letters, digits, "-", "_" and ".", '
            f'and not "{CURRENT}".'
        )
    read_record(root / RECORD)  # a broken one is not worth keeping
    folder = root / _RUNS / name
    if folder.exists():
        raise InstaNERError(f"{folder} is kept already. Give another name.")
    try:
        with write_whole(folder, holds=[]) as part:
            part.mkdir()
            shutil.copy2(root / RECORD, part)
            for source in _KEPT:
                if (root / source).exists():
                    shutil.copytree(root / source, part / source.name)
    except OSError as err:
        raise InstaNERError(f"{folder} cannot be written: {err}.") from err
    return folder


def compare_records(before: Record, after: Record) -> dict[str, dict[str, Any]]:
    """Find what changed between two runs, and what moved.

    before (Dict[str, Any]): A record.
    after (Dict[str, Any]): Another one.
    RETURNS (Dict[str, Dict[str, Any]]): settings and versions (name: the value before
        and after, None where there is none), texts (path: lines of a unified diff),
        hashes (path: changed, new or gone), and scores (name: before and after) of all
        systems, changed or not.
    """
    hashes = _compare(before.get("hashes", {}), after.get("hashes", {}))
    lines = _compare(_get_texts(before), _get_texts(after))
    old, new = (
        {
            f"{system} {name}": score
            for system, scores in get_scores(record).items()
            for name, score in scores.items()
        }
        for record in (before, after)
    )
    return {
        "settings": _compare(_flatten_settings(before), _flatten_settings(after)),
        "texts": {path: _diff(a or "", b or "") for path, (a, b) in lines.items()},
        "hashes": {
            path: "new" if a is None else "gone" if b is None else "changed"
            for path, (a, b) in hashes.items()
        },
        "versions": _compare(before.get("versions", {}), after.get("versions", {})),
        "scores": {name: (old.get(name), new.get(name)) for name in {**old, **new}},
    }


def get_scores(record: Record) -> dict[str, dict[str, Any]]:
    """Get the scores of the systems of a run.

    record (Dict[str, Any]): A record.
    RETURNS (Dict[str, Dict[str, Any]]): For each system its scores by name: F1,
        precision and recall, or accuracy and macro F1 where each text has one
        category, F1 of each label, and words/s. Those that are not known are left out.
    """
    return {
        name: _name_scores(result)
        for name, result in record.get("scores", {}).items()
        # Others are all systems together, or a learning curve.
        if isinstance(result, dict) and find_score(result, "f") is not None
    }


def _name_scores(result: Mapping[str, Any]) -> dict[str, Any]:
    names = {"f": "F1", "p": "precision", "r": "recall"}
    if result.get("cats_balanced_acc") is not None:  # each text has one category
        names = {"f": "accuracy"}
    scores = {name: find_score(result, key) for key, name in names.items()}
    scores["macro F1"] = result.get("cats_macro_f")
    for label, values in (find_score(result, "per_type") or {}).items():
        scores[f"F1 {label}"] = values.get("f")
    scores["words/s"] = result.get("words_per_second")
    return {name: score for name, score in scores.items() if score is not None}


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8-sig", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as err:
        raise InstaNERError(f"{path} cannot be read: {err}.") from err


def _parse(path: Path, text: str, loads: Callable[[str], Any]) -> dict[str, Any]:
    try:
        data = loads(text) if text.strip() else {}
    except (RecursionError, ValueError) as err:
        raise InstaNERError(f"{path} is broken: {err}. Mend or remove it.") from err
    if not isinstance(data, dict):
        raise InstaNERError(f"{path} has to hold an object. Mend or remove it.")
    return data


def _read_json(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    if text is None:
        raise InstaNERError(f"{path} not found. Run the project first.")
    return _parse(path, text or "null", json.loads)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _get_step(root: Path, path: Path) -> str:
    return _name(root, path).removesuffix(".meta.json")


def _find_metas(root: Path) -> list[Path]:
    paths = [*root.glob("corpus/**/*.meta.json"), *root.glob("training/*.meta.json")]
    return sorted([*paths, *root.glob("training/*/*.meta.json")])


def _find_data(root: Path) -> list[Path]:
    corpora = [*root.glob("corpus/**/*.spacy"), *root.glob("corpus/**/*.jsonl")]
    return sorted(path for path in [*root.glob("assets/**/*"), *corpora] if _is(path))


def _is(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _find_kept(root: Path) -> list[Path]:
    paths = sorted((root / _RUNS).glob("*/run.json"))
    return [path.parent for path in paths if not path.parent.name.startswith(".")]


def _find_vars(project: dict[str, Any], lock: dict[str, Any]) -> dict[str, Any]:
    """The variables of project.yml, and those given on the command line instead: they
    stand nowhere but in the commands that were run.
    """
    values = dict(project.get("vars") or {})
    for command in project.get("commands") or ():
        run = (lock.get(command.get("name")) or {}).get("script") or ()
        for template, line in zip(command.get("script") or (), run, strict=False):
            for name, value in _match(template, line).items():
                if name in values and value != str(values[name]):
                    is_text = isinstance(values[name], str)
                    values[name] = value if is_text else _load(value)
    return values


def _match(template: str, line: str) -> dict[str, str]:
    pattern, seen = "", set()
    for k, part in enumerate(re.split(r"\$\{vars\.([A-Za-z_]\w*)\}", template)):
        if k % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P={part})" if part in seen else f"(?P<{part}>.*?)"
            seen.add(part)
    found = re.fullmatch(pattern, line, re.DOTALL)
    return found.groupdict() if found else {}


def _load(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _read_configs(root: Path, used: Mapping[str, Any]) -> dict[str, str]:
    named = {str(value) for value in used.values() if str(value).endswith(".cfg")}
    paths = {*root.glob("configs/**/*.cfg"), *_find_own(root, named)}
    return {_name(root, path): _read_text(path) or "" for path in sorted(paths)}


def _read_inputs(
    root: Path,
    used: Mapping[str, Any],
    lock: Mapping[str, Any],
    configs: Mapping[str, str],
) -> dict[str, str]:
    """Read what configs, variables and commands name: labels, examples, prompts."""
    named = {value for value in used.values() if isinstance(value, str)}
    named.update(
        dep["path"] for step in lock.values() for dep in step.get("deps") or ()
    )
    for text in configs.values():
        named.update(re.findall(r'"([^"\n]+)"', text))
    inputs = {}
    for path in sorted(_find_own(root, named)):
        name = _name(root, path)
        is_made = name.startswith(("corpus/", "training/"))
        if name in configs or is_made or path.stat().st_size > _MOST_BYTES:
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            inputs[name] = data.decode("utf8", "replace")
    return inputs


def _find_own(root: Path, names: set[str]) -> Iterator[Path]:
    for name in names:
        # Path.is_file fails on what cannot be a name, such as a long description.
        if os.path.isfile(root / name):
            path = (root / name).resolve()
            if path.is_relative_to(root.resolve()):
                yield root / path.relative_to(root.resolve())


def _find_seeds(
    used: Mapping[str, Any], steps: Mapping[str, Any], configs: Mapping[str, str]
) -> dict[str, Any]:
    seeds = {f"vars.{name}": used[name] for name in used if "seed" in name}
    seeds.update({name: step["seed"] for name, step in steps.items() if "seed" in step})
    for name, text in configs.items():
        if found := re.search(r"^\[system\][^\[]*^seed\s*=\s*(\d+)", text, re.M):
            seeds[name] = int(found[1])
    return seeds


def _read_scores(root: Path) -> dict[str, Any]:
    return {
        path.stem: _strip(_read_json(path))
        for path in sorted((root / _METRICS).glob("*.json"))
        if not path.name.endswith(".meta.json")
    }


def _strip(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _strip(v) for k, v in value.items() if k not in _NOT_SCORES}
    return value


def _read_stores(root: Path, configs: Mapping[str, str]) -> dict[str, Any]:
    names = {"corpus/responses.db"}
    for text in configs.values():
        names.update(re.findall(r'^store\s*=\s*"([^"\n]+)"', text, re.MULTILINE))
    stores = {}
    for path in sorted(_find_own(root, names)):
        store = Store(path)
        stores[_name(root, path)] = store.summarise()
        store.close()
    return stores


def _find_versions() -> dict[str, str]:
    versions: dict[str, Any] = {}
    for distribution in importlib.metadata.distributions():
        if name := distribution.metadata["Name"]:
            versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution)
    return {name: versions[name].version for name in sorted(versions)}


def _find_secrets(project: Mapping[str, Any]) -> set[str]:
    """Values that are not to be recorded, to be looked for in all that is."""
    named = {**os.environ, **(project.get("vars") or {})}
    values = {value for name, value in named.items() if _SECRET_NAME.search(str(name))}
    # Weasel writes their values into project.lock.
    values |= {os.environ.get(f"{v}") for v in (project.get("env") or {}).values()}
    return {value for value in values if isinstance(value, str) and len(value) >= 8}


def _hide(value: Any, secrets: set[str], *, is_secret: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            _hide(key, secrets): _hide(
                item, secrets, is_secret=bool(_SECRET_NAME.search(str(key)))
            )
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_hide(item, secrets, is_secret=is_secret) for item in value]
    if not isinstance(value, str):
        return value
    if is_secret and value:
        return _HIDDEN
    for secret in sorted(secrets, key=len, reverse=True):
        value = value.replace(secret, _HIDDEN)
    for pattern in _SECRETS:
        value = pattern.sub(_hide_match, value)
    return value


def _hide_match(match: "re.Match[str]") -> str:
    group = "secret" if match["secret"] is not None else "other"
    start, end = (place - match.start() for place in match.span(group))
    return match[0][:start] + _HIDDEN + match[0][end:]


def _get_texts(record: Record) -> dict[str, str]:
    texts = {**record.get("configs", {}), **record.get("inputs", {})}
    project = record.get("project", {}).get("text")
    return {"project.yml": project, **texts} if project else texts


def _flatten_settings(record: Record) -> dict[str, Any]:
    steps = {
        name: {key: step[key] for key in _STEP_SETTINGS if key in step}
        for name, step in record.get("steps", {}).items()
    }
    values = {"vars": record.get("project", {}).get("vars", {}), **steps}
    return dict(_flatten({**values, "system": record.get("system", {})}))


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else f"{key}")
    else:
        yield prefix, value


def _compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    pairs = {name: (a.get(name), b.get(name)) for name in {**a, **b}}
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def _diff(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), lineterm="", n=0
    )
    return list(lines)[2:]  # without the names of the files
