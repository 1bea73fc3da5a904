import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language

from instaner.briefs import (
    Plan,
    colour_edges,
    combine,
    combine_briefs,
    make_briefs,
    read_list,
    read_plan,
)
from instaner.errors import InstaNERError

from .conftest import ROOT
from .server import ChatServer, complete

_LABELS = {"DISH": "A named dish.", "TOOL": "A kitchen tool."}
_VALUES = {"author": ["a", "b", "c"], "topic": ["x", "y"], "form": ["q"]}
_PLAN = Plan(dimensions={name: list(given) for name, given in _VALUES.items()})


def _count_early(rows: list[tuple[int, ...]], sizes: list[int]) -> int:
    """RETURNS (int): Pairs of the first three dimensions that were repeated before all
    pairs of these two had been used."""
    early = 0
    for one, other in combinations(range(min(3, len(sizes))), 2):
        seen: Counter[tuple[int, int]] = Counter()
        total = sizes[one] * sizes[other]
        for number, row in enumerate(rows):
            seen[row[one], row[other]] += 1
            early += seen[row[one], row[other]] > number // total + 1
    return early


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_no_pair_is_repeated_before_all_have_been_used(sizes: list[int]) -> None:
    rows = list(islice(combine(sizes), 500))
    assert all(len(row) == len(sizes) for row in rows)
    assert all(0 <= i < n for row in rows for i, n in zip(row, sizes, strict=True))
    assert _count_early(rows, sizes) == 0


@pytest.mark.parametrize(
    ("sizes", "number"),
    [
        ([60, 49, 11], 5000),
        ([100, 99, 50], 5000),
        ([199, 200, 11], 2000),
        ([4, 197, 193, 199], 790),
        ([181, 191, 199], 3000),
    ],
)
def test_large_dimensions_combine_in_time(sizes: list[int], number: int) -> None:
    start = time.perf_counter()
    assert _count_early(list(islice(combine(sizes), number)), sizes) == 0
    assert time.perf_counter() - start < 20  # a cycle of the largest took hours


def test_large_dimensions_are_spread_evenly() -> None:
    sizes = [31, 37, 41]
    rows = list(islice(combine(sizes), 2 * 37 * 41))
    assert _count_early(rows[: 31 * 41], sizes) == 0
    for one, other in combinations(range(3), 2):
        assert max(Counter((row[one], row[other]) for row in rows).values()) <= 4


def test_fourth_dimension_is_spread_evenly() -> None:
    rows = list(islice(combine([5, 5, 5, 5]), 25))
    for one in range(3):
        assert max(Counter((row[one], row[3]) for row in rows).values()) <= 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=60))
def test_edges_at_a_node_differ_in_colour(edges: list[tuple[int, int]]) -> None:
    ends = Counter(("left", one) for one, _ in edges)
    ends += Counter(("right", other) for _, other in edges)
    colours = colour_edges(edges, max(ends.values(), default=0))
    for side in (0, 1):
        at_node = [(edge[side], c) for edge, c in zip(edges, colours, strict=True)]
        assert len(set(at_node)) == len(edges)


def _combine(n: int, plan: Plan = _PLAN, **kwargs: Any) -> list[dict[str, Any]]:
    names = {"DISH": ["pho", "ramen", "laksa"], "TOOL": ["wok", "pan"]}
    labels = list(_LABELS)
    rows = combine_briefs(_VALUES, names, ["soapy", "oily"], labels, plan, **kwargs)
    return list(islice(rows, n))


def test_more_briefs_begin_with_the_same() -> None:
    assert _combine(40)[:7] == _combine(7)


def test_another_seed_makes_other_briefs() -> None:
    assert _combine(7, seed=1) != _combine(7)


def test_briefs_have_ids_and_dimensions() -> None:
    briefs = _combine(30)
    assert len({brief["id"] for brief in briefs}) == 30
    for brief in briefs:
        assert all(brief[name] in given for name, given in _VALUES.items())


def test_each_label_is_asked_for_by_itself() -> None:
    focused = [b for b in _combine(101) if "focus" in b]
    assert Counter(brief["focus"] for brief in focused) == {"DISH": 5, "TOOL": 5}
    assert all(list(brief["names"]) == [brief["focus"]] for brief in focused)


def test_some_briefs_are_for_texts_without_entities() -> None:
    negative = [brief for brief in _combine(100) if "lookalikes" in brief]
    assert len(negative) == 10
    assert sum(bool(brief["lookalikes"]) for brief in negative) == 5
    assert not any("names" in brief or "focus" in brief for brief in negative)


def test_names_are_handed_out_evenly() -> None:
    plan = Plan(dimensions=_PLAN.dimensions, focus=0, negative=0)
    given = Counter(name for b in _combine(60, plan) for name in b["names"]["DISH"])
    assert max(given.values()) - min(given.values()) <= 1


@pytest.mark.parametrize(
    ("answer", "things"),
    [
        ("1. a cook\n2. a farmer.", ["a cook", "a farmer"]),
        ('["wok", "pan", "Wok"]', ["wok", "pan"]),
        ("Sure!\n\n1) **wok**\n2) “pan”\n", ["wok", "pan"]),
        ("- soep\n- brood", ["soep", "brood"]),
        ("１．うどん\n２．寿司", ["うどん", "寿司"]),
        ("1. [wok](TOOL)\n2. [pho](DISH)", ["wok", "pho"]),
        (f"1. {'x' * 500}\n2. pan", ["pan"]),
        ('1. "Old Joe\'s" hoe\n2. "A b."\n3. "c".', ['"Old Joe\'s" hoe', "A b", "c"]),
        ("1. Vitamin C.\n2. C.\n3. J.R.R.", ["Vitamin C", "C.", "J.R.R."]),
        ("- e.g. oak\n- ash", ["e.g. oak", "ash"]),
        ("", []),
    ],
)
def test_list_is_read(answer: str, things: list[str]) -> None:
    assert read_list(answer, _LABELS) == things


@pytest.fixture
def make_generator(chat_server: ChatServer) -> Callable[[], Language]:
    def make() -> Language:
        nlp = spacy.blank("en")
        task = {"@llm_tasks": "instaner.Generate.v1", "labels": _LABELS}
        model = {
            "@llm_models": "instaner.Chat.v1",
            "name": "m",
            "base_url": chat_server.url,
        }
        nlp.add_pipe("llm", config={"task": task, "model": model})
        return nlp

    return make


def _answer(body: Mapping[str, Any]) -> str:
    prompt = "\n".join(message["content"] for message in body["messages"])
    wanted = prompt.rsplit("List ", 1)[1]
    if "people who" in wanted:
        return "1. a cook\n2. a farmer"
    if "kinds of" in wanted:
        return "1. Asian\n2. old"
    if "of the kind" in wanted:
        label = "DISH" if "of DISH" in wanted else "TOOL"
        kind = "Asian" if "Asian" in wanted else "old"
        return f"1. {label} {kind} one\n2. {label} {kind} two\n3. Shared"
    return "1. something else"


def test_what_the_plan_leaves_open_is_asked_for(
    chat_server: ChatServer, make_generator: Callable[[], Language], tmp_path: Path
) -> None:
    chat_server.behave = lambda body: complete(_answer(body))
    plan = Plan("Notes.", {"author": 5, "mood": ["sad", "glad"]}, names=8)
    made = make_briefs(make_generator(), plan, tmp_path / "briefs.jsonl", n=40)
    assert made.values == {"author": ["a cook", "a farmer"], "mood": ["sad", "glad"]}
    assert len(made.names["DISH"]) == 4
    assert made.shared == ["shared"]
    assert not made.failures
    briefs = list(srsly.read_jsonl(tmp_path / "briefs.jsonl"))
    assert len(briefs) == 40
    assert {brief["mood"] for brief in briefs} == {"sad", "glad"}
    (prompt,) = {
        request.body["messages"][-1]["content"]
        for request in chat_server.requests
        if "people who" in request.body["messages"][-1]["content"]
    }
    assert "List 5 different people" in prompt
    assert "Notes." in prompt


def test_second_run_asks_nothing_and_makes_the_same(
    chat_server: ChatServer, make_generator: Callable[[], Language], tmp_path: Path
) -> None:
    chat_server.behave = lambda body: complete(_answer(body))
    output = tmp_path / "briefs.jsonl"
    plan = Plan(dimensions={"author": 5})
    make_briefs(make_generator(), plan, output)
    first, asked = output.read_bytes(), len(chat_server.requests)
    make_briefs(make_generator(), plan, output)
    assert output.read_bytes() == first
    assert len(chat_server.requests) == asked


def test_dimension_without_values_is_named(
    chat_server: ChatServer, make_generator: Callable[[], Language], tmp_path: Path
) -> None:
    chat_server.behave = lambda body: complete("I cannot help with that.")
    plan = Plan(dimensions={"author": 5, "mood": 3})
    message = 'listed no values of "author" .* values of "author" into'
    with pytest.raises(InstaNERError, match=message):
        make_briefs(make_generator(), plan, tmp_path / "briefs.jsonl")
    assert not (tmp_path / "briefs.jsonl").exists()


def test_missing_names_are_told_and_no_error(
    chat_server: ChatServer, make_generator: Callable[[], Language], tmp_path: Path
) -> None:
    chat_server.behave = lambda body: complete("I cannot help with that.")
    made = make_briefs(make_generator(), _PLAN, tmp_path / "briefs.jsonl", n=5)
    assert made.names == {}
    assert ("kinds of DISH", "no list in the answer") in made.failures


def test_no_briefs_is_an_error(
    make_generator: Callable[[], Language], tmp_path: Path
) -> None:
    with pytest.raises(InstaNERError, match="0 briefs cannot be made"):
        make_briefs(make_generator(), _PLAN, tmp_path / "briefs.jsonl", n=0)


def test_plan_of_the_demo_is_read() -> None:
    plan = read_plan(ROOT / "assets" / "plan.yml")
    assert plan == Plan(plan.domain)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "is no YAML"),
        ("- domain", r"holds \['domain'\], not the fields of a plan"),
        ("hello", "holds 'hello', not the fields"),
        ("0", "holds 0, not the fields"),
        ("topics: 3", "has topics, which is no part of a plan. There are domain"),
        ("domain: 3", "domain is 3. It has to be a sentence"),
        ("focus: 2", "focus is 2. It has to be a number from 0 to 1"),
        ("focus: 0.6\nnegative: 0.6", "negative included"),
        ("names: -1", "names is -1"),
        ("dimensions: {}", "dimensions is {}"),
        ("dimensions: {author: 0}", "dimensions is"),
        ("dimensions: {author: []}", "dimensions is"),
        ("dimensions: {author: [a, a]}", "dimensions is"),
        ("dimensions: {author: [1]}", "dimensions is"),
        ("dimensions: {id: [a]}", "dimensions is"),
        ("dimensions: {domain: [a]}", "dimensions is"),
        ("dimensions: {focus: [a]}", "dimensions is"),
    ],
)
def test_broken_plan_is_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yml"
    path.write_text(content, "utf8")
    with pytest.raises(InstaNERError, match=message):
        read_plan(path)


def test_folder_for_a_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match="Plan .* is a folder"):
        read_plan(tmp_path)


def test_domain_goes_into_the_briefs() -> None:
    plan = Plan("Notes.", _PLAN.dimensions)
    assert {brief["domain"] for brief in _combine(5, plan)} == {"Notes."}
    assert not any("domain" in brief for brief in _combine(5))


def test_empty_plan_leaves_everything_open(tmp_path: Path) -> None:
    path = tmp_path / "plan.yml"
    path.write_text("", "utf8")
    assert read_plan(path) == Plan()


def test_labels_are_asked_for_in_turn_and_of_no_author_alone() -> None:
    values = {"author": list("abcd"), "form": list("xy")}
    plan = Plan(dimensions=dict(values), names=0, focus=1, negative=0)
    labels = ["A", "B"]
    rows = list(islice(combine_briefs(values, {}, [], labels, plan), 32))
    for k in range(0, 32, 2):
        assert {row["focus"] for row in rows[k : k + 2]} == {"A", "B"}
    met = Counter((row["author"], row["focus"]) for row in rows)
    assert len(met) == 8
    assert min(met.values()) >= 3


@pytest.mark.parametrize("labels", [_LABELS, {"DISH": "Any food."}])
def test_briefs_for_categories_ask_for_each_in_turn(
    labels: dict[str, str], chat_server: ChatServer, tmp_path: Path
) -> None:
    chat_server.behave = lambda body: complete(_answer(body))
    nlp = spacy.blank("en")
    task = {"@llm_tasks": "instaner.Generate.v1", "labels": labels, "task": "textcat"}
    url = chat_server.url
    model = {"@llm_models": "instaner.Chat.v1", "name": "m", "base_url": url}
    nlp.add_pipe("llm", config={"task": task, "model": model})
    output = tmp_path / "briefs.jsonl"
    made = make_briefs(nlp, Plan(dimensions={"author": 5, "form": ["x"]}), output, n=40)
    assert (made.names, made.failures) == ({}, [])
    (request,) = chat_server.requests
    prompt = request.body["messages"][-1]["content"]
    assert "a text classifier.\n\nCategories:\n- DISH" in prompt
    assert "words. Each has to go with texts of every category.\n" in prompt
    briefs = list(srsly.read_jsonl(output))
    focus = Counter(brief.get("focus") for brief in briefs)
    assert focus == dict.fromkeys([*labels, None][:2], 20)
    assert all(
        brief.keys() <= {"id", "split", "author", "form", "focus"} for brief in briefs
    )
