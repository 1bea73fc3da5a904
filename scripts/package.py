"""Package a trained pipeline as a wheel, with its model card, scores and licence."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import srsly
import typer
from spacy.cli.package import package
from wasabi import msg

from instaner.cli._util import one_line_errors
from instaner.errors import InstaNERError
from instaner.files import check_exists, write_whole
from instaner.record import read_record
from instaner.report.card import make_body, make_card, make_performance


@one_line_errors
def main(
    model: Path,
    output: Path,
    name: str = typer.Option(...),
    version: str = typer.Option(...),
    description: str = typer.Option(""),
    license: str = typer.Option(""),
    comparison: Path | None = typer.Option(
        None, help="Scores of all systems; without, the card has none"
    ),
    student: str | None = typer.Option(
        None, help="The model's name in it, if it is not that of the model's folder"
    ),
    record: Path | None = typer.Option(None, help="The record of the run"),
) -> None:
    """Package a trained pipeline as a wheel."""
    check_exists(model / "meta.json", "Model")
    meta = srsly.read_json(model / "meta.json")
    meta.update(description=description, license=license)
    scores = _read_scores(comparison, student or model.resolve().parent.name)
    if scores:
        kept = meta.get("performance") or {}
        attr = (scores.get("gold") or {}).get("attr", "ents")
        kept = {key: kept[key] for key in kept if not key.startswith(f"{attr}_")}
        meta["performance"] = {**kept, **make_performance(scores)}
    run = None if record is None else read_record(record)
    with (
        tempfile.TemporaryDirectory() as folder,
        write_whole(output, holds=[f"*_{name}-*"]) as part,
    ):
        meta_path = Path(folder) / "meta.json"
        srsly.write_json(meta_path, meta)
        part.mkdir(parents=True)
        package(
            model,
            part,
            meta_path=meta_path,
            name=name,
            version=version,
            create_wheel=False,
            create_sdist=False,
            force=True,
        )
        (made,) = part.iterdir()
        final = srsly.read_json(made / "meta.json")
        (made / "README.md").write_text(make_card(final, scores, run), "utf8")
        # To this one, spacy-huggingface-hub adds the metadata.
        (inner,) = made.glob("*/*/README.md")
        inner.write_text(make_body(final, scores, run), "utf8")
        _build(made)
    for wheel in sorted(output.glob("*/dist/*.whl")):
        msg.good(f"pip install {wheel}")


def _read_scores(path: Path | None, student: str) -> dict[str, Any]:
    if path is None:
        return {}
    check_exists(path, "Comparison")
    try:
        comparison = dict(srsly.read_json(path))
        systems = list(comparison["systems"])
    except (KeyError, TypeError, ValueError) as err:
        raise InstaNERError(f"{path} is no comparison. Evaluate anew.") from err
    if student not in systems:
        raise InstaNERError(
            f'{path} has no scores of "{student}", but of {", ".join(systems)}. Name '
            "one of them with --student."
        )
    return {**comparison, "student": student}


def _build(folder: Path) -> None:
    # Without isolation, nothing is downloaded.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        lines = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        raise InstaNERError(
            f"The wheel cannot be built: {lines[-1] if lines else 'no reason given'}. "
            "Install what builds it: pip install build setuptools"
        )


if __name__ == "__main__":
    typer.run(main)
