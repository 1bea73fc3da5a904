from pathlib import Path
from typing import Any

import srsly

from ..costs import CostSettings, add_costs
from ..errors import InstaNERError
from ..files import check_exists
from ..record import read_record, write_record
from ..report.page import TITLE, make_report, read_corpus
from ..settings import read_section
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
    config: Path | None = Opt(
        None, help="Config whose section [costs] has what costs are reckoned with"
    ),
    record: Path | None = Opt(
        None, help="File to write the record of this project's run to, and to show"
    ),
    title: str = Opt(TITLE, help="The question that the page answers"),
) -> None:
    """Write a page that says whether the student replaces the LLM, and why."""
    if generated is not None and corpus is None:
        raise InstaNERError("--generated tells about a corpus: give --corpus too.")
    settings = read_section(CostSettings, "costs", config)
    found = _read(comparison, "Comparison")
    made = None if corpus is None else read_corpus(corpus, generated)
    drawn = None if curve is None else _read(curve, "Learning curve")
    if record is not None:
        write_record(Path(), record)
    run = None if record is None else read_record(record)
    try:
        costs = add_costs(
            found,
            settings,
            bills=made["bills"] if made else None,
            training_seconds=_find_training_seconds(found),
        )
        verdict = make_report(
            found, output, costs=costs, corpus=made, curve=drawn, run=run, title=title
        )
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise InstaNERError(
            f"{comparison} is not what `instaner evaluate` writes ({err!r}). Make it "
            "anew."
        ) from err
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


def _find_training_seconds(comparison: dict[str, Any]) -> float | None:
    """RETURNS (Optional[float]): What is written beside the best student."""
    student = comparison.get("systems", {}).get(comparison.get("student")) or {}
    path = Path(f"{Path(student.get('source', '')).parent}.meta.json")
    if not path.is_file():
        return None
    return _read(path, "Account of the training").get("seconds")
