from collections.abc import Iterable
from pathlib import Path
from typing import Any

import srsly

from ..asking import STORE
from ..estimate import Estimate
from ..files import write_whole
from ..prompts import compare_prompts
from ..scores import find_score
from ..targets import is_category
from ._util import (
    CODE_HELP,
    UNREAD,
    Arg,
    Opt,
    format_cost,
    import_code,
    msg,
    one_line_errors,
    print_bills,
    show_progress,
)

_LONGEST = 200  # characters of a text


@one_line_errors
def compare_prompts_cli(
    configs: list[str] = Arg(
        ..., help="Teachers: the first is what others are to beat"
    ),
    gold: Path = Opt(..., help="Gold: JSONL with text and spans or cats, or a DocBin"),
    samples: int = Opt(1, min=1, help="Answers to ask each config for"),
    output: Path | None = Opt(None, help="JSON of all that is known"),
    show: int = Opt(5, min=0, help="Texts to show on which two configs differ most"),
    store: Path = Opt(
        Path("corpus") / STORE, help="Response store, if a config names none"
    ),
    llm: str | None = Opt(None, help="Model to ask instead of the configs'"),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Say which prompt is better on the same gold, by how much, and at what cost."""
    import_code(code)
    comparison = compare_prompts(
        configs,
        gold,
        store=store,
        samples=samples,
        llm=llm,
        progress=show_progress(),
        on_start=_print_gold,
        on_estimate=_print_estimate,
        on_bills=print_bills,
    )
    if output is not None:
        with write_whole(output) as part:
            srsly.write_json(part, comparison)
    _print_scores(comparison)
    for name, pair in comparison["pairs"].items():
        _print_differences(comparison, name, show)
        msg.text(pair["reason"])
    if output is not None:
        msg.good(f"All of it: {output}")


def _print_gold(gold: dict[str, Any]) -> None:
    left_out = gold["left_out"]
    if left_out:
        names = dict.fromkeys(name for row in left_out for name in row["configs"])
        what = "1 text is" if len(left_out) == 1 else f"{len(left_out)} texts are"
        msg.warn(
            f"{what} left out for all, as an example in the prompt of "
            f"{', '.join(names)}"
        )
    if gold["silver"]:
        msg.warn(
            f"Silver: a teacher labelled the texts of {gold['path']}. Scores say how "
            "well it is imitated. Give gold that people labelled."
        )


def _print_estimate(name: str, found: Estimate) -> None:
    missing = found.requests - found.stored - found.repeated
    line = f"{name}: {missing:,} answers to ask for, {found.stored:,} stored"
    if missing:
        cost = "cost not known before its first answers"
        if found.basis:
            cost = format_cost(found.cost)
        line += f"; about {found.prompt_tokens:,} prompt tokens, {cost}"
    msg.text(line)


def _print_scores(comparison: dict[str, Any]) -> None:
    gold, configs = comparison["gold"], comparison["configs"]
    titles = {"f": "F1", "p": "precision", "r": "recall"}
    marks = (
        f"{gold['marks']:,} {'entities' if gold['attr'] == 'ents' else 'categories'}"
    )
    if gold["one_category"]:
        titles = {"f": "accuracy"}  # and all three are
        marks = "one category each"
    rows = []
    for key, title in titles.items():
        scores = [(find_score(c, key), *c["interval"][key]) for c in configs.values()]
        rows.append((title, *("{:.3f} ({:.3f} to {:.3f})".format(*s) for s in scores)))
    if gold["attr"] == "cats":
        rows.append(
            ("macro F1", *(f"{c['cats_macro_f']:.3f}" for c in configs.values()))
        )
    failed = [sum(config["failed"].values()) for config in configs.values()]
    rows.append(("failed answers", *(f"{number:,}" for number in failed)))
    taken = [config["per_1000"] for config in configs.values()]
    for key in ("prompt_tokens", "completion_tokens"):
        title = f"{key.split('_')[0].replace('completion', 'answer')} tokens"
        cells = [f"{t[key]:,}{'*' * t['estimated']}" for t in taken]
        rows.append((f"{title} per 1,000 texts", *cells))
    costs = ["unknown" if t["cost"] is None else f"{t['cost']:,.4f}" for t in taken]
    rows.append(("US dollars per 1,000 texts", *costs))
    asked = "" if comparison["samples"] == 1 else f", {comparison['samples']} times"
    msg.text(f"On {gold['texts']:,} texts of {gold['path']}{asked}, with {marks}:")
    msg.table(
        rows,
        header=("score", *configs),
        divider=True,
        aligns=["l", *"r" * len(configs)],
    )
    if any(t["estimated"] for t in taken):
        msg.text("* estimated from the length of prompts and answers")
    for name, config in configs.items():
        for reason, number in config["failed"].items():
            msg.warn(
                f"{name}: {number} of {config['answers']} answers failed: {reason}"
            )
        if config["unread"]:
            msg.warn(f"{name}: {config['unread']} {UNREAD[gold['attr']]}")
        if config["unknown_labels"]:
            labels = ", ".join(config["unknown_labels"])
            msg.warn(f"{name} has not all labels of the gold, so it misses {labels}")


def _print_differences(comparison: dict[str, Any], name: str, show: int) -> None:
    rows = comparison["differences"][name][:show]
    if rows:
        first = next(iter(comparison["configs"]))
        msg.text(f"Where {first} and {name} differ most:")
    for row in rows:
        msg.text(f"  {' '.join(row['text'].split())[:_LONGEST]}")
        for who, spans in {"gold": row["gold"], **row["systems"]}.items():
            msg.text(f"    {who}: {_show_spans(row['text'], spans)}")


def _show_spans(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    shown = [
        label if is_category((start, end)) else f"{text[start:end]} {label}"
        for start, end, label in spans
    ]
    return ", ".join(shown) or "nothing"
