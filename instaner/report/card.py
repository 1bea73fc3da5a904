"""The model card of a packaged student, in the format of the Hugging Face Hub."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import srsly
from jinja2 import Environment
from markupsafe import Markup

from ..scores import find_score, name_scores
from .words import choose_words

TEMPLATE = Path(__file__).with_name("card.jinja")

_DECISIONS = {
    "swap": "swap: the student can take the teacher's place",
    "keep": "keep the LLM",
    "undecided": "undecided: there is not enough gold to tell",
}
# Names that the hub has for them, or would have.
_TASKS = {
    "ents": ("NER", "token-classification"),
    "cats": ("TEXTCAT", "text-classification"),
}
_METRICS = {
    "F1": [
        ("Precision", "precision", "p"),
        ("Recall", "recall", "r"),
        ("F Score", "f_score", "f"),
    ],
    "accuracy": [("Accuracy", "accuracy", "f")],
}
RECORDING = "a recording"  # the model of answers that were replayed
_PACKAGES = ("instaner", "spacy", "spacy-transformers", "torch", "transformers")


def make_card(
    meta: Mapping[str, Any],
    comparison: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
) -> str:
    """Write the card of a packaged student: its README.

    meta (Dict[str, Any]): The package's meta.json.
    comparison (Dict[str, Any]): The scores of all systems, of which "student" is the
        packaged one; empty: a card without scores.
    record (Optional[Dict[str, Any]]): The record of the run, as make_record makes it.
    RETURNS (str): Markdown, with a block of metadata in YAML.
    """
    block = srsly.yaml_dumps(make_metadata(meta, comparison))
    return f"---\n{block}---\n\n{make_body(meta, comparison, record)}"


def make_metadata(
    meta: Mapping[str, Any], comparison: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the hub's metadata, with the names that spaCy's own pipelines have there.

    meta (Dict[str, Any]): The package's meta.json.
    comparison (Dict[str, Any]): As of make_card.
    RETURNS (Dict[str, Any]): tags, language, license, and model-index if there are
        scores.
    """
    gold = _get_gold(meta, comparison)
    task = dict(zip(("name", "type"), _TASKS[gold["attr"]], strict=True))
    lang = "multilingual" if meta["lang"] == "xx" else meta["lang"]
    metadata: dict[str, Any] = {
        "tags": ["spacy", task["type"]],
        "language": [lang],
    }
    if license_ := meta.get("license"):
        # As spacy-huggingface-hub names them.
        name = license_.replace(" ", "-").lower().replace("gnu-", "")
        metadata["license"] = name
    metadata["library_name"] = "spacy"
    scores = make_performance(comparison)
    if scores:
        silver = " (silver)" if scores.get("silver") else ""
        values = [
            (title, type_, find_score(scores, key))
            for title, type_, key in _METRICS[choose_words(gold).score]
        ]
        if "cats_macro_f" in scores:
            values.append(("Macro F Score", "f_score", scores["cats_macro_f"]))
        metrics = [
            {"name": f"{task['name']} {title}{silver}", "type": type_, "value": value}
            for title, type_, value in values
        ]
        results = [{"task": task, "metrics": metrics}]
        metadata["model-index"] = [{"name": _get_name(meta), "results": results}]
    return metadata


def make_performance(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Make the scores that spaCy keeps in meta.json as "performance".

    comparison (Dict[str, Any]): As of make_card.
    RETURNS (Dict[str, Any]): ents_p, ents_r and ents_f, if all are defined, and
        ents_per_type, or cats_micro_p, cats_micro_r and cats_micro_f, cats_f_per_type
        and cats_macro_f; and silver if the teacher labelled what they were measured on.
    """
    result, gold = _get_student(comparison), _get_gold({}, comparison)
    scores = {key: find_score(result, key) for key in "prf"}
    if None in scores.values():
        return {}
    per_type = {
        label: {key: values.get(key) or 0.0 for key in "prf"}
        for label, values in (find_score(result, "per_type") or {}).items()
    }
    scores = name_scores({**scores, "per_type": per_type}, gold["attr"])
    if result.get("cats_macro_f") is not None:
        scores["cats_macro_f"] = result["cats_macro_f"]
    if gold.get("silver"):
        scores["silver"] = True
    return scores


def make_body(
    meta: Mapping[str, Any],
    comparison: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
) -> str:
    """Write the card without its metadata, to which spacy-huggingface-hub adds some.

    meta (Dict[str, Any]): The package's meta.json.
    comparison (Dict[str, Any]): As of make_card.
    record (Optional[Dict[str, Any]]): As of make_card.
    RETURNS (str): Markdown.
    """
    record = record or comparison.get("run") or {}
    steps = record.get("steps") or {}
    student, reference = comparison.get("student"), comparison.get("reference")
    systems = comparison.get("systems") or {}
    gold = _get_gold(meta, comparison)
    teacher = systems.get(reference) or {}
    annotated = steps.get("corpus/annotated") or comparison.get("corpus") or {}
    generated = steps.get("corpus/generated") or annotated.get("generated") or {}
    agreement = annotated.get("agreement") or {}
    answered = (teacher.get("answers") or {}).get("model") or ""
    teachers = _get_models(annotated) or [answered]
    versions = record.get("versions") or {}
    name = _get_name(meta)
    labels = sorted(
        {la for found in (meta.get("labels") or {}).values() for la in found}
    )
    values = {
        "name": name,
        "wheel": _keep_name(f"{name}-{meta.get('version', '')}-py3-none-any.whl"),
        "meta": {"description": "", "spacy_version": "", "license": "", **meta},
        "labels": [(label, _get_definitions(record).get(label)) for label in labels],
        "gold": gold,
        "is_cats": gold["attr"] == "cats",
        "words": choose_words(gold),
        "others": _list_others(_get_student(comparison)),
        "silver": ", silver" if gold.get("silver") else "",
        "rows": list(_make_rows(comparison)) if student in systems else [],
        "has_teacher": bool(teacher) and student != reference,
        "verdict": _get_verdict(comparison),
        "paired": ((comparison.get("paired") or {}).get(student) or {}).get("all"),
        "confidence": (comparison.get("rules") or {}).get("confidence"),
        "teacher": ", ".join(t for t in teachers if t and t != RECORDING),
        "writer": ", ".join(_get_models(generated)),
        "annotated": annotated,
        "generated": generated,
        "split": steps.get("corpus/split") or {},
        "agreement": agreement if isinstance(agreement, dict) else {},
        "teacher_license": _get_vars(record).get("teacher_license"),
        "versions": [(name, versions[name]) for name in _PACKAGES if name in versions],
        "system": record.get("system") or {},
        "created": record.get("created"),
    }
    environment = Environment(
        finalize=_escape,  # of all that is not the template's own
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
    )
    environment.filters.update(
        count=_format_count, identifier=_keep_name, score=_format, signed=_format_signed
    )
    text = environment.from_string(TEMPLATE.read_text("utf8")).render(values)
    return re.sub(r"\n{3,}", "\n\n", text)


def _get_name(meta: Mapping[str, Any]) -> str:
    """RETURNS (str): The package's name, as `spacy package` makes it."""
    prefix = f"{meta['lang']}_"
    name: str = meta["name"]
    return name if name.startswith(prefix) else prefix + name


def _keep_name(name: str) -> str:
    """RETURNS (str): A name, without what cannot be in one, to stand in code."""
    return re.sub(r"[^\w.+-]", "", name)


def _get_gold(meta: Mapping[str, Any], comparison: Mapping[str, Any]) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): The gold; of which at least attr is known."""
    gold = comparison.get("gold") or {}
    names = {"ents"} if gold else {*(meta.get("labels") or ())}
    is_cats = any(name.startswith("textcat") for name in names)
    return {"attr": "cats" if is_cats else "ents", **gold}


def _get_student(comparison: Mapping[str, Any]) -> dict[str, Any]:
    systems = comparison.get("systems") or {}
    return systems.get(comparison.get("student") or "") or {}


def _get_verdict(comparison: Mapping[str, Any]) -> dict[str, Any]:
    verdict = (comparison.get("verdict") or {}).get(comparison.get("student")) or {}
    found = verdict.get("all") or {}
    decision = f"{found.get('decision')}"
    return {**found, "text": _DECISIONS.get(decision, decision)} if found else {}


def _make_rows(comparison: Mapping[str, Any]) -> Iterator[list[str]]:
    """YIELDS (List[str]): Label, support, precision, recall and F1 of the student, F1
    of the teacher, and the verdict; first those of all labels.
    """
    systems, student = comparison["systems"], comparison["student"]
    teacher = systems.get(comparison.get("reference")) or {}
    verdict = (comparison.get("verdict") or {}).get(student) or {}
    support = comparison.get("support") or {}
    scored = systems[student]
    names = ("all", *(comparison.get("labels") or ()))
    for k, name in enumerate(names):
        own, its, decision = scored, teacher, verdict.get("all") or {}
        n = (comparison.get("gold") or {}).get("entities")
        scores = {key: find_score(own, key) for key in "prf"}
        f = find_score(its, "f")
        if k:
            own = (find_score(scored, "per_type") or {}).get(name) or {}
            its = (find_score(teacher, "per_type") or {}).get(name) or {}
            decision = (verdict.get("per_type") or {}).get(name) or {}
            n = support.get(name)
            scores, f = {key: own.get(key) for key in "prf"}, its.get("f")
        yield [
            name,
            "–" if n is None else f"{n:,}",
            *(_format_with(own, score, key) for key, score in scores.items()),
            _format_with(its, f, "f"),
            decision.get("decision") or "–",
        ]


def _list_others(scores: Mapping[str, Any]) -> str:
    """RETURNS (str): Scores of categories that have no column."""
    values = {
        "macro F1": scores.get("cats_macro_f"),
        "balanced accuracy": scores.get("cats_balanced_acc"),
        "calibration error (ECE)": (scores.get("calibration") or {}).get("ece"),
    }
    found = {name: value for name, value in values.items() if value is not None}
    return ", ".join(f"{name} {_format(value)}" for name, value in found.items())


def _format_with(scores: Mapping[str, Any], score: float | None, key: str) -> str:
    text = _format(score)
    interval = (scores.get("interval") or {}).get(key)
    if score is None or not interval or None in interval:
        return text
    return f"{text} ({_format(interval[0])} to {_format(interval[1])})"


def _format(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _format_count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "some"


def _format_signed(value: float | None) -> Markup:
    return Markup("–" if value is None else f"{value:+.3f}".replace("-", "−"))


def _get_models(step: Mapping[str, Any]) -> list[str]:
    bills: Iterable[Mapping[str, Any]] = step.get("bills") or ()
    return sorted({bill["model"] for bill in bills if bill.get("model")})


def _get_vars(record: Mapping[str, Any]) -> dict[str, Any]:
    return (record.get("project") or {}).get("vars") or {}


def _get_definitions(record: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = (record.get("inputs") or {}).get("assets/labels.yml", "{}")
        definitions = srsly.yaml_loads(text)
    except ValueError:
        return {}
    return definitions if isinstance(definitions, dict) else {}


def _escape(value: Any) -> Any:
    """Escape a value for Markdown, in which it is text in a line or a table's cell."""
    if isinstance(value, Markup):  # marked as safe
        return value
    text = " ".join(f"{'' if value is None else value}".split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # In the midst of a word, as in a package's name, an underscore is one.
    text = re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    text = re.sub(r"(?i)(https?|ftp|mailto)(:)|(www)(\.)", _break_link, text)
    text = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)
    return re.sub(r"^([-+=#:])", r"\\\1", text)


def _break_link(match: "re.Match[str]") -> str:
    word, mark = (part for part in match.groups() if part)
    return f"{word}{'&#58;' if mark == ':' else '&#46;'}"
