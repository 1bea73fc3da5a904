import time
from collections import Counter
from collections.abc import Iterable
from enum import Enum
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
    UNREAD,
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

RECHECK_HELP = (
    "Places at which to ask again, the worst first, where a student trained on the "
    "other texts disagrees"
)


@one_line_errors
def annotate_cli(
    ctx: typer.Context,
    config: Path = Arg(..., help="Teacher: a config with one or more llm components"),
    texts: Path = Arg(..., help="JSONL of texts: text, and id, brief, spans, cats"),
    output: Path = Arg(..., help="Folder for annotated DocBin shards"),
    samples: int = Opt(1, min=1, help="Answers to ask each llm component for"),
    recheck: int = Opt(0, min=0, help=RECHECK_HELP),
    llm: str | None = Opt(None, help="Model to ask instead of the config's"),
    max_failures: float = Opt(0.05, min=0, max=1, help=MAX_FAILURES_HELP),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Have a teacher annotate texts, and let all who name spans, or categories,
    vote."""
    import_code(code)
    start = time.perf_counter()
    overrides = get_overrides(ctx)
    nlp = load_teacher(str(config), overrides=overrides, llm=llm)
    summary = annotate(
        nlp,
        texts,
        output,
        samples=samples,
        recheck=recheck,
        max_failures=max_failures,
        progress=show_progress(),
        on_bills=print_bills,
    )
    meta = write_meta(
        output,
        **summary.to_json(),
        samples=samples,
        recheck=recheck,
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
    if summary.reviewed:
        msg.text(
            f"{summary.reviewed} texts were reviewed by people: "
            f"{len(summary.rejected)} of them were rejected, and left out"
        )
    is_cats = summary.target.attr == "cats"
    if summary.left_out:
        msg.warn(
            "Not asked, as it annotates categories, not entities: "
            f"{', '.join(summary.left_out)}. Give it a config of its own."
        )
    what, marks, places = "entity", "spans", "places"
    if is_cats:
        what, marks, places = "category", "categories", "categories"
    if summary.disputed:
        msg.text(
            f"{len(summary.disputed)} texts were left out: "
            f"{'their category' if is_cats else 'a span in them'} is disputed"
        )
    msg.text(
        "What was answered, by whom, and how it was read:"
        if is_cats
        else "What was named, by whom, and how it was found in the texts:"
    )
    readings = [((v, s), n) for (v, s, _), n in summary.readings.items()]
    _print_counts("voter", readings, Status, what)
    labels = {label for label, _ in summary.standings}
    named = [
        ((label if label in labels else "(other)", status), count)
        for (_, status, label), count in summary.readings.items()
        if status != Status.NO_ENTITY.value
    ]
    msg.text("The same by label:")
    _print_counts("label", named, Status, what)
    agreement = summary.agreement.to_json()
    if agreement["f1"] is not None:
        alpha = agreement["alpha"]
        msg.text(
            f"Agreement of the voters: F1 {agreement['f1']:.3f}, Krippendorff's alpha "
            + ("unknown" if alpha is None else f"{alpha:.3f}")
        )
    msg.text(f"What their votes are worth, in {marks}:")
    _print_counts("label", summary.standings.items(), Standing, what)
    if summary.disputes:
        kinds = ", ".join(f"{kind} {n}" for kind, n in summary.disputes.most_common())
        msg.text(f"{summary.disputed_share:.1%} of the {marks} are disputed: {kinds}")
    if summary.asked_again:
        counts = ", ".join(f"{name} {n}" for name, n in summary.asked_again.items())
        msg.text(f"Asked again about {summary.asked_again.total()} {places}: {counts}")
    if summary.rechecked:
        show = _show_categories if is_cats else _show
        msg.text("Suspected label errors, the worst first: before, student, after:")
        print_examples(
            f"{row['id']}: {show(row['before'])} | {show(row['predicted'])} | "
            + ("undecided" if row["after"] is None else show(row["after"]))
            for row in summary.rechecked
        )
    for voter in sorted(summary.unaccounted):
        msg.warn(
            f"{voter}: answers are read by the task itself, which keeps no account of "
            "what it cannot read"
        )
    if summary.unread:
        msg.warn(f"{len(summary.unread)} {UNREAD[summary.target.attr]}:")
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


def _print_counts(
    name: str,
    counts: Iterable[tuple[tuple[str, str], int]],
    columns: type[Enum],
    what: str,
) -> None:
    """Print a table of counts, without the columns in which there are none."""
    table: Counter[tuple[str, str]] = Counter()
    for key, count in counts:
        table[key] += count
    used = [c.value for c in columns if any(key[1] == c.value for key in table)]
    rows = sorted({row for row, _ in table})
    msg.table(
        [(row, *(str(table[row, column]) for column in used)) for row in rows],
        header=(name, *(column.replace("entity", what) for column in used)),
        divider=True,
    )


def _show(spans: Iterable[dict[str, str]]) -> str:
    return ", ".join(f"{s['text']} {s['label']}" for s in spans) or "no entity"


def _show_categories(marks: Iterable[dict[str, str]]) -> str:
    return ", ".join(mark["label"] for mark in marks) or "no category"
