import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import srsly

from ..curve import make_curve, parse_shares
from ..errors import InstaNERError
from ..evaluate import compare, evaluate, evaluate_docs, get_size
from ..files import check_exists, hash_file, write_whole
from ..gold import read_bare
from ..measure import measure
from ..pipeline import get_llm_names, load_pipeline, load_teacher, read_config
from ..scores import find_score
from ..settings import read_section
from ..verdict import Decision, Rules, describe, name_rival
from ._util import (
    CODE_HELP,
    UNREAD,
    Arg,
    Opt,
    import_code,
    msg,
    one_line_errors,
    setup_gpu,
    show_progress,
)

_KEYS = {"bytes", "error_examples", "words_per_second"}
_TAKEN = ("comparison", "curve")  # by other files of --output
_NOUNS = {"ents": "entities", "cats": "categories"}


@one_line_errors
def evaluate_cli(
    systems: list[str] | None = Arg(
        None,
        help="Pipelines (config, folder or package), predictions (DocBin) or results "
        "of an earlier evaluation (.json), each as [NAME=]SYSTEM",
    ),
    gold: Path = Opt(..., help="Gold: JSONL with text and spans or cats, or a DocBin"),
    output: Path | None = Opt(
        None, help="Folder for NAME.json of each system, and comparison.json"
    ),
    reference: str | None = Opt(
        None, help="System to replace  [default: the first with an LLM, or the first]"
    ),
    silver: bool = Opt(False, "--silver", help="Say that a teacher labelled the gold"),
    config: Path | None = Opt(
        None, help="Config whose section [verdict] has the rules of the verdict"
    ),
    margin: float | None = Opt(
        None, help="How much F1, or accuracy, a student may lack  [default: 0.02]"
    ),
    llm: str | None = Opt(None, help="Model to ask instead of a teacher config's"),
    curve: str | None = Opt(
        None, help="Shares of --train to train on for a learning curve: 10,25,50,100"
    ),
    student: Path = Opt(
        Path("configs/student_cnn.cfg"), help="Training config of the curve's student"
    ),
    train: Path = Opt(Path("corpus/train.spacy"), help="Texts the curve trains on"),
    dev: Path = Opt(Path("corpus/dev.spacy"), help="Its development texts"),
    lang: str | None = Opt(None, help="Its language, if not the config's"),
    speed: bool = Opt(True, help="Measure pipelines without an LLM, each by itself"),
    gpu_id: int = Opt(-1, "--gpu-id", "-g", help="GPU, or -1 for the CPU"),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Score pipelines on the same gold, compare them, and say whether a student can
    take the LLM's place."""
    rules = read_section(Rules, "verdict", config, margin=margin)
    shares = parse_shares(curve) if curve else []
    if shares and output is None:
        raise InstaNERError("--curve needs --output, a folder for curve.json.")
    if not systems and not shares:
        raise InstaNERError("There is no system to evaluate. Give one, or --curve.")
    if output is not None and output.is_file():
        raise InstaNERError(f"{output} is a file. Give a folder as output.")
    import_code(code)
    setup_gpu(gpu_id)
    check_exists(gold, "Gold")
    for path, what in ((student, "Config"), (train, "Corpus"), (dev, "Corpus")):
        if shares:
            check_exists(path, what)
    if systems:
        results = dict(
            _evaluate_all(
                systems,
                gold,
                output=output,
                llm=llm,
                speed=speed,
                gpu_id=gpu_id,
                code=code,
            )
        )
        comparison = compare(
            results, gold, rules=rules, reference=reference, silver=silver
        )
        if output is not None and len(results) > 1:
            _write_json(output / "comparison.json", comparison)
        _print_comparison(comparison)
    if shares and output is not None:
        msg.text(f"Training students on {curve} % of {train}:")
        _print_curve(
            make_curve(
                student,
                output / "curve.json",
                shares=shares,
                train=train,
                dev=dev,
                gold=gold,
                overrides={"nlp.lang": lang} if lang else None,
                gpu_id=gpu_id,
                seed=rules.seed,
                confidence=rules.confidence,
                resamples=rules.resamples,
                on_point=_print_point,
            )
        )
    if output is not None:
        msg.good(f"Scores: {output}")


def _print_point(point: dict[str, Any]) -> None:
    msg.text(f"  {point['share']} %, {point['texts']:,} texts: done")


def _print_curve(curve: dict[str, Any]) -> None:
    rows = [
        (f"{p['texts']:,}", _format_score(find_score(p, "f"), p["interval"]))
        for p in curve["points"]
    ]
    msg.table(rows, header=("texts", curve["score"]), divider=True, aligns=["r", "r"])
    fit = curve["fit"]
    if fit is None:
        msg.text(curve["why"])
    else:
        doubled = _format_score(fit["doubled_f"], fit["interval"])
        msg.text(f"Twice the texts, {fit['doubled_texts']:,}, would bring {doubled}.")


def _evaluate_all(
    systems: list[str],
    gold: Path,
    *,
    output: Path | None,
    llm: str | None,
    speed: bool,
    gpu_id: int,
    code: Path | None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """YIELDS (Tuple[str, Dict[str, Any]]): Name and result of each system, written."""
    sources = dict(_split_name(system) for system in systems)
    if len(sources) < len(systems):
        raise InstaNERError("Two systems have the same name. Name them: NAME=SYSTEM.")
    for name, source in sources.items():
        if show_progress():
            msg.text(f"Evaluating {name}: {source}")
        result = _evaluate(source, gold, llm=llm)
        has_run = not source.endswith((".json", ".spacy"))
        if speed and has_run and "answers" not in result:
            try:
                result["speed"] = measure(
                    source, list(read_bare(gold)), code=code, gpu_id=gpu_id
                )
                result["words_per_second"] = result["speed"]["words_per_second"]
            except InstaNERError as err:  # the scores stand without it
                msg.warn(str(err))
        if output is not None:
            _write_json(output / f"{name}.json", result)
        yield name, result


def _evaluate(source: str, gold: Path, *, llm: str | None) -> dict[str, Any]:
    sha256 = hash_file(gold)
    if source.endswith(".json"):
        return _read_result(Path(source), gold, sha256)
    if source.endswith(".spacy"):
        result = evaluate_docs(Path(source), gold)
    elif get_llm_names(read_config(source)):
        result = evaluate(load_teacher(source, llm=llm), gold)
    else:
        result = evaluate(load_pipeline(source), gold)
    return {
        **result,
        "source": source,
        "gold": {"path": str(gold), "sha256": sha256},
        "bytes": get_size(Path(source)),
    }


def _read_result(path: Path, gold: Path, sha256: str) -> dict[str, Any]:
    check_exists(path, "Result")
    try:
        result = dict(srsly.read_json(path))
        scored = result["gold"]["sha256"]
        result["spans"] = [
            [(int(start), int(end), str(label)) for start, end, label in spans]
            for spans in result["spans"]
        ]
        complete = (
            len(result["spans"]) == result["texts"]
            and _KEYS <= result.keys()
            and find_score(result, "per_type") is not None
        )
    except (KeyError, TypeError, ValueError):
        complete = False
    if not complete:
        raise InstaNERError(
            f"{path} is no result of an evaluation of one system. Evaluate it anew."
        )
    if scored != sha256:
        raise InstaNERError(
            f"{path} was scored on {result['gold']['path']} as it was then, not on "
            f"this {gold}. Evaluate that system anew."
        )
    return result


def _split_name(system: str) -> tuple[str, str]:
    name, equals, source = system.partition("=")
    if not equals or Path(system).exists():
        name, source = Path(system).stem, system
    if not re.fullmatch(r"\w[\w.-]*", name) or name in _TAKEN:
        raise InstaNERError(
            f'A system cannot be called "{name}". Use letters, digits, "-", "_" and '
            f'".", and not {" or ".join(_TAKEN)}: NAME=SYSTEM.'
        )
    return name, source


def _write_json(path: Path, data: dict[str, Any]) -> None:
    with write_whole(path) as part:
        srsly.write_json(part, data)


def _print_comparison(comparison: dict[str, Any]) -> None:
    systems, gold = comparison["systems"], comparison["gold"]
    rows = []
    for label in comparison["labels"]:
        types = [find_score(r, "per_type")[label] for r in systems.values()]
        scores = [_format_score(type_["f"], type_["interval"]["f"]) for type_ in types]
        rows.append((f"F1 {label}", *scores))
    titles = {"f": "F1", "p": "precision", "r": "recall"}
    if gold["one_category"]:
        titles = {"f": "accuracy"}  # and all three are
    for name, title in titles.items():
        scores = [
            _format_score(find_score(result, name), result["interval"][name])
            for result in systems.values()
        ]
        rows.append((title, *scores))
    more = [_get_more_scores(result, gold) for result in systems.values()]
    rows += [(title, *(_format(m[title], ".3f") for m in more)) for title in more[0]]
    speeds = [_format(r["words_per_second"], ",.0f") for r in systems.values()]
    rows.append(("words/s", *speeds))
    sizes = [r["bytes"] / 1e6 or None for r in systems.values()]
    rows.append(("size, MB", *(_format(size, ",.1f") for size in sizes)))
    answers = [result.get("answers", {}) for result in systems.values()]
    tokens = [
        _format(answer.get("prompt_tokens"), ",d") + "*" * answer.get("estimated", 0)
        for answer in answers
    ]
    rows.append(("prompt tokens", *tokens))
    marks = f"{gold['entities']:,} {_NOUNS[gold['attr']]}"
    if gold["one_category"]:
        marks = "one category each"
    msg.text(f"On {gold['texts']:,} texts of {gold['path']}, with {marks}:")
    msg.table(
        rows,
        header=("score", *systems),
        divider=True,
        aligns=["l", *"r" * len(systems)],
    )
    if any(answer.get("estimated") for answer in answers):
        msg.text("* estimated from the prompts' length")
    if gold["silver"]:
        msg.warn(
            f"Silver: a teacher labelled the texts of {gold['path']}. Scores say how "
            "well it is imitated, and its own say nothing. Give gold that people "
            "labelled."
        )
    for name, result in systems.items():
        for reason, count in (result.get("failed") or {}).items():
            msg.warn(f"{name}: {count} of {result['texts']} answers failed: {reason}")
        if result.get("unread"):
            msg.warn(f"{name}: {result['unread']} {UNREAD[gold['attr']]}")
        for label in result.get("unknown_labels") or ():
            missed = comparison["support"][label]
            msg.warn(
                f'{name} has no label "{label}": it misses all {missed} of the gold'
            )
    for name in comparison["verdict"]:
        _print_verdict(name, comparison)


def _get_more_scores(
    result: dict[str, Any], gold: dict[str, Any]
) -> dict[str, float | None]:
    """RETURNS (Dict[str, Optional[float]]): Scores that have no interval, by title."""
    if gold["attr"] == "ents":
        return {"F1, any overlap": result["ents_partial"]["f"]}
    if gold["one_category"]:
        other = {"balanced accuracy": result["cats_balanced_acc"]}
    else:
        other = {"texts all right": result["cats_acc"]}
    return {
        "macro F1": result["cats_macro_f"],
        **other,
        "calibration error": (result["calibration"] or {}).get("ece"),
    }


def _print_verdict(name: str, comparison: dict[str, Any]) -> None:
    pairs, verdicts = comparison["paired"][name], comparison["verdict"][name]
    head = (_NOUNS[comparison["gold"]["attr"]], "F1 won or lost")
    keys = ["all", *comparison["labels"]]
    if comparison["gold"]["one_category"]:
        head = ("score", "won or lost")
        keys = ["accuracy", *(f"F1 {label}" for label in comparison["labels"])]
    rows = []
    for key, pair, verdict in zip(
        keys,
        (pairs["all"], *pairs["per_type"].values()),
        (verdicts["all"], *verdicts["per_type"].values()),
        strict=True,
    ):
        cells = ["–", "–", "–"]
        if pair is not None:
            low, high = pair["interval"]
            cells = [
                f"{pair['difference']:+.3f}",
                f"{low:+.3f} to {high:+.3f}",
                f"{pair['p_value']:.3f}",
            ]
        more = (
            f", {verdict['more_texts']:,} more texts" if verdict["more_texts"] else ""
        )
        rows.append(
            (
                key,
                *cells,
                describe(Decision(verdict["decision"]), name_rival(comparison)) + more,
            )
        )
    share = comparison["rules"]["confidence"]
    msg.text(f"{name} in the place of {comparison['reference']}:")
    msg.table(
        rows,
        header=(
            *head,
            f"{share:.0%} interval",
            "p",
            "verdict",
        ),
        divider=True,
        aligns=["l", "r", "r", "r", "l"],
    )
    msg.text(verdicts["all"]["reason"])


def _format_score(score: float | None, interval: list[float] | None) -> str:
    if score is None or interval is None:
        return "–"
    return "{:.3f} ({:.3f} to {:.3f})".format(score, *interval)


def _format(value: Any, spec: str) -> str:
    return "–" if value is None else format(value, spec)
