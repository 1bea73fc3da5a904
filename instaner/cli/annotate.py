import time
from collections import Counter
from pathlib import Path

import typer

from ..annotate import FAILED, Summary, annotate
from ..files import write_meta
from ..pipeline import find_config, load_teacher
from ..tasks.grounding import Status
from ..vote import Standing
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
def annotate_cli(
    ctx: typer.Context,
    config: Path = Arg(..., help="Teacher: a config with one or more llm components"),
    texts: Path = Arg(..., help="JSONL of texts: text, and id, brief, spans"),
    output: Path = Arg(..., help="Folder for annotated DocBin shards"),
    samples: int = Opt(1, min=1, help="Answers to ask each llm component for"),
    llm: str | None = Opt(None, help="Model to ask instead of the config's"),
    max_failures: float = Opt(0.05, min=0, max=1, help=MAX_FAILURES_HELP),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Have a teacher annotate texts, and let its answers vote."""
    import_code(code)
    start = time.perf_counter()
    overrides = get_overrides(ctx)
    nlp = load_teacher(str(config), overrides=overrides, llm=llm)
    summary = annotate(
        nlp,
        texts,
        output,
        samples=samples,
        max_failures=max_failures,
        progress=show_progress(),
        on_bills=print_bills,
    )
    meta = write_meta(
        output,
        **summary.to_json(),
        samples=samples,
        config=find_config(str(config)),
        overrides=overrides,
        llm=llm,
        seconds=round(time.perf_counter() - start, 1),
    )
    _print_summary(summary, output, meta)


def _print_summary(summary: Summary, output: Path, meta: Path) -> None:
    msg.good(f"{summary.texts} texts annotated: {output}")
    print_failures(summary.failures, output / FAILED)
    if summary.held_out:
        msg.text(f"{summary.held_out} texts were left out: they are kept for testing")
    counts: Counter[tuple[str, str]] = Counter()
    for (voter, status, _), count in summary.readings.items():
        counts[voter, status] += count
    statuses = [
        s.value for s in Status if any((v, s.value) in counts for v, _ in counts)
    ]
    voters = sorted({voter for voter, _ in counts})
    msg.text("What the voters named, and how it was found in the texts:")
    msg.table(
        [(v, *(str(counts[v, status]) for status in statuses)) for v in voters],
        header=("voter", *statuses),
        divider=True,
    )
    labels = sorted({label for label, _ in summary.standings})
    msg.table(
        [
            (label, *(str(summary.standings[label, s.value]) for s in Standing))
            for label in labels
        ],
        header=("label", *(standing.value for standing in Standing)),
        divider=True,
    )
    for voter in sorted(summary.unaccounted):
        msg.warn(
            f"{voter}: answers are read by the task itself, which keeps no account of "
            "what it cannot read"
        )
    if summary.unread:
        msg.warn(f"{len(summary.unread)} mentions or lines made no span:")
        print_examples(
            f"{row['id']} ({row['voter']}), {row['status']}: {row['text'][:80]} "
            f"{row['label']}"
            for row in summary.unread
        )
    if summary.unanswered:
        msg.warn(
            f"{len(summary.unanswered)} texts were left out, as no answer about them "
            "can be used:"
        )
        print_examples(summary.unanswered)
    if summary.unread or summary.unanswered:
        msg.text(f"All of them: {meta}")
