"""Measure how fast near copies are found among many texts:

    python scripts/bench_near.py --json bench.json

It takes a minute or two. The exit code is 1 if a target is missed."""

import os
import platform
import random
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import srsly
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instaner.cli._util import msg, one_line_errors
from instaner.errors import InstaNERError
from instaner.files import write_whole
from instaner.measure import get_peak_memory
from instaner.near import NEAR, NearFinder, normalise

AT_LEAST = {"recall": 0.97}
AT_MOST = {"seconds": 120, "peak_mb": 1024, "false": 0}

PLANTED = {"varied": 0.2, "copies": 0.5, "templates": 0.2}  # shares of near copies
PARTS = (
    "ba cor den fi gra hul ism jo kel lum mi nor os pra qui ras ste tu ven wil".split()
)
TEMPLATES = (
    "Please put the {} on the table by the {}, then bring the {} back to the {}.",
    "I always take a {} for my {} when there is no {} left in the {} of {}.",
    "Nothing beats a {} with some {} and {} on a rainy day in {} or {}.",
)


def get_jaccard(one: str, other: str) -> float:
    """RETURNS (float): Jaccard index of two texts, as the definition has it."""
    ours, theirs = (
        {text[i : i + 5] for i in range(max(1, len(text) - 4))}
        for text in map(normalise, (one, other))
    )
    return len(ours & theirs) / len(ours | theirs)


def make_texts(kind: str, n: int, seed: int) -> tuple[list[str], dict[int, int]]:
    """RETURNS (Tuple[List[str], Dict[int, int]]): Texts of about 100 characters, and
    the places of near copies, each with that of its original: for "copies", the first.
    """
    rng = random.Random(seed)
    words = ["".join(rng.choices(PARTS, k=rng.randint(1, 4))) for _ in range(3000)]
    texts: list[str] = []
    originals: list[int] = []
    planted: dict[int, int] = {}
    while len(texts) < n:
        if texts and rng.random() < PLANTED[kind]:
            original = 0 if kind == "copies" else rng.choice(originals)
            edited = texts[original].split()
            for place in rng.sample(range(len(edited)), rng.randint(1, 2)):
                edited[place] = rng.choice(words)
            text = " ".join(edited)
            if get_jaccard(texts[original], text) < NEAR:
                continue
            planted[len(texts)] = original
        else:
            slots = rng.choice(TEMPLATES) if kind == "templates" else 14 * "{} "
            text = slots.format(*rng.choices(words, k=slots.count("{}")))
            originals.append(len(texts))
        texts.append(text)
    return texts, planted


def measure(kind: str, n: int, seed: int) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): All that was measured."""
    texts, planted = make_texts(kind, n, seed)
    finder = NearFinder()
    found: dict[int, int] = {}
    load = os.getloadavg()[0]
    start, start_cpu = time.perf_counter(), time.process_time()
    for number, text in enumerate(texts):
        near = finder.find(text)
        if near is None:
            finder.add(str(number), text)
        else:
            found[number] = int(near)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    peak = (get_peak_memory() or 0) / 1e6
    # An original that is by chance near another text is left out, its copies are not.
    sought = {copy for copy, original in planted.items() if original not in found}
    return {
        "recall": len(sought & set(found)) / max(1, len(sought)),
        "false": sum(
            get_jaccard(texts[one], texts[other]) < NEAR for one, other in found.items()
        ),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak,
        "texts": n,
        "planted": len(sought),
        "planted_found": len(sought & set(found)),
        "found": len(found),
        "seed": seed,
        "cpus": os.cpu_count(),
        "load_before": load,
        "kind": kind,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": version("numpy"),
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
    return not missed


@one_line_errors
def main(
    output: Path | None = typer.Option(None, "--json", help="File for the figures"),
    n: int = typer.Option(100_000, "--n", help="Texts"),
    kind: str = typer.Option("varied", help=f"Texts: {', '.join(PLANTED)}"),
    seed: int = typer.Option(0, help="Decides on the texts"),
) -> None:
    """Measure how near copies are found."""
    if n < 1 or kind not in PLANTED:
        raise InstaNERError(
            f"--n {n} has to be 1 or more, and --kind {kind} one of "
            f"{', '.join(PLANTED)}."
        )
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise InstaNERError(f"--json {output} cannot be written. Check the path.")
    found = measure(kind, n, seed)
    if output is not None:
        with write_whole(output) as part:
            srsly.write_json(part, found)
    if not print_table(found):
        msg.fail("A target is missed.", exits=1)


if __name__ == "__main__":
    typer.run(main)
