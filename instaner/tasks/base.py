"""What tasks with labels have in common, whatever they ask for."""

import logging
from abc import abstractmethod
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    Literal,
    Sequence,
    Tuple,
    TypeVar,
)

from spacy.tokens import Doc
from spacy.vocab import Vocab
from spacy_llm.tasks.builtin_task import BuiltinTaskWithLabels
from spacy_llm.ty import ExamplesConfigType, ShardMapper
from spacy_llm.util import split_labels

from ..errors import InstaNERError
from .examples import KNNExamples, Pool
from .grounding import READINGS, Reading, dump_readings, load_readings
from .prompts import get_constant, mark_constant

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_BYTES_PER_TOKEN = 3  # fewer than most languages have, so that no prompt is too long


class Task(BuiltinTaskWithLabels):
    """A task of spacy-llm's, to stand before it among the bases of a class. Its prompts
    say which part of them is constant, and what form the answers are to have."""

    attr: Literal["ents", "cats"] = "ents"
    format: str = ""
    neighbours: KNNExamples | None = None  # of each text, as examples in its prompt
    _pool: Pool | None = None
    _prompt_examples: list[Any]

    @abstractmethod
    def make_response_format(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): What holds an answer to the form, if it is json."""

    @abstractmethod
    def check_example(self, example: Any) -> None:
        """RAISES (InstaNERError): If an example is not what the prompt shows."""

    def _is_shown(self, example: Any) -> bool:
        """RETURNS (bool): Whether the prompt can show an example's answer."""
        return True

    def generate_prompts(
        self, docs: Iterable[Doc], context_length: int | None = None
    ) -> Iterable[Tuple[Iterable[Any], Iterable[Doc]]]:
        pool = self._get_pool()
        # Templates can read otherwise where there are no examples.
        samples = [[], pool.examples[:1]] if pool and pool.examples else [[]]
        constants = [self._find_constant(sample) for sample in samples]
        wanted = self.make_response_format() if self.format == "json" else None
        given = ((doc, pool.choose(doc.text) if pool else []) for doc in docs)
        for prompts, shards in self._render(given, context_length):
            begins = filter(prompts[0].startswith, constants)
            constant = max(begins, key=len, default="")
            marked = mark_constant(prompts, constant, response_format=wanted)
            yield list(marked), shards

    def _render(
        self,
        given: Iterable[Tuple[Doc, Sequence[Any]]],
        context_length: int | None = None,
    ) -> Iterator[Tuple[list[str], Iterable[Doc]]]:
        """Render the prompts of each doc with examples of its own."""
        own = self._prompt_examples

        def show() -> Iterator[Doc]:
            for doc, examples in given:
                self._prompt_examples = [*own, *examples]
                yield doc

        try:
            for prompts, shards in super().generate_prompts(show(), context_length):
                self._prompt_examples = own  # also what is written to disk
                yield list(prompts), shards
        finally:
            self._prompt_examples = own

    def _find_constant(self, examples: Sequence[Any]) -> str:
        """What prompts with examples, or without, begin with."""
        samples = [
            (
                _make_sample(word),
                [eg.model_copy(update={"text": word}) for eg in examples],
            )
            for word in ("one", "two")
        ]
        ((one,), _), ((two,), _) = self._render(samples)
        return get_constant(one, two)

    def _get_pool(self) -> Pool | None:
        """Read when the first prompt is made, and kept: all prompts of a run are to be
        made from the same examples."""
        if self._pool is None and self.neighbours is not None:
            examples = []
            left_out = 0
            for row in self.neighbours.read(self.attr, self.labels):
                try:
                    self.check_example(row)
                    examples.append(self._prompt_example_type(**row))
                except ValueError as err:  # of pydantic too
                    if not self.neighbours.is_store:
                        raise InstaNERError(
                            f"{self.neighbours.path}: {' '.join(str(err).split())}"
                        ) from err
                    left_out += 1  # e.g. of a label that is one no more
            if left_out:
                logger.warning(
                    "%d reviewed texts in %s do not fit the task, and are no examples",
                    left_out,
                    self.neighbours.path,
                )
            examples = [example for example in examples if self._is_shown(example)]
            self._pool = Pool(examples, self._measure(examples), self.neighbours)
        return self._pool

    def _measure(self, examples: Sequence[Any]) -> list[int]:
        """About how many tokens each example adds to a prompt."""
        doc = _make_sample("one")
        given = ((doc, [example] * n) for example in examples for n in (1, 2))
        counts = [estimate_tokens(prompt) for (prompt,), _ in self._render(given)]
        return [b - a + 1 for a, b in zip(counts[::2], counts[1::2], strict=True)]


def _make_sample(word: str) -> Doc:
    return Doc(Vocab(), words=[word])


def set_hooks(
    task: Any,
    kind: type[Task],
    parse_responses: Callable[..., Any],
    reduce_shards: Callable[..., Doc],
) -> None:
    """Have a task of spacy-llm's ask, split, read and join as ours do.

    task (Any): The task.
    kind (Type[Task]): What it becomes.
    parse_responses (Callable): A spacy-llm response parser.
    reduce_shards (Callable): A spacy-llm shard reducer.
    """
    task.__class__ = kind
    task._shard_mapper = partial(_map_shards, task._shard_mapper)
    task._parse_responses = parse_responses
    task._shard_reducer = reduce_shards


def get_options(
    name: str,
    labels: list[str] | str,
    label_definitions: dict[str, str] | None,
    examples: ExamplesConfigType,
) -> tuple[list[str], list[Any]]:
    """Get the labels and the examples from the options of a task.

    name (str): Registered name of the task.
    labels (Union[List[str], str]): Labels, as a list or separated by commas. Empty: the
        labels of label_definitions.
    label_definitions (Optional[Dict[str, str]]): Definitions of labels.
    examples (ExamplesConfigType): Examples, or what gets them.
    RETURNS (Tuple[List[str], List[Any]]): Labels and examples: those that are the same
        for every text.
    RAISES (InstaNERError): On no labels, or a definition of none of them.
    """
    names = split_labels(labels) or list(label_definitions or {})
    if not names:
        raise InstaNERError(
            f"{name} needs labels: set labels or label_definitions in the task's "
            "config."
        )
    check_known(label_definitions or {}, names, "label_definitions")
    if isinstance(examples, KNNExamples):
        return names, []
    return names, list((examples() if callable(examples) else examples) or [])


def check_known(used: Iterable[str], labels: list[str], where: str) -> None:
    """RAISES (InstaNERError): If a label that is used somewhere is not one of the
    labels."""
    for label in used:
        if label not in labels:
            raise InstaNERError(
                f'Label "{label}" in {where} is not one of the labels '
                f"({', '.join(labels)}). Add it to the labels, or mend it there."
            )


def keep_readings(
    read: Callable[[Doc, str], tuple[_T, list[Reading]]],
    shards: Iterable[Iterable[Doc]],
    responses: Iterable[Iterable[str]],
) -> Iterator[list[_T]]:
    """Read answers as a spacy-llm response parser does, and keep what became of them.

    read (Callable[[Doc, str], Tuple[Any, List[Reading]]]): From a shard and the answer
        to what is found and the readings.
    shards (Iterable[Iterable[Doc]]): Shards of each doc. The readings are kept in a
        shard's user_data[READINGS].
    responses (Iterable[Iterable[str]]): The answer to each shard.
    YIELDS (List[Any]): What is found in each shard of a doc.
    """
    for doc_shards, answers in zip(shards, responses, strict=False):
        found = []
        for shard, answer in zip(doc_shards, answers, strict=False):
            value, readings = read(shard, answer)
            shard.user_data[READINGS] = dump_readings(readings)
            found.append(value)
        yield found


def reduce_shards(task: BuiltinTaskWithLabels, shards: Iterable[Doc]) -> Doc:
    """A spacy-llm shard reducer that keeps the readings, and the text as it was:
    spacy-llm's own puts a space between shards where there was none.

    task (BuiltinTaskWithLabels): The task.
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


def estimate_tokens(prompt: str) -> int:
    """RETURNS (int): About how many tokens a prompt has; rather more than fewer."""
    return len(prompt.encode("utf8")) // _BYTES_PER_TOKEN


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
