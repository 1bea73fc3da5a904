"""The tables of a report."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..scores import NOTHING, find_score
from ..verdict import Decision, describe, name_rival
from .words import (
    NONE,
    Words,
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
MATRIX = 12  # labels, with more of which the most frequent confusions are listed

# Of all labels, beside F1, or accuracy where each text has one category.
_SCORES = {
    "ents_acc": "Entity accuracy",
    "token_acc": "Token accuracy",
    "cats_macro_f": "Macro F1",
    "cats_balanced_acc": "Balanced accuracy",
    "cats_acc": "All labels right",
}
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


def tabulate_labels(
    report: dict[str, Any], lead: str, reference: str | None, words: Words
) -> Table:
    """RETURNS (Table): The verdict of each label."""
    systems = report["systems"]
    shown = [name for name in (reference, lead) if name is not None]
    paired = (report.get("paired") or {}).get(lead) or {}
    verdict = (report.get("verdict") or {}).get(lead) or {}
    head = ["Label", words.support, *(f"F1 {name}" for name in shown)]
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
            *(_get_type(systems[name], label).get("f") for name in shown),
        )
        for label in report["labels"]
    ]
    every = (report["gold"].get("entities"), paired.get("all"), verdict.get("all"))
    scores = [find_score(systems[name], "f") for name in shown]
    rows.append(make_row(words.every, *every, *scores))
    return Table(head, rows)


def tabulate_scores(
    report: dict[str, Any], names: Sequence[str], words: Words
) -> Table:
    """RETURNS (Table): F1 of all systems by label: what the figure shows."""
    systems = [report["systems"][name] for name in names]
    rows = [[Cell(words.every), *(_show_sure(s, find_score(s, "f")) for s in systems)]]
    for label in report["labels"]:
        types = [_get_type(system, label) for system in systems]
        rows.append([Cell(label), *(_show_sure(v, v.get("f")) for v in types)])
    return Table(["F1", *names], rows)


def tabulate_systems(
    report: dict[str, Any], names: Sequence[str], words: Words
) -> Table:
    """RETURNS (Table): How well each system does on all labels."""
    systems = [report["systems"][name] for name in names]
    titles = {"f": capitalise(words.score)}
    if words.score == "F1":
        titles.update(p="Precision", r="Recall")
    rows = [
        [Cell(title), *(_show_sure(s, find_score(s, key), key) for s in systems)]
        for key, title in titles.items()
    ]
    partial = [(s.get("ents_partial") or {}).get("f") for s in systems]
    rows.append(_make_row("F1, overlap is enough", show_score, partial))
    for key, title in _SCORES.items():
        if key != "cats_acc" or words.score == "F1":  # else it is the first row
            rows.append(_make_row(title, show_score, [s.get(key) for s in systems]))
    errors = [(s.get("calibration") or {}).get("ece") for s in systems]
    rows.append(_make_row("Calibration error (ECE)", show_score, errors))
    return Table(["All labels", *names], _drop_empty(rows))


def tabulate_calibration(report: dict[str, Any], names: Sequence[str]) -> Table | None:
    """RETURNS (Optional[Table]): How far scores are probabilities, by score."""
    rows = [
        [
            Cell(name),
            Cell(show_score(row.get("score"))),
            Cell(show_score(row.get("share"))),
            Cell(show_number(row.get("count"))),
        ]
        for name in names
        for row in (report["systems"][name].get("calibration") or {}).get("bins") or ()
    ]
    head = ["System", "Score, on average", "Share that is right", "Answers"]
    return Table(head, rows) if rows else None


def _get_type(system: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    return find_score(system, "per_type").get(label) or {}


def _show_sure(values: Mapping[str, Any], score: Any, key: str = "f") -> Cell:
    interval = (values.get("interval") or {}).get(key)
    return Cell(show_score(score), show_range(interval))


def _make_row(title: str, show: Any, values: Iterable[Any]) -> list[Cell]:
    return [Cell(title), *(Cell(show(value)) for value in values)]


def _drop_empty(rows: list[list[Cell]]) -> list[list[Cell]]:
    return [row for row in rows if any(cell.text != NONE for cell in row[1:])]


def tabulate_errors(
    systems: Mapping[str, Any], names: Sequence[str], words: Words
) -> Table:
    """RETURNS (Table): Errors of each system, of the kinds that occur."""
    rows = []
    for kind, (title, note, _) in words.errors.items():
        counts = [(systems[name].get("errors") or {}).get(kind) for name in names]
        if any(counts):
            cells = [Cell(show_number(count)) for count in counts]
            rows.append([Cell(title, note), *cells])
    return Table(["Error", *names], _drop_empty(rows))


def _decide(decision: Any, rival: str) -> Cell:
    if decision not in DECISIONS:
        return Cell(NONE)
    text = capitalise(describe(Decision(decision), rival))
    return Cell(text, style=f"decision {decision}")


def tabulate_confusion(
    system: Mapping[str, Any], labels: Sequence[str], words: Words
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
    if len(labels) > MATRIX:
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
        return (
            Table(["Gold", "Found", capitalise(words.counted)], rows) if rows else None
        )
    columns = [*labels]
    if any(NOTHING in pair for pair in pairs):
        columns.append(NOTHING)
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


def tabulate_curve(curve: Mapping[str, Any], words: Words) -> Table | None:
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
            Cell(show_score(find_score(point, "f")), show_range(point.get("interval"))),
            Cell(show_seconds(point.get("seconds"))),
        ]
        for point in points
    ]
    return Table(["Texts", "Share", capitalise(words.score), "Training"], rows)


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


def tabulate_case_study(
    report: dict[str, Any], names: Sequence[str], words: Words
) -> Table | None:
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
                Cell(show_score(find_score(system, "f")), words.score),
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
