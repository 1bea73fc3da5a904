"""From a config, a folder or a package name to a pipeline."""

import re
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from catalogue import RegistryError
from spacy import blank, util
from spacy.language import Language
from spacy_llm.pipeline.llm import LLMWrapper
from spacy_llm.tasks.textcat import TextCatTask
from spacy_llm.ty import supports_sharding
from thinc.api import Config, ConfigValidationError

from .errors import InstaNERError
from .targets import ENTS, Target
from .tasks.adopting import adopt

LLM_FACTORY = "llm"

_EMPTY_ANSWERS = ("", "{}", "[]", "No entities")
_LONGEST = 400  # characters of another library's message

# Language code to the packages that spaCy's tokenizer for it needs, as pip names them.
_TOKENIZER_NEEDS = {
    "ja": ["sudachipy", "sudachidict_core"],
    "ko": ["natto-py"],
    "th": ["pythainlp"],
    "vi": ["pyvi"],
}
_MODULES = {"natto-py": "natto"}  # where it is not named as the package


def read_config(source: str, *, overrides: dict[str, Any] | None = None) -> Config:
    """Read the config of a pipeline, without making the pipeline.

    source (str): Path of a config file, of a saved pipeline's folder, or the name of
        an installed pipeline package.
    overrides (Optional[Dict[str, Any]]): Values by dotted name.
    RETURNS (Config): The config, with its variables in place.
    RAISES (InstaNERError): If there is none, or it is broken.
    """
    return _read_config(source, overrides or {}).interpolate()


def get_llm_names(config: Config) -> list[str]:
    """RETURNS (List[str]): Names of the pipeline's llm components, in order."""
    components = config.get("components", {})
    return [
        name
        for name in config.get("nlp", {}).get("pipeline", [])
        if components.get(name, {}).get("factory") == LLM_FACTORY
    ]


def get_llms(nlp: Language) -> list[tuple[str, LLMWrapper]]:
    """RETURNS (List[Tuple[str, LLMWrapper]]): The llm components, in order."""
    return [(name, p) for name, p in nlp.pipeline if isinstance(p, LLMWrapper)]


def get_target(task: Any, nlp: Language) -> Target | None:
    """Find out what a task annotates: its answers are spacy-llm's for categories, or it
    is given empty answers, and a label, to read.

    task (Any): Task of an llm component.
    nlp (Language): Pipeline whose tokenizer is used.
    RETURNS (Optional[Target]): What; entities also for a task that has labels and reads
        none of the answers. None: neither entities nor categories.
    """
    labels = tuple(map(str, getattr(task, "labels", ())))
    # Of one category, a text has it or not.
    exclusive = bool(getattr(task, "exclusive_classes", False)) and len(labels) > 1
    cats = Target("cats", labels, exclusive)
    if isinstance(task, TextCatTask):
        return cats
    answers = (*_EMPTY_ANSWERS, *labels[:1])
    failed = 0
    for answer in answers:
        doc = nlp.make_doc("A text without entities.")
        docs: Any = [[doc]] if supports_sharding(task) else [doc]
        try:
            (read,) = task.parse_responses(docs, [[answer]])
        except Exception:  # whatever a task of one's own raises
            failed += 1
            continue
        if read.has_annotation("ENT_IOB"):
            return ENTS
        if read.cats:
            return cats
    return ENTS if failed == len(answers) and labels else None


def find_attrs(nlp: Language) -> set[str]:
    """RETURNS (Set[str]): What a pipeline's components set, or say that they do:
    "ents", "cats", both or neither (see targets.Target).
    """
    targets = [get_target(llm.task, nlp) for _, llm in get_llms(nlp)]
    assigned = {a for name in nlp.pipe_names for a in nlp.get_pipe_meta(name).assigns}
    attrs = {attr for attr in ("ents", "cats") if f"doc.{attr}" in assigned}
    return attrs | {target.attr for target in targets if target is not None}


def make_blank(lang: str) -> Language:
    """Make a pipeline that is a tokenizer only, as `spacy.blank` does.

    lang (str): Language code, for example "en", or "xx" for any language.
    RETURNS (Language): The pipeline.
    RAISES (InstaNERError): If spaCy does not know the language, or its tokenizer needs
        what is missing.
    """
    try:
        nlp = blank(lang)
        nlp.make_doc(lang)
    except ImportError as err:
        raise InstaNERError(explain_import_error(err, lang)) from err
    except Exception as err:  # whatever a tokenizer raises that lacks a library
        raise InstaNERError(
            f'The tokenizer of the language "{lang}" does not work: {one_line(err)}'
        ) from err
    return nlp


def load_pipeline(
    source: str,
    *,
    overrides: dict[str, Any] | None = None,
    exclude: Iterable[str] = (),
) -> Language:
    """Load a saved pipeline, or assemble one from a config as `spacy assemble` does.

    source (str): Path of a config file, of a saved pipeline's folder, or the name of
        an installed pipeline package.
    overrides (Optional[Dict[str, Any]]): Config values by dotted name.
    exclude (Iterable[str]): Components that are not made at all.
    RETURNS (Language): The pipeline.
    RAISES (InstaNERError): If it cannot be loaded.
    """
    config = _read_config(source, overrides or {})
    path = _find(source)
    try:
        with warnings.catch_warnings():
            # Texts are only split where a context length is set; that is no news.
            warnings.filterwarnings("ignore", message="Task supports sharding")
            # spacy-llm would leave such examples out.
            warnings.filterwarnings("error", message="Examples contain labels")
            if path.is_dir():
                return util.load_model(
                    path, exclude=list(exclude), config=overrides or {}
                )
            nlp = util.load_model_from_config(
                config, auto_fill=True, exclude=list(exclude)
            )
            nlp._link_components()
            sourced = util.get_sourced_components(config.interpolate())
            with nlp.select_pipes(disable=list(sourced)):
                nlp.initialize()
            return nlp
    except InstaNERError:
        raise
    except ImportError as err:
        lang = config.interpolate().get("nlp", {}).get("lang", "")
        reason = explain_import_error(err, lang)
        raise InstaNERError(f"{source} cannot be loaded: {reason}") from err
    except (
        ConfigValidationError,
        OSError,
        RegistryError,
        UserWarning,
        ValueError,
    ) as err:
        raise InstaNERError(f"{source} cannot be loaded: {one_line(err)}") from err


def load_teacher(
    source: str, *, overrides: dict[str, Any] | None = None, llm: str | None = None
) -> Language:
    """Load a pipeline with one or more llm components. Their answers are read by us
    where they are of the NER v3 or the TextCat prompt; see tasks.adopting.

    source (str): As for load_pipeline.
    overrides (Optional[Dict[str, Any]]): Config values by dotted name.
    llm (Optional[str]): Name of the model to ask instead of the config's.
    RETURNS (Language): The pipeline.
    RAISES (InstaNERError): If it cannot be loaded, has no llm component, or none whose
        model has a name.
    """
    config = read_config(source, overrides=overrides)
    names = get_llm_names(config)
    if not names:
        raise InstaNERError(
            f"{source} has no llm component, so it is no teacher. Add one, or give "
            "another config."
        )
    values = dict(overrides or {})
    if llm:
        models = {n: config["components"][n].get("model", {}) for n in names}
        named = [n for n, model in models.items() if "name" in model]
        if not named:
            raise InstaNERError(
                f"The model cannot be set to {llm}: no llm component of {source} has a "
                "model with a name. A recording has none; take a live teacher "
                "(configs/teacher_live.cfg)."
            )
        values.update({f"components.{n}.model.name": llm for n in named})
    nlp = load_pipeline(source, overrides=values)
    llms = get_llms(nlp)
    if not llms:
        raise InstaNERError(
            f"All llm components of {source} are disabled. Enable one in its config."
        )
    for _, component in llms:
        adopt(component.task)
    return nlp


def explain_import_error(err: ImportError, lang: str) -> str:
    """Say in one line what to do, where a pipeline cannot be made.

    err (ImportError): What spaCy raised.
    lang (str): Code of the pipeline's language.
    RETURNS (str): What to install for the language's tokenizer, or that there is no
        such language, or another error's own message.
    """
    needs = _TOKENIZER_NEEDS.get(lang, [])
    if not all(find_spec(_MODULES.get(name, name)) for name in needs):
        return (
            f'The tokenizer of the language "{lang}" needs more packages: pip install '
            f"{' '.join(needs)}."
        )
    if "[E048]" in str(err):
        return (
            f'spaCy does not know the language "{lang}". Give a code of '
            'https://spacy.io/usage/models#languages, or "xx" for any language.'
        )
    return one_line(err)


def find_config(source: str) -> Path:
    """Find the config file of a pipeline.

    source (str): Path of a config file, of a saved pipeline's folder, or the name of
        an installed pipeline package.
    RETURNS (Path): The file.
    RAISES (InstaNERError): If there is none.
    """
    path = _find(source)
    config_path = path / "config.cfg" if path.is_dir() else path
    if not config_path.is_file():
        raise InstaNERError(
            f"{source} is no spaCy pipeline: {config_path} is missing. Give a config "
            "file, the folder of a saved pipeline, or the name of an installed one."
        )
    return config_path


def _read_config(source: str, overrides: dict[str, Any]) -> Config:
    config_path = find_config(source)
    try:
        config = util.load_config(config_path, overrides=overrides, interpolate=False)
        config.interpolate()
    except (ValueError, ConfigValidationError) as err:
        raise InstaNERError(f"{config_path}: {one_line(err)}") from err
    return config


def _find(source: str) -> Path:
    if util.is_package(source):
        try:
            package = Path(util.get_package_path(source))
        except ImportError:  # a package whose module has another name
            package = Path()
        for config_path in package.glob(f"{source}-*/config.cfg"):
            return config_path.parent
    path = Path(source)
    if not path.exists():
        raise InstaNERError(
            f"{source} not found: there is no such file, folder or installed package."
        )
    return path


def hide_login(text: str) -> str:
    """RETURNS (str): A text without the names and passwords in its addresses."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def one_line(err: BaseException) -> str:
    """RETURNS (str): Another library's message in one line, cut where it is long, and
    without the passwords of addresses.
    """
    line = hide_login(" ".join(str(err).split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
