import sys
import time
from pathlib import Path

import typer

from ..files import write_meta
from ..pipeline import find_config
from ..train import train
from ._util import (
    CODE_HELP,
    Arg,
    Opt,
    get_overrides,
    import_code,
    msg,
    one_line_errors,
    setup_gpu,
)


@one_line_errors
def train_cli(
    ctx: typer.Context,
    config: Path = Arg(..., help="Training config"),
    output: Path = Arg(..., help="Folder for model-best and model-last"),
    gpu_id: int = Opt(-1, "--gpu-id", "-g", help="GPU, or -1 for the CPU"),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Train a student, as `spacy train` does, with its encoder found first: the one of
    --paths.encoder, or else of the config's language."""
    import_code(code)
    setup_gpu(gpu_id)
    start = time.perf_counter()
    overrides = get_overrides(ctx)
    nlp = train(
        config,
        output,
        overrides=overrides,
        gpu_id=gpu_id,
        progress=sys.stdout.isatty(),
    )
    write_meta(
        output,
        config=find_config(str(config)),
        overrides=overrides,
        gpu_id=gpu_id,
        seed=nlp.config.interpolate()["training"]["seed"],
        seconds=round(time.perf_counter() - start, 1),
    )
    msg.good(f"Student: {output / 'model-best'}")
