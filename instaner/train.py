"""Training a student: spaCy's own loop, with the encoder found first."""

import sys
from pathlib import Path
from typing import IO, Any

from spacy import util
from spacy.language import Language
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as train_nlp
from spacy.vocab import Vocab
from thinc.api import Config, ConfigValidationError

from .corpus import read_docs
from .encoders import find_encoder, get_encoder
from .errors import InstaNERError
from .files import write_whole
from .pipeline import explain_import_error, one_line, read_config

_TRANSFORMERS = "spacy-transformers."


def train(
    config_path: Path,
    output: Path,
    *,
    overrides: dict[str, Any] | None = None,
    gpu_id: int = -1,
    progress: bool = False,
    log: IO[str] = sys.stdout,
) -> Language:
    """Train a student as `spacy train` does. Before that, its encoder is found (see
    encoders.find_encoder; where the config names none, it is the one of its language),
    and on a GPU mixed precision is switched on.

    config_path (Path): Training config.
    output (Path): Folder for model-best and model-last.
    overrides (Optional[Dict[str, Any]]): Config values by dotted name.
    gpu_id (int): GPU to train on, or -1 for the CPU.
    progress (bool): Show a progress bar, where the config's logger has one.
    log (IO[str]): Where scores are printed while it trains.
    RETURNS (Language): The last student; the best one is in model-best.
    RAISES (InstaNERError): On a broken config, an empty corpus, or an encoder that
        cannot be found.
    """
    values = dict(overrides or {})
    config = read_config(str(config_path), overrides=values)
    for name in ("train", "dev"):
        _check_corpus(config.get("paths", {}).get(name), name, config_path)
    lang = config.get("nlp", {}).get("lang") or "xx"
    values.update(_get_encoder_values(config, lang, gpu_id))
    if progress and "progress_bar" in config.get("training", {}).get("logger", {}):
        values["training.logger.progress_bar"] = "train"
    config = util.load_config(config_path, overrides=values, interpolate=False)
    with write_whole(output, holds=["model-best", "model-last"]) as part:
        part.mkdir()
        try:
            nlp = init_nlp(config, use_gpu=gpu_id)
        except ImportError as err:
            reason = explain_import_error(err, lang)
            raise InstaNERError(f"{config_path}: {reason}") from err
        except (ConfigValidationError, OSError, ValueError) as err:
            raise InstaNERError(f"{config_path}: {one_line(err)}") from err
        nlp, _ = train_nlp(nlp, part, use_gpu=gpu_id, stdout=log)
    return nlp


def _hush_transformers() -> None:
    """Say nothing of weights that are not used: a config can leave out layers."""
    try:
        from transformers.utils import logging
    except ImportError:
        return
    logging.set_verbosity_error()


def _check_corpus(path: str | None, name: str, config_path: Path) -> None:
    if not path:
        raise InstaNERError(f"{config_path} has no {name} corpus: set --paths.{name}.")
    if not any(len(doc) for doc in read_docs(Path(path), Vocab())):
        raise InstaNERError(f"The corpus {path} is empty. Annotate texts first.")


def _get_encoder_values(config: Config, lang: str, gpu_id: int) -> dict[str, Any]:
    """Settings of every transformer in a config, by dotted name."""
    values: dict[str, Any] = {}

    def walk(block: Any, where: str) -> None:
        if not isinstance(block, dict):
            return
        if str(block.get("@architectures", "")).startswith(_TRANSFORMERS):
            _hush_transformers()
            if "name" in block:
                name = block["name"] or get_encoder(lang).name
                values[f"{where}.name"] = find_encoder(str(name))
            if "mixed_precision" in block:
                # thinc scales gradients on CUDA alone, and fails elsewhere.
                values[f"{where}.mixed_precision"] = gpu_id >= 0
        for key, value in block.items():
            walk(value, f"{where}.{key}")

    walk(config.get("components", {}), "components")
    return values
