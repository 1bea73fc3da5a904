from datetime import datetime, timezone
from pathlib import Path

import typer

from ..asking import STORE
from ..errors import InstaNERError
from ..files import check_exists
from ..llm.store import Store
from ._util import Arg, Opt, format_cost, msg, one_line_errors

STORE_OPTION = Opt(None, help="The response store")

responses_app = typer.Typer(
    name="responses",
    help="See what is in the response store; export, import and prune it.",
    rich_markup_mode=None,
)


@responses_app.callback(invoke_without_command=True)
@one_line_errors
def show_cli(
    ctx: typer.Context,
    store: Path = Opt(Path("corpus") / STORE, help="The response store"),
) -> None:
    """See what is in the response store; export, import and prune it."""
    ctx.obj = store
    if ctx.invoked_subcommand is not None:
        return
    rows = _open(store).summarise()
    if not rows:
        msg.text(f"{store} is empty")
        return
    msg.table(
        [
            (
                row["model"],
                *(
                    f"{row[name]:,}"
                    for name in (
                        "prompts",
                        "answers",
                        "failed",
                        "prompt_tokens",
                        "completion_tokens",
                    )
                ),
                _format_cost(row["cost"], row["unpriced"], row["answers"]),
                format_cost(row["spending"]),
                (row["last"] or "–")[:16],
            )
            for row in rows
        ],
        header=(
            "model",
            "prompts",
            "answers",
            "failed",
            "prompt tokens",
            "answer tokens",
            "cost",
            "of a budget",
            "last (UTC)",
        ),
        divider=True,
        aligns=["l", *"r" * 5, "l", "l", "l"],
    )


@responses_app.command("export")
@one_line_errors
def export_cli(
    ctx: typer.Context,
    output: Path = Arg(..., help="JSONL to write: a recording"),
    model: str | None = Opt(None, help="Only answers of this model"),
    prompts: bool = Opt(
        True, help="Write the prompts too; without, the file is smaller"
    ),
    store: Path | None = STORE_OPTION,
) -> None:
    """Write what is stored as JSONL, which instaner.Replay.v1 answers from."""
    count = _open(store or ctx.obj).export(output, model=model, prompts=prompts)
    msg.good(f"{count} answers: {output}")


@responses_app.command("import")
@one_line_errors
def import_cli(
    ctx: typer.Context,
    recording: Path = Arg(..., help="JSONL, as export writes it"),
    store: Path | None = STORE_OPTION,
) -> None:
    """Take answers out of JSONL into the store. Those that are there stay."""
    path = store or ctx.obj
    count = Store(path).add(recording)
    msg.good(f"{count} new answers: {path}")


@responses_app.command("prune")
@one_line_errors
def prune_cli(
    ctx: typer.Context,
    model: str | None = Opt(None, help="Only answers of this model"),
    before: datetime | None = Opt(
        None, formats=["%Y-%m-%d"], help="Only answers from before this day, UTC"
    ),
    failed: bool = Opt(False, "--failed", help="Only cut, filtered and empty answers"),
    all_: bool = Opt(False, "--all", help="All answers"),
    store: Path | None = STORE_OPTION,
) -> None:
    """Remove answers, so that they are asked for anew. What they cost stays spent."""
    if bool(model or before or failed) == all_:
        raise InstaNERError(
            "What to remove? Give --model, --before or --failed, or --all alone."
        )
    day = None
    if before is not None:
        day = before.replace(tzinfo=timezone.utc).isoformat(timespec="milliseconds")
    path = store or ctx.obj
    count = _open(path).prune(model=model, before=day, failed=failed)
    msg.good(f"{count} answers removed: {path}")


def _open(path: Path) -> Store:
    check_exists(path, "Response store")
    return Store(path)


def _format_cost(cost: float, unpriced: int, answers: int) -> str:
    if unpriced == answers:
        return "not known"
    rest = f", {unpriced:,} answers not known" if unpriced else ""
    return f"{format_cost(cost)}{rest}"
