"""Money, energy and CO2 of a million texts, and when a student has paid for itself.
What is not known is not guessed: it is None, and the basis says why.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, Field

from .llm.cost import Price, estimate_footprint, make_price

_MILLION = 1_000_000
_HOUR = 3600  # seconds
_UNCOUNTED = "not known: nobody counted the tokens of its answers"

# Where the providers of genai-prices answer, to find a model by its name alone.
_URLS = (
    "https://api.openai.com/v1",
    "https://api.anthropic.com",
    "https://generativelanguage.googleapis.com",
    "https://api.mistral.ai",
    "https://api.cohere.com",
)

_SOURCE = (
    "Laurer (2024), Synthetic data: save money, time and carbon with open source, "
    "https://huggingface.co/blog/synthetic-data-save-costs"
)
# A million sentences of financial news, classified by sentiment, as the text of the
# article has it. None: it says nothing, or no figure.
CASE_STUDY: tuple[dict[str, Any], ...] = (
    {
        "system": "RoBERTa-base, trained on Mixtral's answers",
        "usd_per_million_texts": 2.7,
        "kg_co2e_per_million_texts": [0.12, 0.12],
        "latency": 0.13,
        "accuracy": 0.94,
    },
    {
        "system": "GPT-3.5",
        "usd_per_million_texts": 153.0,
        "kg_co2e_per_million_texts": None,
        "latency": None,
        "accuracy": None,
    },
    {
        "system": "GPT-4",
        "usd_per_million_texts": 3061.0,
        "kg_co2e_per_million_texts": [735.0, 1100.0],
        "latency": None,
        "accuracy": 0.94,
    },
    {
        "system": "Mixtral-8x7B-Instruct",
        "usd_per_million_texts": None,
        "kg_co2e_per_million_texts": None,
        "latency": None,
        "accuracy": 0.94,
    },
)


class CostSettings(BaseModel, extra="forbid", frozen=True):
    """What costs are reckoned with: section [costs] of a report's config.

    texts_per_day (int): Volume at which days to the break-even are counted.
    usd_per_hour (float): US dollars for an hour of the student's machine. The default
        is about what a large cloud asks for two cores and 8 GB, on demand.
    usd_per_gpu_hour (Optional[float]): The same of one with a GPU, for a student that
        was measured on one. None: not known.
    priced_as (str): Name of a model whose price and footprint the teacher's tokens are
        reckoned with, e.g. where its answers are recorded. "": the model's own.
    kg_co2e_per_kwh (float): Greenhouse gases of electricity here. The default is the
        world's average, as ecologits 0.11 has it (zone WOR).
    """

    texts_per_day: int = Field(default=10_000, gt=0)
    usd_per_hour: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    usd_per_gpu_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    priced_as: str = ""
    kg_co2e_per_kwh: float = Field(default=0.45829, ge=0, allow_inf_nan=False)


def add_costs(
    comparison: Mapping[str, Any],
    settings: CostSettings,
    *,
    bills: Iterable[Mapping[str, Any]] | None,
    training_seconds: float | None,
) -> dict[str, Any]:
    """Reckon what each system costs for a million texts like those of the gold, and
    after how many texts the student has paid for its corpus and its training.

    comparison (Mapping[str, Any]): Systems with their results, reference and student.
    settings (CostSettings): Volume and prices.
    bills (Optional[Iterable[Mapping[str, Any]]]): What the corpus took, as
        asking.Model.make_bill makes them. A bill without a cost is priced by its
        tokens, if settings.priced_as names a model. None: nobody knows.
    training_seconds (Optional[float]): What the training took, on a machine of
        settings.usd_per_hour.
    RETURNS (Dict[str, Any]): settings, systems (usd_per_million_texts,
        kwh_per_million_texts, kg_co2e_per_million_texts, usd_basis, energy_basis),
        made (usd, corpus_usd, basis), break_even (texts, days, texts_per_day, why) and
        case_study.
    """
    systems = {
        name: _cost_system(result, settings)
        for name, result in comparison.get("systems", {}).items()
    }
    made = _sum_up(bills, training_seconds, settings)
    teacher, student = comparison.get("reference"), comparison.get("student")
    return {
        "settings": settings.model_dump(),
        "systems": systems,
        "made": made,
        "break_even": {
            **_break_even(systems, teacher, student, made["usd"], settings),
            "texts_per_day": settings.texts_per_day,
        },
        "case_study": [{**row, "source": _SOURCE} for row in CASE_STUDY],
    }


def _cost_system(result: Mapping[str, Any], settings: CostSettings) -> dict[str, Any]:
    if result.get("answers"):
        return _cost_teacher(result["answers"], result["texts"], settings)
    return _cost_student(result, settings)


def _cost_teacher(
    answers: Mapping[str, Any], texts: int, settings: CostSettings
) -> dict[str, Any]:
    tokens = _get_tokens(answers, texts)
    if tokens is None:
        return _make_entry(usd_basis=_UNCOUNTED, energy_basis=_UNCOUNTED)
    prompt, completion = tokens
    model, url = _find_model(answers, settings)
    counted = "estimated" if answers.get("estimated") else "counted"
    basis = f"{prompt:,.0f} + {completion:,.0f} tokens for a text ({counted})"
    price = make_price(model, url)
    if price is None:
        usd, usd_basis = (
            None,
            f"not known: genai-prices has no price of {model}{_hint(settings)}",
        )
    else:
        usd = _price(price, prompt, completion) * _MILLION
        usd_basis = f"{basis}, at the list price of {model} (genai-prices)"
    # The latency of a recording, or of another model, says nothing: without one,
    # ecologits takes the time that its model of the server needs.
    seconds = None if settings.priced_as else answers.get("latency_p50")
    footprint = estimate_footprint(
        model, url, _MILLION, completion, math.inf if seconds is None else seconds
    )
    if footprint is None:
        why = f"not known: ecologits does not know {model}{_hint(settings)}"
        return _make_entry(usd, usd_basis=usd_basis, energy_basis=why)
    return _make_entry(
        usd,
        list(footprint.kwh),
        list(footprint.kg_co2e),
        usd_basis=usd_basis,
        energy_basis=f"{completion:,.0f} tokens of an answer ({counted}) by {model}, "
        "as ecologits estimates them; a range, as sizes of models and servers are "
        "hardly published",
    )


def _cost_student(result: Mapping[str, Any], settings: CostSettings) -> dict[str, Any]:
    speed = result.get("speed") or {}
    words_per_second = speed.get("words_per_second") or result.get("words_per_second")
    if not words_per_second or not result.get("texts"):
        why = "not measured: there is no pipeline to run"
        return _make_entry(usd_basis=why, energy_basis=why)
    words = result["words"] / result["texts"]
    is_gpu = speed.get("device") == "gpu"
    price = settings.usd_per_gpu_hour if is_gpu else settings.usd_per_hour
    cores = f" on {speed['cores']} cores" if speed.get("cores") else ""
    cores += " and a GPU" * is_gpu
    basis = f"{words:,.1f} words in a text, {words_per_second:,.0f} a second{cores}"
    usd = None
    if price is None:
        basis = "not known: set usd_per_gpu_hour in [costs]"
    else:
        usd = words * _MILLION / words_per_second / _HOUR * price
        basis += f", at {price:g} US dollars an hour of a machine that is always busy"
    weight = speed.get("kwh_per_million_words")
    if weight is None:
        why = speed.get("energy_method") or "not measured"
        return _make_entry(usd, usd_basis=basis, energy_basis=why)
    kwh = weight * words
    co2 = kwh * settings.kg_co2e_per_kwh
    return _make_entry(
        usd,
        kwh,
        [co2, co2],
        usd_basis=basis,
        energy_basis=f"{speed['energy_method']}; {settings.kg_co2e_per_kwh:g} kg CO2e "
        "a kWh",
    )


def _make_entry(
    usd: float | None = None,
    kwh: float | list[float] | None = None,
    kg_co2e: list[float] | None = None,
    *,
    usd_basis: str,
    energy_basis: str,
) -> dict[str, Any]:
    return {
        "usd_per_million_texts": usd,
        "kwh_per_million_texts": kwh,
        "kg_co2e_per_million_texts": kg_co2e,
        "usd_basis": usd_basis,
        "energy_basis": energy_basis,
    }


def _find_model(answers: Mapping[str, Any], settings: CostSettings) -> tuple[str, str]:
    """RETURNS (Tuple[str, str]): Name and address of the model to reckon with."""
    if not settings.priced_as:
        return str(answers.get("model") or ""), str(answers.get("base_url") or "")
    return settings.priced_as, _find_url(settings.priced_as)


def _hint(settings: CostSettings) -> str:
    return (
        ""
        if settings.priced_as
        else "; set priced_as in [costs] to reckon with another"
    )


def _find_url(model: str) -> str:
    return next((url for url in _URLS if make_price(model, url)), _URLS[0])


def _price(price: Price, prompt: float, completion: float) -> float:
    """RETURNS (float): US dollars for an answer of average tokens, which are no whole
    numbers. It is priced by those around them: prices may depend on a prompt's length.
    """
    tokens, answer = max(1, round(prompt)), max(1, round(completion))
    read = price(tokens, 0, 0)
    written = price(tokens, 0, answer) - read
    return read / tokens * prompt + written / answer * completion


def _sum_up(
    bills: Iterable[Mapping[str, Any]] | None,
    training_seconds: float | None,
    settings: CostSettings,
) -> dict[str, Any]:
    bills = list(bills or ())
    why = ""
    if not bills:
        why = "there is no bill of the corpus"
    elif training_seconds is None:
        why = "nobody timed the training"
    corpus = 0.0
    priced = False
    for bill in bills:
        model, stored = bill.get("model"), bill.get("stored")
        cost = bill.get("cost")
        if cost is None:
            cost = _price_bill(bill, settings)
            priced = True
        if stored:
            why = f"{stored:,} answers of {model} were paid for by an earlier run"
        elif cost is None:
            why = f"nobody knows what {model or 'the recording'} cost"
        corpus += cost or 0.0
    if why or training_seconds is None:
        return {"usd": None, "corpus_usd": None, "basis": f"not known: {why}"}
    training = training_seconds / _HOUR * settings.usd_per_hour
    as_if = f", priced as {settings.priced_as}" if priced else ""
    return {
        "usd": corpus + training,
        "corpus_usd": corpus,
        "basis": f"{corpus:,.4f} US dollars for "
        f"{sum(bill.get('answers') or 0 for bill in bills):,} answers{as_if}, "
        f"{training:,.4f} for {training_seconds:,.0f} seconds of training",
    }


def _price_bill(bill: Mapping[str, Any], settings: CostSettings) -> float | None:
    tokens = _get_tokens(bill, bill.get("answers") or 0)
    if not settings.priced_as or tokens is None:
        return None
    price = make_price(settings.priced_as, _find_url(settings.priced_as))
    return None if price is None else _price(price, *tokens) * bill["answers"]


def _get_tokens(counts: Mapping[str, Any], by: int) -> tuple[float, float] | None:
    """RETURNS (Optional[Tuple[float, float]]): Tokens of a prompt and of an answer."""
    prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if not by or not prompt or completion is None:
        return None
    return prompt / by, completion / by


def _break_even(
    systems: Mapping[str, Mapping[str, Any]],
    teacher: str | None,
    student: str | None,
    made: float | None,
    settings: CostSettings,
) -> dict[str, Any]:
    why = texts = None
    if not teacher or not student or not {teacher, student} <= systems.keys():
        why = "There is no teacher and student to compare."
    else:
        costs = {n: systems[n]["usd_per_million_texts"] for n in (teacher, student)}
        unknown = [name for name, usd in costs.items() if usd is None]
        saved = 0.0 if unknown else costs[teacher] - costs[student]
        if unknown:
            basis = systems[unknown[0]]["usd_basis"]
            why = f"What {unknown[0]} costs is {basis}."
        elif saved <= 0:
            why = f"{student} is not cheaper than {teacher}."
        elif made is None:
            why = "What the corpus and the training cost is not known."
        else:
            texts = math.ceil(made / saved * _MILLION)
            why = (
                f"What the corpus and the training cost, over the {saved:,.2f} US "
                f"dollars that {student} saves on a million texts."
            )
    days = None if texts is None else texts / settings.texts_per_day
    return {"texts": texts, "days": days, "why": why}
