"""Draw docs/run.svg for the README: the comparison of the last run, and the student at
work, as the commands print them."""

import io
import re
import subprocess
import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from instaner.files import write_whole

METRICS = "training/metrics"
TEXT = "I sear tofu in a wok for pad thai with fish sauce."


def run(*args: str, stdin: str = "") -> str:
    """RETURNS (str): What a command of ours prints."""
    command = [sys.executable, "-m", "instaner", *args]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=True
    )
    return done.stdout.strip("\n")


def main(output: Path = Path("docs/run.svg")) -> None:
    """Draw the picture."""
    names = ("teacher", "student", "student_cnn")
    systems = [f"{name}={METRICS}/{name}.json" for name in names]
    table = run("evaluate", *systems, "--gold", "corpus/test.spacy")
    console = Console(record=True, width=84, file=io.StringIO())
    console.print(Text("$ make run", style="bold"))
    console.print(Text("…"))
    console.print(Text(table))
    console.print(Text(f'\n$ echo "{TEXT}" | instaner try', style="bold"))
    console.print(Text(run("try", stdin=TEXT)))
    with write_whole(output) as part:
        svg = console.export_svg(title="InstaNER")
        # Fonts are the reader's own: the picture fetches nothing.
        part.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), "utf8")


if __name__ == "__main__":
    typer.run(main)
