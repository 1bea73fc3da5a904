"""What the commands share: one line for what the user can mend, and overrides."""

import functools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import typer
from click import NoSuchOption
from spacy.cli._util import parse_config_overrides
from spacy.util import import_file
from wasabi import Printer

from ..asking import Failures
from ..errors import InstaNERError

Arg = typer.Argument
Opt = typer.Option

# Settings of commands that take config overrides: --section.key value
OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}

MAX_FAILURES_HELP = "Share of the answers that may fail, between 0 and 1"

# What became of parts of answers that could not be used, by what is annotated.
UNREAD = {
    "ents": "mentions or lines made no span",
    "cats": "labels or lines made no category",
}

CODE_HELP = "Python file with registered functions that the pipeline needs"

# A message is one line, however narrow the terminal, and plain text in a file.
msg = Printer(line_max=100_000, pretty=sys.stdout.isatty())
_errors = Printer(line_max=100_000, pretty=sys.stderr.isatty(), no_print=True)

_Function = TypeVar("_Function", bound=Callable[..., None])


def one_line_errors(function: _Function) -> _Function:
    """Print what the user can mend as one line, and exit with 1.

    function (Callable): A command.
    RETURNS (Callable): The command.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except InstaNERError as err:
            sys.stderr.write(f"{_errors.fail(' '.join(str(err).split()))}\n")
            raise SystemExit(1) from err
        except KeyboardInterrupt as err:
            sys.stderr.write(f"{_errors.warn('Stopped.')}\n")
            raise SystemExit(130) from err

    return run  # type: ignore[return-value]


def get_overrides(ctx: typer.Context) -> dict[str, Any]:
    """Get config overrides from the options that a command does not know.

    ctx (typer.Context): Context of the command.
    RETURNS (Dict[str, Any]): Values by dotted name.
    RAISES (InstaNERError): On an option that is no dotted name.
    """
    try:
        return parse_config_overrides(list(ctx.args))
    except NoSuchOption as err:
        raise InstaNERError(
            f"{err.option_name} is no option of this command, nor a config value, "
            "which is given as --section.key. See --help."
        ) from err


def import_code(path: Path | None) -> None:
    """Import a Python file, so that what it registers is known.

    path (Optional[Path]): The file.
    RAISES (InstaNERError): If it is missing or fails.
    """
    if path is None:
        return
    try:
        import_file("python_code", path)
    except Exception as err:  # whatever the user's code raises
        raise InstaNERError(f"--code {path} cannot be imported: {err}.") from err


def setup_gpu(gpu_id: int) -> None:
    """Use a GPU, where one is asked for.

    gpu_id (int): GPU, or -1 for the CPU.
    RAISES (InstaNERError): If it cannot be used.
    """
    if gpu_id < 0:
        return
    from thinc.api import require_gpu

    try:
        require_gpu(gpu_id)
    except ValueError as err:
        raise InstaNERError(
            f"GPU {gpu_id} cannot be used ({err}). Install cupy and a CUDA build of "
            "torch, or leave out --gpu-id."
        ) from err


def show_progress() -> bool:
    """RETURNS (bool): Whether there is a terminal to show a progress bar in."""
    return sys.stderr.isatty()


def print_examples(rows: Iterable[str], *, at_most: int = 5) -> None:
    """Print some rows and how many there are more.

    rows (Iterable[str]): The rows.
    at_most (int): How many to print.
    """
    rows = list(rows)
    for row in rows[:at_most]:
        msg.text(f"  {row}")
    if len(rows) > at_most:
        msg.text(f"  … and {len(rows) - at_most} more")


def print_bills(bills: Iterable[dict[str, Any]]) -> None:
    """Print what answers took.

    bills (Iterable[Dict[str, Any]]): As asking.Model.make_bill makes them.
    """
    for bill in bills:
        if bill["model"] is None:  # a recording
            continue
        parts = [f"{bill['answers']:,} answers", f"{bill['stored']:,} more were stored"]
        if bill["answers"]:
            tokens = bill["prompt_tokens"], bill["completion_tokens"]
            counted = "{:,} + {:,} tokens".format(*tokens)
            parts.append(counted if any(tokens) else "tokens not known")
            parts.append(format_cost(bill["cost"]))
            parts.append(format_footprint(bill.get("kwh"), bill.get("kg_co2e")))
        msg.text(f"Asked {bill['model']} ({bill['component']}): {', '.join(parts)}")


def format_cost(cost: float | None) -> str:
    """RETURNS (str): US dollars, for a person."""
    if cost is None:
        return "price not known (set prices in the config)"
    return f"{cost:,.2f} US dollars" if cost >= 1 else f"{cost:.4f} US dollars"


def format_footprint(
    kwh: tuple[float, float] | None, kg_co2e: tuple[float, float] | None
) -> str:
    """RETURNS (str): Energy and greenhouse gases, for a person."""
    if kwh is None or kg_co2e is None:
        return "energy not known"
    return "{:.3g} to {:.3g} kWh, {:.3g} to {:.3g} kg CO2e".format(*kwh, *kg_co2e)


def print_failures(failures: Failures, path: Path) -> None:
    """Print how many answers failed, and why.

    failures (Failures): The failures.
    path (Path): Where they are listed.
    """
    if not failures.rows:
        return
    msg.warn(f"{len(failures.rows)} of {failures.asked} answers failed: {path}")
    for reason, count in failures.count().most_common():
        msg.text(f"  {reason}: {count}")
