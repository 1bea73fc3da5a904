from pathlib import Path
from typing import Any

import srsly

from ..errors import InstaNERError
from ..evaluate import compare, evaluate, get_size
from ..files import check_exists, hash_file, write_whole
from ..pipeline import get_llm_names, load_pipeline, load_teacher, read_config
from ._util import CODE_HELP, Arg, Opt, import_code, msg, one_line_errors, setup_gpu


@one_line_errors
def evaluate_cli(
    systems: list[str] = Arg(
        ...,
        help="Pipelines (config, folder or package) or results of an earlier "
        "evaluation (.json), each as [NAME=]SYSTEM",
    ),
    gold: Path = Opt(..., help="Gold: JSONL with text and spans, or a DocBin"),
    output: Path | None = Opt(
        None, help="Folder for NAME.json of each system, and comparison.json"
    ),
    llm: str | None = Opt(None, help="Model to ask instead of a teacher config's"),
    gpu_id: int = Opt(-1, "--gpu-id", "-g", help="GPU, or -1 for the CPU"),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Score pipelines on the same gold, and compare them."""
    import_code(code)
    setup_gpu(gpu_id)
    check_exists(gold, "Gold")
    sources = dict(_split_name(system) for system in systems)
    if len(sources) < len(systems):
        raise InstaNERError("Two systems have the same name. Name them: NAME=SYSTEM.")
    results = {
        name: _evaluate(source, gold, llm=llm) for name, source in sources.items()
    }
    comparison = compare(results)
    if output is not None:
        for name, result in results.items():
            _write_json(output / f"{name}.json", result)
        if len(results) > 1:
            _write_json(output / "comparison.json", comparison)
    _print_comparison(comparison, gold)
    if output is not None:
        msg.good(f"Scores: {output}")


def _evaluate(source: str, gold: Path, *, llm: str | None) -> dict[str, Any]:
    sha256 = hash_file(gold)
    if source.endswith(".json"):
        return _read_result(Path(source), gold, sha256)
    if get_llm_names(read_config(source)):
        nlp = load_teacher(source, llm=llm)
    else:
        nlp = load_pipeline(source)
    return {
        **evaluate(nlp, gold),
        "source": source,
        "gold": {"path": str(gold), "sha256": sha256},
        "bytes": get_size(Path(source)),
    }


def _read_result(path: Path, gold: Path, sha256: str) -> dict[str, Any]:
    check_exists(path, "Result")
    try:
        result = dict(srsly.read_json(path))
        scored = result["gold"]["sha256"]
    except (KeyError, TypeError, ValueError) as err:
        raise InstaNERError(
            f"{path} is no result of an evaluation of one system. Evaluate it anew."
        ) from err
    if scored != sha256:
        raise InstaNERError(
            f"{path} was scored on {result['gold']['path']} as it was then, not on "
            f"this {gold}. Evaluate that system anew."
        )
    return result


def _split_name(system: str) -> tuple[str, str]:
    name, equals, source = system.partition("=")
    if not equals or Path(system).exists():
        return Path(system).stem, system
    return name, source


def _write_json(path: Path, data: dict[str, Any]) -> None:
    with write_whole(path) as part:
        srsly.write_json(part, data)


def _print_comparison(comparison: dict[str, Any], gold: Path) -> None:
    systems = comparison["systems"]
    rows = []
    for label in comparison["labels"]:
        types = [result["ents_per_type"].get(label, {}) for result in systems.values()]
        rows.append((f"F1 {label}", *(_format(t.get("f"), ".3f") for t in types)))
    for title, key, spec in (
        ("F1", "ents_f", ".3f"),
        ("precision", "ents_p", ".3f"),
        ("recall", "ents_r", ".3f"),
        ("words/s", "words_per_second", ",.0f"),
    ):
        rows.append((title, *(_format(r[key], spec) for r in systems.values())))
    sizes = [r["bytes"] / 1e6 or None for r in systems.values()]
    rows.append(("size, MB", *(_format(size, ",.1f") for size in sizes)))
    tokens = [
        _format(r.get("prompt_tokens"), ",d")
        + ("*" if r.get("prompt_tokens_estimated") else "")
        for r in systems.values()
    ]
    rows.append(("prompt tokens", *tokens))
    first = next(iter(systems.values()))
    msg.text(f"On {first['texts']} texts of {gold}:")
    msg.table(
        rows,
        header=("score", *systems),
        divider=True,
        aligns=["l", *"r" * len(systems)],
    )
    if any(r.get("prompt_tokens_estimated") for r in systems.values()):
        msg.text("* estimated from the prompts' length")
    for name, result in systems.items():
        for reason, count in (result.get("failed") or {}).items():
            msg.warn(f"{name}: {count} of {result['texts']} answers failed: {reason}")
        if result.get("unread"):
            msg.warn(f"{name}: {result['unread']} mentions or lines made no span")


def _format(value: Any, spec: str) -> str:
    return "–" if value is None else format(value, spec)
