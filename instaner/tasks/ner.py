import json
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Literal, Tuple

from spacy.tokens import Doc, Span
from spacy.vocab import Vocab
from spacy_llm.tasks.ner import NERTask, make_ner_task_v3
from spacy_llm.tasks.ner.task import DEFAULT_NER_TEMPLATE_V3
from spacy_llm.tasks.ner.util import NERCoTExample
from spacy_llm.tasks.span import parse_responses_cot
from spacy_llm.tasks.util.sharding import make_shard_mapper
from spacy_llm.ty import (
    ExamplesConfigType,
    FewshotExample,
    Scorer,
    ShardMapper,
    ShardReducer,
)
from spacy_llm.util import split_labels

from ..errors import InstaNERError
from .grounding import READINGS, Reading, dump_readings, ground, load_readings
from .prompts import get_constant, mark_constant
from .reading import read_answer

JSON_TEMPLATE = Path(__file__).with_name("ner_json.jinja").read_text("utf8")

_TEMPLATES = {"lines": DEFAULT_NER_TEMPLATE_V3, "json": JSON_TEMPLATE}
_BYTES_PER_TOKEN = 3  # fewer than most languages have, so that no prompt is too long


class _Task(NERTask):
    """spacy-llm's task. Its prompts say which part of them is constant, and what form
    the answers are to have."""

    format: Literal["lines", "json"] = "lines"

    def generate_prompts(
        self, docs: Iterable[Doc], context_length: int | None = None
    ) -> Iterable[Tuple[Iterable[Any], Iterable[Doc]]]:
        samples = [Doc(Vocab(), words=[word]) for word in ("one", "two")]
        (one,), (two,) = (prompts for prompts, _ in super().generate_prompts(samples))
        constant = get_constant(one, two)
        wanted = make_response_format(self.labels) if self.format == "json" else None
        for prompts, shards in super().generate_prompts(docs, context_length):
            marked = mark_constant(prompts, constant, response_format=wanted)
            yield list(marked), shards

    def _get_prompt_data(self, *args: Any) -> Dict[str, Any]:
        return {**super()._get_prompt_data(*args), "to_json": _dump_example}


def make_response_format(labels: Iterable[str]) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): The response_format that holds an answer to surfaces
    and labels, as chat completions have it:
    https://platform.openai.com/docs/guides/structured-outputs
    """
    entity = _make_object(
        text={"type": "string"}, label={"type": "string", "enum": list(labels)}
    )
    schema = _make_object(entities={"type": "array", "items": entity})
    json_schema = {"name": "entities", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": json_schema}


def _make_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


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
    for doc_shards, answers in zip(shards, responses, strict=False):
        doc_spans = []
        for shard, answer in zip(doc_shards, answers, strict=False):
            mentions, others = read_answer(task, answer, shard.text)
            spans, readings = ground(shard, mentions, **options)
            shard.user_data[READINGS] = dump_readings(readings + others)
            doc_spans.append(spans)
        yield doc_spans


def reduce_shards(task: NERTask, shards: Iterable[Doc]) -> Doc:
    """A spacy-llm shard reducer that keeps the readings, and the text as it was:
    spacy-llm's own puts a space between shards where there was none.

    task (NERTask): The task.
    shards (Iterable[Doc]): Shards of a doc.
    RETURNS (Doc): The doc.
    """
    shards = list(shards)
    if len(shards) == 1:
        return shards[0]
    readings: list[Reading] = []
    offset = 0
    for shard in shards:
        for reading in load_readings(shard) or ():
            if reading.start >= 0:
                start, end = reading.start + offset, reading.end + offset
                reading = reading._replace(start=start, end=end)
            readings.append(reading)
        shard.user_data.pop(READINGS, None)
        offset += len(shard.text)
    doc = Doc.from_docs(shards, ensure_whitespace=False)
    doc.user_data[READINGS] = dump_readings(readings)
    return doc


def adopt(task: Any) -> Any:
    """Have spacy-llm's own NER v3 task ask and read as instaner.NER.v1 does: its prompt
    is the same, but it drops silently what it cannot read.

    task (Any): Task of an llm component. One with a parser of its own is left alone.
    RETURNS (Any): The task.
    """
    if isinstance(task, NERTask) and task._parse_responses is parse_responses_cot:
        task.__class__ = _Task
        task._shard_mapper = partial(_map_shards, task._shard_mapper)
        task._parse_responses = parse_responses
        task._shard_reducer = reduce_shards
    return task


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
    format (Literal["lines", "json"]): What is asked for: lines with a reason each, as
        in NER v3, or JSON that the server is told to hold to a schema. A model that
        does not know response_format answers as it likes. Either is read.
    fuzzy (Optional[float]): How alike a surface and the text have to be, in percent, if
        they are not equal; see tasks.grounding.ground. None: as it is there.
    RETURNS (NERTask): The task. For the other arguments see spacy.NER.v3.
    RAISES (InstaNERError): On no labels, or a label in the definitions or examples that
        is not one of them.
    """
    names = split_labels(labels) or list(label_definitions or {})
    if not names:
        raise InstaNERError(
            "instaner.NER.v1 needs labels: set labels or label_definitions in the "
            "task's config."
        )
    raw_examples = list((examples() if callable(examples) else examples) or [])
    _check_labels(label_definitions or {}, names, "label_definitions")
    for example in raw_examples:
        try:
            used = [s["label"] for s in example["spans"] if s["is_entity"]]
        except (KeyError, TypeError) as err:
            raise InstaNERError(
                f"An example has no text and spans as spacy.NER.v3 wants them: "
                f'"{str(example)[:100]}". Mend it.'
            ) from err
        _check_labels(used, names, f'the example "{example.get("text", "")[:60]}"')
    task = make_ner_task_v3(
        prompt_example_type=prompt_example_type or NERCoTExample,
        labels=names,
        template=template or _TEMPLATES[format],
        label_definitions=label_definitions,
        examples=raw_examples or None,
        shard_mapper=shard_mapper or make_shard_mapper(_estimate_tokens),
        normalizer=normalizer,
        scorer=scorer,
        description=description,
    )
    adopt(task)
    task.format = format
    if fuzzy is not None:
        task._parse_responses = partial(parse_responses, fuzzy=fuzzy)
    if shard_reducer is not None:
        task._shard_reducer = shard_reducer
    return task


def _map_shards(
    mapper: ShardMapper,
    doc: Doc,
    i_doc: int,
    context_length: int,
    render: Callable[[Doc, int, int, int], str],
) -> Iterable[Doc]:
    if len(doc) < 2:  # spacy-llm's own halves it for ever
        return [doc]
    try:
        return mapper(doc, i_doc, context_length, render)
    except ValueError as err:
        raise InstaNERError(
            f"The prompt is longer than context_length ({context_length} tokens), "
            "however short the text. Raise it, or shorten definitions and examples."
        ) from err


def _estimate_tokens(prompt: str) -> int:
    return len(prompt.encode("utf8")) // _BYTES_PER_TOKEN


def _check_labels(used: Iterable[str], labels: list[str], where: str) -> None:
    for label in used:
        if label not in labels:
            raise InstaNERError(
                f'Label "{label}" in {where} is not one of the labels '
                f"({', '.join(labels)}). Add it to the labels, or mend it there."
            )
