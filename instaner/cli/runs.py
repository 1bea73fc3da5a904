from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import InstaNERError
from ..record import (
    compare_records,
    find_record,
    get_scores,
    keep_record,
    read_records,
)
from ._util import Arg, Opt, msg, one_line_errors, print_examples

_MOST_LINES = 12  # of what changed in a file


@one_line_errors
def runs_cli(
    runs: list[str] | None = Arg(
        None, help="Two runs to compare: names, or paths to their records"
    ),
    keep: str | None = Opt(
        None, help="Copy the latest run's record, metrics and report aside, as NAME"
    ),
    root: Path = Opt(Path("."), help="The project's folder"),
) -> None:
    """List the runs of a project; compare two of them; keep the latest."""
    if keep is not None:
        if runs:
            raise InstaNERError("Either compare two runs, or --keep the latest.")
        msg.good(f"Run kept: {keep_record(root, keep)}")
    elif not runs:
        _list(root)
    elif len(runs) == 2:
        _compare(root, *runs)
    else:
        raise InstaNERError(f"Give two runs to compare, or none: {len(runs)} given.")


def _list(root: Path) -> None:
    records = read_records(root)
    if not records:
        raise InstaNERError(
            f"No run in {root} yet. Run the project (weasel run all), or give --root."
        )
    # The first score of a system is the one that a verdict rests on.
    scores = {
        run: {
            f"{score} {name}": value
            for name, found in get_scores(record).items()
            for score, value in [next(iter(found.items()))]
        }
        for run, record in records.items()
    }
    heads = list(dict.fromkeys(head for found in scores.values() for head in found))
    rows, before = [], None
    for run, record in records.items():
        figures = [_format(scores[run].get(head), ".3f") for head in heads]
        changed = "–" if before is None else _sum_up(compare_records(before, record))
        rows.append((run, record["created"][:16], *figures, changed))
        before = record
    msg.table(
        rows,
        header=("run", "when (UTC)", *heads, "changed"),
        divider=True,
        aligns=["l", "l", *"r" * len(heads), "l"],
        max_col=100,
    )


def _sum_up(difference: dict[str, dict[str, Any]]) -> str:
    names = [*difference["settings"], *difference["texts"]]
    names[3:] = [f"{len(names) - 3} more"] if len(names) > 3 else []
    for group, what in (("hashes", "data files"), ("versions", "versions")):
        if difference[group]:
            names.append(f"{what}: {len(difference[group])}")
    return ", ".join(names) or "nothing"


def _compare(root: Path, a: str, b: str) -> None:
    found = compare_records(find_record(root, a), find_record(root, b))
    settings, versions = found["settings"], found["versions"]
    _print(
        "Settings", [f"{k}: {_show(x)} → {_show(y)}" for k, (x, y) in settings.items()]
    )
    for path, lines in found["texts"].items():
        _print(path, lines)
    _print("Data", [f"{path}: {state}" for path, state in found["hashes"].items()])
    _print(
        "Versions", [f"{k}: {_show(x)} → {_show(y)}" for k, (x, y) in versions.items()]
    )
    if not any(found[group] for group in ("settings", "texts", "hashes", "versions")):
        msg.text("Nothing changed.")
    rows = []
    for name, (old, new) in found["scores"].items():
        spec = ",.0f" if name.endswith("words/s") else ".3f"
        moved = None if None in (old, new) else new - old
        row = (name, _format(old, spec), _format(new, spec))
        rows.append((*row, _format(moved, f"+{spec}")))
    if rows:
        msg.table(
            rows,
            header=("score", a, b, "difference"),
            divider=True,
            aligns=["l", "r", "r", "r"],
        )


def _print(title: str, rows: Iterable[str]) -> None:
    rows = list(rows)
    if rows:
        msg.text(f"{title}:")
        print_examples(rows, at_most=_MOST_LINES)


def _show(value: Any) -> str:
    return "–" if value is None else " ".join(f"{value}".split())


def _format(value: Any, spec: str) -> str:
    return "–" if value is None else format(value, spec)
