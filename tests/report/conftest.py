"""A comparison as `instaner evaluate` writes it, and odd ones."""

from collections.abc import Callable
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import srsly
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.corpus import write_docs
from instaner.evaluate import compare, evaluate_docs
from instaner.files import read_jsonl

from ..conftest import ROOT

Report = dict[str, Any]
MakeReport = Callable[..., Report]

_LABELS = ["DISH", "EQUIPMENT", "INGREDIENT"]
_SUPPORT = {"DISH": 83, "EQUIPMENT": 71, "INGREDIENT": 166}
_HASH = "424cc86fd2250e7aa26f573c21ee57ac8a73517e20faa2ac4f3bbc70e219fe5a"


def _make_system(f1: float, types: dict[str, float], **values: Any) -> Report:
    def score(f1: float, wide: float) -> Report:
        p, r = min(1.0, f1 + 0.0123), max(0.0, f1 - 0.0117)
        return {
            "p": p,
            "r": r,
            "f": f1,
            "acc": f1 / (2 - f1),
            "predicted": 91,
            "partial": {"p": p, "r": r, "f": min(1.0, f1 + 0.041)},
            "interval": {
                key: [max(0.0, x - wide), min(1.0, x + wide)]
                for key, x in (("p", p), ("r", r), ("f", f1))
            },
        }

    whole = score(f1, 0.0304)
    return {
        "ents_p": whole["p"],
        "ents_r": whole["r"],
        "ents_f": f1,
        "ents_acc": whole["acc"],
        "token_acc": 1 - (1 - f1) / 4,
        "ents_partial": whole["partial"],
        "interval": whole["interval"],
        "ents_per_type": {
            label: {**score(f, 0.0612), "support": _SUPPORT.get(label, 7)}
            for label, f in types.items()
        },
        "texts": 144,
        "words": 2513,
        "gold": {"path": "assets/gold.jsonl", "sha256": _HASH},
        "speed": None,
        **values,
    }


def _make_examples() -> tuple[Report, list[Report]]:
    """RETURNS (Tuple): Examples of errors, and texts where systems differ."""
    rows = [row for _, row in islice(read_jsonl(ROOT / "assets/gold.jsonl"), 60)]
    examples: Report = {
        kind: [] for kind in ("missed", "spurious", "boundary", "label")
    }
    differences = []
    for row in rows:
        gold = [[s["start"], s["end"], s["label"]] for s in row["spans"]]
        if not gold:
            continue
        start, end, label = gold[0]
        other = _LABELS[(_LABELS.index(label) + 1) % 3]
        cut = [start, start + max(1, (end - start) // 2), label]
        kind = list(examples)[len(differences) % 4]
        predicted = {"label": [start, end, other], "boundary": cut}.get(kind)
        if kind == "spurious":
            examples[kind].append(
                {"text": row["text"], "gold": None, "predicted": gold[0]}
            )
        else:
            examples[kind].append(
                {"text": row["text"], "gold": gold[0], "predicted": predicted}
            )
        student = gold[1:] + ([predicted] if predicted else [])
        differences.append(
            {
                "text": row["text"],
                "gold": gold,
                "systems": {"teacher": gold, "student": student},
            }
        )
    return {k: v[:5] for k, v in examples.items()}, differences[:20]


def _make_verdict(decision: str, more: int | None = None) -> Report:
    reasons = {
        "swap": "The whole interval of the difference lies above what may be lost.",
        "keep": "The whole interval of the difference lies below what may be lost.",
        "undecided": "The interval reaches over what may be lost to either side.",
    }
    return {"decision": decision, "more_texts": more, "reason": reasons[decision]}


def _pair(difference: float, wide: float, p_value: float) -> Report:
    interval = [difference - wide, difference + wide]
    return {"difference": difference, "interval": interval, "p_value": p_value}


@pytest.fixture(scope="session")
def whole() -> Report:
    """All that a report can hold, as arguments of make_report."""
    examples, differences = _make_examples()
    speed = {
        "words_per_second": 1320.7,
        "latency_p50": 0.0152,
        "latency_p95": 0.0334,
        "texts": 144,
        "cores": 2,
        "load_seconds": 1.94,
        "peak_memory": 612_000_000,
        "device": "cpu",
    }
    systems = {
        "teacher": _make_system(
            0.969,
            {"DISH": 0.962, "EQUIPMENT": 0.958, "INGREDIENT": 0.976},
            errors={"missed": 4, "spurious": 5, "boundary": 3, "label": 2, "both": 0},
            words_per_second=None,
            source="configs/teacher.cfg",
            bytes=0,
            answers={
                "prompt_tokens": 48_210,
                "completion_tokens": 6_120,
                "latency_p50": 1.31,
                "latency_p95": 2.87,
                "model": "gpt-4o-mini",
            },
        ),
        "student": _make_system(
            0.795,
            {"DISH": 0.947, "EQUIPMENT": 0.702, "INGREDIENT": 0.761},
            errors={
                "missed": 41,
                "spurious": 19,
                "boundary": 14,
                "label": 9,
                "both": 2,
            },
            error_examples=examples,
            confusion={
                "DISH": {"DISH": 72, "INGREDIENT": 6, "": 5},
                "EQUIPMENT": {"EQUIPMENT": 51, "DISH": 1, "": 19},
                "INGREDIENT": {"INGREDIENT": 128, "DISH": 5, "EQUIPMENT": 2, "": 31},
                "": {"DISH": 4, "EQUIPMENT": 3, "INGREDIENT": 12},
            },
            source="training/student/model-best",
            bytes=88_213_004,
            words_per_second=1320.7,
            speed=speed,
        ),
        "student_cnn": _make_system(
            0.607,
            {"DISH": 0.588, "EQUIPMENT": 0.532, "INGREDIENT": 0.654},
            errors={
                "missed": 88,
                "spurious": 37,
                "boundary": 21,
                "label": 17,
                "both": 4,
            },
            source="training/student_cnn/model-best",
            bytes=6_310_882,
            words_per_second=11_842.4,
            speed={
                **speed,
                "words_per_second": 11_842.4,
                "latency_p50": 0.0017,
                "latency_p95": 0.0042,
                "load_seconds": 0.62,
                "peak_memory": 233_400_000,
            },
        ),
    }
    comparison = {
        "gold": {
            "path": "assets/gold.jsonl",
            "sha256": _HASH,
            "texts": 144,
            "tokens": 2513,
            "entities": 320,
            "silver": False,
        },
        "labels": _LABELS,
        "support": _SUPPORT,
        "reference": "teacher",
        "rules": {
            "margin": 0.02,
            "confidence": 0.95,
            "resamples": 1000,
            "power": 0.8,
            "seed": 0,
        },
        "systems": systems,
        "paired": {
            "student": {
                "all": _pair(-0.174, 0.0553, 0.0001),
                "per_type": {
                    "DISH": _pair(-0.015, 0.0472, 0.52),
                    "EQUIPMENT": _pair(-0.256, 0.0911, 0.0001),
                    "INGREDIENT": _pair(-0.215, 0.0723, 0.0001),
                },
            },
            "student_cnn": {"all": _pair(-0.362, 0.0614, 0.0001), "per_type": {}},
        },
        "verdict": {
            "student": {
                "all": _make_verdict("keep"),
                "per_type": {
                    "DISH": _make_verdict("undecided", 320),
                    "EQUIPMENT": _make_verdict("keep"),
                    "INGREDIENT": _make_verdict("keep"),
                },
            },
            "student_cnn": {"all": _make_verdict("keep"), "per_type": {}},
        },
        "differences": differences,
        "student": "student",
    }
    return {
        "comparison": comparison,
        "curve": {
            "config": "configs/student_cnn.cfg",
            "config_sha256": _HASH,
            "train_sha256": _HASH,
            "gold": {"path": "assets/gold.jsonl", "sha256": _HASH},
            "student": "CNN",
            "points": [
                {"share": s, "texts": n, "ents_f": f, "interval": i, "seconds": t}
                for s, n, f, i, t in (
                    (10, 95, 0.2312, [0.181, 0.279], 14.3),
                    (25, 237, 0.4021, [0.342, 0.459], 25.1),
                    (50, 474, 0.5135, [0.457, 0.571], 43.8),
                    (100, 948, 0.6071, [0.551, 0.663], 80.2),
                )
            ],
            "fit": {
                "a": 2.893,
                "b": 0.2914,
                "formula": "1 - F1 = a * n^-b",
                "doubled_texts": 1896,
                "doubled_f": 0.6793,
                "interval": [0.632, 0.711],
            },
        },
        "costs": {
            "settings": {"texts_per_day": 10_000, "currency": "usd"},
            "systems": {
                "teacher": {
                    "usd_per_million_texts": 75.72,
                    "kwh_per_million_texts": [103.1, 412.7],
                    "kg_co2e_per_million_texts": [52.3, 204.4],
                    "usd_basis": "List price of gpt-4o-mini, and its tokens.",
                    "energy_basis": "ecologits: the provider tells nothing.",
                },
                "student": {
                    "usd_per_million_texts": 0.4432,
                    "kwh_per_million_texts": 0.2213,
                    "kg_co2e_per_million_texts": [0.004, 0.15],
                    "usd_basis": "Hours on a rented machine, from the speed measured.",
                    "energy_basis": "codecarbon, from the power of the processor.",
                },
                "student_cnn": {
                    "usd_per_million_texts": 0.0494,
                    "kwh_per_million_texts": 0.0247,
                    "kg_co2e_per_million_texts": [0.0005, 0.017],
                },
            },
            "made": {"usd": 2.417, "basis": "Bills of generate and annotate."},
            "break_even": {
                "texts": 32_110,
                "days": 3.21,
                "texts_per_day": 10_000,
                "why": "What the corpus cost, over what a text costs less.",
            },
            "case_study": [
                {
                    "system": system,
                    "usd_per_million_texts": usd,
                    "kg_co2e_per_million_texts": kg_co2e,
                    "latency": latency,
                    "accuracy": accuracy,
                    "source": "huggingface.co/blog/synthetic-data-save-costs",
                }
                for system, usd, kg_co2e, latency, accuracy in (
                    ("RoBERTa-base", 2.7, [0.12, 0.12], 0.13, 0.94),
                    ("GPT-4", 3061.0, [735.0, 1100.0], None, 0.94),
                    ("Mixtral", None, None, None, None),
                )
            ],
        },
        "corpus": {
            "texts": 948,
            "labels": {
                "DISH": {"trusted": 612, "disputed": 41, "dropped": 12},
                "EQUIPMENT": {"trusted": 498, "disputed": 77, "dropped": 31},
                "INGREDIENT": {"trusted": 1703, "disputed": 120, "dropped": 44},
            },
            "agreement": {"f1": 0.9312, "alpha": 0.9184, "pairs": []},
            "disputed_share": 0.0758,
            "generated": {"texts": 1092, "briefs": 300},
        },
        "run": {
            "seeds": {"system": 0, "resamples": 0},
            "versions": {"python": "3.11.7", "instaner": "0.1.0", "spacy": "3.8.18"},
            "inputs": {"assets/gold.jsonl": _HASH, "assets/briefs.jsonl": _HASH},
            "prompts": {"annotate": "You are an expert.\n\nFind entities in the text."},
            "configs": {"configs/student.cfg": "[system]\nseed = 0\n"},
            "timings": {"annotate": 12.1, "train": None},
        },
    }


_SCRIPT = "<script>alert(1)</script>"
_WRONG = {"teacher": 20, "student": 3, "student_cnn": 2}  # on every so many texts
_TOPICS = ["COMPLAINT", "ORDER_STATUS", "PAYMENT", "PRODUCT_QUESTION", "RETURN"]


def _make_categories(
    folder: Path, whole: Report, *, several: bool = False, hostile: bool = False
) -> Report:
    """RETURNS (Report): The whole report, but of categories: what `evaluate` makes of
    systems that are wrong on every so many texts.
    """
    labels = [f"{_SCRIPT}\"'&", *_TOPICS[1:]] if hostile else _TOPICS
    docs: dict[str, list[Doc]] = {name: [] for name in ("gold", *_WRONG)}
    for n, (_, row) in enumerate(read_jsonl(ROOT / "assets/textcat/gold.jsonl")):
        text = f"{_SCRIPT} <img src=x> {row['text']}" if hostile else row["text"]
        k = _TOPICS.index(row["cats"])
        wanted = {labels[k], labels[(k + 1) % 5]} if several and n % 3 else {labels[k]}
        for name, found in docs.items():
            # The student is sure of itself, the CNN is not, and others are certain.
            high = {"student": 0.6 + n % 8 * 0.05, "student_cnn": 0.55}.get(name, 1.0)
            is_wrong = name in _WRONG and n % _WRONG[name] == 0
            best = {*wanted}
            if is_wrong and not (several and n % 2):
                best.remove(labels[k])
            if is_wrong and not (several and n % 4 == 0):
                best.add(labels[(k + 2) % 5])
            low = (1 - high) / (1 if several else 4)
            doc = Doc(Vocab(), words=[text], spaces=[False])
            doc.cats = {label: high if label in best else low for label in labels}
            found.append(doc)
    folder.mkdir()
    for name, found in docs.items():
        write_docs(found, folder / f"{name}.spacy")
    results = {}
    for name in _WRONG:
        system = whole["comparison"]["systems"][name]
        kept = ("answers", "bytes", "source", "speed", "words_per_second")
        results[name] = {
            **evaluate_docs(folder / f"{name}.spacy", folder / "gold.spacy"),
            **{key: system[key] for key in kept if key in system},
        }
    report = deepcopy(whole)
    srsly.write_json(folder / "c.json", compare(results, folder / "gold.spacy"))
    report["comparison"] = srsly.read_json(folder / "c.json")
    for point in report["curve"]["points"]:
        point["cats_micro_f"] = point.pop("ents_f")
    standings = {"trusted": 40, "disputed": 5, "dropped": 2}
    report["corpus"]["labels"] = {label: standings for label in labels}
    return report


@pytest.fixture(scope="session")
def categories(whole: Report, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """All that a report on texts of one category each can hold."""
    return _make_categories(tmp_path_factory.mktemp("categories") / "one", whole)


@pytest.fixture(scope="session")
def several(whole: Report, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """All that a report on texts of several categories can hold."""
    folder = tmp_path_factory.mktemp("categories") / "several"
    return _make_categories(folder, whole, several=True)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """A copy for a test to change: of the whole report, or of the one it names."""
    return deepcopy(request.getfixturevalue(getattr(request, "param", "whole")))


@pytest.fixture
def hostile(whole: Report) -> Report:
    """Markup wherever a text, a label or a name can stand."""
    report = deepcopy(whole)
    script = _SCRIPT
    label = f"{script}\"'&{{{{ 7 }}}}"
    comparison = report["comparison"]
    comparison["labels"][0] = label
    comparison["support"][label] = comparison["support"].pop("DISH")
    for part in ("paired", "verdict"):
        types = comparison[part]["student"]["per_type"]
        types[label] = types.pop("DISH")
    comparison["verdict"]["student"]["all"]["reason"] = script
    for system in comparison["systems"].values():
        system["ents_per_type"][label] = system["ents_per_type"].pop("DISH")
    student = comparison["systems"].pop("student")
    student["confusion"] = {label: {label: 3, "": 2}, "": {label: 1}}
    text = f"{script} in a wok\n<img src=x onerror=alert(2)>"
    mark = [0, len(script), label]
    student["error_examples"] = {
        "label": [{"text": text, "gold": mark, "predicted": None}]
    }
    comparison["systems"][script] = student
    comparison["student"] = script
    for part in ("paired", "verdict"):
        comparison[part][script] = comparison[part].pop("student")
    comparison["differences"] = [
        {"text": text, "gold": [mark], "systems": {"teacher": [mark], script: []}}
    ]
    report["corpus"]["labels"] = {label: {"trusted": 3}}
    report["curve"]["student"] = script
    report["costs"]["break_even"]["why"] = script
    report["costs"]["case_study"][0]["system"] = script
    report["run"]["prompts"] = {script: f"{script}\n</pre>{script}"}
    report["title"] = script
    return report


@pytest.fixture
def hostile_categories(whole: Report, tmp_path: Path) -> Report:
    """Markup in texts and in a category."""
    return _make_categories(tmp_path / "hostile", whole, hostile=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a report goes."""
    return tmp_path / "report"
