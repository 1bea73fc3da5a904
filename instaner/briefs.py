"""Briefs: what to write texts about, so that no two ask for the same."""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, count, islice
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import srsly
from spacy.language import Language

from .asking import STORE, Model
from .errors import InstaNERError
from .files import check_file, write_whole
from .generate import make_generator
from .llm.store import Failure
from .tasks.generate import (
    DOMAIN,
    FOCUS,
    LOOKALIKES,
    NAMES,
    RESERVED,
    GenerateTask,
    read_texts,
)

_TEMPLATE = jinja2.Template(
    Path(__file__).with_name("tasks").joinpath("list.jinja").read_text("utf8")
)

# How many values to ask for of a dimension that the plan does not name, and how.
DIMENSIONS = {"author": 20, "topic": 30, "form": 8}
_ASKED = {
    "author": "people who would write such texts, each with their situation or mood, "
    "in at most eight words",
    "topic": "topics of such texts, from the common to the rare, in at most six words",
    "form": "forms that such texts come in, each described in at most six words",
}
_ASKED_OTHER = 'values of "{name}" that set such texts apart, in at most six words'
_ASKED_KINDS = "kinds of {label} that occur in such texts, each in one to three words"
_ASKED_NAMES = (
    'names of the kind "{kind}" of {label} in {language}, as they are written in such '
    "texts: the names alone, from the common to the rare"
)
_ASKED_LOOKALIKES = (
    "words or phrases in {language} that occur in such texts and look like {label}, "
    "but are none, nor any other of the labels"
)
_LOOKALIKES = 10  # to ask for, for each label
_MOST = 200  # values, names: more than an answer holds
_LONGEST = 120  # characters of a value
_PER_BRIEF = 8  # names in a brief
_MOST_EDGES = 40_000  # coloured in two or three seconds

_Key = TypeVar("_Key")


@dataclass
class Plan:
    """What briefs are made from.

    domain (str): What the texts are, in a sentence, or "".
    dimensions (Dict[str, Union[int, List[str]]]): What sets texts apart: the values, or
        how many of them to ask the model for.
    names (int): How many names to list for each label before any text is written, which
        the briefs then hand out; 0 for none (ProgGen, Heng et al. 2024,
        arXiv:2403.11103: entities listed first make texts more varied).
    focus (float): Share of the briefs that ask for one label in each text, in turn.
    negative (float): Share of the briefs that ask for texts without entities; every
        other one with words that look like entities.

    The last three are for entities: where texts are to be of categories, each brief
    asks for one.
    """

    domain: str = ""
    dimensions: dict[str, int | list[str]] = field(
        default_factory=lambda: dict(DIMENSIONS)
    )
    names: int = 40
    focus: float = 0.1
    negative: float = 0.1


@dataclass
class Made:
    """What briefs were made of.

    briefs (int): Number of briefs.
    values (Dict[str, List[str]]): Values of each dimension.
    names (Dict[str, List[str]]): Names by label.
    shared (List[str]): Names that were listed for two labels, and left out.
    failures (List[Tuple[str, str]]): What there is no list of, and why.
    bills (List[Dict[str, Any]]): What the answers took; see asking.Model.make_bill.
    """

    briefs: int = 0
    values: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    bills: list[dict[str, Any]] = field(default_factory=list)


def make_briefs(
    nlp: Language,
    plan: Plan,
    output: Path,
    *,
    n: int = 100,
    seed: int = 0,
    on_bills: Callable[[list[dict[str, Any]]], object] = lambda bills: None,
) -> Made:
    """Have a model list what the plan leaves open, and names of each label, and combine
    them: for the first three dimensions, no pair of values is repeated before all pairs
    of these two have been used (see combine for very large ones). The same plan makes
    the same briefs, and more of them begin with the same.

    nlp (Language): Pipeline with an llm component whose task is instaner.Generate.v1.
    plan (Plan): The plan.
    output (Path): JSONL of briefs. Answers are kept in the store of the model's config,
        else in responses.db beside it.
    n (int): Number of briefs.
    seed (int): Decides which values meet.
    on_bills (Callable[[List[Dict[str, Any]]], object]): Called with what the answers
        took when all are asked for, also if the run ends in an error.
    RETURNS (Made): What they were made of.
    RAISES (InstaNERError): If n is below 1, nothing can be asked, or the answers leave
        a dimension without values.
    """
    if n < 1:
        raise InstaNERError(f"{n} briefs cannot be made. Give at least 1.")
    model = make_generator(nlp, store=output.with_name(STORE))
    made = Made()
    labels = list(model.llm.task.labels)
    if model.llm.task.task == "textcat":
        plan = replace(plan, names=0, focus=1, negative=0)
        # Of one category, every other brief is for texts that do not belong to it.
        labels += [""] * (len(labels) == 1)
    asker = _Asker(model, plan, made)
    try:
        made.values = asker.list_values()
        made.names = asker.list_names() if plan.names else {}
        lookalikes = asker.list_lookalikes() if plan.negative else []
    finally:
        made.bills = [model.make_bill()]
        on_bills(made.bills)
    rows = combine_briefs(made.values, made.names, lookalikes, labels, plan, seed=seed)
    with write_whole(output) as part:
        srsly.write_jsonl(part, islice(rows, n))
    made.briefs = n
    return made


def read_plan(path: Path) -> Plan:
    """Read what briefs are to be made from.

    path (Path): YAML with any of domain, dimensions (each a list of values, or how many
        to ask for), names, focus and negative; see Plan.
    RETURNS (Plan): The plan.
    RAISES (InstaNERError): If it cannot be read, or a value is of no use.
    """
    check_file(path, "Plan")
    try:
        given = srsly.read_yaml(path)
    except (srsly.ruamel_yaml.error.YAMLError, UnicodeDecodeError, ValueError) as err:
        raise InstaNERError(f"{path} is no YAML: {' '.join(str(err).split())}") from err
    known = Plan()
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise InstaNERError(
            f"{path} holds {given!r:.60}, not the fields of a plan. Give it any of "
            f"{', '.join(vars(known))}."
        )
    if unknown := set(given) - set(vars(known)):
        raise InstaNERError(
            f"{path} has {', '.join(sorted(map(str, unknown)))}, which is no part of a "
            f"plan. There are {', '.join(vars(known))}."
        )

    def check(right: bool, name: str, what: str) -> None:
        if not right:
            raise InstaNERError(
                f"{path}: {name} is {given.get(name)!r}. It has to be {what}."
            )

    plan = Plan(**{**vars(known), **given})
    check(isinstance(plan.domain, str), "domain", "a sentence")
    for name in ("focus", "negative"):
        share = getattr(plan, name)
        is_share = isinstance(share, (int, float)) and 0 <= share <= 1
        check(is_share, name, "a number from 0 to 1")
    check(plan.focus + plan.negative <= 1, "focus", "at most 1, negative included")
    is_count = type(plan.names) is int and 0 <= plan.names <= _MOST
    check(is_count, "names", f"a number from 0 to {_MOST}")
    dimensions = plan.dimensions
    check(
        isinstance(dimensions, dict)
        and bool(dimensions)
        and all(map(_is_dimension, dimensions, dimensions.values())),
        "dimensions",
        "names, not those of other fields, each with a list of different texts, or the "
        f"number of them to ask for, up to {_MOST}",
    )
    return plan


def combine_briefs(
    values: dict[str, list[str]],
    names: dict[str, list[str]],
    lookalikes: list[str],
    labels: Sequence[str],
    plan: Plan,
    *,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Combine values to briefs.

    values (Dict[str, List[str]]): Values of each dimension.
    names (Dict[str, List[str]]): Names by label, which the briefs hand out in turn.
    lookalikes (List[str]): Words for texts without entities, in turn.
    labels (Sequence[str]): The labels, and "" for none, to ask for in turn.
    plan (Plan): For its shares.
    seed (int): Decides which values meet.
    YIELDS (Dict[str, Any]): Briefs, without end.
    """
    mixed = [_shuffle(given, f"{seed}:{name}") for name, given in values.items()]
    stacks = {
        label: _Stack(_shuffle(given, f"{seed}:{label}"))
        for label, given in names.items()
    }
    words = _Stack(_shuffle(lookalikes, f"{seed}:"))
    turns = _Turns(labels)
    focused = negative = 0
    for number, chosen in enumerate(combine([len(given) for given in mixed])):
        brief: dict[str, Any] = {"id": f"brief-{number:04}", "split": "train"}
        if plan.domain:
            brief[DOMAIN] = plan.domain
        brief.update(
            (name, given[i])
            for name, given, i in zip(values, mixed, chosen, strict=True)
        )
        among = [labels[(number + i) % len(labels)] for i in range(len(labels))]
        among = among[:_PER_BRIEF]
        if negative < math.floor((number + 1) * plan.negative):
            brief[LOOKALIKES] = words.take(5) if negative % 2 else []
            negative += 1
            among = []
        elif focused < math.floor((number + 1) * plan.focus):
            label = turns.take([(name, brief[name]) for name in values])
            focused += 1
            among = [label]
            if label:
                brief[FOCUS] = label
        share = _PER_BRIEF // max(1, len(among))
        handed = {
            label: taken
            for label in among
            if label in stacks and (taken := stacks[label].take(share))
        }
        if handed:
            brief[NAMES] = handed
        yield brief


def combine(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Combine values of dimensions. Of any two of the first three dimensions no pair of
    values is repeated before all their pairs have been used: two of them run through a
    diagonal, and the third is the colour of an edge between the two (König 1916: the
    edges of a bipartite graph in which each node has n can be coloured with n colours).
    Further dimensions are spread as evenly as a greedy choice can. So is the third, if
    there were too many edges to colour: then no pair is repeated in as many
    combinations as the smallest of the three has pairs with the largest.

    sizes (Sequence[int]): Number of values of each dimension, each at least 1.
    YIELDS (Tuple[int, ...]): Index of a value of each dimension, without end.
    """
    padded = [*sizes, 1, 1, 1][: max(3, len(sizes))]
    # Two with a large common divisor make a short cycle.
    first, second = max(
        combinations(range(3), 2), key=lambda two: math.gcd(*(padded[i] for i in two))
    )
    order = [first, second, 3 - first - second, *range(3, len(padded))]
    fixed, steps = 3, [1] * len(padded)
    if math.lcm(padded[first], padded[second]) * padded[order[2]] > _MOST_EDGES:
        order[:3] = sorted(range(3), key=padded.__getitem__)
        fixed, steps[2] = 2, padded[order[0]]
    first, second, third = (padded[i] for i in order[:3])
    turn = math.lcm(first, second)
    length = turn * third
    colours: list[int] = []
    greedy = [(padded[i], steps[k]) for k, i in enumerate(order)][fixed:]
    pairs: list[list[Counter[tuple[int, int]]]] = [
        [Counter() for _ in range(fixed + i)] for i in range(len(greedy))
    ]
    for number in count():
        place = number % length
        if fixed == 3 and place == 0:
            edges = [
                (
                    (i // (first * third), i % first),
                    (i // (second * third), (i + i // turn) % second),
                )
                for i in range(number, number + length)
            ]
            colours = colour_edges(edges, third)
        chosen = [number % first, (number + number // turn) % second]
        chosen += colours[place : place + 1]
        for (size, step), seen in zip(greedy, pairs, strict=True):
            best = min(
                (
                    max(seen[k][i, value] for k, i in enumerate(chosen)),
                    sum(seen[k][i, value] for k, i in enumerate(chosen)),
                    (value - number // step) % size,
                )
                for value in range(size)
            )
            value = (best[2] + number // step) % size
            for k, i in enumerate(chosen):
                seen[k][i, value] += 1
            chosen.append(value)
        yield tuple(chosen[order.index(i)] for i in range(len(sizes)))


def colour_edges(edges: Sequence[tuple[Any, Any]], n: int) -> list[int]:
    """Colour the edges of a bipartite graph, so that no two at a node are alike.

    edges (Sequence[Tuple[Any, Any]]): The left and the right node of each edge.
    n (int): Number of colours: as many as the most edges of a node.
    RETURNS (List[int]): The colour of each edge.
    """
    colours: list[int] = []
    used: tuple[dict[Any, dict[int, int]], ...] = defaultdict(dict), defaultdict(dict)
    for edge, (left, right) in enumerate(edges):
        mine = next(c for c in range(n) if c not in used[0][left])
        other = next(c for c in range(n) if c not in used[1][right])
        # On the path from the right node that has both colours in turn, swap them.
        path: list[int] = []
        node, side, colour = right, 1, mine
        while mine != other and colour in used[side][node]:
            path.append(used[side][node][colour])
            side = 1 - side
            node, colour = edges[path[-1]][side], mine + other - colour
        for old in path:
            for k in (0, 1):
                del used[k][edges[old][k]][colours[old]]
        for old in path:
            colours[old] = mine + other - colours[old]
            for k in (0, 1):
                used[k][edges[old][k]][colours[old]] = old
        colours.append(mine)
        used[0][left][mine] = used[1][right][mine] = edge
    return colours


class _Asker:
    """Asks a model for lists."""

    def __init__(self, model: Model, plan: Plan, made: Made) -> None:
        task: GenerateTask = model.llm.task
        self.labels = list(task.labels)
        self._model = model
        self._task = task
        self._plan = plan
        self._made = made

    def list_values(self) -> dict[str, list[str]]:
        """RETURNS (Dict[str, List[str]]): The values of each dimension."""
        dimensions = self._plan.dimensions
        listed = self._ask(
            {
                name: (f'values of "{name}"', _get_asked(name), given)
                for name, given in dimensions.items()
                if isinstance(given, int)
            }
        )
        for name, values in listed.items():
            if not values:
                why = dict(self._made.failures)[f'values of "{name}"']
                raise InstaNERError(
                    f'The model listed no values of "{name}" '
                    f"({why}). Run again, ask another model, "
                    f'or write values of "{name}" into the plan yourself.'
                )
        return {
            name: given if isinstance(given, list) else listed[name]
            for name, given in dimensions.items()
        }

    def list_names(self) -> dict[str, list[str]]:
        """RETURNS (Dict[str, List[str]]): Names by label, without those of two."""
        number = max(2, math.isqrt(self._plan.names))
        kinds = self._ask(
            {
                label: (f"kinds of {label}", _ASKED_KINDS.format(label=label), number)
                for label in self.labels
            }
        )
        listed = self._ask(
            {
                (label, kind): (
                    f'names of {label} of the kind "{kind}"',
                    _ASKED_NAMES.format(
                        label=label, kind=kind, language=self._task.language
                    ),
                    math.ceil(self._plan.names / len(kinds[label])),
                )
                for label in self.labels
                for kind in kinds[label]
            }
        )
        names: dict[str, dict[str, str]] = defaultdict(dict)
        owners: dict[str, set[str]] = defaultdict(set)
        for (label, _), given in listed.items():
            for name in given:
                names[label].setdefault(name.casefold(), name)
                owners[name.casefold()].add(label)
        # Of a name of two labels the text would have to say which it is.
        self._made.shared = sorted(n for n, by in owners.items() if len(by) > 1)
        return {
            label: [name for key, name in by_key.items() if len(owners[key]) == 1]
            for label, by_key in names.items()
        }

    def list_lookalikes(self) -> list[str]:
        """RETURNS (List[str]): Words that look like entities, but are none."""
        listed = self._ask(
            {
                label: (
                    f"look-alikes of {label}",
                    _ASKED_LOOKALIKES.format(label=label, language=self._task.language),
                    _LOOKALIKES,
                )
                for label in self.labels
            }
        )
        return [word for words in listed.values() for word in words]

    def _ask(self, wanted: dict[_Key, tuple[str, str, int]]) -> dict[_Key, list[str]]:
        """Ask for lists: what they are for messages, what they are for the model, and
        how long they are to be.

        RETURNS (Dict[Any, List[str]]): The lists; an empty one of what was not listed.
        """
        prompts = {
            key: _TEMPLATE.render(
                language=self._task.language,
                domain=self._plan.domain,
                labels=self._task.labels,
                task=self._task.task,
                what=what,
                n=number,
            )
            for key, (_, what, number) in wanted.items()
        }
        self._model.fetch_prompts(prompts.values())
        lists = {}
        for key, prompt in prompts.items():
            name, _, number = wanted[key]
            outcome = self._model.source.recall(prompt, 0)
            lists[key] = (
                []
                if isinstance(outcome, Failure)
                else read_list(outcome.text, self.labels)[:number]
            )
            if isinstance(outcome, Failure):
                self._made.failures.append((name, outcome.detail))
            elif not lists[key]:
                self._made.failures.append((name, "no list in the answer"))
        return lists


class _Stack:
    """Hands things out in turn, each as often as any other."""

    def __init__(self, things: list[str]) -> None:
        self._things = things
        self._next = 0

    def take(self, number: int) -> list[str]:
        """RETURNS (List[str]): The next things, at most each once."""
        number = min(number, len(self._things))
        taken = [
            self._things[(self._next + i) % len(self._things)] for i in range(number)
        ]
        self._next += number
        return taken


class _Turns:
    """Hands out labels in turn, each with the values that it was with the least: an
    author who writes of one label alone would give it away."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._left: list[str] = []
        self._met: Counter[tuple[str, tuple[str, str]]] = Counter()

    def take(self, values: Iterable[tuple[str, str]]) -> str:
        """RETURNS (str): The next label, for a brief with these values."""
        values = list(values)
        self._left = self._left or list(self._labels)
        label = min(
            self._left, key=lambda label: sum(self._met[label, v] for v in values)
        )
        self._left.remove(label)
        self._met.update((label, value) for value in values)
        return label


def read_list(answer: str, labels: Iterable[str]) -> list[str]:
    """Read an answer that lists things, one a line.

    answer (str): The answer.
    labels (Iterable[str]): The labels, as things may be marked with one.
    RETURNS (List[str]): The things, each once.
    """
    things: dict[str, str] = {}
    for text, _ in read_texts(answer, labels)[0]:
        thing = _clean(text)
        if 0 < len(thing) <= _LONGEST:
            things.setdefault(thing.casefold(), thing)
    return list(things.values())


def _clean(text: str) -> str:
    thing = " ".join(text.split()).strip("*_")
    for _ in range(2):  # quotes in a sentence, or a sentence in quotes
        if re.fullmatch(r'"[^"]*"|“[^“”]*”', thing):
            thing = thing[1:-1]
        if not re.fullmatch(r"([^\W\d_]\.\s?)+", thing):  # initials keep their dots
            thing = thing.rstrip(".,;")
    return thing


def _get_asked(name: str) -> str:
    return _ASKED.get(name, _ASKED_OTHER.format(name=name))


def _is_dimension(name: Any, given: Any) -> bool:
    if not isinstance(name, str) or name in (DOMAIN, *RESERVED):
        return False
    if isinstance(given, list):
        are_texts = all(isinstance(value, str) and value.strip() for value in given)
        return bool(given) and are_texts and len(set(given)) == len(given)
    return type(given) is int and 1 <= given <= _MOST


def _shuffle(things: Iterable[str], seed: str) -> list[str]:
    # By hash, so that a new thing leaves the others in their order.
    return sorted(
        things, key=lambda thing: hashlib.sha256(f"{seed}:{thing}".encode()).digest()
    )
