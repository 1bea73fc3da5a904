import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import typer

from ..asking import STORE
from ..errors import InstaNERError
from ..files import check_exists, write_whole
from ..llm.store import Store
from ._util import Arg, Opt, format_cost, msg, one_line_errors

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
            "last (UTC)",
        ),
        divider=True,
        aligns=["l", *"r" * 5, "l", "l"],
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
) -> None:
    """Write what is stored as JSONL, which instaner.Replay.v1 answers from."""
    store = _open(ctx.obj)
    count = 0

    def read() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in store.read(model=model):
            count += 1
            if not prompts:
                row.pop("messages", None)
            yield row

    with write_whole(output) as part:
        with part.open("w", encoding="utf8") as file_:
            for row in read():  # srsly would round the numbers
                line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
                file_.write(f"{line}\n")
    msg.good(f"{count} answers: {output}")


@responses_app.command("import")
@one_line_errors
def import_cli(
    ctx: typer.Context, recording: Path = Arg(..., help="JSONL, as export writes it")
) -> None:
    """Take answers out of JSONL into the store. Those that are there stay."""
    count = Store(ctx.obj).add(recording)
    msg.good(f"{count} new answers: {ctx.obj}")


@responses_app.command("prune")
@one_line_errors
def prune_cli(
    ctx: typer.Context,
    model: str | None = Opt(None, help="Only answers of this model"),
    before: datetime | None = Opt(None, help="Only answers from before this day, UTC"),
    failed: bool = Opt(False, "--failed", help="Only cut, filtered and empty answers"),
    all_: bool = Opt(False, "--all", help="All answers"),
) -> None:
    """Remove answers, so that they are asked for anew. What they cost stays spent."""
    if not (model or before or failed or all_):
        raise InstaNERError(
            "What to remove? Give --model, --before or --failed, or --all."
        )
    day = None
    if before is not None:
        day = before.replace(tzinfo=timezone.utc).isoformat(timespec="milliseconds")
    count = _open(ctx.obj).prune(model=model, before=day, failed=failed)
    msg.good(f"{count} answers removed: {ctx.obj}")


def _open(path: Path) -> Store:
    check_exists(path, "Response store")
    return Store(path)


def _format_cost(cost: float, unpriced: int, answers: int) -> str:
    if unpriced == answers:
        return "not known"
    rest = f", {unpriced:,} answers not known" if unpriced else ""
    return f"{format_cost(cost)}{rest}"
