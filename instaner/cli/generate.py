import time
from pathlib import Path

import typer

from ..files import write_meta
from ..generate import generate, get_failed
from ..pipeline import find_config, load_teacher
from ..tasks.grounding import Status
from ._util import (
    CODE_HELP,
    MAX_FAILURES_HELP,
    Arg,
    Opt,
    get_overrides,
    import_code,
    msg,
    one_line_errors,
    print_bills,
    print_examples,
    print_failures,
    show_progress,
)


@one_line_errors
def generate_cli(
    ctx: typer.Context,
    config: Path = Arg(..., help="Config with a generating llm component"),
    briefs: Path = Arg(..., help="JSONL of briefs: id, and what the template needs"),
    output: Path = Arg(..., help="JSONL of texts to write"),
    llm: str | None = Opt(None, help="Model to ask instead of the config's"),
    max_failures: float = Opt(0.05, min=0, max=1, help=MAX_FAILURES_HELP),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Have an LLM write annotated texts from briefs."""
    import_code(code)
    start = time.perf_counter()
    overrides = get_overrides(ctx)
    nlp = load_teacher(str(config), overrides=overrides, llm=llm)
    summary = generate(
        nlp,
        briefs,
        output,
        max_failures=max_failures,
        progress=show_progress(),
        on_bills=print_bills,
    )
    statuses = {status.value: 0 for status in Status}
    for reading, count in summary.readings.items():
        statuses[reading.status.value] += count
    statuses = {status: count for status, count in statuses.items() if count}
    write_meta(
        output,
        briefs=summary.briefs,
        texts=summary.texts,
        failures=dict(summary.failures.count()),
        bills=summary.bills,
        statuses=statuses,
        config=find_config(str(config)),
        overrides=overrides,
        llm=llm,
        seconds=round(time.perf_counter() - start, 1),
    )
    msg.good(f"{summary.texts} texts from {summary.briefs} briefs: {output}")
    print_failures(summary.failures, get_failed(output))
    msg.text(f"Marks: {statuses.pop(Status.EXACT.value, 0)} read")
    for status, count in statuses.items():
        msg.warn(f"{count} marks or lines: {status}")
    print_examples(
        f"{reading.status.value}: {reading.text[:80]} {reading.label}"
        for reading in sorted(summary.readings)
        if reading.status.is_loss
    )
