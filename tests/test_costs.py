import math
from typing import Any

import pytest

from instaner import costs as costs_module
from instaner.costs import CostSettings, add_costs
from instaner.llm.cost import estimate_footprint

OPENAI = "https://api.openai.com/v1"

# On 100 texts of 10 words each.
_ANSWERS = {
    "prompt_tokens": 40_000,
    "completion_tokens": 5_000,
    "latency_p50": 1.5,
    "latency_p95": 3.0,
    "estimated": False,
    "model": "gpt-4o-mini",
    "base_url": OPENAI,
}
_SPEED = {
    "words_per_second": 1000.0,
    "cores": 2,
    "kwh_per_million_words": 0.002,
    "energy_method": "codecarbon, by RAPL",
}
_BILL = {
    "model": "gpt-4o-mini",
    "stored": 0,
    "answers": 1000,
    "prompt_tokens": 400_000,
    "completion_tokens": 50_000,
    "cost": 0.25,
}


def _compare(
    answers: dict[str, Any] | None = None, speed: dict[str, Any] | None = None
) -> dict[str, Any]:
    size = {"texts": 100, "words": 1000}
    teacher = {**size, "prompt_tokens": 40_000, "answers": {**_ANSWERS}}
    teacher["answers"].update(answers or {})
    student = {**size, "words_per_second": 1000.0, "speed": {**_SPEED, **(speed or {})}}
    return {
        "reference": "teacher",
        "student": "student",
        "systems": {"teacher": teacher, "student": student},
    }


def _add(
    comparison: dict[str, Any] | None = None,
    bills: Any = (_BILL,),
    training_seconds: float | None = 1800,
    **settings: Any,
) -> dict[str, Any]:
    return add_costs(
        comparison or _compare(),
        CostSettings(**settings),
        bills=bills,
        training_seconds=training_seconds,
    )


@pytest.fixture(autouse=True)
def price_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model whose million tokens cost 0.15 to read and 0.60 to write."""

    def make_price(model: str, base_url: str) -> Any:
        if (model, base_url) != ("gpt-4o-mini", OPENAI):
            return None
        return lambda prompt, cached, answer: (0.15 * prompt + 0.6 * answer) / 1e6

    monkeypatch.setattr(costs_module, "make_price", make_price)


def test_teacher_costs_its_tokens() -> None:
    # 400 tokens to read and 50 to write for a text.
    teacher = _add()["systems"]["teacher"]
    assert teacher["usd_per_million_texts"] == pytest.approx(400 * 0.15 + 50 * 0.6)
    assert "400 + 50 tokens for a text (counted)" in teacher["usd_basis"]


def test_tokens_need_not_be_whole() -> None:
    answers = {"prompt_tokens": 40_040, "completion_tokens": 5_040}
    teacher = _add(_compare(answers))["systems"]["teacher"]
    expected = 400.4 * 0.15 + 50.4 * 0.6
    assert teacher["usd_per_million_texts"] == pytest.approx(expected)


def test_teacher_takes_energy() -> None:
    teacher = _add()["systems"]["teacher"]
    footprint = estimate_footprint("gpt-4o-mini", OPENAI, 1_000_000, 50, 1.5)
    assert footprint is not None
    assert teacher["kwh_per_million_texts"] == list(footprint.kwh)
    assert teacher["kg_co2e_per_million_texts"] == list(footprint.kg_co2e)


def test_student_costs_its_time() -> None:
    # Ten words a text: 10,000 seconds for a million texts.
    student = _add(usd_per_hour=0.36)["systems"]["student"]
    assert student["usd_per_million_texts"] == pytest.approx(1.0)
    assert "on 2 cores, at 0.36 US dollars" in student["usd_basis"]


def test_student_takes_energy() -> None:
    student = _add(kg_co2e_per_kwh=0.5)["systems"]["student"]
    assert student["kwh_per_million_texts"] == pytest.approx(0.02)
    assert student["kg_co2e_per_million_texts"] == pytest.approx([0.01, 0.01])
    assert student["energy_basis"].startswith("codecarbon, by RAPL; 0.5 kg CO2e")


def test_break_even() -> None:
    # 0.25 for the corpus and half an hour at 0.36; a text saves 90 - 1 millionths.
    costs = _add(usd_per_hour=0.36, texts_per_day=1000)
    assert costs["made"]["usd"] == pytest.approx(0.43)
    texts = math.ceil(0.43 / 89 * 1e6)
    assert costs["break_even"]["texts"] == texts
    assert costs["break_even"]["days"] == pytest.approx(texts / 1000)
    assert costs["break_even"]["texts_per_day"] == 1000


def test_recording_has_no_price() -> None:
    costs = _add(_compare({"model": "a recording", "base_url": None}))
    teacher = costs["systems"]["teacher"]
    assert teacher["usd_per_million_texts"] is None
    assert teacher["kwh_per_million_texts"] is None
    assert "a recording; set priced_as in [costs]" in teacher["usd_basis"]
    assert costs["break_even"]["texts"] is None
    assert "What teacher costs is not known" in costs["break_even"]["why"]


def test_recording_is_priced_as_a_model() -> None:
    answers = {"model": "a recording", "base_url": None, "estimated": True}
    bill = {**_BILL, "model": "a recording", "cost": None}
    costs = _add(_compare(answers), [bill], priced_as="gpt-4o-mini", usd_per_hour=0.0)
    teacher = costs["systems"]["teacher"]
    assert teacher["usd_per_million_texts"] == pytest.approx(90.0)
    assert "(estimated), at the list price of gpt-4o-mini" in teacher["usd_basis"]
    assert teacher["kwh_per_million_texts"] is not None
    assert costs["made"]["usd"] == pytest.approx(0.09)
    assert "priced as gpt-4o-mini" in costs["made"]["basis"]


@pytest.mark.parametrize(
    ("bills", "seconds", "why"),
    [
        (None, 10, "no bill of the corpus"),
        ([], 10, "no bill of the corpus"),
        ([_BILL], None, "nobody timed the training"),
        ([{**_BILL, "cost": None}], 10, "nobody knows what gpt-4o-mini cost"),
        ([{**_BILL, "stored": 3}], 10, "3 answers of gpt-4o-mini were paid for by an"),
    ],
)
def test_cost_of_the_corpus_is_not_guessed(
    bills: Any, seconds: float | None, why: str
) -> None:
    costs = _add(bills=bills, training_seconds=seconds)
    assert costs["made"]["usd"] is None
    assert why in costs["made"]["basis"]
    assert costs["break_even"]["texts"] is None
    assert costs["break_even"]["why"].endswith("is not known.")


def test_student_that_is_not_cheaper_never_pays() -> None:
    costs = _add(usd_per_hour=1000.0)
    assert costs["break_even"]["texts"] is None
    assert costs["break_even"]["why"] == "student is not cheaper than teacher."


def test_tokens_that_nobody_counted_are_not_guessed() -> None:
    costs = _add(_compare({"completion_tokens": None}))
    assert costs["systems"]["teacher"]["usd_per_million_texts"] is None


def test_energy_that_nobody_measured_is_not_guessed() -> None:
    speed = {"kwh_per_million_words": None, "energy_method": "not measured: no meter"}
    student = _add(_compare(speed=speed))["systems"]["student"]
    assert student["kwh_per_million_texts"] is None
    assert student["kg_co2e_per_million_texts"] is None
    assert student["energy_basis"] == "not measured: no meter"


def test_predictions_alone_have_no_costs() -> None:
    comparison = _compare()
    comparison["reference"] = None
    comparison["systems"]["stored"] = {"texts": 100, "words": 1000, "speed": None}
    costs = _add(comparison)
    stored = costs["systems"]["stored"]
    assert stored["usd_per_million_texts"] is None
    assert stored["usd_basis"] == "not measured: there is no pipeline to run"
    assert costs["break_even"]["why"] == "There is no teacher and student to compare."


def test_case_study_names_its_source() -> None:
    rows = {row["system"]: row for row in _add()["case_study"]}
    assert rows["GPT-4"]["usd_per_million_texts"] == 3061
    assert all("blog/synthetic-data-save-costs" in r["source"] for r in rows.values())
