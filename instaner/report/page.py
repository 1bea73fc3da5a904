"""The report: one page that says whether the student replaces the LLM, and why."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import srsly
from markupsafe import Markup
from spacy import displacy

from ..errors import InstaNERError
from ..files import check_exists, write_whole
from ..verdict import Decision, describe, name_rival
from .figures import draw_against, draw_curve, draw_scores

TITLE = "Does the student replace the LLM?"

_FILES = ("index.html", "report.md", "comparison.json")
_NONE = "–"
_DECISIONS = [decision.value for decision in Decision]
_ERRORS = {
    "missed": ("Missed", "in the gold, but not found"),
    "spurious": ("Spurious", "found, but not in the gold"),
    "boundary": ("Wrong boundary", "the right label on too much or too little"),
    "label": ("Wrong label", "the right words with another label"),
    "both": ("Both wrong", "another label on too much or too little"),
}
_AGAINST = {"cost": "US dollars for a million texts", "speed": "Words per second"}
_EXAMPLES = 2  # of a kind of error, of those that the comparison holds
_OPEN = 6  # texts that are seen without opening the others
_MATRIX = 12  # labels, with more of which the most frequent confusions are listed
_CONFUSIONS = 15
_SHADES = 5
_LABEL_COLOURS = 8
_ENTITY = '<mark class="{bg}">{text}<span class="label">{label}</span></mark>'


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


def make_report(
    comparison: Mapping[str, Any],
    output: Path,
    *,
    costs: Mapping[str, Any] | None = None,
    corpus: Mapping[str, Any] | None = None,
    curve: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    title: str = TITLE,
) -> str:
    """Write a report: index.html, report.md, and comparison.json with their numbers.

    comparison (Mapping[str, Any]): Systems on the same gold, with the verdict.
    output (Path): The folder, which is replaced as a whole.
    costs (Optional[Mapping[str, Any]]): Cost and footprint of the systems.
    corpus (Optional[Mapping[str, Any]]): The training corpus, as read_corpus gives it.
    curve (Optional[Mapping[str, Any]]): The learning curve.
    run (Optional[Mapping[str, Any]]): The record of the run.
    title (str): The question that the report answers.
    RETURNS (str): The verdict, in a sentence.
    RAISES (InstaNERError): If the comparison has no systems, matplotlib is not
        installed, or the folder holds something else.
    """
    if not comparison.get("systems") or "gold" not in comparison:
        raise InstaNERError(
            "The comparison names no systems and no gold. Make it anew: "
            "instaner evaluate."
        )
    parts = {"costs": costs, "corpus": corpus, "curve": curve, "run": run}
    given = {key: part for key, part in parts.items() if part is not None}
    report = _clean({**comparison, **given, "title": title})
    view = _make_view(report)
    with write_whole(output, holds=_FILES) as part:
        part.mkdir()
        for name in _FILES[:2]:
            text = _render(f"{name}.jinja", view)
            (part / name).write_text(text, "utf8")
        srsly.write_json(part / _FILES[2], report)
    return f"{view['verdict']['word']} {view['verdict']['rest']}".strip()


def read_corpus(annotated: Path, generated: Path | None = None) -> dict[str, Any]:
    """Read what is known of a training corpus from beside it.

    annotated (Path): Annotated shards, beside which stands what their votes are worth.
    generated (Optional[Path]): Generated texts, beside which stands what they are.
    RETURNS (Dict[str, Any]): texts, labels, agreement, disputed_share, generated (if
        its texts were), and bills of both.
    RAISES (InstaNERError): If what stands beside them is missing or something else.
    """
    meta = _read_meta(annotated)
    labels: dict[str, dict[str, int]] = {}
    for row in meta.get("standings", []):
        labels.setdefault(row["label"], {})[row["standing"]] = row["count"]
    keys = ("texts", "agreement", "disputed_share")
    bills = list(meta.get("bills") or ())
    corpus: dict[str, Any] = {key: meta.get(key) for key in keys}
    corpus.update(labels=labels, bills=bills)
    if generated is not None and _find_meta(generated).exists():
        meta = _read_meta(generated)
        bills += meta.get("bills") or ()
        variety = meta.get("variety") or {}
        corpus["generated"] = {
            "texts": meta.get("texts"),
            "briefs": meta.get("briefs"),
            "without_entities": variety.get("without_entities"),
            "language": variety.get("languages"),
        }
    return corpus


def _find_meta(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.meta.json")


def _read_meta(path: Path) -> dict[str, Any]:
    path = _find_meta(path)
    check_exists(path, "Account of the step")
    try:
        return dict(srsly.read_json(path))
    except (TypeError, ValueError) as err:
        raise InstaNERError(
            f"{path} is not what a step wrote beside its output. Run that step anew."
        ) from err


def _clean(value: Any) -> Any:
    """RETURNS (Any): The value as JSON holds it: what is no number is none."""
    if isinstance(value, Mapping):
        return {str(key): _clean(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _render(name: str, view: Mapping[str, Any]) -> str:
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("instaner.report", "."),
        autoescape=name.endswith(".html.jinja"),
        finalize=_finalize_html if name.endswith(".html.jinja") else _finalize_markdown,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        number=_number,
        quantity=_quantity,
        money=_money,
        percent=_percent,
        range=_range,
        score=_score,
        table=_to_markdown,
    )
    return env.get_template(name).render(view)


def _finalize_html(value: Any) -> Any:
    return "" if value is None else value


def _finalize_markdown(value: Any) -> str:
    """RETURNS (str): The value, of which nothing is read as Markdown or HTML."""
    if value is None or isinstance(value, Markup):
        return value or ""
    text = re.sub(r"\s+", " ", str(value))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for char in "\\`*_[]|#":
        text = text.replace(char, f"\\{char}")
    return text


def _to_markdown(table: Table) -> Markup:
    cells = [[Cell(name) for name in table.head], *table.rows]
    lines = [
        "| "
        + " | ".join(
            _finalize_markdown(cell.text + f" ({cell.note})" * bool(cell.note))
            for cell in row
        )
        + " |"
        for row in cells
    ]
    lines.insert(1, "|---" + "|---:" * (len(table.head) - 1) + "|")
    return Markup("\n".join(lines))


# Numbers, for a person


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _score(value: Any) -> str:
    return f"{value:.3f}" if _is_number(value) else _NONE


def _signed(value: Any, decimals: int = 3) -> str:
    if not _is_number(value):
        return _NONE
    text = f"{abs(value):.{decimals}f}"
    if not float(text):
        return text
    return f"−{text}" if value < 0 else f"+{text}"


def _range(interval: Any) -> str:
    if not interval or not all(map(_is_number, interval)):
        return ""
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def _percent(value: Any) -> str:
    return f"{value:.1%}" if _is_number(value) else _NONE


def _number(value: Any) -> str:
    return f"{value:,.0f}" if _is_number(value) else _NONE


def _quantity(value: Any) -> str:
    """RETURNS (str): A number, or from one to another, with three digits that count."""
    if isinstance(value, list) and len(value) == 2:
        low, high = map(_quantity, value)
        return low if low == high else f"{low} to {high}"
    if not _is_number(value):
        return _NONE
    if not value:
        return "0"
    text = f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _money(value: Any) -> str:
    if not _is_number(value):
        return _NONE
    return f"${value:,.2f}" if value >= 0.1 or not value else f"${_quantity(value)}"


def _seconds(value: Any) -> str:
    if not _is_number(value):
        return _NONE
    return f"{_quantity(value)} s" if value >= 1 else f"{_quantity(value * 1000)} ms"


def _bytes(value: Any) -> str:
    if not _is_number(value) or not value:
        return _NONE
    if value >= 1e9:
        return f"{_quantity(value / 1e9)} GB"
    return f"{_quantity(value / 1e6)} MB"


# What the page says


def _make_view(report: dict[str, Any]) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): What both templates show."""
    systems = report["systems"]
    reference = report.get("reference")
    lead: str = report.get("student") or ""
    if lead not in systems:
        others = [name for name in systems if name != reference] or list(systems)
        lead = max(others, key=lambda name: systems[name].get("ents_f") or 0)
    if reference not in systems or reference == lead:
        reference = None
    first = [name for name in (reference, lead) if name is not None]
    # The best student has the same colour and mark on every page.
    names = first + [name for name in systems if name not in first]
    colours = {name: k + (reference is None) for k, name in enumerate(names)}
    report = {
        "labels": sorted({la for r in systems.values() for la in r["ents_per_type"]}),
        "rules": {},
        **report,
    }
    label_styles = {
        la: f"e{k % _LABEL_COLOURS}" for k, la in enumerate(report["labels"])
    }
    teacher = None
    if reference is not None and _is_number(systems[reference].get("ents_f")):
        teacher = reference, systems[reference]["ents_f"]
    curve = report.get("curve") or {}
    costs = report.get("costs") or {}
    differences = report.get("differences") or []
    placed = {
        "cost": _place(report, colours, _get_usd),
        "speed": _place(report, colours, _get_speed),
    }
    view = {
        "report": report,
        "reference": reference,
        "priced_as": _get_priced_as(report),
        "rival": name_rival(report),
        "lead": lead,
        "names": names,
        "colours": colours,
        "silver": bool(report["gold"].get("silver")),
        "verdict": _tell_verdict(report, lead, reference),
        "key_figures": _list_key_figures(report, lead, reference),
        "labels": _tabulate_labels(report, lead, reference),
        "systems": _tabulate_systems(report, names),
        "scores": _tabulate_scores(report, names),
        "errors": _tabulate_errors(systems, names),
        "examples": _list_examples(systems[lead], label_styles),
        "confusion": _tabulate_confusion(systems[lead], report["labels"]),
        "curve": _tabulate_curve(curve),
        "fit": curve.get("fit") if (curve.get("fit") or {}).get("doubled_f") else None,
        "costs": _tabulate_costs(report, names),
        "bases": _list_bases(costs, names),
        "case_study": _tabulate_case_study(report, names),
        "corpus": _tabulate_corpus(report.get("corpus") or {}),
        "differences": [
            _render_difference(row, names, label_styles) for row in differences
        ],
        "open": _OPEN,
        "made": {
            "gold": report["gold"],
            "rules": report["rules"],
            "systems": {name: systems[name].get("source") for name in names},
            "curve": {key: curve.get(key) for key in ("config", "train_sha256")},
            **(report.get("run") or {}),
        },
        "figures": {
            "scores": Markup(draw_scores(report, colours)),
            "curve": Markup(draw_curve(curve, teacher)),
            **{
                key: Markup(draw_against(key, title, placed[key]))
                for key, title in _AGAINST.items()
            },
        },
    }
    view["unplaced"] = {
        key: _name_unplaced(names, points) for key, points in placed.items()
    }
    view["titles"] = _tell_titles(view)
    return view


def _compare(difference: float, interval: Any, whom: str = "") -> str:
    """RETURNS (str): How far a score is from another, in words."""
    side = "above" if difference > 0 else "below"
    text = f"{abs(difference):.3f} {side}{whom}"
    if not float(f"{difference:.3f}"):
        text = f"the same{whom and ' as' + whom}"
    if not interval or not all(map(_is_number, interval)):
        return text
    decimals = 2 if min(map(abs, interval)) >= 0.1 else 3
    low, high = (f"{abs(bound):.{decimals}f}" for bound in interval)
    if interval[1] <= 0:
        return f"{text} ({high} to {low})"
    if interval[0] >= 0:
        return f"{text} ({low} to {high})"
    return f"{text} (from {low} below to {high} above)"


def _tell_verdict(
    report: dict[str, Any], lead: str, reference: str | None
) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): decision, the verdict as word and rest, reason."""
    score = report["systems"][lead].get("ents_f")
    verdict = ((report.get("verdict") or {}).get(lead) or {}).get("all") or {}
    paired = ((report.get("paired") or {}).get(lead) or {}).get("all") or {}
    decision = verdict.get("decision")
    rest = "this gold holds nothing to compare."
    if _is_number(paired.get("difference")):
        gap = _compare(paired["difference"], paired.get("interval"))
        rest = f"the student’s F1 is {gap}."
    elif _is_number(score):
        rest = f"the F1 of {lead} is {_score(score)}."
    if reference is None or decision not in _DECISIONS:
        word = "No verdict:"
        if reference is None:
            rest = "there is nothing to compare with" + (
                f"; the F1 of {lead} is {_score(score)}." if _is_number(score) else "."
            )
        decision = "none"
    elif decision == "swap":
        word = "Swap:"
    elif decision == "keep":
        word = f"Keep {name_rival(report)} for now:"
    else:
        word = "Not enough gold:"
        if _is_number(verdict.get("more_texts")):
            rest = f"about {_number(verdict['more_texts'])} more texts would decide."
    return {
        "decision": decision,
        "word": word,
        "rest": rest,
        "reason": verdict.get("reason"),
    }


def _list_key_figures(
    report: dict[str, Any], lead: str, reference: str | None
) -> list[dict[str, str]]:
    """RETURNS (List[Dict[str, str]]): name, value and note of up to four figures."""
    student = report["systems"][lead]
    teacher = report["systems"][reference] if reference is not None else {}
    costs = (report.get("costs") or {}).get("systems") or {}
    figures = []
    paired = ((report.get("paired") or {}).get(lead) or {}).get("all") or {}
    if _is_number(paired.get("difference")):
        low_high = paired.get("interval")
        note = ""
        if low_high and all(map(_is_number, low_high)):
            confidence = report["rules"].get("confidence")
            share = f"{confidence:.0%} " if _is_number(confidence) else ""
            note = f"{share}interval {' to '.join(map(_signed, low_high))}"
        figures.append(("Difference in F1", _signed(paired["difference"]), note))
    elif _is_number(student.get("ents_f")):
        note = _range((student.get("interval") or {}).get("f"))
        figures.append(("F1", _score(student["ents_f"]), note))
    usd = [
        (costs.get(name) or {}).get("usd_per_million_texts")
        for name in (lead, reference)
    ]
    if _is_number(usd[0]):
        note = f"{reference}: {_money(usd[1])}" if _is_number(usd[1]) else ""
        if note and (model := _get_priced_as(report)):
            note += f", priced as {model}"
        figures.append(("Cost of a million texts", _money(usd[0]), note))
    speed = student.get("speed") or {}
    latency = (teacher.get("answers") or {}).get("latency_p50")
    if _is_number(speed.get("latency_p50")):
        note = ""
        if _is_number(latency):
            note = f"{reference}: {_seconds(latency)}"
        elif _is_number(_get_speed(report, lead)):
            note = f"{_number(_get_speed(report, lead))} words per second"
        figures.append(
            ("Time for a text, median", _seconds(speed["latency_p50"]), note)
        )
    elif _is_number(_get_speed(report, lead)):
        figures.append(("Words per second", _number(_get_speed(report, lead)), ""))
    if student.get("bytes"):
        memory = speed.get("peak_memory")
        note = f"takes {_bytes(memory)} of memory" if _is_number(memory) else ""
        figures.append(("Size on disk", _bytes(student["bytes"]), note))
    keys = ("name", "value", "note")
    return [dict(zip(keys, figure, strict=True)) for figure in figures]


def _decide(decision: Any, rival: str) -> Cell:
    if decision not in _DECISIONS:
        return Cell(_NONE)
    text = _capitalise(describe(Decision(decision), rival))
    return Cell(text, style=f"decision {decision}")


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tabulate_labels(report: dict[str, Any], lead: str, reference: str | None) -> Table:
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
        row = [Cell(name), Cell(_number(support)), *(Cell(_score(s)) for s in scores)]
        if reference is None:
            return row
        interval = (pairs or {}).get("interval") or []
        note = " to ".join(map(_signed, interval)) if None not in interval else ""
        row.append(Cell(_signed((pairs or {}).get("difference")), note))
        decided = _decide((verdict or {}).get("decision"), name_rival(report))
        more = (verdict or {}).get("more_texts")
        if _is_number(more):
            decided = decided._replace(note=f"about {_number(more)} more texts")
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


def _tabulate_scores(report: dict[str, Any], names: Sequence[str]) -> Table:
    """RETURNS (Table): F1 of all systems by label: what the figure shows."""

    def make_cell(values: Mapping[str, Any], key: str) -> Cell:
        return Cell(
            _score(values.get(key)), _range((values.get("interval") or {}).get("f"))
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


def _tabulate_systems(report: dict[str, Any], names: Sequence[str]) -> Table:
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
                        _score(s.get(key)), _range((s.get("interval") or {}).get(short))
                    )
                    for s in systems
                ),
            ]
        )
    partial = [(s.get("ents_partial") or {}).get("f") for s in systems]
    rows += [
        _make_row("F1, overlap is enough", _score, partial),
        _make_row("Entity accuracy", _score, [s.get("ents_acc") for s in systems]),
        _make_row("Token accuracy", _score, [s.get("token_acc") for s in systems]),
    ]
    return Table(["All labels", *names], _drop_empty(rows))


def _make_row(title: str, show: Any, values: Iterable[Any]) -> list[Cell]:
    return [Cell(title), *(Cell(show(value)) for value in values)]


def _drop_empty(rows: list[list[Cell]]) -> list[list[Cell]]:
    return [row for row in rows if any(cell.text != _NONE for cell in row[1:])]


def _tabulate_errors(systems: Mapping[str, Any], names: Sequence[str]) -> Table:
    rows = [
        [Cell(*_ERRORS[kind])]
        + [
            Cell(_number((systems[name].get("errors") or {}).get(kind)))
            for name in names
        ]
        for kind in _ERRORS
    ]
    return Table(["Error", *names], _drop_empty(rows))


def _list_examples(
    system: Mapping[str, Any], styles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """RETURNS (List[Dict[str, Any]]): Kind, and examples of it."""
    found = []
    for kind, rows in (system.get("error_examples") or {}).items():
        examples = [
            {
                "text": row["text"],
                "gold": _mark(row["text"], row.get("gold"), styles),
                "predicted": _mark(row["text"], row.get("predicted"), styles),
            }
            for row in rows[:_EXAMPLES]
            if isinstance(row.get("text"), str)
        ]
        if examples and kind in _ERRORS:
            found.append({"kind": _ERRORS[kind][0], "examples": examples})
    return found


def _mark(text: str, span: Any, styles: Mapping[str, str]) -> Markup | None:
    if not span:
        return None
    start, end, label = span
    return _render_text(text[start:end], [(0, end - start, label)], styles)


def _render_text(
    text: str, spans: Iterable[Sequence[Any]], styles: Mapping[str, str]
) -> Markup:
    """RETURNS (Markup): A text with its entities, by displaCy."""
    ents = [
        {
            "start": start,
            "end": end,
            "label": html.escape(label),  # displaCy escapes the text alone
            "params": {"bg": styles.get(label, "e0")},
        }
        for start, end, label in spans
    ]
    return Markup(
        displacy.render(
            {"text": text, "ents": ents, "title": None, "settings": {}},
            style="ent",
            page=False,
            jupyter=False,
            manual=True,
            options={"template": _ENTITY},
        )
    )


def _render_difference(
    row: Mapping[str, Any], names: Sequence[str], styles: Mapping[str, str]
) -> list[tuple[str, Markup | None]]:
    """RETURNS (List[Tuple[str, Optional[Markup]]]): Who, and the text with what they
    see in it, or None where that is what the gold has.
    """
    gold = sorted(row.get("gold") or [])
    shown: list[tuple[str, Markup | None]] = [
        ("Gold", _render_text(row["text"], gold, styles))
    ]
    for name in names:
        if name in (row.get("systems") or {}):
            spans = sorted(row["systems"][name] or [])
            same = spans == gold
            shown.append(
                (name, None if same else _render_text(row["text"], spans, styles))
            )
    return shown


def _tabulate_confusion(
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
                Cell(_number(count)),
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
                cells.append(Cell(_number(count), style=f"{style} s{shade}"))
        rows.append(cells)
    return Table(["Gold", *(f"{la or 'nothing'}" for la in columns)], rows)


def _tabulate_curve(curve: Mapping[str, Any]) -> Table | None:
    points = curve.get("points") or []
    if not points:
        return None
    rows = [
        [
            Cell(_number(point.get("texts"))),
            Cell(
                f"{_quantity(point['share'])}%"
                if _is_number(point.get("share"))
                else _NONE
            ),
            Cell(_score(point.get("ents_f")), _range(point.get("interval"))),
            Cell(_seconds(point.get("seconds"))),
        ]
        for point in points
    ]
    return Table(["Texts", "Share", "F1", "Training"], rows)


def _get_usd(report: Mapping[str, Any], name: str) -> Any:
    costs = (report.get("costs") or {}).get("systems") or {}
    return (costs.get(name) or {}).get("usd_per_million_texts")


def _get_priced_as(report: Mapping[str, Any]) -> str:
    """RETURNS (str): The model whose prices stand for the teacher's, or ""."""
    settings = (report.get("costs") or {}).get("settings") or {}
    return str(settings.get("priced_as") or "")


def _get_speed(report: Mapping[str, Any], name: str) -> Any:
    system = report["systems"][name]
    speed = (system.get("speed") or {}).get("words_per_second")
    return system.get("words_per_second") if speed is None else speed


def _place(
    report: Mapping[str, Any], colours: Mapping[str, int], get: Any
) -> list[tuple[str, int, float, float, Any]]:
    """RETURNS (List[Tuple]): Points to draw quality against something."""
    return [
        (name, k, value, system["ents_f"], (system.get("interval") or {}).get("f"))
        for name, k in colours.items()
        if _is_number(value := get(report, name))
        and _is_number((system := report["systems"][name]).get("ents_f"))
    ]


def _name_unplaced(names: Iterable[str], points: Iterable[tuple[Any, ...]]) -> str:
    placed = {name for name, *_ in points}
    left = [name for name in names if name not in placed]
    return f"; not known of {', '.join(left)}" if left else ""


def _tabulate_costs(report: dict[str, Any], names: Sequence[str]) -> Table | None:
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
            _money,
            [c.get("usd_per_million_texts") for c in priced],
        ),
        _make_row(
            "kWh for a million texts",
            _quantity,
            [c.get("kwh_per_million_texts") for c in priced],
        ),
        _make_row(
            "kg CO2e for a million texts",
            _quantity,
            [c.get("kg_co2e_per_million_texts") for c in priced],
        ),
        _make_row(
            "Words per second", _number, [_get_speed(report, name) for name in names]
        ),
        _make_row("One text: half take up to", _seconds, merge("latency_p50")),
        _make_row("One text: nearly all take up to", _seconds, merge("latency_p95")),
        _make_row("Cores used", _number, [s.get("cores") for s in speeds]),
        _make_row("Loading", _seconds, [s.get("load_seconds") for s in speeds]),
        _make_row("Size on disk", _bytes, [s.get("bytes") for s in systems]),
        _make_row("Memory", _bytes, [s.get("peak_memory") for s in speeds]),
        _make_row(
            "Prompt tokens, on this gold",
            _number,
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


def _list_bases(
    costs: Mapping[str, Any], names: Sequence[str]
) -> list[tuple[str, str]]:
    """RETURNS (List[Tuple[str, str]]): Whose cost of what, and its basis."""
    found = []
    for name in names:
        system = (costs.get("systems") or {}).get(name) or {}
        for key, what in (("usd_basis", "money"), ("energy_basis", "energy")):
            if system.get(key):
                found.append((f"{name}, {what}", system[key]))
    return found


def _tabulate_case_study(report: dict[str, Any], names: Sequence[str]) -> Table | None:
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
                Cell(_score(system.get("ents_f")), "F1"),
            ]
        )
    for row in costs["case_study"]:
        scored = Cell(_quantity(row.get("accuracy")), "accuracy")
        rows.append(
            [
                Cell(row["system"], "case study"),
                *_list_costs(row, row.get("latency")),
                scored if _is_number(row.get("accuracy")) else Cell(_NONE),
            ]
        )
    return Table(["System", "US dollars", "kg CO2e", "One text", "Quality"], rows)


def _list_costs(costs: Mapping[str, Any], latency: Any) -> list[Cell]:
    return [
        Cell(_money(costs.get("usd_per_million_texts"))),
        Cell(_quantity(costs.get("kg_co2e_per_million_texts"))),
        Cell(_seconds(latency)),
    ]


def _tabulate_corpus(corpus: Mapping[str, Any]) -> Table | None:
    labels = corpus.get("labels") or {}
    if not labels:
        return None
    standings = ("trusted", "disputed", "dropped")
    rows = [
        _make_row(label, _number, [counts.get(standing, 0) for standing in standings])
        for label, counts in labels.items()
    ]
    return Table(["Label", *(standing.capitalize() for standing in standings)], rows)


def _tell_titles(view: Mapping[str, Any]) -> dict[str, str]:
    """RETURNS (Dict[str, str]): Titles of sections, which say what is certain."""
    report, lead, reference = (view[key] for key in ("report", "lead", "reference"))
    system = report["systems"][lead]
    titles = {
        "labels": "Label by label",
        "scores": "How sure the scores are",
        "errors": "Where the errors come from",
        "confusion": "What is taken for what",
        "curve": "What more texts would bring",
        "costs": "Cost and speed",
    }
    per_type = ((report.get("verdict") or {}).get(lead) or {}).get("per_type") or {}
    decisions = {str((v or {}).get("decision")) for v in per_type.values()}
    if reference is not None and len(per_type) > 1:
        titles["labels"] = {
            "swap": "The student can take over every label",
            "keep": f"{_capitalise(name_rival(report))} is better at every label",
            "undecided": "No label is decided yet",
        }.get(decisions.pop() if len(decisions) == 1 else "", "The labels differ")
    errors = sorted((system.get("errors") or {}).items(), key=lambda e: e[1] or 0)
    if errors and errors[-1][1] and (len(errors) < 2 or errors[-1][1] > errors[-2][1]):
        titles["errors"] = {
            "missed": "Most often, the student misses an entity",
            "spurious": "Most often, the student sees an entity where there is none",
            "boundary": "Most often, the student gets the boundary wrong",
            "label": "Most often, the student gets the label wrong",
        }.get(errors[-1][0], titles["errors"])
    fit, points = view["fit"], (report.get("curve") or {}).get("points")
    if fit and points:
        least, last = (fit.get("interval") or [None])[0], points[-1].get("ents_f")
        if _is_number(least) and _is_number(last) and least > last:
            student = report["curve"].get("student") or ""
            titles["curve"] = f"More texts would still help the {student} student"
    usd = [_get_usd(report, name) for name in view["names"][:2]]
    if reference is not None and all(map(_is_number, usd)) and usd[0] != usd[1]:
        cheaper = name_rival(report) if usd[0] < usd[1] else "the student"
        titles["costs"] = f"{_capitalise(cheaper)} is cheaper to run"
    return titles
