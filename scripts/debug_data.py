"""Run `spacy debug data`, show what it prints, and keep it in a file: Weasel runs a
command without outputs again each time."""

import subprocess
import sys
import tempfile
from pathlib import Path

import typer
from wasabi import msg

from instaner.files import write_whole


def debug_data(config: Path, train: Path, dev: Path, output: Path) -> None:
    """Look for problems in corpora."""
    spacy = [sys.executable, "-m", "spacy"]
    with tempfile.TemporaryDirectory() as folder:
        filled = f"{folder}/config.cfg"  # it wants every default written out
        fill = [*spacy, "init", "fill-config", str(config), filled]
        subprocess.run(fill, check=True, capture_output=True)
        command = [*spacy, "debug", "data", filled, "--no-format"]
        command += ["--paths.train", str(train), "--paths.dev", str(dev)]
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
