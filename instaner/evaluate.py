"""Scores of several systems on the same gold, how sure they are, and the verdict."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab
from spacy_llm.ty import supports_sharding

from .asking import Foreign
from .corpus import read_docs
from .errors import InstaNERError
from .gold import read_gold_texts
from .intervals import Bootstrap, Difference
from .llm.chat import Chat
from .llm.cost import BYTES_PER_TOKEN
from .llm.replay import Replay
from .llm.store import Reason, Response
from .pipeline import find_attrs, get_llms, hide_login, one_line
from .scores import (
    GoldText,
    calibrate,
    count,
    count_confusion,
    count_errors,
    find_score,
    get_examples,
    have_categories,
    have_one_category,
    match_texts,
    name_scores,
    score,
    score_categories,
    to_dict,
)
from .targets import ENTS, Offsets, are_exclusive, mark_categories
from .tasks.grounding import load_readings
from .verdict import Rules, decide

_DIFFERENCES = 20  # texts to show on which systems differ


def evaluate(nlp: Language, gold: Path) -> dict[str, Any]:
    """Score a system on gold, and measure it.

    nlp (Language): The system: any pipeline that sets entities, or categories.
    gold (Path): Gold, JSONL or DocBin.
    RETURNS (Dict[str, Any]): What `evaluate_docs` returns, with words_per_second (None
        for recorded or stored answers), unknown_labels (of the gold, which the
        pipeline does not have) and, for a teacher, unread (mentions and lines that made
        no span), failed (answers that cannot be used, by reason) and answers: model,
        base_url, prompt_tokens and completion_tokens, estimated (whether from the
        prompts' and answers' length: UTF-8 bytes over four, OpenAI's rule of thumb for
        English), and the seconds of an answer, latency_p50 and latency_p95.
    RAISES (InstaNERError): On empty gold, and when a teacher cannot answer.
    """
    attrs = find_attrs(nlp)
    golds = read_gold_texts(gold, attrs.pop() if len(attrs) == 1 else None)
    texts = [gold.text for gold in golds]
    llms = get_llms(nlp)
    before = _get_usage(nlp)
    start = time.perf_counter()
    try:
        docs = list(nlp.pipe(texts))
    except InstaNERError:
        raise
    except Exception as err:  # whatever a pipeline raises
        raise InstaNERError(f"{gold} cannot be read by it: {one_line(err)}") from err
    seconds = time.perf_counter() - start
    used = _get_usage(nlp) - before
    recorded = used["stored"] or any(isinstance(p._model, Replay) for _, p in llms)
    result = score_docs(docs, golds)
    result["words_per_second"] = (
        None if recorded else round(result["words"] / seconds, 1)
    )
    known = {label for labels in nlp.pipe_labels.values() for label in labels}
    wanted = {label for gold in golds for *_, label in gold.spans}
    result["unknown_labels"] = sorted(wanted - known) if known else []
    if llms:
        result["unread"] = sum(
            reading.status.is_loss
            for doc in docs
            for reading in load_readings(doc) or ()
        )
        result["failed"] = {
            reason.value: used[reason.value] for reason in Reason if used[reason.value]
        }
        result["answers"] = _describe_answers(nlp, texts, used)
    return result


def evaluate_docs(path: Path, gold: Path) -> dict[str, Any]:
    """Score what a system predicted elsewhere.

    path (Path): DocBin, or a folder of them: the texts of the gold, in its order.
    gold (Path): Gold, JSONL or DocBin.
    RETURNS (Dict[str, Any]): ents_p, ents_r, ents_f and ents_acc (of exact matches,
        between 0 and 1; acc is right ones of all that are either gold or predicted),
        ents_partial (p, r and f, with any overlap enough), ents_per_type (the same by
        label, with support and predicted), token_acc (share of the system's tokens
        with the right label), errors and error_examples (by kind), confusion (gold
        label to predicted label to number, "" for none), texts, words and spans (by
        text: start, end, label). None: not defined. Of categories cats_micro_p,
        cats_micro_r and cats_micro_f (all three the accuracy, where each text has one),
        cats_f_per_type, what `scores.score_categories` returns, calibration (see
        scores.calibrate), and spans at character -1.
    RAISES (InstaNERError): On empty gold, or if the texts are others.
    """
    docs = list(read_docs(path, Vocab()))
    has_ents = any(doc.has_annotation("ENT_IOB") for doc in docs)
    has_cats = any(doc.cats for doc in docs)
    attr = None if has_ents == has_cats else "cats" if has_cats else "ents"
    golds = read_gold_texts(gold, attr)
    for number, (doc, text) in enumerate(zip(docs, golds, strict=False), 1):
        if doc.text != text.text:
            raise InstaNERError(
                f"{path}: text {number} is not that of {gold}. Give predictions for "
                "its texts, in its order."
            )
    if len(docs) != len(golds):
        raise InstaNERError(
            f"{path} has {len(docs)} texts, and {gold} {len(golds)}. Give predictions "
            "for each of its texts, in its order."
        )
    return {**score_docs(docs, golds), "words_per_second": None}


def score_docs(docs: Sequence[Doc], golds: Sequence[GoldText]) -> dict[str, Any]:
    """Score what a system predicted.

    docs (Sequence[Doc]): The texts of the gold, in its order.
    golds (Sequence[GoldText]): The gold.
    RETURNS (Dict[str, Any]): What `evaluate_docs` returns, without words_per_second.
    """
    is_cats = have_categories(golds)
    spans = _get_categories(docs) if is_cats else [ENTS.get_marks(doc) for doc in docs]
    matches = match_texts(golds, spans)
    labels = get_labels(golds, spans)
    one = have_one_category(golds, spans)
    counts = count(matches, labels, one_category=one).sum(axis=0)
    overall, *by_label = map(score, counts)
    per_type = dict(zip(labels, by_label, strict=True))
    if is_cats:
        scores = {
            **name_scores({name: overall[name] for name in "prf"}, "cats"),
            **score_categories(golds, spans, counts[1:]),
            **name_scores({"per_type": per_type}, "cats"),
            "calibration": calibrate(golds, [doc.cats for doc in docs]),
        }
    else:
        scores = {
            **name_scores({n: overall[n] for n in ("p", "r", "f", "acc")}, "ents"),
            "ents_partial": overall["partial"],
            **name_scores({"per_type": per_type}, "ents"),
            "token_acc": _get_token_acc(docs, golds),
        }
    return {
        **scores,
        "errors": count_errors(matches),
        "error_examples": get_examples(matches),
        "confusion": count_confusion(matches),
        "texts": len(docs),
        "words": sum(len(doc) for doc in docs),
        "spans": spans,
    }


def _get_categories(docs: Sequence[Doc]) -> list[list[Offsets]]:
    exclusive = are_exclusive(doc.cats for doc in docs)
    return [mark_categories(doc.cats, exclusive=exclusive) for doc in docs]


def get_labels(
    golds: Iterable[GoldText], *spans: Iterable[Iterable[Offsets]]
) -> list[str]:
    """RETURNS (List[str]): Labels of the gold and of what systems found, sorted."""
    found = [[gold.spans for gold in golds], *spans]
    return sorted({label for texts in found for text in texts for *_, label in text})


def _get_token_acc(docs: Sequence[Doc], golds: Sequence[GoldText]) -> float | None:
    pairs = [_count_tokens(doc, gold) for doc, gold in zip(docs, golds, strict=True)]
    right, known = np.sum(pairs, axis=0)
    return float(right / known) if known else None


def _count_tokens(doc: Doc, gold: GoldText) -> tuple[float, int]:
    """RETURNS (Tuple[float, int]): Tokens with the right label, of those known."""
    right = known = 0
    labels = iter(gold.spans)
    span = next(labels, None)
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        if any(start < last and first < end for first, last in gold.unknown):
            continue
        while span is not None and span[1] <= start:
            span = next(labels, None)
        label = span[2] if span is not None and span[0] < end else ""
        known += 1
        right += token.ent_type_ == label
    return right, known


def compare(
    results: Mapping[str, dict[str, Any]],
    gold: Path,
    *,
    rules: Rules | None = None,
    reference: str | None = None,
    silver: bool = False,
) -> dict[str, Any]:
    """Put the results of several systems on the same gold beside each other, with
    intervals, and reach a verdict on each student.

    results (Mapping[str, Dict[str, Any]]): Results by name of the system.
    gold (Path): The gold.
    rules (Optional[Rules]): How a verdict is reached.
    reference (Optional[str]): The system that students are to replace. None: the first
        with answers of an LLM, or else the first.
    silver (bool): Whether a teacher labelled the gold, where it does not say so itself.
    RETURNS (Dict[str, Any]): gold, labels, support (by label), reference, student (the
        best one), rules, systems (results with interval: p, r and f, overall and by
        label), paired (difference, interval, p_value and deviation, of each student
        from the reference, `all` and `per_type`), verdict (decision, reason and
        more_texts, likewise) and differences (texts on which the best student and the
        reference differ, with spans of gold and systems).
    RAISES (InstaNERError): If there is no such reference.
    """
    is_cats = any("cats_f_per_type" in result for result in results.values())
    attr = "cats" if is_cats else "ents"
    golds = read_gold_texts(gold, attr)
    rules = rules or Rules()
    spans = {name: result["spans"] for name, result in results.items()}
    labels = get_labels(golds, *spans.values())
    silver = silver or any(text.silver for text in golds)
    matches = {name: match_texts(golds, found) for name, found in spans.items()}
    one = have_one_category(golds, *spans.values())
    counts = np.stack(
        [count(matches[name], labels, one_category=one) for name in results], axis=1
    )
    bootstrap = Bootstrap(
        len(golds),
        confidence=rules.confidence,
        resamples=rules.resamples,
        seed=rules.seed,
    )
    intervals = bootstrap.get_intervals(counts)
    reference = _find_reference(results, reference)
    names = list(results)
    students = [name for name in names if name != reference]
    support = Counter(label for text in golds for *_, label in text.spans)
    comparison: dict[str, Any] = {
        "gold": {
            "path": str(gold),
            "texts": len(golds),
            "attr": attr,
            "one_category": one,
            "entities": support.total(),
            "silver": silver,
        },
        "labels": labels,
        "support": {label: support[label] for label in labels},
        "rules": rules.model_dump(),
        "reference": reference,
        "student": max(
            students, key=lambda n: find_score(results[n], "f") or 0, default=None
        ),
        "systems": {
            name: _describe(results[name], attr, labels, golds, intervals[:, row])
            for row, name in enumerate(names)
        },
        "paired": {},
        "verdict": {},
    }
    theirs = counts[:, names.index(reference)]
    for name in students:
        ours = counts[:, names.index(name)]
        differences = bootstrap.compare(theirs, ours)
        verdicts = [
            decide(found, rules, n_texts=len(golds), silver=silver)._asdict()
            for found in differences
        ]
        pairs = [_describe_difference(found) for found in differences]
        comparison["paired"][name] = _by_label(pairs, labels)
        comparison["verdict"][name] = _by_label(verdicts, labels)
    comparison["differences"] = [
        *find_differences(
            golds, spans, reference, comparison["student"], at_most=_DIFFERENCES
        )
    ]
    return comparison


def _by_label(values: Sequence[Any], labels: Sequence[str]) -> dict[str, Any]:
    return {"all": values[0], "per_type": dict(zip(labels, values[1:], strict=True))}


def _find_reference(
    results: Mapping[str, dict[str, Any]], reference: str | None
) -> str:
    if reference is None:
        teachers = [name for name, result in results.items() if "answers" in result]
        return (teachers or list(results))[0]
    if reference not in results:
        raise InstaNERError(
            f'There is no system "{reference}" to compare with, only '
            f"{', '.join(results)}."
        )
    return reference


def _describe(
    result: dict[str, Any],
    attr: str,
    labels: Sequence[str],
    golds: Sequence[GoldText],
    intervals: np.ndarray,
) -> dict[str, Any]:
    ends = [
        {
            name: None if low is None else [low, highs[name]]
            for name, low in to_dict(interval[0]).items()
        }
        for interval in intervals.swapaxes(0, 1)
        for highs in [to_dict(interval[1])]
    ]
    none = score(np.zeros(4, int))
    per_type = {
        label: {**find_score(result, "per_type").get(label, none), "interval": interval}
        for label, interval in zip(labels, ends[1:], strict=True)
    }
    return {
        **{key: value for key, value in result.items() if key != "spans"},
        "interval": ends[0],
        **name_scores({"per_type": per_type}, attr),
        "error_examples": {
            kind: [{**row, "text": golds[row["text"]].text} for row in rows]
            for kind, rows in result["error_examples"].items()
        },
    }


def _describe_difference(found: Difference | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "difference": found.difference,
        "interval": [found.low, found.high],
        "p_value": found.p_value,
        "deviation": found.deviation,
    }


def find_differences(
    golds: Sequence[GoldText],
    spans: Mapping[str, list[list[Offsets]]],
    reference: str,
    student: str | None,
    *,
    at_most: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Find the texts on which two systems differ.

    golds (Sequence[GoldText]): The texts.
    spans (Mapping[str, List[List[Offsets]]]): What systems found in each, by name.
    reference (str): One of the two.
    student (Optional[str]): The other. None: there is none.
    at_most (Optional[int]): How many texts. None: all.
    YIELDS (Dict[str, Any]): text, gold and systems (spans by name), of the texts with
        the most spans that only one has first.
    """
    if student is None:
        return

    def get_distance(number: int) -> int:
        found = ({tuple(s) for s in spans[n][number]} for n in (reference, student))
        return len(next(found) ^ next(found))

    order = sorted(range(len(golds)), key=lambda number: -get_distance(number))
    for number in order[:at_most]:
        if get_distance(number):
            yield {
                "text": golds[number].text,
                "gold": golds[number].spans,
                "systems": {name: spans[name][number] for name in (reference, student)},
            }


def get_size(path: Path) -> int:
    """RETURNS (int): Bytes of a model's folder, or 0 for anything else."""
    if not path.is_dir():
        return 0
    return sum(file_.stat().st_size for file_ in path.rglob("*") if file_.is_file())


def _get_usage(nlp: Language) -> Counter[str]:
    usage: Counter[str] = Counter()
    for _, llm in get_llms(nlp):
        if isinstance(llm._model, Chat):
            for part in (llm._model.asked, llm._model.recalled):
                usage["prompt_tokens"] += part["prompt_tokens"]
                usage["completion_tokens"] += part["completion_tokens"]
            usage["stored"] += llm._model.recalled["answers"]
            usage.update(llm._model.failed)
    return usage


def _describe_answers(
    nlp: Language, texts: Sequence[str], used: Counter[str]
) -> dict[str, Any]:
    """Describe what a teacher's answers to texts took."""
    models: list[Any] = [llm._model for _, llm in get_llms(nlp)]
    prompts = completions = 0.0
    seconds: list[float] = []
    for _, llm in get_llms(nlp):
        for prompt in _make_prompts(llm.task, map(nlp.make_doc, texts)):
            prompts += len(prompt.encode("utf8")) / BYTES_PER_TOKEN
            response = find_response(llm._model, prompt)
            if response is not None:
                completions += len(response.text.encode("utf8")) / BYTES_PER_TOKEN
                seconds += [response.seconds] if response.seconds else []
    counted = bool(used["prompt_tokens"])
    chats = [model for model in models if isinstance(model, Chat)]
    latency = np.quantile(seconds, [0.5, 0.95]).tolist() if seconds else [None, None]
    return {
        "model": " + ".join(chat.name for chat in chats) or None,
        "base_url": hide_login(chats[0].settings.find_url()) if chats else None,
        "prompt_tokens": used["prompt_tokens"] if counted else round(prompts),
        "completion_tokens": (
            used["completion_tokens"] if counted else round(completions)
        ),
        "estimated": not counted,
        "latency_p50": latency[0],
        "latency_p95": latency[1],
    }


def _make_prompts(task: Any, docs: Iterator[Doc]) -> Iterator[str]:
    for prompt in task.generate_prompts(docs):
        yield from prompt[0] if supports_sharding(task) else [prompt]


def find_response(
    model: Callable[..., Any] | Foreign, prompt: str, sample: int = 0
) -> Response | None:
    """Find an answer that was recorded or stored.

    model (Union[Callable, Foreign]): What answers.
    prompt (str): The prompt.
    sample (int): Which of several answers, from 0.
    RETURNS (Optional[Response]): The answer, whether it can be used or not.
    """
    if isinstance(model, Replay):
        return model.find(prompt, sample)
    if isinstance(model, Chat | Foreign) and model.store is not None:
        return model.store.get(model.make_request(prompt, sample).key)
    return None
