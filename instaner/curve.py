"""The learning curve: students trained on shares of the corpus, on the same gold."""

import hashlib
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import srsly
from numpy.typing import NDArray
from spacy.vocab import Vocab
from thinc.api import Config

from .corpus import get_brief, read_docs, read_gold, write_docs
from .errors import InstaNERError
from .files import check_exists, hash_file, write_whole
from .pipeline import find_config, read_config
from .train import train as train_student

FORMULA = "1 - F1 = a * n^-b"

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
    usd_per_text: float | None = None,
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
    usd_per_text (Optional[float]): What one more training text costs, US dollars.
    on_point (Optional[Callable]): Called with each point, a kept one too.
    RETURNS (Dict[str, Any]): config, config_sha256, train_sha256, gold, student, points
        (share, texts, ents_f, interval, seconds), fit, and why, if there is none.
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
    counts = np.array([point["counts"] for point in done])
    points = [
        {
            "share": point["share"],
            "texts": point["texts"],
            "ents_f": _to_json(get_f(counts[i].sum(0))),
            "interval": make_interval(
                counts[i], confidence=confidence, resamples=resamples, seed=seed
            ),
            "seconds": point["seconds"],
        }
        for i, point in enumerate(done)
    ]
    fit, why = fit_curve(
        [point["texts"] for point in points],
        counts,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    if fit is not None:
        more = fit["doubled_texts"] - points[-1]["texts"]
        cost = None if usd_per_text is None else more * usd_per_text
        fit = {**fit, "doubling_cost": cost}
    curve = {
        "config": str(config),
        "config_sha256": key["config_sha256"],
        "train_sha256": key["train_sha256"],
        "gold": {"path": str(gold), "sha256": key["gold_sha256"]},
        "student": _name_student(read_config(str(config), overrides=overrides)),
        "points": points,
        "fit": fit,
        "why": why,
    }
    with write_whole(output) as part:
        srsly.write_json(part, curve)
    kept_path.unlink(missing_ok=True)
    return curve


def fit_curve(
    texts: Sequence[int],
    counts: NDArray[np.int64],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Any] | None, str | None]:
    """Fit a power law to the errors, by least squares of their logarithms, as learning
    curves have it (Hestness et al. 2017, Deep Learning Scaling is Predictable,
    Empirically, https://arxiv.org/abs/1712.00409).

    texts (Sequence[int]): Training texts of each student.
    counts (NDArray[int64]): Strict tp, fp and fn; (students, gold texts, 3).
    confidence (float): Of the interval, between 0 and 1.
    resamples (int): Number of bootstrap resamples, the same for all students.
    seed (int): Of the resamples.
    RETURNS (Tuple[Optional[Dict[str, Any]], Optional[str]]): a, b, formula,
        doubled_texts (twice the most texts), doubled_f and its interval; or why there
        is no fit.
    """
    scores = get_f(counts.sum(1))
    usable = (scores > 0) & (scores < 1)
    numbers = np.array(texts, "d")[usable]
    if len(set(numbers.tolist())) < _MIN_POINTS:
        return None, (
            f"A curve takes {_MIN_POINTS} shares of different size with an F1 above 0 "
            f"and below 1; there are {len(set(numbers.tolist()))}."
        )
    doubled = 2 * max(texts)
    x = np.log(numbers)
    slope, intercept = np.polyfit(x, np.log(1 - scores[usable]), 1)
    if slope >= 0:
        return None, "The scores do not rise with the number of texts."
    sums = _resample(counts[usable], resamples, seed)
    drawn = get_f(sums)  # of (student, resample)
    whole = ((drawn > 0) & (drawn < 1)).all(0)
    interval = None
    if whole.mean() >= _MIN_RESAMPLES:
        lines = np.polyfit(x, np.log(1 - drawn[:, whole]), 1)
        interval = _get_interval(1 - np.exp(_predict(lines, doubled)), confidence)
    return {
        "a": math.exp(intercept),
        "b": float(-slope),
        "formula": FORMULA,
        "doubled_texts": doubled,
        "doubled_f": 1 - math.exp(_predict((slope, intercept), doubled)),
        "interval": interval,
    }, None


def get_f(sums: NDArray[Any]) -> NDArray[np.float64]:
    """RETURNS (NDArray[float64]): F1 of tp, fp and fn on the last axis; NaN where there
    is nothing to find and nothing was found.
    """
    tp, fp, fn = np.moveaxis(np.asarray(sums, "d"), -1, 0)
    with np.errstate(invalid="ignore"):
        f: NDArray[np.float64] = 2 * tp / (2 * tp + fp + fn)
    return f


def count_entities(
    gold: Sequence[set[tuple[int, int, str]]],
    predicted: Sequence[set[tuple[int, int, str]]],
) -> NDArray[np.int64]:
    """RETURNS (NDArray[int64]): tp, fp and fn of each text, strict."""
    pairs = zip(gold, predicted, strict=True)
    rows = [(len(g & p), len(p - g), len(g - p)) for g, p in pairs]
    return np.array(rows, dtype="int64").reshape(-1, 3)


def make_interval(
    counts: NDArray[np.int64], *, confidence: float, resamples: int, seed: int
) -> list[float] | None:
    """RETURNS (Optional[List[float]]): Percentile bootstrap interval of F1."""
    return _get_interval(get_f(_resample(counts[None], resamples, seed))[0], confidence)


def _resample(
    counts: NDArray[np.int64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """RETURNS (NDArray[float64]): Sums over resampled texts: (students,
    resamples, 3),
    each resample the same texts for all students.
    """
    number = counts.shape[1]
    rng = np.random.default_rng(seed)
    times = rng.multinomial(number, np.full(number, 1 / number), size=resamples)
    return np.asarray(times.astype("d") @ counts.astype("d"))


def _get_interval(values: NDArray[np.float64], confidence: float) -> list[float] | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return [float(low), float(high)]


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
        train_student(config, folder / "student", overrides=values, gpu_id=gpu_id)
        seconds = time.perf_counter() - start
        counts = _score(folder / "student" / "model-best", gold)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "share": share,
        "texts": len(docs),
        "seconds": round(seconds, 1),
        "counts": counts.tolist(),
    }


def _score(student: Path, gold: Path) -> NDArray[np.int64]:
    nlp = spacy.load(student)
    references = list(read_gold(gold, nlp))
    if not references:
        raise InstaNERError(f"{gold} has no texts to evaluate on.")
    predictions = nlp.pipe([doc.text for doc in references])
    found, expected = (
        [{(e.start_char, e.end_char, e.label_) for e in doc.ents} for doc in docs]
        for docs in (predictions, references)
    )
    return count_entities(expected, found)


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
    return "transformer" if "transformers." in architectures else "CNN"
