"""Text classification: the prompt, and what is read from the answers."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from spacy.tokens import Doc
from spacy_llm.tasks.textcat import TextCatTask, make_textcat_task_v3
from spacy_llm.tasks.textcat.task import DEFAULT_TEXTCAT_TEMPLATE_V3
from spacy_llm.tasks.textcat.util import TextCatExample
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
from .categories import NONE, read_labels
from .examples import NEG, POS, KNNExamples
from .grounding import Reading
from .prompts import make_response_format

_TEMPLATE = Path(__file__).with_name("textcat.jinja").read_text("utf8")


class Example(TextCatExample):
    """A text, its answer as spaCy's TextCat has it, and why."""

    reason: str = ""


class _Task(Task, TextCatTask):
    attr = "cats"
    format: Literal["text", "json"] = "text"
    reasoning: bool = False

    def check_example(self, example: Any) -> None:
        names = list(self.labels)
        exclusive = self.exclusive_classes
        _check_example(example, names, self.reasoning, exclusive=exclusive)

    def make_response_format(self) -> dict[str, Any]:
        names = [POS, NEG] if self.use_binary else list(self.labels)
        one = {"type": "string", "enum": names}
        reason = {"reason": {"type": "string"}} if self.reasoning else {}
        if self.exclusive_classes:
            return make_response_format("categories", **reason, label=one)
        labels = {"type": "array", "items": one}
        return make_response_format("categories", **reason, labels=labels)

    def _get_prompt_data(self, *args: Any) -> dict[str, Any]:
        names = "…" if self.exclusive_classes else "…, …"
        return {
            **super()._get_prompt_data(*args),
            "binary": self.use_binary,
            "format": self.format,
            "reasoning": self.reasoning,
            "form": _show(self, names, "…"),
            "show": lambda eg: _show(self, eg.answer, getattr(eg, "reason", "")),
        }


def _show(task: _Task, names: str, reason: str) -> str:
    """An answer in the form that is asked for."""
    if task.format == "text":
        field = "Label" if task.exclusive_classes else "Labels"
        return f"Reason: {reason}\n{field}: {names}"
    answer: dict[str, Any] = {"reason": reason} if task.reasoning else {}
    if task.exclusive_classes:
        answer["label"] = names
    else:
        labels = [] if names == NONE else names.split(",")
        answer["labels"] = [label.strip() for label in labels if label.strip()]
    return json.dumps(answer, ensure_ascii=False)


def parse_responses(
    task: TextCatTask,
    shards: Iterable[Iterable[Doc]],
    responses: Iterable[Iterable[str]],
) -> Iterable[Iterable[dict[str, float]]]:
    """A spacy-llm response parser for TextCat answers that guesses nothing.

    task (TextCatTask): The task.
    shards (Iterable[Iterable[Doc]]): Shards of each doc. What became of each label is
        kept in a shard's user_data[READINGS].
    responses (Iterable[Iterable[str]]): The answer to each shard.
    YIELDS (Iterable[Dict[str, float]]): For each shard of a doc, 1 or 0 for each label;
        nothing if the answer cannot be read.
    """

    def read(shard: Doc, answer: str) -> tuple[dict[str, float], list[Reading]]:
        labels, readings = read_labels(task, answer, shard.text)
        if labels is None:
            return {}, readings
        return {label: float(label in labels) for label in task.labels}, readings

    return keep_readings(read, shards, responses)


def reduce_cats(task: TextCatTask, shards: Iterable[Doc]) -> Doc:
    """A spacy-llm shard reducer that does what reduce_shards does. A label's score is
    the share of the tokens in the shards that have it.

    task (TextCatTask): The task.
    shards (Iterable[Doc]): Shards of a doc. Those that could not be read do not count.
    RETURNS (Doc): The doc.
    """
    shards = list(shards)
    doc = reduce_shards(task, shards)
    if len(shards) > 1:
        read = [(len(shard), shard.cats) for shard in shards if shard.cats]
        total = sum(length for length, _ in read)
        doc.cats = {
            label: sum(length * cats[label] for length, cats in read) / total
            for label in (task.labels if total else ())
        }
    return doc


def take_over(task: TextCatTask) -> None:
    """Have spacy-llm's own TextCat task ask and read as instaner.TextCat.v1 does: what
    it cannot read becomes a text without categories.

    task (TextCatTask): The task.
    """
    set_hooks(task, _Task, parse_responses, reduce_cats)


def make_textcat_task(
    labels: list[str] | str = [],  # noqa: B006 (as in spacy-llm's registry)
    template: str | None = None,
    label_definitions: dict[str, str] | None = None,
    examples: ExamplesConfigType = None,
    prompt_example_type: type[FewshotExample] | None = None,
    shard_mapper: ShardMapper | None = None,
    shard_reducer: ShardReducer | None = None,
    normalizer: Callable[[str], str] | None = None,
    exclusive_classes: bool = False,
    allow_none: bool = True,
    scorer: Scorer | None = None,
    reasoning: bool = False,
    format: Literal["text", "json"] = "text",
) -> TextCatTask:
    """Registered as instaner.TextCat.v1: spacy-llm's TextCat v3 prompt and options, but
    answers are read by us: see read_labels.

    labels (Union[List[str], str]): Labels, as a list or separated by commas; if it is
        one, whether a text has it. Empty: the labels of label_definitions.
    template (Optional[str]): Jinja2 template of the prompt. None: spacy-llm's; with
        reasoning or JSON our own, as theirs forbids both.
    examples (ExamplesConfigType): Examples, each a text and its answer: a label, or
        several separated by commas; POS or NEG if there is one label. With reasoning, a
        reason, too. From instaner.KNNExamples.v1, the nearest for each text.
    reasoning (bool): Have the model give a reason before it gives the label.
    format (Literal["text", "json"]): What is asked for: text, or JSON that the server
        is told to hold to a schema. Either is read.
    RETURNS (TextCatTask): The task. For the other arguments see spacy.TextCat.v3.
    RAISES (InstaNERError): On no labels, a label in the definitions or examples that is
        not one of them, or an example without what it needs.
    """
    names, raw_examples = get_options(
        "instaner.TextCat.v1", labels, label_definitions, examples
    )
    is_binary = len(set(names)) == 1
    for example in raw_examples:
        _check_example(example, names, reasoning, exclusive=exclusive_classes)
    needs_own = reasoning or format == "json"
    task = make_textcat_task_v3(
        parse_responses=None,
        prompt_example_type=prompt_example_type or Example,
        labels=names,
        template=template or (_TEMPLATE if needs_own else DEFAULT_TEXTCAT_TEMPLATE_V3),
        label_definitions=label_definitions,
        examples=raw_examples or None,
        shard_mapper=shard_mapper or make_shard_mapper(estimate_tokens),
        normalizer=normalizer,
        exclusive_classes=exclusive_classes or is_binary,
        allow_none=allow_none,
        scorer=scorer,
    )
    take_over(task)
    task.format, task.reasoning = format, reasoning
    task.neighbours = examples if isinstance(examples, KNNExamples) else None
    if shard_reducer is not None:
        task._shard_reducer = shard_reducer
    return task


def _check_example(
    example: Any, names: list[str], reasoning: bool, *, exclusive: bool
) -> None:
    is_whole = isinstance(example, Mapping) and all(
        isinstance(example.get(field), str)
        for field in ("text", "answer", *(["reason"] if reasoning else []))
    )
    if not is_whole:
        wanted = "text, answer and reason" if reasoning else "text and answer"
        raise InstaNERError(
            f'An example needs {wanted}: "{str(example)[:100]}". Mend it.'
        )
    names = [POS, NEG] if len(set(names)) == 1 else names
    given = [label.strip() for label in example["answer"].split(",") if label.strip()]
    used = [label for label in given if label != NONE or exclusive]
    check_known(used, names, f'the example "{example["text"][:60]}"')
