import time
from pathlib import Path

import typer

from ..briefs import make_briefs, read_plan
from ..files import write_meta
from ..pipeline import find_config, load_teacher
from ._util import (
    CODE_HELP,
    Arg,
    Opt,
    get_overrides,
    import_code,
    msg,
    one_line_errors,
    print_bills,
    print_examples,
)


@one_line_errors
def briefs_cli(
    ctx: typer.Context,
    config: Path = Arg(..., help="Config with a generating llm component"),
    plan: Path = Arg(..., help="YAML: the domain, and what sets texts apart"),
    output: Path = Arg(..., help="JSONL of briefs to write"),
    n: int = Opt(100, help="Briefs to make"),
    seed: int = Opt(0, help="Decides which authors, topics and forms meet"),
    llm: str | None = Opt(None, help="Model to ask instead of the config's"),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Have an LLM make briefs, and lists of names, from the labels and a plan."""
    import_code(code)
    start = time.perf_counter()
    overrides = get_overrides(ctx)
    planned = read_plan(plan)
    nlp = load_teacher(str(config), overrides=overrides, llm=llm)
    made = make_briefs(nlp, planned, output, n=n, seed=seed, on_bills=print_bills)
    names = {label: len(listed) for label, listed in made.names.items()}
    write_meta(
        output,
        briefs=made.briefs,
        values=made.values,
        names=made.names,
        shared=made.shared,
        failures=made.failures,
        bills=made.bills,
        config=find_config(str(config)),
        overrides=overrides,
        llm=llm,
        seed=seed,
        seconds=round(time.perf_counter() - start, 1),
    )
    sizes = ", ".join(f"{name} {len(given)}" for name, given in made.values.items())
    msg.good(f"{made.briefs} briefs ({sizes}): {output}")
    if names:
        listed = ", ".join(f"{label} {count}" for label, count in names.items())
        msg.text(f"Names to write about: {listed}")
    if made.shared:
        msg.text(f"{len(made.shared)} names were left out: two labels have them")
        print_examples(made.shared)
    if made.failures:
        msg.warn(f"{len(made.failures)} lists are missing")
        print_examples(f"{name}: {reason}" for name, reason in made.failures)
