from datetime import timedelta
from pathlib import Path

import typer

from ..asking import STORE
from ..estimate import Estimate, estimate
from ..pipeline import load_teacher
from ._util import (
    CODE_HELP,
    Arg,
    Opt,
    format_cost,
    format_footprint,
    get_overrides,
    import_code,
    msg,
    one_line_errors,
)


@one_line_errors
def estimate_cli(
    ctx: typer.Context,
    config: Path = Arg(..., help="Config of a teacher or of a generator"),
    texts: Path = Arg(..., help="JSONL of texts; of briefs for a generator"),
    samples: int = Opt(1, min=1, help="Answers to ask each llm component for"),
    pilot: int = Opt(0, min=0, help="Texts to ask about first; they are paid for"),
    store: Path = Opt(
        Path("corpus") / STORE, help="Response store, if the config names none"
    ),
    llm: str | None = Opt(None, help="Model to ask instead of the config's"),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Say what a run will take, before it: requests, tokens, money, time, energy."""
    import_code(code)
    nlp = load_teacher(str(config), overrides=get_overrides(ctx), llm=llm)
    for result in estimate(nlp, texts, store=store, samples=samples, pilot=pilot):
        _print_estimate(result, pilot)


def _print_estimate(result: Estimate, pilot: int) -> None:
    missing = result.requests - result.stored - result.repeated
    unknown = "not known: try --pilot 20, which asks about 20 texts"
    if pilot:
        unknown = "not known: the model does not say how many tokens it used"
    if not missing:
        unknown = "none"
    answers = result.completion_tokens
    seconds = result.seconds
    prompts = f"{result.prompt_tokens:,}"
    if missing and not result.basis:
        prompts += " (a fourth of their bytes)"
    cost = unknown
    footprint = unknown
    if answers is not None:
        cost = format_cost(result.cost)
        kwh, kg_co2e = result.footprint or (None, None)
        footprint = format_footprint(kwh, kg_co2e)
    msg.table(
        [
            ("documents", f"{result.docs:,}"),
            ("requests", f"{result.requests:,}"),
            ("stored already", f"{result.stored:,}"),
            ("the same again", f"{result.repeated:,}"),
            ("to be asked", f"{missing:,}"),
            ("prompt tokens", prompts),
            ("answer tokens", unknown if answers is None else f"{answers:,}"),
            ("cost", cost),
            (
                "time",
                unknown
                if seconds is None
                else str(timedelta(seconds=max(1, round(seconds)))),
            ),
            ("energy", footprint),
        ],
        header=(result.component, result.model),
        divider=True,
    )
    if result.basis:
        msg.text(f"Estimated from {result.basis:,} answers in the store")
