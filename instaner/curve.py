"""The learning curve: students trained on shares of the corpus, on the same gold."""

import hashlib
import io
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import srsly
from spacy.vocab import Vocab
from thinc.api import Config

from .corpus import get_brief, read_docs, write_docs
from .errors import InstaNERError
from .evaluate import evaluate
from .files import check_exists, hash_file, write_whole
from .gold import read_gold_texts
from .intervals import Bootstrap
from .pipeline import find_config, load_pipeline, read_config
from .scores import (
    GoldText,
    count,
    get_prf,
    have_categories,
    have_one_category,
    match_texts,
    name_scores,
)
from .targets import Offsets, is_category
from .train import train as train_student

FORMULA = "1 - {score} = a * n^-b"

_MIN_POINTS = 3  # to fit two parameters and see whether they fit
_MIN_RESAMPLES = 0.5  # share of the resamples that can be fitted


def parse_shares(text: str) -> list[int]:
    """Read shares of the corpus.

    text (str): Percentages with commas between, e.g. 10,25,50,100.
    RETURNS (List[int]): The percentages, ascending.
    RAISES (InstaNERError): On anything but different whole numbers from 1 to 100.
    """
    shares: list[int] = []
    for part in text.split(","):
        value = part.strip()
        if not (value.isdecimal() and 1 <= int(value) <= 100):
            raise InstaNERError(
                f'The shares {text}: "{value}" is no whole percentage from 1 to 100. '
                "Give them as 10,25,50,100."
            )
        if int(value) in shares:
            raise InstaNERError(
                f"The shares {text}: {value} occurs a second time. Give it once."
            )
        shares.append(int(value))
    return sorted(shares)


def make_curve(
    config: Path,
    output: Path,
    *,
    shares: Sequence[int],
    train: Path,
    dev: Path,
    gold: Path,
    overrides: dict[str, Any] | None = None,
    gpu_id: int = -1,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 1000,
    on_point: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Train students on shares of the corpus, in whole briefs, of which a larger share
    holds the smaller ones, and fit what more data would bring. A share that is done is
    kept beside the output until all are, so that a run that was killed goes on.

    config (Path): Training config of the student.
    output (Path): The JSON file to write.
    shares (Sequence[int]): Percentages of the training texts.
    train (Path): Training corpus, a DocBin.
    dev (Path): Development corpus, a DocBin, which is never cut.
    gold (Path): Gold to score on, JSONL or DocBin.
    overrides (Optional[Dict[str, Any]]): Config values by dotted name.
    gpu_id (int): GPU to train on, or -1 for the CPU.
    seed (int): Decides which briefs come first, and the resamples.
    confidence (float): Of the intervals, between 0 and 1. They say how sure the scores
        are on such gold, not how much another training would differ.
    resamples (int): Number of bootstrap resamples of the gold texts.
    on_point (Optional[Callable]): Called with each point, a kept one too.
    RETURNS (Dict[str, Any]): config, config_sha256, train_sha256, gold, student, points
        (share, texts, ents_f or cats_micro_f, interval, seconds), score (what that is:
        F1 or, where each text has one category, accuracy), fit, and why, if there is
        none.
    RAISES (InstaNERError): If a file is missing or broken, or a training fails.
    """
    config_path = find_config(str(config))
    for path, what in ((train, "Corpus"), (dev, "Corpus"), (gold, "Gold")):
        check_exists(path, what)
    key = {
        "config_sha256": hash_file(config_path),
        "train_sha256": hash_file(train),
        "dev_sha256": hash_file(dev),
        "gold_sha256": hash_file(gold),
        "overrides": json.dumps(overrides or {}, sort_keys=True, default=str),
        "seed": seed,
    }
    kept_path = output.with_name(f".{output.name}.points")
    kept = _read_kept(kept_path, key)
    ranked = _rank_briefs(train, seed)
    for share in sorted(shares):
        if str(share) not in kept:
            kept[str(share)] = _train_share(
                config_path,
                output.with_name(f".{output.name}.student"),
                share=share,
                ranked=ranked,
                train=train,
                gold=gold,
                overrides={**(overrides or {}), "paths.dev": str(dev)},
                gpu_id=gpu_id,
            )
            with write_whole(kept_path) as part:
                srsly.write_json(part, {**key, "points": kept})
        if on_point is not None:
            on_point({name: kept[str(share)][name] for name in ("share", "texts")})
    done = [kept[str(share)] for share in sorted(shares)]
    found = (span for point in done for spans in point["spans"] for span in spans)
    golds = read_gold_texts(gold, "cats" if any(map(is_category, found)) else None)
    counts = np.stack(
        [_count(golds, point["spans"]) for point in done], axis=1
    )  # (gold texts, students, 4)
    bootstrap = Bootstrap(
        len(golds), confidence=confidence, resamples=resamples, seed=seed
    )
    scores = get_prf(counts.sum(axis=0))[:, 2]
    low, high = bootstrap.get_intervals(counts)[..., 2]
    attr = "cats" if have_categories(golds) else "ents"
    points = [
        {
            "share": point["share"],
            "texts": point["texts"],
            **name_scores({"f": _to_json(score)}, attr),
            "interval": None if np.isnan(score) else [least, most],
            "seconds": point["seconds"],
        }
        for point, score, least, most in zip(
            done, scores, low.tolist(), high.tolist(), strict=True
        )
    ]
    name = "accuracy" if have_one_category(golds) else "F1"
    texts = [point["texts"] for point in points]
    fit, why = fit_curve(texts, counts, bootstrap, score=name)
    curve = {
        "config": str(config),
        "config_sha256": key["config_sha256"],
        "train_sha256": key["train_sha256"],
        "gold": {"path": str(gold), "sha256": key["gold_sha256"]},
        "student": _name_student(read_config(str(config), overrides=overrides)),
        "points": points,
        "score": name,
        "fit": fit,
        "why": why,
    }
    with write_whole(output) as part:
        srsly.write_json(part, curve)
    kept_path.unlink(missing_ok=True)
    return curve


def fit_curve(
    texts: Sequence[int],
    counts: np.ndarray,
    bootstrap: Bootstrap,
    *,
    score: str = "F1",
) -> tuple[dict[str, Any] | None, str | None]:
    """Fit a power law to the errors, by least squares of their logarithms, as learning
    curves have it (Hestness et al. 2017, Deep Learning Scaling is Predictable,
    Empirically, https://arxiv.org/abs/1712.00409).

    texts (Sequence[int]): Training texts of each student.
    counts (np.ndarray): Counts of marks; (gold texts, students, 4).
    bootstrap (Bootstrap): Draws gold texts, the same for all students.
    score (str): What their F1 is called.
    RETURNS (Tuple[Optional[Dict[str, Any]], Optional[str]]): a, b, formula,
        doubled_texts (twice the most texts), doubled_f and its interval; or why there
        is no fit.
    """
    scores = get_prf(counts.sum(axis=0))[:, 2]
    usable = (scores > 0) & (scores < 1)
    numbers = np.array(texts, "d")[usable]
    if len(set(numbers.tolist())) < _MIN_POINTS:
        return None, (
            f"A curve takes {_MIN_POINTS} shares of different size with an {score} "
            f"above 0 and below 1; there are {len(set(numbers.tolist()))}."
        )
    doubled = 2 * max(texts)
    x = np.log(numbers)
    slope, intercept = np.polyfit(x, np.log(1 - scores[usable]), 1)
    if slope >= 0:
        return None, "The scores do not rise with the number of texts."
    drawn = get_prf(bootstrap.resample(counts[:, usable], np.zeros((2, 1, 4))))[..., 2]
    whole = ((drawn > 0) & (drawn < 1)).all(axis=1)
    interval = None
    if whole.mean() >= _MIN_RESAMPLES:
        lines = np.polyfit(x, np.log(1 - drawn[whole]).T, 1)
        found = 1 - np.exp(_predict(lines, doubled))
        interval = np.quantile(found, bootstrap.ends).tolist()
    return {
        "a": math.exp(intercept),
        "b": float(-slope),
        "formula": FORMULA.format(score=score),
        "doubled_texts": doubled,
        "doubled_f": 1 - math.exp(_predict((slope, intercept), doubled)),
        "interval": interval,
    }, None


def _count(golds: Sequence[GoldText], spans: Sequence[list[Offsets]]) -> np.ndarray:
    """RETURNS (np.ndarray): Counts of all labels together; (gold texts, 4)."""
    labels = {label for gold in golds for *_, label in gold.spans}
    labels.update(label for found in spans for *_, label in found)
    one = have_one_category(golds, spans)
    tuples = [[(*span,) for span in found] for found in spans]  # JSON has none
    matches = match_texts(golds, tuples)
    return count(matches, sorted(labels), one_category=one)[:, 0]


def _predict(line: Any, texts: int) -> Any:
    return line[0] * math.log(texts) + line[1]


def _to_json(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _rank_briefs(train: Path, seed: int) -> dict[str, int]:
    """RETURNS (Dict[str, int]): Number of texts of each brief, in the order in which
    they are drawn: by hash, so that new briefs leave the others where they are.
    """
    sizes = Counter(get_brief(doc) for doc in read_docs(train, Vocab()))
    if not sizes:
        raise InstaNERError(f"The corpus {train} is empty. Annotate texts first.")

    def rank(brief: str) -> str:
        return hashlib.sha256(f"{seed}:{brief}".encode()).hexdigest()

    return {brief: sizes[brief] for brief in sorted(sizes, key=rank)}


def _draw(ranked: dict[str, int], share: int) -> set[str]:
    least = sum(ranked.values()) * share / 100
    drawn: set[str] = set()
    count = 0
    for brief, size in ranked.items():
        if count >= least:
            break
        drawn.add(brief)
        count += size
    return drawn


def _train_share(
    config: Path,
    folder: Path,
    *,
    share: int,
    ranked: dict[str, int],
    train: Path,
    gold: Path,
    overrides: dict[str, Any],
    gpu_id: int,
) -> dict[str, Any]:
    drawn = _draw(ranked, share)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        docs = [doc for doc in read_docs(train, Vocab()) if get_brief(doc) in drawn]
        write_docs(docs, folder / "train.spacy")
        values = {**overrides, "paths.train": str(folder / "train.spacy")}
        start = time.perf_counter()
        train_student(
            config,
            folder / "student",
            overrides=values,
            gpu_id=gpu_id,
            log=io.StringIO(),
        )
        seconds = time.perf_counter() - start
        nlp = load_pipeline(str(folder / "student" / "model-best"))
        spans = evaluate(nlp, gold)["spans"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "share": share,
        "texts": len(docs),
        "seconds": round(seconds, 1),
        "spans": spans,
    }


def _read_kept(path: Path, key: dict[str, Any]) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): Points by share, of a run with the same inputs."""
    try:
        kept = dict(srsly.read_json(path))
        points = kept.pop("points")
    except (KeyError, OSError, TypeError, ValueError):
        return {}
    return dict(points) if kept == key else {}


def _name_student(config: Config) -> str:
    architectures = json.dumps(config.get("components", {}), default=str)
    if "transformers." in architectures:
        return "transformer"
    is_bag = "TextCatBOW" in architectures and "tok2vec" not in architectures
    return "bag of words" if is_bag else "CNN"
