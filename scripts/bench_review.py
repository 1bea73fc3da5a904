"""Measure how fast the review page is, in Chromium, on a large corpus:

    python scripts/bench_review.py --json bench.json

The page is opened while the corpus is still being read, and again when all is read. It
takes a few minutes. The exit code is 1 if a target is missed."""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import spacy
import srsly
import typer
from playwright.sync_api import Page, expect, sync_playwright
from spacy.tokens import Doc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instaner.cli._util import msg, one_line_errors
from instaner.corpus import PROVENANCE, write_shards
from instaner.errors import InstaNERError
from instaner.files import write_meta, write_whole
from instaner.targets import ENTS

AT_MOST = {
    "open_while_read_seconds": 3.0,
    "open_seconds": 3.0,
    "next_seconds_p95": 0.2,
    "peak_mb": 1024.0,
}
DISPUTED = 0.1  # share of the texts
WORDS = "the a with and for in my our old small big good hot cold fresh green".split()
VOTERS = ("llm/0", "llm/1")
LABELS = ("DISH", "INGREDIENT", "EQUIPMENT")

_GET_STAGE = """() => fetch("/api/progress?reviewer=x").then(
    (reply) => reply.json()).then((found) => found.state.stage)"""
_ACCEPT = """() => new Promise((done) => {
    const start = performance.now();
    const shown = new MutationObserver(() => {
        shown.disconnect();
        requestAnimationFrame(() => done(performance.now() - start));
    });
    shown.observe(document.getElementById("why"), {childList: true});
    const key = new KeyboardEvent("keydown", {key: "a", bubbles: true});
    document.body.dispatchEvent(key);
})"""


def make_docs(n: int, seed: int) -> Iterator[Doc]:
    """YIELDS (Doc): Annotated texts of 20 to 60 words."""
    nlp = spacy.blank("en")
    rng = random.Random(seed)
    for number in range(n):
        words = [f"Text{number}", *rng.choices(WORDS, k=rng.randint(20, 60))]
        doc = Doc(nlp.vocab, words=words)
        rows, ents = [], []
        for first in range(1, len(doc) - 2, 8):
            ent = doc.char_span(
                doc[first].idx,
                doc[first + 1].idx + len(doc[first + 1]),
                label=rng.choice(LABELS),
            )
            disputed = rng.random() < DISPUTED
            ents += [] if disputed else [ent]
            rows.append(
                {
                    "start": ent.start_char,
                    "end": ent.end_char,
                    "label": ent.label_,
                    "votes": dict.fromkeys(VOTERS[: 2 - disputed], "exact"),
                    "standing": "disputed" if disputed else "trusted",
                    "score": 0.5 if disputed else 1.0,
                    "dispute": "existence" if disputed else None,
                    "reasons": {"llm/0": "is named in the text"},
                }
            )
        doc.set_ents(ents)
        doc.user_data[PROVENANCE] = {"id": f"t{number}", "spans": rows}
        yield doc


def open_page(page: Page, address: str) -> float:
    """RETURNS (float): Seconds until a text is shown."""
    start = time.perf_counter()
    page.goto(address)
    expect(page.locator("#work")).to_be_visible(timeout=60_000)
    return time.perf_counter() - start


def accept(page: Page) -> float:
    """RETURNS (float): Seconds from the key to the next text."""
    return float(page.evaluate(_ACCEPT)) / 1000


def measure(folder: Path, n: int, decisions: int, seed: int) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): All that was measured."""
    write_shards(make_docs(n, seed), folder / "annotated")
    write_meta(folder / "annotated", texts=n, target=ENTS._asdict())
    load = os.getloadavg()[0]
    start = time.perf_counter()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "instaner", "review", str(folder / "annotated")),
            *("--port", "0", "--suspects", "0"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = iter(server.stdout.readline, "") if server.stdout else iter(())
    address = next(line for line in lines if "http://" in line).split()[-1]
    found: dict[str, Any] = {"start_seconds": time.perf_counter() - start}
    process, peak = psutil.Process(server.pid), 0.0

    def get_memory() -> float:
        family = [process, *process.children(recursive=True)]
        return sum(p.memory_info().rss for p in family if p.is_running()) / 1e6

    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page()
            found["first_text_seconds"] = open_page(page, address)
            found["open_while_read_seconds"] = open_page(page, address)
            while page.evaluate(_GET_STAGE) != "done":
                peak = max(peak, get_memory())
                time.sleep(1)
            found["read_seconds"] = time.perf_counter() - start
            found["open_seconds"] = open_page(page, address)
            times = sorted(accept(page) for _ in range(decisions))
            found["next_seconds_median"] = statistics.median(times)
            found["next_seconds_p95"] = times[int(0.95 * len(times))]
            found["next_seconds_max"] = times[-1]
            peak = max(peak, get_memory())
            browser.close()
    finally:
        server.terminate()
        server.wait()
    found.update(peak_mb=peak, texts=n, decisions=decisions)
    return {**found, "load_before": load, "cpus": os.cpu_count()}


@one_line_errors
def main(
    output: Path | None = typer.Option(None, "--json", help="File for the figures"),
    n: int = typer.Option(100_000, "--n", min=1, help="Texts"),
    decisions: int = typer.Option(200, min=1, help="Decisions that are timed"),
    seed: int = typer.Option(0, help="Decides on the texts"),
) -> None:
    """Measure how fast the review page is."""
    if shutil.which("chromium") is None:
        raise InstaNERError("Chromium is needed, as `chromium` on the path.")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise InstaNERError(f"--json {output} cannot be written. Check the path.")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), n, decisions, seed)
    if output is not None:
        with write_whole(output) as part:
            srsly.write_json(part, found)
    missed = [name for name, most in AT_MOST.items() if found[name] > most]
    rows = [
        (
            name,
            f"{figure:,.3f}" if isinstance(figure, float) else f"{figure:,}",
            f"<= {AT_MOST[name]:g}" if name in AT_MOST else "",
            "MISSED" if name in missed else "",
        )
        for name, figure in found.items()
    ]
    msg.table(rows, header=("measure", "found", "target", ""), divider=True)
    if missed:
        msg.fail("A target is missed.", exits=1)


if __name__ == "__main__":
    typer.run(main)
