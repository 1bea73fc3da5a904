import re
from functools import partial
from typing import Any, Callable, Iterable, Tuple

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
from .grounding import READINGS, Mention, Reading, Status, dump_readings, ground
from .prompts import get_constant, mark_constant

_NUMBER = re.compile(r"\s*(?:\d+\s*[.):]|[-*•])\s+")
_LINE = re.compile(
    r"(?P<text>.+?)\s*\|\s*(?P<is_entity>true|false)\s*\|\s*(?P<label>[^|]*?)\s*"
    r"(?:\|.*)?$",
    re.IGNORECASE,
)
_NO_ENTITIES = re.compile(
    r"\W*(?:there are )?(?:no (?:named )?entit(?:y|ies)(?: found)?|none)\W*",
    re.IGNORECASE,
)


_BYTES_PER_TOKEN = 3  # fewer than most languages have, so that no prompt is too long


class _Task(NERTask):
    """spacy-llm's task. Its prompts say which part of them is constant."""

    def generate_prompts(
        self, docs: Iterable[Doc], context_length: int | None = None
    ) -> Iterable[Tuple[Iterable[Any], Iterable[Doc]]]:
        samples = [Doc(Vocab(), words=[word]) for word in ("one", "two")]
        (one,), (two,) = (prompts for prompts, _ in super().generate_prompts(samples))
        constant = get_constant(one, two)
        for prompts, shards in super().generate_prompts(docs, context_length):
            yield list(mark_constant(prompts, constant)), shards


def read_answer(task: NERTask, answer: str) -> tuple[list[Mention], list[Reading]]:
    """Read an answer to the NER v3 prompt: lines of text, whether it is an entity,
    label and reason, between bars.

    task (NERTask): The task that asked; it knows the labels.
    answer (str): The answer.
    RETURNS (Tuple[List[Mention], List[Reading]]): Mentions of known labels, and what
        became of the other lines: no entity, an unknown label, or unreadable.
    """
    mentions: list[Mention] = []
    others: list[Reading] = []
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    for line in lines or [""]:
        match = _LINE.match(_NUMBER.sub("", line, count=1))
        if match is None:
            none = _NO_ENTITIES.fullmatch(line)
            status = Status.NO_ENTITY if none else Status.UNREADABLE
            others.append(Reading(status, line, ""))
            continue
        text, label = match["text"], match["label"]
        known = task.label_dict.get(task.normalizer(label))
        if match["is_entity"].lower() == "false":
            others.append(Reading(Status.NO_ENTITY, text, ""))
        elif known is None:
            others.append(Reading(Status.UNKNOWN_LABEL, text, label))
        else:
            mentions.append(Mention(text, known))
    return mentions, others


def parse_responses(
    task: NERTask, shards: Iterable[Iterable[Doc]], responses: Iterable[Iterable[str]]
) -> Iterable[Iterable[list[Span]]]:
    """A spacy-llm response parser for NER v3 answers that loses nothing silently.

    task (NERTask): The task.
    shards (Iterable[Iterable[Doc]]): Shards of each doc. What became of each line is
        kept in a shard's user_data[READINGS].
    responses (Iterable[Iterable[str]]): The answer to each shard.
    YIELDS (Iterable[List[Span]]): Spans of each shard of a doc.
    """
    for doc_shards, answers in zip(shards, responses, strict=False):
        doc_spans = []
        for shard, answer in zip(doc_shards, answers, strict=False):
            mentions, others = read_answer(task, answer)
            spans, readings = ground(shard, mentions)
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
    readings = [r for shard in shards for r in shard.user_data.pop(READINGS, [])]
    doc = Doc.from_docs(shards, ensure_whitespace=False)
    doc.user_data[READINGS] = readings
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
    template: str = DEFAULT_NER_TEMPLATE_V3,
    label_definitions: dict[str, str] | None = None,
    examples: ExamplesConfigType = None,
    prompt_example_type: type[FewshotExample] | None = None,
    shard_mapper: ShardMapper | None = None,
    shard_reducer: ShardReducer | None = None,
    normalizer: Callable[[str], str] | None = None,
    scorer: Scorer | None = None,
    description: str | None = None,
) -> NERTask:
    """Registered as instaner.NER.v1: spacy-llm's NER v3 prompt and options, but answers
    are read and grounded by us: nothing is lost silently. There is no alignment_mode
    and no case_sensitive_matching: see tasks.grounding.

    labels (Union[List[str], str]): Labels, as a list or separated by commas. Empty: the
        labels of label_definitions.
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
    task: NERTask = make_ner_task_v3(
        prompt_example_type=prompt_example_type or NERCoTExample,
        labels=names,
        template=template,
        label_definitions=label_definitions,
        examples=raw_examples or None,
        shard_mapper=shard_mapper or make_shard_mapper(_estimate_tokens),
        normalizer=normalizer,
        scorer=scorer,
        description=description,
    )
    adopt(task)
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
