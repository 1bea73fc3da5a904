import json
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Literal

from spacy.tokens import Doc, Span
from spacy_llm.tasks.ner import NERTask, make_ner_task_v3
from spacy_llm.tasks.ner.task import DEFAULT_NER_TEMPLATE_V3
from spacy_llm.tasks.ner.util import NERCoTExample
from spacy_llm.tasks.util.sharding import make_shard_mapper
from spacy_llm.ty import (
    ExamplesConfigType,
    FewshotExample,
    Scorer,
    ShardMapper,
    ShardReducer,
)

from ..errors import InstaNERError
from .base import (
    Task,
    check_known,
    estimate_tokens,
    get_options,
    keep_readings,
    reduce_shards,
    set_hooks,
)
from .examples import KNNExamples
from .grounding import Reading, ground
from .prompts import make_object, make_response_format
from .reading import read_answer

JSON_TEMPLATE = Path(__file__).with_name("ner_json.jinja").read_text("utf8")

_TEMPLATES = {"lines": DEFAULT_NER_TEMPLATE_V3, "json": JSON_TEMPLATE}


class _Task(Task, NERTask):
    format: Literal["lines", "json"] = "lines"

    def check_example(self, example: Any) -> None:
        _check_example(example, list(self.labels))

    def _is_shown(self, example: Any) -> bool:
        # In lines, an answer without any would be empty, and each is to be one line.
        surfaces = [span.text for span in example.spans]
        fits_lines = surfaces and "\n" not in "".join(surfaces)
        return self.format == "json" or bool(fits_lines)

    def make_response_format(self) -> Dict[str, Any]:
        entity = make_object(
            text={"type": "string"}, label={"type": "string", "enum": list(self.labels)}
        )
        entities = {"type": "array", "items": entity}
        return make_response_format("entities", entities=entities)

    def _get_prompt_data(self, *args: Any) -> Dict[str, Any]:
        return {**super()._get_prompt_data(*args), "to_json": _dump_example}


def _dump_example(example: Any) -> str:
    """The answer that a prompt example stands for. What is no entity is left out."""
    spans = [span for span in example.spans if span.is_entity]
    entities = [{"text": span.text, "label": span.label} for span in spans]
    return json.dumps({"entities": entities}, ensure_ascii=False)


def parse_responses(
    task: NERTask,
    shards: Iterable[Iterable[Doc]],
    responses: Iterable[Iterable[str]],
    **options: Any,
) -> Iterable[Iterable[list[Span]]]:
    """A spacy-llm response parser for NER v3 answers that loses nothing silently.

    task (NERTask): The task.
    shards (Iterable[Iterable[Doc]]): Shards of each doc. What became of each line is
        kept in a shard's user_data[READINGS].
    responses (Iterable[Iterable[str]]): The answer to each shard.
    options (Any): Passed on to ground.
    YIELDS (Iterable[List[Span]]): Spans of each shard of a doc.
    """

    def read(shard: Doc, answer: str) -> tuple[list[Span], list[Reading]]:
        mentions, others = read_answer(task, answer, shard.text)
        spans, readings = ground(shard, mentions, **options)
        return spans, readings + others

    return keep_readings(read, shards, responses)


def take_over(task: NERTask) -> None:
    """Have spacy-llm's own NER v3 task ask and read as instaner.NER.v1 does.

    task (NERTask): The task.
    """
    set_hooks(task, _Task, parse_responses, reduce_shards)


def make_ner_task(
    labels: list[str] | str = [],  # noqa: B006 (as in spacy-llm's registry)
    template: str | None = None,
    label_definitions: dict[str, str] | None = None,
    examples: ExamplesConfigType = None,
    prompt_example_type: type[FewshotExample] | None = None,
    shard_mapper: ShardMapper | None = None,
    shard_reducer: ShardReducer | None = None,
    normalizer: Callable[[str], str] | None = None,
    scorer: Scorer | None = None,
    description: str | None = None,
    format: Literal["lines", "json"] = "lines",
    fuzzy: float | None = None,
) -> NERTask:
    """Registered as instaner.NER.v1: spacy-llm's NER v3 prompt and options, but answers
    are read and grounded by us: nothing is lost silently. There is no alignment_mode
    and no case_sensitive_matching: see tasks.grounding.

    labels (Union[List[str], str]): Labels, as a list or separated by commas. Empty: the
        labels of label_definitions.
    template (Optional[str]): Jinja2 template of the prompt. None: that of the format.
    examples (ExamplesConfigType): Examples for every prompt, or, from
        instaner.KNNExamples.v1, the nearest for each.
    format (Literal["lines", "json"]): What is asked for: lines with a reason each, as
        in NER v3, or JSON that the server is told to hold to a schema. A model that
        does not know response_format answers as it likes. Either is read.
    fuzzy (Optional[float]): How alike a surface and the text have to be, in percent, if
        they are not equal; see tasks.grounding.ground. None: as it is there.
    RETURNS (NERTask): The task. For the other arguments see spacy.NER.v3.
    RAISES (InstaNERError): On no labels, or a label in the definitions or examples that
        is not one of them.
    """
    names, raw_examples = get_options(
        "instaner.NER.v1", labels, label_definitions, examples
    )
    for example in raw_examples:
        _check_example(example, names)
    task = make_ner_task_v3(
        prompt_example_type=prompt_example_type or NERCoTExample,
        labels=names,
        template=template or _TEMPLATES[format],
        label_definitions=label_definitions,
        examples=raw_examples or None,
        shard_mapper=shard_mapper or make_shard_mapper(estimate_tokens),
        normalizer=normalizer,
        scorer=scorer,
        description=description,
    )
    take_over(task)
    task.format = format
    task.neighbours = examples if isinstance(examples, KNNExamples) else None
    if fuzzy is not None:
        task._parse_responses = partial(parse_responses, fuzzy=fuzzy)
    if shard_reducer is not None:
        task._shard_reducer = shard_reducer
    return task


def _check_example(example: Any, names: list[str]) -> None:
    try:
        used = [s["label"] for s in example["spans"] if s["is_entity"]]
    except (KeyError, TypeError) as err:
        raise InstaNERError(
            f"An example has no text and spans as spacy.NER.v3 wants them: "
            f'"{str(example)[:100]}". Mend it.'
        ) from err
    check_known(used, names, f'the example "{example.get("text", "")[:60]}"')
