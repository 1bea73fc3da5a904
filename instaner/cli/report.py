from pathlib import Path
from typing import Any

import srsly

from ..errors import InstaNERError
from ..files import check_exists
from ..report.page import TITLE, make_report, read_corpus
from ._util import Arg, Opt, msg, one_line_errors


@one_line_errors
def report_cli(
    comparison: Path = Arg(
        ..., help="comparison.json, as `instaner evaluate` writes it"
    ),
    output: Path = Arg(..., help="Folder for the page"),
    corpus: Path | None = Opt(
        None, help="Annotated shards that students learned from; reads what is beside"
    ),
    generated: Path | None = Opt(
        None, help="JSONL of the generated texts among them; reads what is beside"
    ),
    curve: Path | None = Opt(
        None, help="Learning curve, as `instaner evaluate --curve` writes it"
    ),
    title: str = Opt(TITLE, help="The question that the page answers"),
) -> None:
    """Write a page that says whether the student replaces the LLM, and why."""
    if generated is not None and corpus is None:
        raise InstaNERError("--generated tells about a corpus: give --corpus too.")
    verdict = make_report(
        _read(comparison, "Comparison"),
        output,
        corpus=None if corpus is None else read_corpus(corpus, generated),
        curve=None if curve is None else _read(curve, "Learning curve"),
        title=title,
    )
    msg.text(verdict)
    msg.good(f"Report: {output / 'index.html'}")


def _read(path: Path, what: str) -> dict[str, Any]:
    check_exists(path, what)
    try:
        return dict(srsly.read_json(path))
    except (OSError, TypeError, ValueError) as err:
        raise InstaNERError(
            f"{path} is no {what.lower()}: {err}. Make it anew: instaner evaluate."
        ) from err
