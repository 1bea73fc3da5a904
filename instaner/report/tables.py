"""The tables of a report."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..verdict import Decision, describe, name_rival
from .words import (
    NONE,
    capitalise,
    is_number,
    show_bytes,
    show_money,
    show_number,
    show_quantity,
    show_range,
    show_score,
    show_seconds,
    show_signed,
)

DECISIONS = [decision.value for decision in Decision]

ERRORS = {
    "missed": ("Missed", "in the gold, but not found"),
    "spurious": ("Spurious", "found, but not in the gold"),
    "boundary": ("Wrong boundary", "the right label on too much or too little"),
    "label": ("Wrong label", "the right words with another label"),
    "both": ("Both wrong", "another label on too much or too little"),
}
_MATRIX = 12  # labels, with more of which the most frequent confusions are listed
_CONFUSIONS = 15
_SHADES = 5


class Cell(NamedTuple):
    """A cell of a table.

    text (str): What it says.
    note (str): What stands below it, smaller.
    style (str): Classes that it has on the page.
    """

    text: str
    note: str = ""
    style: str = ""


class Table(NamedTuple):
    """A table, whose first column heads its rows.

    head (List[str]): Headings of the columns.
    rows (List[List[Cell]]): The rows.
    """

    head: list[str]
    rows: list[list[Cell]]


def tabulate_labels(report: dict[str, Any], lead: str, reference: str | None) -> Table:
    """RETURNS (Table): The verdict of each label."""
    systems = report["systems"]
    shown = [name for name in (reference, lead) if name is not None]
    paired = (report.get("paired") or {}).get(lead) or {}
    verdict = (report.get("verdict") or {}).get(lead) or {}
    head = ["Label", "Support", *(f"F1 {name}" for name in shown)]
    if reference is not None:
        head += ["Difference", "Verdict"]

    def make_row(
        name: str, support: Any, pairs: Any, verdict: Any, *scores: Any
    ) -> list[Cell]:
        row = [
            Cell(name),
            Cell(show_number(support)),
            *(Cell(show_score(s)) for s in scores),
        ]
        if reference is None:
            return row
        interval = (pairs or {}).get("interval") or []
        note = " to ".join(map(show_signed, interval)) if None not in interval else ""
        row.append(Cell(show_signed((pairs or {}).get("difference")), note))
        decided = _decide((verdict or {}).get("decision"), name_rival(report))
        more = (verdict or {}).get("more_texts")
        if is_number(more):
            decided = decided._replace(note=f"about {show_number(more)} more texts")
        return [*row, decided]

    rows = [
        make_row(
            label,
            (report.get("support") or {}).get(label),
            (paired.get("per_type") or {}).get(label),
            (verdict.get("per_type") or {}).get(label),
            *((systems[n]["ents_per_type"].get(label) or {}).get("f") for n in shown),
        )
        for label in report["labels"]
    ]
    scores = [systems[name].get("ents_f") for name in shown]
    entities = report["gold"].get("entities")
    rows.append(
        make_row("All", entities, paired.get("all"), verdict.get("all"), *scores)
    )
    return Table(head, rows)


def tabulate_scores(report: dict[str, Any], names: Sequence[str]) -> Table:
    """RETURNS (Table): F1 of all systems by label: what the figure shows."""

    def make_cell(values: Mapping[str, Any], key: str) -> Cell:
        return Cell(
            show_score(values.get(key)),
            show_range((values.get("interval") or {}).get("f")),
        )

    systems = [report["systems"][name] for name in names]
    rows = [
        [
            Cell(label),
            *(make_cell(s["ents_per_type"].get(label) or {}, "f") for s in systems),
        ]
        for label in report["labels"]
    ]
    rows.insert(0, [Cell("All"), *(make_cell(s, "ents_f") for s in systems)])
    return Table(["F1", *names], rows)


def tabulate_systems(report: dict[str, Any], names: Sequence[str]) -> Table:
    """RETURNS (Table): How well each system does on all labels."""
    systems = [report["systems"][name] for name in names]
    rows = []
    for title, key, short in (
        ("F1", "ents_f", "f"),
        ("Precision", "ents_p", "p"),
        ("Recall", "ents_r", "r"),
    ):
        rows.append(
            [
                Cell(title),
                *(
                    Cell(
                        show_score(s.get(key)),
                        show_range((s.get("interval") or {}).get(short)),
                    )
                    for s in systems
                ),
            ]
        )
    partial = [(s.get("ents_partial") or {}).get("f") for s in systems]
    rows += [
        _make_row("F1, overlap is enough", show_score, partial),
        _make_row("Entity accuracy", show_score, [s.get("ents_acc") for s in systems]),
        _make_row("Token accuracy", show_score, [s.get("token_acc") for s in systems]),
    ]
    return Table(["All labels", *names], _drop_empty(rows))


def _make_row(title: str, show: Any, values: Iterable[Any]) -> list[Cell]:
    return [Cell(title), *(Cell(show(value)) for value in values)]


def _drop_empty(rows: list[list[Cell]]) -> list[list[Cell]]:
    return [row for row in rows if any(cell.text != NONE for cell in row[1:])]


def tabulate_errors(systems: Mapping[str, Any], names: Sequence[str]) -> Table:
    """RETURNS (Table): Errors of each system, by kind."""
    rows = [
        [Cell(*ERRORS[kind])]
        + [
            Cell(show_number((systems[name].get("errors") or {}).get(kind)))
            for name in names
        ]
        for kind in ERRORS
    ]
    return Table(["Error", *names], _drop_empty(rows))


def _decide(decision: Any, rival: str) -> Cell:
    if decision not in DECISIONS:
        return Cell(NONE)
    text = capitalise(describe(Decision(decision), rival))
    return Cell(text, style=f"decision {decision}")


def tabulate_confusion(
    system: Mapping[str, Any], labels: Sequence[str]
) -> Table | None:
    """RETURNS (Optional[Table]): Gold labels by predicted ones or, with many labels,
    the most frequent confusions.
    """
    confusion = system.get("confusion") or {}
    pairs = [
        (count, gold, predicted)
        for gold, row in confusion.items()
        for predicted, count in row.items()
        if count
    ]
    if not pairs:
        return None
    if len(labels) > _MATRIX:
        wrong = sorted(
            (pair for pair in pairs if pair[1] != pair[2]),
            key=lambda pair: (-pair[0], *pair[1:]),
        )
        rows = [
            [
                Cell(gold or "nothing"),
                Cell(predicted or "nothing", style="text"),
                Cell(show_number(count)),
            ]
            for count, gold, predicted in wrong[:_CONFUSIONS]
        ]
        return Table(["Gold", "Found", "Entities"], rows) if rows else None
    columns = [*labels, ""]
    rows = []
    for gold in columns:
        row = confusion.get(gold) or {}
        total = sum(row.values()) or 1
        cells = [Cell(gold or "nothing")]
        for predicted in columns:
            count = row.get(predicted, 0)
            style = "right" if gold == predicted else "wrong"
            shade = math.ceil(_SHADES * count / total)
            if not gold and not predicted:
                cells.append(Cell(""))
            else:
                cells.append(Cell(show_number(count), style=f"{style} s{shade}"))
        rows.append(cells)
    return Table(["Gold", *(f"{la or 'nothing'}" for la in columns)], rows)


def tabulate_curve(curve: Mapping[str, Any]) -> Table | None:
    """RETURNS (Optional[Table]): Scores by training texts."""
    points = curve.get("points") or []
    if not points:
        return None
    rows = [
        [
            Cell(show_number(point.get("texts"))),
            Cell(
                f"{show_quantity(point['share'])}%"
                if is_number(point.get("share"))
                else NONE
            ),
            Cell(show_score(point.get("ents_f")), show_range(point.get("interval"))),
            Cell(show_seconds(point.get("seconds"))),
        ]
        for point in points
    ]
    return Table(["Texts", "Share", "F1", "Training"], rows)


def get_usd(report: Mapping[str, Any], name: str) -> Any:
    """RETURNS (Any): What a million texts cost a system."""
    costs = (report.get("costs") or {}).get("systems") or {}
    return (costs.get(name) or {}).get("usd_per_million_texts")


def get_priced_as(report: Mapping[str, Any]) -> str:
    """RETURNS (str): The model whose prices stand for the teacher's, or ""."""
    settings = (report.get("costs") or {}).get("settings") or {}
    return str(settings.get("priced_as") or "")


def get_speed(report: Mapping[str, Any], name: str) -> Any:
    """RETURNS (Any): Words per second of a system."""
    system = report["systems"][name]
    speed = (system.get("speed") or {}).get("words_per_second")
    return system.get("words_per_second") if speed is None else speed


def tabulate_costs(report: dict[str, Any], names: Sequence[str]) -> Table | None:
    """RETURNS (Optional[Table]): Money, speed and footprint of each system."""
    systems = [report["systems"][name] for name in names]
    costs = (report.get("costs") or {}).get("systems") or {}
    priced = [costs.get(name) or {} for name in names]
    speeds = [s.get("speed") or {} for s in systems]
    answers = [s.get("answers") or {} for s in systems]

    def merge(key: str) -> list[Any]:
        pairs = zip(speeds, answers, strict=True)
        return [one.get(key, other.get(key)) for one, other in pairs]

    rows = [
        _make_row(
            "US dollars for a million texts",
            show_money,
            [c.get("usd_per_million_texts") for c in priced],
        ),
        _make_row(
            "kWh for a million texts",
            show_quantity,
            [c.get("kwh_per_million_texts") for c in priced],
        ),
        _make_row(
            "kg CO2e for a million texts",
            show_quantity,
            [c.get("kg_co2e_per_million_texts") for c in priced],
        ),
        _make_row(
            "Words per second", show_number, [get_speed(report, name) for name in names]
        ),
        _make_row("One text: half take up to", show_seconds, merge("latency_p50")),
        _make_row(
            "One text: nearly all take up to", show_seconds, merge("latency_p95")
        ),
        _make_row("Cores used", show_number, [s.get("cores") for s in speeds]),
        _make_row("Loading", show_seconds, [s.get("load_seconds") for s in speeds]),
        _make_row("Size on disk", show_bytes, [s.get("bytes") for s in systems]),
        _make_row("Memory", show_bytes, [s.get("peak_memory") for s in speeds]),
        _make_row(
            "Prompt tokens, on this gold",
            show_number,
            [a.get("prompt_tokens") for a in answers],
        ),
    ]
    if any(a.get("estimated") for a in answers):
        rows[-1] = [
            cell._replace(note="estimated") if answer.get("estimated") else cell
            for cell, answer in zip(rows[-1], [{}, *answers], strict=True)
        ]
    rows = _drop_empty(rows)
    return Table(["", *names], rows) if rows else None


def list_bases(costs: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, str]]:
    """RETURNS (List[Tuple[str, str]]): Whose cost of what, and its basis."""
    found = []
    for name in names:
        system = (costs.get("systems") or {}).get(name) or {}
        for key, what in (("usd_basis", "money"), ("energy_basis", "energy")):
            if system.get(key):
                found.append((f"{name}, {what}", system[key]))
    return found


def tabulate_case_study(report: dict[str, Any], names: Sequence[str]) -> Table | None:
    """RETURNS (Optional[Table]): Our systems, and those of the case study."""
    costs = report.get("costs") or {}
    if not costs.get("case_study"):
        return None
    rows = []
    for name in names:
        system, cost = report["systems"][name], (costs.get("systems") or {}).get(name)
        timed = system.get("speed") or system.get("answers") or {}
        rows.append(
            [
                Cell(name, "here"),
                *_list_costs(cost or {}, timed.get("latency_p50")),
                Cell(show_score(system.get("ents_f")), "F1"),
            ]
        )
    for row in costs["case_study"]:
        scored = Cell(show_quantity(row.get("accuracy")), "accuracy")
        rows.append(
            [
                Cell(row["system"], "case study"),
                *_list_costs(row, row.get("latency")),
                scored if is_number(row.get("accuracy")) else Cell(NONE),
            ]
        )
    return Table(["System", "US dollars", "kg CO2e", "One text", "Quality"], rows)


def _list_costs(costs: Mapping[str, Any], latency: Any) -> list[Cell]:
    return [
        Cell(show_money(costs.get("usd_per_million_texts"))),
        Cell(show_quantity(costs.get("kg_co2e_per_million_texts"))),
        Cell(show_seconds(latency)),
    ]


def tabulate_corpus(corpus: Mapping[str, Any]) -> Table | None:
    """RETURNS (Optional[Table]): What votes decided, by label."""
    labels = corpus.get("labels") or {}
    if not labels:
        return None
    standings = ("trusted", "disputed", "dropped")
    rows = [
        _make_row(
            label, show_number, [counts.get(standing, 0) for standing in standings]
        )
        for label, counts in labels.items()
    ]
    return Table(["Label", *(standing.capitalize() for standing in standings)], rows)
