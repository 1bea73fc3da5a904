import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import srsly
from click.testing import Result
from thinc.api import Config
from typer.testing import CliRunner

from instaner.cli import app
from instaner.corpus import write_docs
from instaner.errors import InstaNERError
from instaner.intervals import Difference
from instaner.pipeline import make_blank
from instaner.prompts import compare_prompts, correct, count_needed

from .conftest import CATEGORIES, LABELS, ROOT, WriteRows
from .server import RETRY_AT_ONCE, ChatServer, Reply, complete, reply

_FOODS = "ramen udon soba pho laksa dal stew".split()
_TEXTS = [f"Dish {number}: {_FOODS[number % 7]} in a wok." for number in range(70)]

MakeConfig = Callable[..., str]


@pytest.fixture
def gold(write_rows: WriteRows) -> Path:
    """Texts of which each has a dish and a wok."""
    rows = [{"text": text, "spans": _find_spans(text)} for text in _TEXTS]
    return write_rows(*rows, name="gold.jsonl")


def _find_spans(text: str) -> list[dict[str, Any]]:
    words = {text.split()[2]: "DISH", "wok": "EQUIPMENT"}
    return [
        {"start": text.index(w), "end": text.index(w) + len(w), "label": label}
        for w, label in words.items()
    ]


def _answer(body: dict[str, Any]) -> Reply:
    """Names the dish and the wok; without a hint in the prompt, of some texts the wok
    alone."""
    system, user = (message["content"] for message in body["messages"])
    text = next(text for text in _TEXTS if text in user)
    number = int(text[5:].split(":")[0])
    missed = "soups" not in system and number % 3 == 0
    missed |= "short" in system and number % 25 == 0
    words = {} if missed else {text.split()[2]: "DISH"}
    words["wok"] = "EQUIPMENT"
    lines = [
        f"{k}. {w} | True | {la} | it is" for k, (w, la) in enumerate(words.items(), 1)
    ]
    return complete("\n".join(lines), prompt_tokens=len(system + user) // 4)


@pytest.fixture
def make_config(
    chat_server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MakeConfig:
    """Writes the config of a teacher behind the server, of which prices are known."""
    chat_server.behave = _answer
    monkeypatch.chdir(tmp_path)

    def make(name: str, *, prices: Any = True, **task: Any) -> str:
        task = {"@llm_tasks": "instaner.NER.v1", "labels": LABELS, **task}
        model = {"@llm_models": "instaner.Chat.v1", "name": "m"}
        model.update(base_url=chat_server.url)
        if prices:
            model["prices"] = {"input": 1.0, "output": 2.0}
        llm = {"factory": "llm", "task": task, "model": model}
        nlp = {"lang": "en", "pipeline": ["llm"]}
        Config({"nlp": nlp, "components": {"llm": llm}}).to_disk(tmp_path / name)
        return name

    return make


@pytest.fixture
def plain(make_config: MakeConfig) -> str:
    return make_config("plain.cfg")


@pytest.fixture
def hinted(make_config: MakeConfig) -> str:
    return make_config("hinted.cfg", description="Dishes are also soups.")


def _run(*args: str) -> Result:
    return CliRunner().invoke(app, ["compare-prompts", *args])


def _check_one_line(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


def test_better_prompt_is_told(plain: str, hinted: str, gold: Path) -> None:
    result = _run(plain, hinted, "--gold", str(gold), "--output", "out.json")
    assert result.exit_code == 0, result.output
    found = srsly.read_json("out.json")
    scores = [found["configs"][name]["ents_f"] for name in (plain, hinted)]
    right = 140 - 24  # of 70 texts, every third lacks its dish
    assert scores == [pytest.approx(2 * right / (140 + right)), 1.0]
    pair = found["pairs"][hinted]
    assert (pair["against"], pair["outcome"]) == (plain, "better")
    assert pair["difference"] == pytest.approx(scores[1] - scores[0])
    low, high = pair["interval"]
    assert 0 < low < pair["difference"] < high
    assert pair["p_holm"] == pair["p_value"] < 0.01
    # What the prompt has more, and what is named more, at the config's prices.
    taken = [found["configs"][name]["per_1000"] for name in (plain, hinted)]
    for one in taken:
        tokens = one["prompt_tokens"] + 2 * one["completion_tokens"]
        assert one["cost"] == pytest.approx(tokens / 1e6, rel=1e-3)
    assert pair["cost"] == pytest.approx(taken[1]["cost"] - taken[0]["cost"])
    assert pair["cost"] > 0
    assert pair["reason"].startswith("hinted.cfg is better than plain.cfg: F1 +0.0")
    assert pair["reason"].endswith("more per 1,000 texts")
    assert pair["reason"] in result.stdout
    assert "plain.cfg: 70 answers to ask for, 0 stored" in result.stdout
    assert "    hinted.cfg: ramen DISH, wok EQUIPMENT" in result.stdout
    assert "    plain.cfg: wok EQUIPMENT" in result.stdout
    assert len(found["differences"][hinted]) == 24


def test_worse_prompt_is_told(plain: str, hinted: str, gold: Path) -> None:
    found = _compare(hinted, plain, gold=gold)
    pair = found["pairs"][plain]
    assert pair["outcome"] == "worse"
    assert "plain.cfg is worse than hinted.cfg: F1 −0.0" in pair["reason"]
    assert "less per 1,000 texts" in pair["reason"]


def _compare(*sources: str, gold: Path, **options: Any) -> dict[str, Any]:
    return compare_prompts(sources, gold, store=Path("responses.db"), **options)


def test_three_prompts_are_corrected_for(
    plain: str, hinted: str, make_config: MakeConfig, gold: Path
) -> None:
    short = make_config("short.cfg", description="short: soups")
    found = _compare(hinted, plain, short, gold=gold)
    assert json.dumps(found, allow_nan=False)
    one, other = found["pairs"][plain], found["pairs"][short]
    assert [*found["pairs"]] == [plain, short]
    assert one["p_holm"] == 2 * one["p_value"]
    assert other["p_holm"] == max(other["p_value"], one["p_holm"])
    assert one["outcome"] == "worse"
    # Of 70 texts three are worse: too few to be sure.
    assert other["outcome"] == "no difference shown"
    assert 70 < other["needed"] < 7000
    assert "corrected for 2 comparisons" in other["reason"]
    assert f"about {other['needed']:,} gold texts would be needed" in other["reason"]


def test_second_run_asks_nothing_and_says_the_same(
    plain: str, hinted: str, gold: Path, chat_server: ChatServer
) -> None:
    first = _compare(plain, hinted, gold=gold)
    chat_server.requests.clear()
    assert _compare(plain, hinted, gold=gold) == first
    assert not chat_server.requests


def test_killed_run_goes_on_where_it_stopped(
    plain: str, hinted: str, gold: Path, chat_server: ChatServer
) -> None:
    command = [sys.executable, "-m", "instaner", "compare-prompts", plain, hinted]
    command += ["--gold", str(gold), "--store", "responses.db"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env)

    def kill(body: dict[str, Any]) -> Reply:
        if len(chat_server.paid) >= 100:
            process.kill()
        return _answer(body)

    chat_server.behave = kill
    assert process.wait(60) == -9
    estimates: dict[str, Any] = {}
    found = _compare(plain, hinted, gold=gold, on_estimate=estimates.__setitem__)
    assert estimates[plain].stored == 70
    assert 0 < estimates[hinted].stored < 70
    assert found["pairs"][hinted]["outcome"] == "better"
    # Those on their way when it was killed are asked for anew.
    assert 140 <= len(chat_server.paid) <= 140 + 16


def test_samples_are_scored_together(
    plain: str, hinted: str, gold: Path, chat_server: ChatServer
) -> None:
    once = _compare(plain, hinted, gold=gold)
    twice = _compare(plain, hinted, gold=gold, samples=2)
    assert len(chat_server.requests) == 2 * 140
    # The server says the same again, so there is nothing new in it.
    assert twice["pairs"] == once["pairs"]
    assert twice["configs"][plain]["answers"] == 140
    assert twice["configs"][plain]["per_1000"] == once["configs"][plain]["per_1000"]
    assert twice["differences"] == once["differences"]


def test_examples_of_a_prompt_are_left_out(
    plain: str, make_config: MakeConfig, gold: Path, chat_server: ChatServer
) -> None:
    span = {"text": "WOK", "is_entity": True, "label": "EQUIPMENT", "reason": "a pan"}
    shown = {"text": f" {_TEXTS[3].upper()}\n", "spans": [span]}
    other = make_config("shown.cfg", examples=[shown])
    result = _run(plain, other, "--gold", str(gold), "--output", "out.json")
    assert result.exit_code == 0, result.output
    line = "1 text is left out for all, as an example in the prompt of shown.cfg"
    assert line in result.stdout
    found = srsly.read_json("out.json")
    assert found["gold"]["texts"] == 69
    assert found["gold"]["left_out"] == [{"text": _TEXTS[3], "configs": [other]}]
    assert len(chat_server.requests) == 2 * 69
    assert "69 answers to ask for" in result.stdout


def test_unreadable_answers_are_counted(
    plain: str, hinted: str, gold: Path, chat_server: ChatServer
) -> None:
    def behave(body: dict[str, Any]) -> Reply:
        system = body["messages"][0]["content"]
        return complete("I cannot say.") if "soups" in system else _answer(body)

    chat_server.behave = behave
    result = _run(plain, hinted, "--gold", str(gold), "--output", "out.json")
    assert result.exit_code == 0, result.output
    found = srsly.read_json("out.json")
    assert found["configs"][hinted]["failed"] == {"unreadable answer": 70}
    assert found["configs"][hinted]["ents_f"] == 0
    assert found["pairs"][hinted]["outcome"] == "worse"
    assert "hinted.cfg: 70 of 70 answers failed: unreadable answer" in result.stdout


def test_answers_that_did_not_come_are_no_fault_of_a_prompt(
    plain: str, hinted: str, gold: Path, chat_server: ChatServer
) -> None:
    def behave(body: dict[str, Any]) -> Reply:
        if _TEXTS[9] in body["messages"][1]["content"]:
            return reply(500, {}, **RETRY_AT_ONCE)
        return _answer(body)

    chat_server.behave = behave
    with pytest.raises(
        InstaNERError, match=r"1 of 70 answers did not come.*run it aga"
    ):
        _compare(plain, hinted, gold=gold)
    chat_server.behave = _answer
    chat_server.requests.clear()
    _compare(plain, hinted, gold=gold)
    assert len(chat_server.requests) == 70 + 1


def test_unknown_price_is_said(make_config: MakeConfig, gold: Path) -> None:
    configs = [
        make_config(f"{name}.cfg", prices=False, description=name) for name in "ab"
    ]
    result = _run(*configs, "--gold", str(gold))
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.stdout.splitlines() if "US dollars per" in line]
    assert row.split()[-2:] == ["unknown", "unknown"]
    assert "the difference in cost is unknown" in result.stdout


def test_price_that_was_set_later_holds_for_stored_answers(
    make_config: MakeConfig, gold: Path
) -> None:
    for prices in (False, True):
        configs = [
            make_config(f"{name}.cfg", prices=prices, description=name) for name in "ab"
        ]
        found = _compare(*configs, gold=gold)
        costs = [config["per_1000"]["cost"] for config in found["configs"].values()]
        assert all(costs) if prices else costs == [None, None]


def test_labels_that_a_prompt_lacks_are_told(
    plain: str, make_config: MakeConfig, gold: Path
) -> None:
    other = make_config("dish.cfg", labels=["DISH"])
    result = _run(plain, other, "--gold", str(gold))
    line = "dish.cfg has not all labels of the gold, so it misses EQUIPMENT"
    assert line in result.stdout


def test_gold_can_be_a_docbin(plain: str, hinted: str) -> None:
    nlp = make_blank("en")
    docs = []
    for text in _TEXTS:
        doc = nlp(text)
        spans = [(s["start"], s["end"], s["label"]) for s in _find_spans(text)]
        doc.set_ents([doc.char_span(a, b, label=la) for a, b, la in spans])
        docs.append(doc)
    write_docs(docs, Path("gold.spacy"))
    found = _compare(plain, hinted, gold=Path("gold.spacy"))
    assert found["configs"][hinted]["ents_f"] == 1


def test_prompts_for_categories_are_compared(
    make_config: MakeConfig, write_rows: WriteRows, chat_server: ChatServer
) -> None:
    rows = [{"text": f"Message {n}.", "cats": CATEGORIES[n % 3]} for n in range(60)]
    gold = write_rows(*rows, name="gold.jsonl")

    def behave(body: dict[str, Any]) -> Reply:
        system, user = (message["content"] for message in body["messages"])
        number = next(n for n in range(60) if f"Message {n}." in user)
        return complete(CATEGORIES[number % (3 if "hint" in system else 2)])

    chat_server.behave = behave
    task = {"@llm_tasks": "instaner.TextCat.v1", "labels": CATEGORIES}
    one = make_config("a.cfg", **task, exclusive_classes=True)
    hint = {"label_definitions": {"BILL": "A hint."}}
    other = make_config("b.cfg", **task, **hint, exclusive_classes=True)
    result = _run(one, other, "--gold", str(gold), "--output", "out.json")
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.stdout
    assert "macro F1" in result.stdout
    assert "b.cfg is better than a.cfg: accuracy +0.667 (" in result.stdout
    found = srsly.read_json("out.json")
    assert found["configs"][one]["cats_acc"] == pytest.approx(1 / 3)
    assert found["gold"]["one_category"]


def test_different_targets_cannot_be_compared(
    plain: str, make_config: MakeConfig, gold: Path, chat_server: ChatServer
) -> None:
    task = {"@llm_tasks": "instaner.TextCat.v1", "labels": CATEGORIES}
    other = make_config("cats.cfg", **task, exclusive_classes=True)
    result = _run(plain, other, "--gold", str(gold))
    _check_one_line(result, "plain.cfg entities, cats.cfg categories")
    assert not chat_server.requests


def test_wrong_arguments_are_one_line(
    plain: str, hinted: str, gold: Path, write_rows: WriteRows, chat_server: ChatServer
) -> None:
    args = ("--gold", str(gold))
    _check_one_line(_run(plain, *args), "nothing to compare with")
    _check_one_line(_run(plain, f"./{plain}", *args), "./plain.cfg is given twice")
    _check_one_line(_run(plain, "nowhere.cfg", *args), "nowhere.cfg not found")
    _check_one_line(_run(plain, hinted, "--gold", "no.jsonl"), "no.jsonl")
    Path("broken.cfg").write_text("[nlp\n", "utf8")
    _check_one_line(_run(plain, "broken.cfg", *args), "broken.cfg")
    empty = write_rows(name="empty.jsonl")
    _check_one_line(_run(plain, hinted, "--gold", str(empty)), "has no texts")
    bare = write_rows({"text": "Nothing.", "spans": []}, name="bare.jsonl")
    _check_one_line(_run(plain, hinted, "--gold", str(bare)), "no entities to find")
    assert not chat_server.requests


def test_config_with_two_prompts_is_named(plain: str, hinted: str, gold: Path) -> None:
    config = Config().from_disk(plain)
    config["components"]["second"] = config["components"]["llm"]
    config["nlp"]["pipeline"] = ["llm", "second"]
    config.to_disk("two.cfg")
    result = _run(hinted, "two.cfg", "--gold", str(gold))
    _check_one_line(result, "two.cfg has several prompts (llm, second)")


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([0.03], [0.03]),
        ([0.03, 0.01], [0.03, 0.02]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.9, 0.8], [1.0, 1.0]),
    ],
)
def test_holm(p_values: list[float], corrected: list[float]) -> None:
    assert correct(p_values) == pytest.approx(corrected)


@pytest.mark.parametrize(
    ("difference", "deviation", "needed"),
    [
        (0.05, 0.05, 790),  # 100 · 2.80², rounded up
        (-0.05, 0.05, 790),
        (0.05, 0.01, 110),  # never fewer than there are
        (0.001, 0.05, None),
        (0.0, 0.05, None),
    ],
)
def test_needed_texts(difference: float, deviation: float, needed: int | None) -> None:
    found = Difference(difference, -1, 1, 0.5, deviation)
    assert count_needed(found, 100) == needed


def test_more_comparisons_need_more_texts() -> None:
    found = Difference(0.05, -1, 1, 0.5, 0.05)
    assert count_needed(found, 100, comparisons=3) == 1100
