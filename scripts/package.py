"""Package a trained pipeline as a wheel, with its description and licence."""

import tempfile
from pathlib import Path

import srsly
import typer
from spacy.cli.package import package
from wasabi import msg

from instaner.cli._util import one_line_errors
from instaner.files import check_exists, write_whole


@one_line_errors
def main(
    model: Path,
    output: Path,
    name: str = typer.Option(...),
    version: str = typer.Option(...),
    description: str = typer.Option(""),
    license: str = typer.Option(""),
) -> None:
    """Package a trained pipeline as a wheel."""
    check_exists(model / "meta.json", "Model")
    meta = srsly.read_json(model / "meta.json")
    meta.update(description=description, license=license)
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
            create_wheel=True,
            create_sdist=False,
            force=True,
        )
    for wheel in sorted(output.glob("*/dist/*.whl")):
        msg.good(f"pip install {wheel}")


if __name__ == "__main__":
    typer.run(main)
