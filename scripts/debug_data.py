"""Run `spacy debug data`, show what it prints, and keep it in a file: Weasel runs a
command without outputs again each time."""

import subprocess
import sys
from pathlib import Path

import typer
from wasabi import msg

from instaner.files import write_whole


def debug_data(config: Path, train: Path, dev: Path, output: Path) -> None:
    """Look for problems in corpora."""
    command = [sys.executable, "-m", "spacy", "debug", "data", str(config)]
    command += ["--paths.train", str(train), "--paths.dev", str(dev), "--no-format"]
    result = subprocess.run(command, capture_output=True, text=True)
    sys.stdout.write(result.stdout)
    if not result.stdout:
        msg.fail(f"spacy debug data failed: {result.stderr.strip()[-500:]}", exits=1)
    with write_whole(output) as part:
        part.write_text(result.stdout, "utf8")
    if result.returncode:
        # Few examples are an error to it, but no reason not to try.
        msg.warn(f"spacy debug data found problems: see {output}")


if __name__ == "__main__":
    typer.run(debug_data)
