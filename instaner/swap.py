"""The trained component in the llm component's place, with the contract checked."""

import warnings
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from spacy import util
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy_llm.registry import registry
from thinc.api import Config

from .errors import InstaNERError
from .files import write_whole
from .pipeline import get_llm_names, get_target, load_pipeline, read_config
from .targets import Target

# What is annotated, and factories of trained components that set it.
_ENTS = ("entities", ["ner", "beam_ner"])
_ONE = ("one category a text", ["textcat"])
_SEVERAL = ("categories, of which a text can have several", ["textcat_multilabel"])

_Output = dict[Any, float]  # of entities, or categories, their scores

_NEAR = 0.001  # scores of a text alone and of one among others differ in rounding


class Contract(NamedTuple):
    """What a swap changes, and what it does not.

    replaced (str): Name of the llm component.
    name (str): Name of the trained component in its place.
    pipeline (List[str]): Components of the result, in order.
    missing (List[str]): Labels of the llm component that the student does not know.
    extra (List[str]): Labels of the student that the llm component did not set.
    same_tokenizer (bool): Whether pipeline and student split texts alike.
    attr (str): What both set: "ents" or "cats".
    set_before (List[str]): Components before it that set them too: the student keeps
        theirs, the llm component overwrote them.
    compared (List[str]): Other components, whose output is the same before and after.
    texts (int): Texts that were compared.
    same_output (int): Texts in which the student finds what it finds on its own.
    """

    replaced: str
    name: str
    pipeline: list[str]
    missing: list[str]
    extra: list[str]
    same_tokenizer: bool
    attr: str
    set_before: list[str]
    compared: list[str]
    texts: int
    same_output: int


def swap(
    pipeline: str,
    student: str,
    output: Path,
    *,
    keep_name: bool = False,
    texts: Iterable[str] | None = None,
) -> Contract:
    """Write a pipeline in which a trained component stands where the llm component
    stood. The llm component is never made, so no key is read and no request sent.

    pipeline (str): Config, folder or package of a pipeline with one llm component that
        sets entities, or categories.
    student (str): Folder or package of a pipeline with one trained component that sets
        the same: ner, textcat (a text has one category) or textcat_multilabel.
    output (Path): Folder for the result.
    keep_name (bool): Give the trained component the llm component's name.
    texts (Optional[Iterable[str]]): Texts to compare the other components on. None:
        spaCy's example sentences of the language.
    RETURNS (Contract): What was checked and found.
    RAISES (InstaNERError): If the contract is broken; nothing is written then.
    """
    if output.exists() and not (output / "config.cfg").is_file():
        raise InstaNERError(
            f"{output} exists and is no spaCy pipeline. Give a new folder."
        )
    if any(output.resolve() == Path(path).resolve() for path in (pipeline, student)):
        raise InstaNERError(f"{output} is what is read. Give another output.")
    config = read_config(pipeline)
    llm_name = _get_llm_name(config, pipeline)
    trained = load_pipeline(student)
    base = load_pipeline(pipeline, exclude=[llm_name])
    if base.lang != trained.lang:
        raise InstaNERError(
            f'{pipeline} is for the language "{base.lang}", the student {student} for '
            f'"{trained.lang}". Train a student for "{base.lang}".'
        )
    task = _make_task(config, llm_name)
    target = get_target(task, trained)
    if target is None:
        raise InstaNERError(
            f"The llm component {llm_name} of {pipeline} does not set entities or "
            f"categories ({config['components'][llm_name]['task'].get('@llm_tasks')}), "
            "so no student can take its place."
        )
    trained_name = _get_trained_name(
        trained, target, f"The llm component {llm_name} of {pipeline}", student
    )
    name = llm_name if keep_name else trained_name
    samples = list(_get_examples(str(base.lang)) if texts is None else texts)
    expected = [_get_output(doc, target) for doc in trained.pipe(samples)]
    same_tokenizer = all(
        [token.text for token in base.make_doc(text)]
        == [token.text for token in trained.make_doc(text)]
        for text in samples
    ) and _get_bytes(base) == _get_bytes(trained)
    names = list(config["nlp"]["pipeline"])
    _insert(base, trained, trained_name, name, names, llm_name, pipeline)
    with write_whole(output, holds=["*"]) as part:
        base.to_disk(part)
        result = util.load_model(part)
        before = load_pipeline(pipeline, exclude=[llm_name])
        found, compared = _compare(before, result, name, samples, target)
    labels = set(getattr(task, "labels", ()))
    known = set(result.pipe_labels[name])
    place = result.component_names.index(name)
    return Contract(
        replaced=llm_name,
        name=name,
        pipeline=result.component_names,
        missing=sorted(labels - known),
        extra=sorted(known - labels),
        same_tokenizer=same_tokenizer,
        attr=target.attr,
        set_before=[
            other
            for other in result.component_names[:place]
            if f"doc.{target.attr}" in result.get_pipe_meta(other).assigns
        ],
        compared=compared,
        texts=len(samples),
        same_output=sum(map(_are_near, found, expected)),
    )


def _get_llm_name(config: Config, pipeline: str) -> str:
    names = get_llm_names(config)
    if not names:
        raise InstaNERError(f"{pipeline} has no llm component, so nothing to swap.")
    if len(names) > 1:
        raise InstaNERError(
            f"{pipeline} has {len(names)} llm components ({', '.join(names)}). Keep "
            "the one to swap, and add the others to the result."
        )
    return names[0]


def _get_trained_name(trained: Language, target: Target, llm: str, student: str) -> str:
    """RETURNS (str): Name of the component that sets what the llm component sets."""
    what, factories = _ENTS
    if target.attr == "cats":
        what, factories = _ONE if target.exclusive else _SEVERAL
    names = [
        name
        for name in trained.component_names
        if trained.get_pipe_meta(name).factory in factories
    ]
    if len(names) != 1:
        raise InstaNERError(
            f"{llm} sets {what}, and the student {student} has {len(names)} trained "
            f"{factories[0]} components "
            f"({', '.join(trained.component_names) or 'an empty pipeline'}). Train a "
            f"student with one {factories[0]} component."
        )
    return names[0]


def _make_task(config: Config, llm_name: str) -> Any:
    block = dict(config["components"][llm_name].get("task") or {})
    if block.get("labels") or block.get("label_definitions"):
        block.pop("examples", None)  # for the prompt alone, and their file may be gone
    try:
        return registry.resolve({"task": block})["task"]
    except InstaNERError:
        raise
    except Exception as err:  # whatever a task of one's own raises
        raise InstaNERError(
            f"The task of the llm component {llm_name} cannot be made, so its labels "
            f"are not known: {' '.join(str(err).split())}"
        ) from err


def _get_examples(lang: str) -> list[str]:
    try:
        return list(import_module(f"spacy.lang.{lang}.examples").sentences)
    except ImportError:
        return []


def _get_bytes(nlp: Language) -> bytes | None:
    tokenizer = nlp.tokenizer
    if not hasattr(tokenizer, "to_bytes"):
        return None
    data: bytes = tokenizer.to_bytes(exclude=["vocab"])
    return data


def _insert(
    base: Language,
    trained: Language,
    trained_name: str,
    name: str,
    names: list[str],
    llm_name: str,
    pipeline: str,
) -> None:
    if name in base.component_names:
        raise InstaNERError(
            f'{pipeline} already has a component named "{name}". Use --keep-name, '
            f'which names the trained component "{llm_name}".'
        )
    pipe: Any = trained.get_pipe(trained_name)
    uses_vectors = any(node.name == "static_vectors" for node in pipe.model.walk())
    if uses_vectors and base.vocab.vectors != trained.vocab.vectors:
        raise InstaNERError(
            f"The student uses word vectors that {pipeline} does not have. Train one "
            "without (include_static_vectors = false)."
        )
    _replace_listeners(trained, trained_name)
    behind = names[names.index(llm_name) + 1 :]
    was_disabled = llm_name in base.config["nlp"].get("disabled", [])
    with warnings.catch_warnings():
        # Other vectors matter only where they are used, which was checked.
        warnings.filterwarnings("ignore", message=r"\[W113\]")
        base.add_pipe(
            trained_name,
            source=trained,
            name=name,
            before=behind[0] if behind else None,
        )
    if was_disabled:
        base.disable_pipe(name)
    base.config.get("initialize", {}).get("components", {}).pop(llm_name, None)


def _replace_listeners(nlp: Language, name: str) -> None:
    """Give a component that listens to another its own copy of that one's layers."""
    config = nlp.config.interpolate()["components"][name]
    listeners = [path for path, block in _walk(config) if "upstream" in block]
    nlp._link_components()
    for other, pipe in nlp.pipeline:
        if name in getattr(pipe, "listening_components", []):
            nlp.replace_listeners(other, name, listeners)


def _walk(block: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict]]:
    yield path, block
    for key, value in block.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{path}.{key}".lstrip("."))


def _compare(
    before: Language, after: Language, name: str, texts: list[str], target: Target
) -> tuple[list[_Output], list[str]]:
    """Run both pipelines side by side, one component after the other. Where the llm
    component stood, both docs get what the trained one sets.

    RETURNS (Tuple[List[Dict], List[str]]): What the trained component found, and the
        names of the components that agree.
    RAISES (InstaNERError): If another component's output differs.
    """
    expected = [before.make_doc(text) for text in texts]
    docs = [after.make_doc(text) for text in texts]
    found: list[_Output] = [{} for _ in texts]
    compared = []
    for other, pipe in after.pipeline:
        try:
            docs = [pipe(doc) for doc in docs]
            if other != name:
                expected = [before.get_pipe(other)(doc) for doc in expected]
        except Exception as err:  # whatever a component of one's own raises
            raise InstaNERError(
                f"The component {other} fails on the texts to compare "
                f"({type(err).__name__}: {err}). Nothing was written."
            ) from err
        if other == name:
            found = [_get_output(doc, target) for doc in docs]
            for old, new in zip(expected, docs, strict=True):
                _copy(new, old, target)
            continue
        for old, new in zip(expected, docs, strict=True):
            if not _are_equal(old, new):
                raise InstaNERError(
                    f"The component {other} gives another result after the swap, for "
                    f'the text "{new.text[:60]}". Nothing was written.'
                )
        compared.append(other)
    return found, compared


def _copy(doc: Doc, other: Doc, target: Target) -> None:
    if target.attr == "cats":
        other.cats = dict(doc.cats)
    else:
        other.set_ents([Span(other, e.start, e.end, label=e.label_) for e in doc.ents])


def _are_equal(a: Doc, b: Doc) -> bool:
    if a.tensor.shape != b.tensor.shape or not (a.tensor == b.tensor).all():
        return False
    exclude = ["tensor"]
    try:
        return bool(a.to_bytes(exclude=exclude) == b.to_bytes(exclude=exclude))
    except (TypeError, ValueError):  # user data that cannot be written
        exclude += ["user_data", "user_data_keys", "user_data_values"]
        return bool(a.to_bytes(exclude=exclude) == b.to_bytes(exclude=exclude))


def _get_output(doc: Doc, target: Target) -> _Output:
    if target.attr == "cats":
        return dict(doc.cats)
    return dict.fromkeys(target.get_marks(doc), 1.0)


def _are_near(a: _Output, b: _Output) -> bool:
    return a.keys() == b.keys() and all(abs(a[key] - b[key]) < _NEAR for key in a)
