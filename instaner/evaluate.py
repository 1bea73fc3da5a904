"""Scores of several systems on the same gold, and what each of them needs."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.scorer import get_ner_prf
from spacy.training import Example
from spacy_llm.ty import supports_sharding

from .corpus import read_gold
from .errors import InstaNERError
from .llm.chat import Chat
from .llm.cost import BYTES_PER_TOKEN
from .llm.replay import Replay
from .llm.store import Reason
from .pipeline import get_llms
from .tasks.grounding import load_readings

_WARM_UP = 16  # texts


class Tokens(NamedTuple):
    """Prompt tokens that a teacher needed.

    number (int): How many.
    estimated (bool): Whether they are estimated from the prompts' length (UTF-8 bytes
        over four, OpenAI's rule of thumb for English) or counted by the server.
    """

    number: int
    estimated: bool


def evaluate(nlp: Language, gold: Path) -> dict[str, Any]:
    """Score a system on gold, and measure it.

    nlp (Language): The system: any pipeline that sets entities.
    gold (Path): Gold, JSONL or DocBin.
    RETURNS (Dict[str, Any]): ents_p, ents_r, ents_f and ents_per_type (between 0 and 1,
        from spacy.scorer.get_ner_prf, with the support of each label), texts, words,
        words_per_second (None for recorded or stored answers) and, for a teacher,
        unread (mentions and lines that made no span), failed (answers that cannot be
        used, by reason), prompt_tokens and prompt_tokens_estimated.
    RAISES (InstaNERError): On empty gold, and when a teacher cannot answer.
    """
    references = list(read_gold(gold, nlp))
    if not references:
        raise InstaNERError(f"{gold} has no texts to evaluate on.")
    texts = [doc.text for doc in references]
    llms = get_llms(nlp)
    if not llms:
        list(nlp.pipe(texts[:_WARM_UP]))
    before = _get_usage(nlp)
    start = time.perf_counter()
    predictions = list(nlp.pipe(texts))
    seconds = time.perf_counter() - start
    words = sum(len(doc) for doc in predictions)
    support = Counter(ent.label_ for doc in references for ent in doc.ents)
    pairs = zip(predictions, references, strict=True)
    scores = get_ner_prf(
        [Example(predicted, reference) for predicted, reference in pairs]
    )
    used = _get_usage(nlp) - before
    recorded = used["stored"] or any(isinstance(p._model, Replay) for _, p in llms)
    result = {
        "ents_p": scores["ents_p"],
        "ents_r": scores["ents_r"],
        "ents_f": scores["ents_f"],
        "ents_per_type": {
            label: {**values, "support": support[label]}
            for label, values in sorted((scores["ents_per_type"] or {}).items())
        },
        "texts": len(texts),
        "words": words,
        "words_per_second": None if recorded else round(words / seconds, 1),
    }
    if llms:
        tokens = _count_prompt_tokens(nlp, texts, used["prompt_tokens"])
        result["unread"] = sum(
            reading.status.is_loss
            for doc in predictions
            for reading in load_readings(doc) or ()
        )
        result["failed"] = {
            reason.value: used[reason.value] for reason in Reason if used[reason.value]
        }
        result["prompt_tokens"] = tokens.number
        result["prompt_tokens_estimated"] = tokens.estimated
    return result


def compare(results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Put the results of several systems on the same gold beside each other.

    results (Mapping[str, Dict[str, Any]]): Results by name of the system.
    RETURNS (Dict[str, Any]): labels and systems.
    """
    labels = sorted({la for r in results.values() for la in r["ents_per_type"]})
    return {"labels": labels, "systems": dict(results)}


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
            usage["stored"] += llm._model.recalled["answers"]
            usage.update(llm._model.failed)
    return usage


def _count_prompt_tokens(nlp: Language, texts: list[str], used: int) -> Tokens:
    if used:
        return Tokens(used, estimated=False)
    n_bytes = 0
    for _, llm in get_llms(nlp):
        docs = (nlp.make_doc(text) for text in texts)
        for prompt in llm.task.generate_prompts(docs):
            shards = prompt[0] if supports_sharding(llm.task) else [prompt]
            n_bytes += sum(len(str(shard).encode("utf8")) for shard in shards)
    return Tokens(round(n_bytes / BYTES_PER_TOKEN), estimated=True)
