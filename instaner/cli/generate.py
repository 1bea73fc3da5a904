import time
from importlib.util import find_spec
from pathlib import Path

import typer

from ..corpus import read_train_texts
from ..errors import InstaNERError
from ..files import write_meta
from ..generate import generate, get_failed
from ..pipeline import find_config, load_teacher
from ..tasks.grounding import Status
from ..variety import Variety, draw, measure
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
    n: int = Opt(0, min=0, help="Texts to ask for; 0: one answer to each brief"),
    per_label: int = Opt(0, min=0, help="Entities (or texts) of a label to ask for"),
    gold: str = Opt("", help="Gold test set, of which no text is kept"),
    against: list[Path] | None = Opt(None, help="Corpus not to repeat; repeatable"),
    llm: str | None = Opt(None, help="Model to ask instead of the config's"),
    figure: Path | None = Opt(None, help="SVG to draw how varied the texts are"),
    max_failures: float = Opt(0.05, min=0, max=1, help=MAX_FAILURES_HELP),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Have an LLM write texts, annotated or for a category, from briefs."""
    if figure is not None and figure.suffix != ".svg":
        raise InstaNERError(f"--figure {figure}: only SVG can be drawn. Name it .svg.")
    import_code(code)
    start = time.perf_counter()
    overrides = get_overrides(ctx)
    nlp = load_teacher(str(config), overrides=overrides, llm=llm)
    summary = generate(
        nlp,
        briefs,
        output,
        n=n or None,
        per_label=per_label or None,
        gold=Path(gold) if gold else None,
        against=against or (),
        max_failures=max_failures,
        progress=show_progress(),
        on_bills=print_bills,
    )
    statuses = {status.value: 0 for status in Status}
    for reading, count in summary.readings.items():
        statuses[reading.status.value] += count
    statuses = {status: count for status, count in statuses.items() if count}
    has_train = next(read_train_texts(output), None) is not None
    variety = measure(read_train_texts(output), nlp) if has_train else None
    write_meta(
        output,
        briefs=summary.briefs,
        texts=summary.texts,
        labels=dict(summary.labels),
        repeats=dict(summary.repeats),
        leaks=len(summary.leaks),
        short=summary.short,
        variety=variety and variety.to_json(),
        failures=dict(summary.failures.count()),
        bills=summary.bills,
        statuses=statuses,
        config=find_config(str(config)),
        overrides=overrides,
        llm=llm,
        seconds=round(time.perf_counter() - start, 1),
    )
    msg.good(f"{summary.texts} texts from {summary.briefs} briefs: {output}")
    if summary.short:
        msg.warn(
            f"Not enough: {summary.short}. Write more briefs, or ask another model"
        )
    print_failures(summary.failures, get_failed(output))
    exact = statuses.pop(Status.EXACT.value, 0)
    plain = statuses.pop(Status.NO_ENTITY.value, 0)
    if summary.task == "ner":
        msg.text(f"Marks: {exact} read; texts without any: {plain}")
    for status, count in statuses.items():
        msg.warn(f"{count} marks or lines: {status}")
    print_examples(
        f"{reading.status.value}: {reading.text[:80]} {reading.label}"
        for reading in sorted(summary.readings)
        if reading.status.is_loss
    )
    for source, count in summary.repeats.most_common():
        msg.text(f"{count} texts were left out: they repeat {source}")
    if summary.leaks:
        msg.warn(
            f"{len(summary.leaks)} texts were left out: they are, or nearly are, a "
            f"text of {gold}"
        )
        print_examples(
            f'"{text[:80]}" is gold text "{other[:80]}"'
            for text, other in summary.leaks
        )
    if variety is None:
        msg.text("All texts are for testing: how varied they are is not measured")
        return
    _print_variety(variety)
    if figure is not None:
        if find_spec("matplotlib") is None:  # the texts were paid for all the same
            msg.warn(f"No {figure}: it takes pip install 'instaner[figures]'")
            return
        draw(variety, figure)
        msg.good(f"How varied they are: {figure}")


def _print_variety(variety: Variety) -> None:
    without = variety.without_entities
    distinct = ", ".join(f"{share:.3f}" for share in variety.distinct)
    lengths = variety.lengths
    msg.text(
        f"Variety: distinct-1, -2, -3 {distinct}; {lengths.min:g} to {lengths.max:g} "
        f"tokens, {lengths.median:g} in the middle"
        + ("" if without is None else f"; {without:.0%} of the texts without entities")
    )
    languages = variety.languages
    if languages is None:
        msg.text("Language not checked: it takes pip install 'instaner[language]'")
    elif languages.share is not None:
        others = [name for name in languages.found if name != languages.lang][:3]
        msg.text(
            f"Language: {languages.share:.1%} are {languages.lang}, where it could be "
            f"told ({languages.untold} too short or unclear)"
            + (f"; others: {', '.join(others)}" if others else "")
        )
    if variety.categories:
        header = ("category", "texts")
        msg.table(variety.categories, header=header, divider=True, max_col=80)
        return
    msg.table(
        [
            (
                label,
                mentions.count,
                mentions.unique,
                ", ".join(f"{name} ({count})" for name, count in mentions.top[:3]),
            )
            for label, mentions in variety.mentions.items()
        ],
        header=("label", "mentions", "unique", "most frequent"),
        divider=True,
        max_col=80,
    )
