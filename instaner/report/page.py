"""The report: one page that says whether the student replaces the LLM, and why."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import srsly
from markupsafe import Markup
from spacy import displacy

from ..errors import InstaNERError
from ..files import check_exists, write_whole
from ..scores import find_score
from ..targets import is_category
from ..verdict import name_rival
from .figures import draw_against, draw_curve, draw_reliability, draw_scores
from .tables import (
    DECISIONS,
    MATRIX,
    Cell,
    Table,
    get_priced_as,
    get_speed,
    get_usd,
    list_bases,
    tabulate_calibration,
    tabulate_case_study,
    tabulate_confusion,
    tabulate_corpus,
    tabulate_costs,
    tabulate_curve,
    tabulate_errors,
    tabulate_labels,
    tabulate_scores,
    tabulate_systems,
)
from .words import (
    Words,
    capitalise,
    choose_words,
    is_number,
    show_bytes,
    show_money,
    show_number,
    show_percent,
    show_quantity,
    show_range,
    show_score,
    show_seconds,
    show_signed,
)

TITLE = "Does the student replace the LLM?"

_FILES = ("index.html", "report.md", "comparison.json")
_AGAINST = {"cost": "US dollars for a million texts", "speed": "Words per second"}
_EXAMPLES = 2  # of a kind of error, of those that the comparison holds
_OPEN = 6  # texts that are seen without opening the others
_LABEL_COLOURS = 8
_ENTITY = '<mark class="{bg}">{text}<span class="label">{label}</span></mark>'
_CATEGORY = Markup('<mark class="{} chip">{}</mark>')


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
        number=show_number,
        quantity=show_quantity,
        money=show_money,
        percent=show_percent,
        range=show_range,
        score=show_score,
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


def _make_view(report: dict[str, Any]) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): What both templates show."""
    systems = report["systems"]
    reference = report.get("reference")
    lead: str = report.get("student") or ""
    if lead not in systems:
        others = [name for name in systems if name != reference] or list(systems)
        lead = max(others, key=lambda name: find_score(systems[name], "f") or 0)
    if reference not in systems or reference == lead:
        reference = None
    first = [name for name in (reference, lead) if name is not None]
    # The best student has the same colour and mark on every page.
    names = first + [name for name in systems if name not in first]
    colours = {name: k + (reference is None) for k, name in enumerate(names)}
    labels = {la for r in systems.values() for la in find_score(r, "per_type")}
    report = {"labels": sorted(labels), "rules": {}, **report}
    words = choose_words(report["gold"])
    label_styles = {
        la: f"e{k % _LABEL_COLOURS}" for k, la in enumerate(report["labels"])
    }
    teacher = None
    if reference is not None:
        score = find_score(systems[reference], "f")
        teacher = (reference, score) if is_number(score) else None
    curve = report.get("curve") or {}
    costs = report.get("costs") or {}
    differences = report.get("differences") or []
    placed = {
        "cost": _place(report, colours, get_usd),
        "speed": _place(report, colours, get_speed),
    }
    view = {
        "report": report,
        "words": words,
        "score": capitalise(words.score),
        "reference": reference,
        "priced_as": get_priced_as(report),
        "rival": name_rival(report),
        "lead": lead,
        "names": names,
        "colours": colours,
        "silver": bool(report["gold"].get("silver")),
        "verdict": _tell_verdict(report, lead, reference, words),
        "key_figures": _list_key_figures(report, lead, reference, words),
        "labels": tabulate_labels(report, lead, reference, words),
        "systems": tabulate_systems(report, names, words),
        "scores": tabulate_scores(report, names, words),
        "calibration": tabulate_calibration(report, names),
        "errors": tabulate_errors(systems, names, words),
        "examples": _list_examples(systems[lead], label_styles, words),
        "confusion": tabulate_confusion(systems[lead], report["labels"], words),
        "curve": tabulate_curve(curve, words),
        "fit": curve.get("fit") if (curve.get("fit") or {}).get("doubled_f") else None,
        "costs": tabulate_costs(report, names),
        "bases": list_bases(costs, names),
        "case_study": tabulate_case_study(report, names, words),
        "corpus": tabulate_corpus(report.get("corpus") or {}),
        "differences": [
            _render_difference(row, names, label_styles) for row in differences
        ],
        "is_matrix": len(report["labels"]) <= MATRIX,
        "calibrated": ", ".join(
            f"{show_score(calibration.get('ece'))} of {name}"
            for name in names
            if (calibration := systems[name].get("calibration"))
        ),
        "open": _OPEN,
        "made": {
            "gold": report["gold"],
            "rules": report["rules"],
            "systems": {name: systems[name].get("source") for name in names},
            "curve": {key: curve.get(key) for key in ("config", "train_sha256")},
            **(report.get("run") or {}),
        },
        "figures": {
            "scores": Markup(draw_scores(report, colours, words.every)),
            "reliability": Markup(draw_reliability(systems, colours)),
            "curve": Markup(draw_curve(curve, teacher, capitalise(words.score))),
            **{
                key: Markup(
                    draw_against(key, title, placed[key], capitalise(words.score))
                )
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
    if not interval or not all(map(is_number, interval)):
        return text
    decimals = 2 if min(map(abs, interval)) >= 0.1 else 3
    low, high = (f"{abs(bound):.{decimals}f}" for bound in interval)
    if interval[1] <= 0:
        return f"{text} ({high} to {low})"
    if interval[0] >= 0:
        return f"{text} ({low} to {high})"
    return f"{text} (from {low} below to {high} above)"


def _tell_verdict(
    report: dict[str, Any], lead: str, reference: str | None, words: Words
) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): decision, the verdict as word and rest, reason."""
    score = find_score(report["systems"][lead], "f")
    scored = f"the {words.score} of {lead} is {show_score(score)}."
    verdict = ((report.get("verdict") or {}).get(lead) or {}).get("all") or {}
    paired = ((report.get("paired") or {}).get(lead) or {}).get("all") or {}
    decision = verdict.get("decision")
    rest = "this gold holds nothing to compare."
    if is_number(paired.get("difference")):
        gap = _compare(paired["difference"], paired.get("interval"))
        rest = f"the student’s {words.score} is {gap}."
    elif is_number(score):
        rest = scored
    if reference is None or decision not in DECISIONS:
        word = "No verdict:"
        if reference is None:
            rest = "there is nothing to compare with"
            rest += f"; {scored}" if is_number(score) else "."
        decision = "none"
    elif decision == "swap":
        word = "Swap:"
    elif decision == "keep":
        word = f"Keep {name_rival(report)} for now:"
    else:
        word = "Not enough gold:"
        if is_number(verdict.get("more_texts")):
            rest = (
                f"about {show_number(verdict['more_texts'])} more texts would decide."
            )
    return {
        "decision": decision,
        "word": word,
        "rest": rest,
        "reason": verdict.get("reason"),
    }


def _list_key_figures(
    report: dict[str, Any], lead: str, reference: str | None, words: Words
) -> list[dict[str, str]]:
    """RETURNS (List[Dict[str, str]]): name, value and note of up to four figures."""
    student = report["systems"][lead]
    teacher = report["systems"][reference] if reference is not None else {}
    costs = (report.get("costs") or {}).get("systems") or {}
    figures = []
    paired = ((report.get("paired") or {}).get(lead) or {}).get("all") or {}
    if is_number(paired.get("difference")):
        low_high = paired.get("interval")
        note = ""
        if low_high and all(map(is_number, low_high)):
            confidence = report["rules"].get("confidence")
            share = f"{confidence:.0%} " if is_number(confidence) else ""
            note = f"{share}interval {' to '.join(map(show_signed, low_high))}"
        name = f"Difference in {words.score}"
        figures.append((name, show_signed(paired["difference"]), note))
    elif is_number(score := find_score(student, "f")):
        note = show_range((student.get("interval") or {}).get("f"))
        figures.append((capitalise(words.score), show_score(score), note))
    usd = [
        (costs.get(name) or {}).get("usd_per_million_texts")
        for name in (lead, reference)
    ]
    if is_number(usd[0]):
        note = f"{reference}: {show_money(usd[1])}" if is_number(usd[1]) else ""
        if note and (model := get_priced_as(report)):
            note += f", priced as {model}"
        figures.append(("Cost of a million texts", show_money(usd[0]), note))
    speed = student.get("speed") or {}
    latency = (teacher.get("answers") or {}).get("latency_p50")
    if is_number(speed.get("latency_p50")):
        note = ""
        if is_number(latency):
            note = f"{reference}: {show_seconds(latency)}"
        elif is_number(get_speed(report, lead)):
            note = f"{show_number(get_speed(report, lead))} words per second"
        figures.append(
            ("Time for a text, median", show_seconds(speed["latency_p50"]), note)
        )
    elif is_number(get_speed(report, lead)):
        figures.append(("Words per second", show_number(get_speed(report, lead)), ""))
    if student.get("bytes"):
        memory = speed.get("peak_memory")
        note = f"takes {show_bytes(memory)} of memory" if is_number(memory) else ""
        figures.append(("Size on disk", show_bytes(student["bytes"]), note))
    keys = ("name", "value", "note")
    return [dict(zip(keys, figure, strict=True)) for figure in figures]


def _list_examples(
    system: Mapping[str, Any], styles: Mapping[str, str], words: Words
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
        if examples and kind in words.errors:
            found.append({"kind": words.errors[kind][0], "examples": examples})
    return found


def _mark(text: str, span: Any, styles: Mapping[str, str]) -> Markup | None:
    if not span:
        return None
    if is_category(span):
        return _render_categories([span], styles)
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


def _render_categories(
    marks: Iterable[Sequence[Any]], styles: Mapping[str, str]
) -> Markup:
    chips = [_CATEGORY.format(styles.get(la, "e0"), la) for *_, la in marks]
    return Markup(" ").join(chips or ["nothing"])


def _render_difference(
    row: Mapping[str, Any], names: Sequence[str], styles: Mapping[str, str]
) -> list[tuple[str, Markup | None]]:
    """RETURNS (List[Tuple[str, Optional[Markup]]]): Who, and the text with what they
    see in it, or None where that is what the gold has. Where it is categories, the text
    stands first, without them.
    """
    systems = row.get("systems") or {}
    gold = sorted(row.get("gold") or [])
    seen = [(name, sorted(systems[name] or [])) for name in names if name in systems]
    if not any(is_category(mark) for _, marks in [("", gold), *seen] for mark in marks):
        render = partial(_render_text, row["text"], styles=styles)
        shown = []
    else:
        render = partial(_render_categories, styles=styles)
        shown = [("Text", Markup.escape(row["text"]))]
    shown.append(("Gold", render(gold)))
    return shown + [
        (name, None if marks == gold else render(marks)) for name, marks in seen
    ]


def _place(
    report: Mapping[str, Any], colours: Mapping[str, int], get: Any
) -> list[tuple[str, int, float, float, Any]]:
    """RETURNS (List[Tuple]): Points to draw quality against something."""
    return [
        (name, k, value, score, (system.get("interval") or {}).get("f"))
        for name, k in colours.items()
        for system in [report["systems"][name]]
        if is_number(value := get(report, name))
        and is_number(score := find_score(system, "f"))
    ]


def _name_unplaced(names: Iterable[str], points: Iterable[tuple[Any, ...]]) -> str:
    placed = {name for name, *_ in points}
    left = [name for name in names if name not in placed]
    return f"; not known of {', '.join(left)}" if left else ""


def _tell_titles(view: Mapping[str, Any]) -> dict[str, str]:
    """RETURNS (Dict[str, str]): Titles of sections, which say what is certain."""
    report, lead, reference = (view[key] for key in ("report", "lead", "reference"))
    system = report["systems"][lead]
    titles = {
        "labels": "Label by label",
        "scores": "How sure the scores are",
        "calibration": "How far its scores can be trusted",
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
            "keep": f"{capitalise(name_rival(report))} is better at every label",
            "undecided": "No label is decided yet",
        }.get(decisions.pop() if len(decisions) == 1 else "", "The labels differ")
    errors = sorted((system.get("errors") or {}).items(), key=lambda e: e[1] or 0)
    if errors and errors[-1][1] and (len(errors) < 2 or errors[-1][1] > errors[-2][1]):
        *_, said = view["words"].errors.get(errors[-1][0], [""])
        titles["errors"] = said or titles["errors"]
    fit, points = view["fit"], (report.get("curve") or {}).get("points")
    if fit and points:
        least, last = (fit.get("interval") or [None])[0], find_score(points[-1], "f")
        if is_number(least) and is_number(last) and least > last:
            student = report["curve"].get("student") or ""
            titles["curve"] = f"More texts would still help the {student} student"
    usd = [get_usd(report, name) for name in view["names"][:2]]
    if reference is not None and all(map(is_number, usd)) and usd[0] != usd[1]:
        cheaper = name_rival(report) if usd[0] < usd[1] else "the student"
        titles["costs"] = f"{capitalise(cheaper)} is cheaper to run"
    return titles
