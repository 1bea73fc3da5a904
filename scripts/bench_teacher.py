"""Measure how fast a teacher is asked, against stock spacy-llm:

    python scripts/bench_teacher.py --json bench.json

The demo's prompts are sent to a server on this machine, in a process of its own. It
takes some minutes. The exit code is 1 if a target is missed."""

import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import srsly
import typer
from spacy_llm.models.rest.openai import model as stock_openai
from spacy_llm.models.rest.openai.registry import openai_gpt_4_v3
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instaner.cli._util import msg, one_line_errors, show_progress
from instaner.corpus import read_texts
from instaner.errors import InstaNERError
from instaner.files import read_jsonl, write_whole
from instaner.generate import generate
from instaner.llm.store import Store
from instaner.pipeline import load_teacher
from instaner.voters import Teacher
from tests.server import Faulty, serve

ROOT = Path(__file__).resolve().parent.parent
TEACHER = "configs/teacher_live.cfg"
MOST = 1_000_000  # texts, no two alike, that can be made of the demo's

# How long the servers take for an answer, in seconds.
USUAL = {"latency": 0.2, "jitter": 0.05}
STRAGGLING = {**USUAL, "slow": 0.01, "slow_seconds": 5.0}
QUICK = {"latency": 0.03, "jitter": 0.01}  # for the memory

AT_LEAST = {"answers_per_second": 250, "share_of_ideal": 0.75, "times_stock": 50}
AT_MOST = {"straggler_ratio": 1.3, "memory_ratio": 1.2}

# The parent of what is measured is small: a process's peak begins with its parent's.
MEASURE_PEAK = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
PEAKS_IN_MB = 1024**2 if sys.platform == "darwin" else 1024


@contextmanager
def serve_answers(answers: dict[str, str], times: dict[str, Any]) -> Iterator[str]:
    """Run the tests' server in a process of its own, with answers by text."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    args = (theirs, answers, times)
    process = context.Process(target=_serve, args=args, daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, answers: dict[str, str], times: dict[str, Any]) -> None:
    def answer(body: dict[str, Any]) -> str:
        prompt = body["messages"][-1]["content"]
        text = prompt.rpartition("Paragraph: ")[2].rpartition("\nAnswer:")[0]
        return "\n".join(answers[line] for line in text.split("\n"))

    with serve(Faulty(answer, **times), record=False) as server:
        pipe.send(server.url)
        pipe.poll(None)  # until the benchmark is gone


def make_answers(folder: Path) -> dict[str, str]:
    """RETURNS (Dict[str, str]): An answer to the NER prompt for each of the demo's
    texts: what its writer marked.
    """
    path = folder / "generated.jsonl"
    generate(load_teacher("configs/generator.cfg"), Path("assets/briefs.jsonl"), path)
    answers = {}
    for _, row in read_jsonl(path):
        lines = [
            f"{number}. {row['text'][span['start'] : span['end']]} | True | "
            f"{span['label']} | is named in a text about cooking"
            for number, span in enumerate(row["spans"], 1)
        ]
        answers[row["text"]] = "\n".join(lines) or "No entities"
    return answers


def make_texts(demo: list[str]) -> Iterator[dict[str, str]]:
    """YIELDS (Dict[str, str]): The demo's texts, then pairs of them: no two alike."""
    for text in demo:
        yield {"text": text}
    for distance in range(1, len(demo)):
        for one, other in zip(demo, demo[distance:] + demo[:distance], strict=True):
            yield {"text": f"{one}\n{other}"}


def get_overrides(url: str, store: Path, in_flight: int) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): What the teacher's config is to say instead."""
    values = {"base_url": url, "store": str(store), "max_concurrency": in_flight}
    return {f"components.llm.model.{name}": value for name, value in values.items()}


def check_store(path: Path, expected: int) -> None:
    """Check that all answers are stored, each to another prompt, and can be used."""
    (row,) = Store(path).summarise()
    found = {name: row[name] for name in ("prompts", "answers", "failed")}
    if found != {"prompts": expected, "answers": expected, "failed": 0}:
        raise InstaNERError(f"{expected} answers were asked for, but stored: {found}.")


def time_teacher(url: str, folder: Path, prompts: int, in_flight: int) -> float:
    """RETURNS (float): Seconds of what `instaner annotate` does to ask: from before the
    first prompt is made until the last answer is stored.
    """
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "responses.db"
        nlp = load_teacher(TEACHER, overrides=get_overrides(url, store, in_flight))
        teacher = Teacher(nlp, store=store)
        (model,) = teacher.models
        model.fetch(teacher.make_docs(read_texts(folder / "warm_up.jsonl")))
        with tqdm(total=prompts, unit="answer", disable=not show_progress()) as bar:
            start = time.perf_counter()
            docs = teacher.make_docs(read_texts(folder / "few.jsonl"))
            model.fetch(docs, on_answer=bar.update)
            seconds = time.perf_counter() - start
        check_store(store, prompts + in_flight)
    return seconds


def time_stock(url: str, folder: Path, number: int) -> float:
    """RETURNS (float): Seconds that spacy-llm's own model takes for some prompts."""
    store = folder / "unused.db"
    nlp = load_teacher(TEACHER, overrides=get_overrides(url, store, 1))
    teacher = Teacher(nlp, store=store)
    first, *prompts = (
        [str(prompt) for prompt in question.prompts]
        for path, at_most in (("warm_up.jsonl", 1), ("few.jsonl", number))
        for question in islice(
            teacher.models[0].make_questions(
                teacher.make_docs(read_texts(folder / path))
            ),
            at_most,
        )
    )
    # It asks the vendor whether there is such a model, wherever it sends the prompts.
    with patch.object(stock_openai.OpenAI, "_verify_auth"):
        model = openai_gpt_4_v3(endpoint=f"{url}/chat/completions")
    model([first])
    start = time.perf_counter()
    answers = list(model(prompts))
    seconds = time.perf_counter() - start
    if [bool(answer) for (answer,) in answers] != [True] * number:
        raise InstaNERError("spacy-llm's model did not get all answers.")
    return seconds


def measure_annotate(
    url: str, texts: Path, number: int, in_flight: int
) -> tuple[float, float]:
    """RETURNS (Tuple[float, float]): Peak memory of all of `instaner annotate`, in MB,
    and its seconds.
    """
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "responses.db"
        command = [sys.executable, "-IS", "-c", MEASURE_PEAK]
        command += [sys.executable, "-m", "instaner", "annotate"]
        command += [TEACHER, str(texts), f"{place}/annotated"]
        for name, value in get_overrides(url, store, in_flight).items():
            command += [f"--{name}", str(value)]
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise InstaNERError("`instaner annotate` failed: see above.")
        check_store(store, number)
    return int(done.stdout) / PEAKS_IN_MB, seconds


def measure(
    folder: Path, *, prompts: int, many: int, stock: int, in_flight: int
) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): All that was measured."""
    load = os.getloadavg()[0]
    answers = make_answers(folder)
    texts = make_texts(list(answers))
    rows = list(islice(texts, many))
    srsly.write_jsonl(folder / "many.jsonl", rows)
    srsly.write_jsonl(folder / "few.jsonl", rows[:prompts])
    srsly.write_jsonl(folder / "warm_up.jsonl", islice(texts, in_flight))
    msg.text(f"Asking {prompts:,} prompts, then {stock:,} by stock spacy-llm …")
    with serve_answers(answers, USUAL) as url:
        seconds = time_teacher(url, folder, prompts, in_flight)
        stock_seconds = time_stock(url, folder, stock)
    msg.text(f"Asking {prompts:,} prompts, with stragglers …")
    with serve_answers(answers, STRAGGLING) as url:
        straggling = time_teacher(url, folder, prompts, in_flight)
    msg.text(f"Annotating {prompts:,} texts, then {many:,}, by a quicker server …")
    with serve_answers(answers, QUICK) as url:
        (few_mb, few_seconds), (many_mb, many_seconds) = (
            measure_annotate(url, folder / f"{name}.jsonl", number, in_flight)
            for name, number in (("few", prompts), ("many", many))
        )
    speed, ideal = prompts / seconds, in_flight / USUAL["latency"]
    packages = ("instaner", "openai", "spacy", "spacy-llm")
    return {
        "answers_per_second": speed,
        "ideal_per_second": ideal,
        "share_of_ideal": speed / ideal,
        "stock_answers_per_second": stock / stock_seconds,
        "times_stock": speed / (stock / stock_seconds),
        "straggler_ratio": (straggling - STRAGGLING["slow_seconds"]) / seconds,
        "memory_ratio": many_mb / few_mb,
        "seconds": seconds,
        "stock_seconds": stock_seconds,
        "straggling_seconds": straggling,
        "annotate_mb": few_mb,
        "annotate_many_mb": many_mb,
        "annotate_seconds": few_seconds,
        "annotate_many_seconds": many_seconds,
        "prompts": prompts,
        "many": many,
        "stock": stock,
        "in_flight": in_flight,
        "cpus": os.cpu_count(),
        "load_before": load,
        "servers": {"usual": USUAL, "straggling": STRAGGLING, "annotate": QUICK},
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def print_table(found: dict[str, Any]) -> bool:
    """RETURNS (bool): Whether all targets hold."""
    rows, missed = [], 0
    for name, figure in found.items():
        if isinstance(figure, (int, float)):
            least, most = AT_LEAST.get(name, figure), AT_MOST.get(name, figure)
            target = f">= {least}" if name in AT_LEAST else ""
            target = f"<= {most}" if name in AT_MOST else target
            mark = "" if least <= figure <= most else "MISSED"
            missed += bool(mark)
            shown = f"{figure:,}" if isinstance(figure, int) else f"{figure:,.3f}"
            rows.append((name, shown, target, mark))
    header, aligns = ("measure", "found", "target", ""), ("l", "r", "l", "l")
    msg.table(rows, header=header, aligns=aligns, divider=True)
    for name, times in found["servers"].items():
        values = (f"{key} {value:g}" for key, value in times.items())
        msg.text(f"Server of {name}: {', '.join(values)}")
    return not missed


@one_line_errors
def main(
    output: Path | None = typer.Option(None, "--json", help="File for the figures"),
    prompts: int = typer.Option(2_000, help="Prompts to ask, and texts to annotate"),
    many: int = typer.Option(20_000, help="Texts to compare the memory with"),
    stock: int = typer.Option(50, help="Prompts to ask by stock spacy-llm"),
    in_flight: int = typer.Option(64, help="Most requests at a time"),
) -> None:
    """Measure how fast a teacher is asked, against stock spacy-llm."""
    if not 1 <= stock <= prompts < many <= MOST:
        raise InstaNERError(
            f"--stock {stock}, --prompts {prompts} and --many {many} have to go up, "
            f"from 1 to at most {MOST:,}."
        )
    if not 1 <= in_flight <= 1000:
        raise InstaNERError(f"--in-flight has to be 1 to 1000, found {in_flight}.")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise InstaNERError(f"--json {output} cannot be written. Check the path.")
    output = output and output.resolve()
    os.chdir(ROOT)
    local = "127.0.0.1"  # no proxy is asked for it
    os.environ.update(OPENAI_API_KEY="none", NO_PROXY=local, no_proxy=local)
    sizes = {"prompts": prompts, "many": many, "stock": stock, "in_flight": in_flight}
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), **sizes)
    if output is not None:
        with write_whole(output) as part:
            srsly.write_json(part, found)
    if not print_table(found):
        msg.fail("A target is missed.", exits=1)


if __name__ == "__main__":
    typer.run(main)
