"""Which of several prompts is the better one, by how much, and at what cost."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from statistics import NormalDist
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import srsly
from spacy.tokens import Doc
from tqdm import tqdm

from .asking import Answer, Model
from .corpus import Text
from .errors import InstaNERError
from .estimate import Estimate, estimate
from .evaluate import find_differences, find_response, get_labels, score_docs
from .files import check_exists
from .gold import read_gold_texts
from .intervals import Bootstrap, Difference
from .llm.chat import Chat
from .llm.cost import BYTES_PER_TOKEN
from .llm.replay import Replay
from .llm.store import Reason, Response
from .pipeline import load_teacher
from .scores import (
    GoldText,
    count,
    get_prf,
    have_one_category,
    match_texts,
    name_scores,
    to_dict,
)
from .tasks.examples import fold
from .voters import Teacher

_CONFIDENCE = 0.95
_POWER = 0.8  # how probably the texts that are asked for would show the difference
_RESAMPLES = 10_000  # a correction for several comparisons looks far into the tails
_FARTHEST = 100  # times as many texts are more than anybody labels
_NOUNS = {"ents": "entities", "cats": "categories"}
_DROPPED = ("spans", "error_examples", "texts", "words")  # of samples, not of texts


class Outcome(str, Enum):
    """What a comparison says of a prompt."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "no difference shown"


def compare_prompts(
    sources: Sequence[str],
    gold: Path,
    *,
    store: Path,
    samples: int = 1,
    llm: str | None = None,
    progress: bool = False,
    on_start: Callable[[dict[str, Any]], object] = lambda gold: None,
    on_estimate: Callable[[str, Estimate], object] = lambda source, found: None,
    on_bills: Callable[[list[dict[str, Any]]], object] = lambda bills: None,
) -> dict[str, Any]:
    """Ask teachers about the same gold, and compare each with the first. Answers that
    cannot be used count as if nothing was found. What a text is worth in the interval
    is the mean of its samples.

    sources (Sequence[str]): Configs of teachers with one llm component that annotates.
    gold (Path): The gold. Texts that are an example of a prompt are left out for all.
    store (Path): Store for the answers of models that have none.
    samples (int): Number of answers to each text.
    llm (Optional[str]): Model to ask instead of the configs'.
    progress (bool): Show progress bars.
    on_start (Callable[[Dict[str, Any]], object]): Called with `gold`, see below.
    on_estimate (Callable[[str, Estimate], object]): Called for each config with what it
        will take, before any is asked.
    on_bills (Callable[[List[Dict[str, Any]]], object]): Called with what the answers
        took that a config was asked for, also if the run ends in an error.
    RETURNS (Dict[str, Any]): gold (path, texts, attr, one_category, marks, silver, and
        left_out: texts, each with the configs that have it as an example), samples,
        confidence, configs (by source: the scores of `evaluate.score_docs`, interval of
        p, r and f, answers, failed by reason, unread, unknown_labels, model, and
        per_1000 with prompt_tokens, completion_tokens, estimated and cost), pairs (by
        source, each with the first: difference, interval, p_value, p_holm, deviation,
        cost, outcome, needed and reason) and differences (by source: texts on which the
        first sample is not that of the first config, the most first).
    RAISES (InstaNERError): On configs that cannot be compared, on gold without texts
        or marks, and if a model cannot answer.
    """
    check_exists(gold, "Gold")
    teachers = _load(sources, store=store, samples=samples, llm=llm)
    first, *others = teachers
    golds, texts, about = _read_gold(gold, teachers)
    on_start(about)
    for name, teacher in teachers.items():
        on_estimate(name, _estimate(teacher, texts, store))
    configs: dict[str, dict[str, Any]] = {}
    spans = {}
    for name, teacher in teachers.items():
        docs, answers = _ask(name, teacher, texts, progress, on_bills)
        scores = score_docs(docs, golds * samples)
        spans[name] = scores["spans"]
        configs[name] = {key: scores[key] for key in scores if key not in _DROPPED}
        configs[name].update(answers, unknown_labels=_find_unknown(teacher, golds))
    one = have_one_category(golds * samples, *spans.values())
    counts = np.stack(
        [_count(golds, found, samples, one) for found in spans.values()], axis=1
    )
    bootstrap = Bootstrap(len(golds), confidence=_CONFIDENCE, resamples=_RESAMPLES)
    overall, intervals = get_prf(counts.sum(axis=0)), bootstrap.get_intervals(counts)
    for row, config in enumerate(configs.values()):
        lows, highs = map(to_dict, intervals[:, row])
        config.update(name_scores(to_dict(overall[row]), about["attr"]))
        config["interval"] = {name: [lows[name], highs[name]] for name in "prf"}
    differences = [
        found
        for row in range(1, len(configs))
        for found in bootstrap.compare(counts[:, :1], counts[:, row : row + 1])
        if found is not None  # as the gold has something to find
    ]
    return {
        "gold": {**about, "one_category": one},
        "samples": samples,
        "confidence": _CONFIDENCE,
        "configs": configs,
        "pairs": dict(_judge(configs, differences, len(golds), one)),
        "differences": {
            name: [*find_differences(golds, spans, first, name)] for name in others
        },
    }


def correct(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979, A Simple Sequentially Rejective
    Multiple Test Procedure).

    p_values (Sequence[float]): The p-values.
    RETURNS (List[float]): As they are to be read, in the same order.
    """
    corrected = [0.0] * len(p_values)
    least = 0.0
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    for rank, k in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[k]))
        corrected[k] = least
    return corrected


def count_needed(
    difference: Difference, n_texts: int, *, comparisons: int = 1
) -> int | None:
    """Tell how many gold texts would show a difference with the probability 0.8, if it
    is what was measured: n (z(1 - 0.05/2) + z(0.8))² (standard error / difference)²
    (the sample size for a test of equality; Chow, Shao and Wang 2008, Sample Size
    Calculations in Clinical Research, chapter 3).

    difference (Difference): The difference.
    n_texts (int): Number of texts that it was measured on.
    comparisons (int): How many there are, by which 0.05 is divided.
    RETURNS (Optional[int]): Texts in all, in two digits, more than there are. None: no
        number that anybody would label.
    """
    normal = NormalDist()
    z = normal.inv_cdf(1 - (1 - _CONFIDENCE) / (2 * comparisons))
    z += normal.inv_cdf(_POWER)
    distance = abs(difference.difference)
    if z * difference.deviation >= distance * _FARTHEST**0.5:
        return None
    needed = n_texts * (z * difference.deviation / distance) ** 2
    needed = max(needed, n_texts + 1)
    unit = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / unit) * unit


def _load(
    sources: Sequence[str], *, store: Path, samples: int, llm: str | None
) -> dict[str, Teacher]:
    if len(sources) < 2:
        raise InstaNERError("There is nothing to compare with. Give two configs.")
    teachers: dict[str, Teacher] = {}
    seen: set[Path] = set()
    for source in sources:
        path = Path(source).resolve()
        if path in seen:
            raise InstaNERError(f"{source} is given twice. Give different configs.")
        seen.add(path)
        nlp = load_teacher(source, llm=llm)
        try:
            teachers[source] = Teacher(nlp, samples=samples, store=store)
        except InstaNERError as err:
            raise InstaNERError(f"{source}: {err}") from err
        names = [model.name for model in teachers[source].models]
        if len(names) > 1:
            raise InstaNERError(
                f"{source} has several prompts ({', '.join(names)}). Give one config "
                "for each llm component."
            )
    attrs = {name: teacher.target.attr for name, teacher in teachers.items()}
    if len({*attrs.values()}) > 1:
        found = ", ".join(f"{name} {_NOUNS[attr]}" for name, attr in attrs.items())
        raise InstaNERError(
            f"The configs annotate different things: {found}. Compare those that "
            "annotate the same."
        )
    return teachers


def _read_gold(
    path: Path, teachers: dict[str, Teacher]
) -> tuple[list[GoldText], list[Text], dict[str, Any]]:
    """RETURNS (Tuple[List[GoldText], List[Text], Dict[str, Any]]): The gold without the
    examples of prompts, its texts as they are asked about, and what it is.
    """
    attr = next(iter(teachers.values())).target.attr
    golds = read_gold_texts(path, attr)
    examples = _find_examples(teachers, golds)
    kept = [(k, gold) for k, gold in enumerate(golds, 1) if k not in examples]
    n_marks = sum(len(gold.spans) for _, gold in kept)
    if not n_marks:
        raise InstaNERError(
            f"{path} has no {_NOUNS[attr]} to find in {len(kept)} texts, and "
            f"{len(examples)} more are examples of a prompt. Give gold that has some."
        )
    return (
        [gold for _, gold in kept],
        [Text(f"{path.stem}-{k}", gold.text, "", "train", {}) for k, gold in kept],
        {
            "path": str(path),
            "texts": len(kept),
            "attr": attr,
            "marks": n_marks,
            "silver": any(gold.silver for _, gold in kept),
            "left_out": [
                {"text": golds[k - 1].text, "configs": names}
                for k, names in examples.items()
            ],
        },
    )


def _find_unknown(teacher: Teacher, golds: Iterable[GoldText]) -> list[str]:
    """RETURNS (List[str]): Labels of the gold that a teacher does not ask for."""
    task: Any = teacher.models[0].llm.task
    known = {str(label) for label in getattr(task, "labels", ())}
    return sorted({*get_labels(golds)} - known) if known else []


def _find_examples(
    teachers: dict[str, Teacher], golds: Sequence[GoldText]
) -> dict[int, list[str]]:
    """RETURNS (Dict[int, List[str]]): Numbers of the gold texts that are an example of
    a prompt, from 1, each with the configs.
    """
    found: dict[int, list[str]] = {}
    for name, teacher in teachers.items():
        task: Any = teacher.models[0].llm.task
        examples = getattr(task, "_prompt_examples", None) or ()
        shown = {fold(str(getattr(eg, "text", ""))) for eg in examples}
        for number, gold in enumerate(golds, 1):
            if fold(gold.text) in shown:
                found.setdefault(number, []).append(name)
    return found


def _estimate(teacher: Teacher, texts: Iterable[Text], store: Path) -> Estimate:
    with TemporaryDirectory() as folder:  # gold need not be JSONL
        path = Path(folder) / "texts.jsonl"
        srsly.write_jsonl(path, ({"id": t.id, "text": t.text} for t in texts))
        (found,) = estimate(teacher.nlp, path, store=store, samples=teacher.samples)
    return found


def _ask(
    name: str,
    teacher: Teacher,
    texts: Sequence[Text],
    progress: bool,
    on_bills: Callable[[list[dict[str, Any]]], object],
) -> tuple[list[Doc], dict[str, Any]]:
    """RETURNS (Tuple[List[Doc], Dict[str, Any]]): Docs of all texts for each sample,
    and what became of the answers.
    """
    (model,) = teacher.models
    total = len(texts) * teacher.samples
    try:
        with tqdm(
            total=total, desc=f"Asking {name}", unit="answer", disable=not progress
        ) as bar:
            model.fetch(
                teacher.make_docs(texts),
                samples=teacher.samples,
                on_answer=bar.update,
            )
    finally:
        on_bills([model.make_bill()])
    answers: list[Answer] = [
        answer
        for sample in range(teacher.samples)
        for answer in model.read(teacher.make_docs(texts), sample=sample)
    ]
    failures = [answer.failure for answer in answers if answer.failure is not None]
    lost = [failure for failure in failures if failure.reason is Reason.SERVER]
    if lost:
        raise InstaNERError(
            f"{name}: {len(lost)} of {total} answers did not come ({lost[0].detail}), "
            "which says nothing of its prompt. The others are stored: run it again."
        )
    return [answer.doc for answer in answers], {
        "model": None if isinstance(model.source, Replay) else model.source.name,
        "answers": total,
        "failed": dict(Counter(failure.reason.value for failure in failures)),
        "unread": sum(
            reading.status.is_loss
            for answer in answers
            if answer.failure is None
            for reading in answer.readings or ()
        ),
        "per_1000": _measure(model, teacher, texts),
    }


def _measure(model: Model, teacher: Teacher, texts: Sequence[Text]) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): What answers about 1,000 texts take, stored ones too:
    what they took when they were asked for.
    """
    source = model.source
    price = source.settings.make_price() if isinstance(source, Chat) else None
    prompts = completions = 0.0
    cost: float | None = 0.0
    estimated = False
    for prompt, response in _find_responses(model, teacher, texts):
        asked, answered = response.prompt_tokens, response.completion_tokens
        paid = response.cost
        if asked is None or answered is None:
            estimated = True
            asked, answered = map(_guess_tokens, (prompt, response.text))
        elif paid is None and price is not None:
            paid = price(asked, response.cached_tokens or 0, answered)
        prompts += asked
        completions += answered
        cost = None if cost is None or paid is None else cost + paid
    factor = 1000 / (len(texts) * teacher.samples)
    return {
        "prompt_tokens": round(prompts * factor),
        "completion_tokens": round(completions * factor),
        "estimated": estimated,
        "cost": None if cost is None else round(cost * factor, 6),
    }


def _find_responses(
    model: Model, teacher: Teacher, texts: Iterable[Text]
) -> Iterator[tuple[str, Response]]:
    for question in model.make_questions(teacher.make_docs(texts)):
        for prompt in question.prompts:
            for sample in range(teacher.samples):
                response = find_response(model.source, prompt, sample)
                if response is not None:  # the server refused it, for nothing
                    yield prompt, response


def _guess_tokens(text: str) -> int:
    return round(len(text.encode("utf8", "replace")) / BYTES_PER_TOKEN)


def _count(
    golds: list[GoldText], spans: Sequence[Any], samples: int, one: bool
) -> np.ndarray:
    """RETURNS (np.ndarray): Counts of each text, the mean of its samples: (texts, 4)"""
    rows = golds * samples
    found = match_texts(rows, spans)
    counts = count(found, get_labels(golds, spans), one_category=one)[:, 0]
    return np.asarray(counts.reshape(samples, len(golds), -1).mean(axis=0))


def _judge(
    configs: dict[str, dict[str, Any]],
    differences: Sequence[Difference],
    n_texts: int,
    one_category: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    first, *others = configs
    corrected = correct([found.p_value for found in differences])
    for name, found, p_holm in zip(others, differences, corrected, strict=True):
        is_sure = not found.low <= 0 <= found.high and p_holm <= 1 - _CONFIDENCE
        needed = None
        if is_sure:
            better = found.difference > 0
            outcome = Outcome.BETTER if better else Outcome.WORSE
            reason = f"{name} is {outcome.value} than {first}"
        else:
            outcome = Outcome.UNDECIDED
            needed = count_needed(found, n_texts, comparisons=len(others))
            reason = f"{name} against {first}: {outcome.value}"
        low, high, difference = map(
            _show_signed, (found.low, found.high, found.difference)
        )
        title = "accuracy" if one_category else "F1"
        reason += f": {title} {difference} ({low} to {high}"
        if len(others) > 1:
            reason += f"; p {p_holm:.3f}, corrected for {len(others)} comparisons"
        costs = [configs[n]["per_1000"]["cost"] for n in (first, name)]
        cost = None if None in costs else round(costs[1] - costs[0], 6)
        reason += f"), {_describe_cost(cost)}"
        if not is_sure:
            reason += (
                "; no number of gold texts that anybody labels would show so small a "
                "difference"
                if needed is None
                else f"; about {needed:,} gold texts would be needed to show a "
                "difference of that size"
            )
        yield (
            name,
            {
                "against": first,
                "difference": found.difference,
                "interval": [found.low, found.high],
                "p_value": found.p_value,
                "p_holm": p_holm,
                "deviation": found.deviation,
                "cost": cost,
                "outcome": outcome.value,
                "needed": needed,
                "reason": reason,
            },
        )


def _show_signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _describe_cost(cost: float | None) -> str:
    if cost is None:
        return "the difference in cost is unknown"
    if not cost:
        return "costs the same"
    digits = 2 if abs(cost) >= 0.1 else 4
    return (
        f"costs ${abs(cost):,.{digits}f} {'more' if cost > 0 else 'less'} per 1,000 "
        "texts"
    )
