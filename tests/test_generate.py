from collections import Counter
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner.asking import Model, TooManyFailures
from instaner.corpus import read_texts
from instaner.errors import InstaNERError
from instaner.generate import generate
from instaner.llm.store import hash_prompt
from instaner.pipeline import get_llms, load_teacher
from instaner.targets import make_mark
from instaner.tasks.generate import BRIEF, make_generate_task
from instaner.tasks.grounding import Reading, Status

from .conftest import ROOT, MakeTeacher, Record, WriteRows
from .server import ChatServer, complete

_LABELS = {"EQUIPMENT": "A tool."}
_BRIEF = {"id": "b", "author": "a cook", "topic": "soup", "form": "a forum"}

MakeGenerator = Callable[..., Language]


def _render(task: Any, brief: Mapping[str, Any]) -> str:
    doc = Doc(Vocab())
    doc.user_data[BRIEF] = brief
    ((prompts, _),) = task.generate_prompts([doc])
    (prompt,) = prompts
    return str(prompt)


@pytest.fixture
def make_generator(record: Record) -> MakeGenerator:
    """Makes a pipeline that answers briefs, each with its answer."""

    def make(*answers: tuple[Mapping[str, Any], str]) -> Language:
        task = make_generate_task(_LABELS)
        path = record({_render(task, brief): answer for brief, answer in answers})
        nlp = spacy.blank("en")
        config = {
            "task": {"@llm_tasks": "instaner.Generate.v1", "labels": _LABELS},
            "model": {"@llm_models": "instaner.Replay.v1", "path": str(path)},
        }
        nlp.add_pipe("llm", config=config)
        return nlp

    return make


def test_texts_are_written_without_marks(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    nlp = make_generator((_BRIEF, "1. My [wok](EQUIPMENT).\n2. Thanks."))
    generate(nlp, write_rows(_BRIEF), tmp_path / "texts.jsonl")
    span = {"start": 3, "end": 6, "label": "EQUIPMENT"}
    common = {"brief": "b", "split": "train"}
    assert list(srsly.read_jsonl(tmp_path / "texts.jsonl")) == [
        {"id": "b-00", **common, "text": "My wok.", "spans": [span]},
        {"id": "b-01", **common, "text": "Thanks.", "spans": []},
    ]


def test_split_of_the_brief_is_kept(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    brief = {**_BRIEF, "split": "test"}
    nlp = make_generator((brief, "1. Thanks."))
    generate(nlp, write_rows(brief), tmp_path / "texts.jsonl")
    (row,) = srsly.read_jsonl(tmp_path / "texts.jsonl")
    assert row["split"] == "test"


def test_counts_and_readings_are_returned(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    other = {**_BRIEF, "id": "c", "topic": "bread"}
    nlp = make_generator(
        (_BRIEF, "1. My [wok](EQUIPMENT).\n2. My [w"),
        (other, "1. No [wok](EQUIPMENT)?"),
    )
    summary = generate(nlp, write_rows(_BRIEF, other), tmp_path / "texts.jsonl")
    assert (summary.briefs, summary.texts, summary.readings) == (
        2,
        2,
        {
            Reading(Status.EXACT, "wok", "EQUIPMENT"): 2,
            Reading(Status.UNREADABLE, "My [w", ""): 1,
        },
    )


def test_no_text_is_an_error_and_no_file(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    nlp = make_generator((_BRIEF, "I cannot help with that."))
    with pytest.raises(InstaNERError, match="All 1 answers failed"):
        generate(nlp, write_rows(_BRIEF), tmp_path / "texts.jsonl", max_failures=1)
    assert not (tmp_path / "texts.jsonl").exists()
    (row,) = srsly.read_jsonl(tmp_path / "texts.failed.jsonl")
    assert row["reason"] == "unreadable answer"


def test_too_many_failures_leave_the_old_texts_and_a_list(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    output, failed = tmp_path / "texts.jsonl", tmp_path / "texts.failed.jsonl"
    output.write_text("old", "utf8")
    other = {**_BRIEF, "id": "c", "topic": "bread"}
    nlp = make_generator((_BRIEF, "1. Thanks."), (other, "I am sorry."))
    message = r"1 of 2 answers failed \(unreadable answer: 1\): .*texts.failed.jsonl"
    with pytest.raises(TooManyFailures, match=message):
        generate(nlp, write_rows(_BRIEF, other), output)
    assert output.read_text("utf8") == "old"
    assert list(srsly.read_jsonl(failed)) == [
        {
            "id": "c",
            "voter": "llm",
            "reason": "unreadable answer",
            "detail": "I am sorry.",
        }
    ]


def test_clean_run_removes_the_list_of_failures(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    output, failed = tmp_path / "texts.jsonl", tmp_path / "texts.failed.jsonl"
    other = {**_BRIEF, "id": "c", "topic": "bread"}
    briefs = write_rows(_BRIEF, other, name="briefs.jsonl")
    nlp = make_generator((_BRIEF, "1. Thanks."), (other, "I am sorry."))
    summary = generate(nlp, briefs, output, max_failures=0.5)
    assert (summary.texts, len(summary.failures.rows)) == (1, 1)
    assert failed.exists()
    nlp = make_generator((_BRIEF, "1. Thanks."), (other, "1. Sorry."))
    assert generate(nlp, briefs, output).texts == 2
    assert not failed.exists()


def test_second_run_asks_nothing(
    chat_server: ChatServer, write_rows: WriteRows, tmp_path: Path
) -> None:
    chat_server.behave = lambda body: complete("1. My [wok](EQUIPMENT).")
    briefs = write_rows(*({**_BRIEF, "id": f"{n}", "topic": f"{n}"} for n in range(9)))
    written, bills = [], []
    for _ in range(2):
        nlp = spacy.blank("en")
        config = {
            "task": {"@llm_tasks": "instaner.Generate.v1", "labels": _LABELS},
            "model": {
                "@llm_models": "instaner.Chat.v1",
                "name": "m",
                "base_url": chat_server.url,
            },
        }
        nlp.add_pipe("llm", config=config)
        (bill,) = generate(nlp, briefs, tmp_path / "texts.jsonl").bills
        bills.append((bill["answers"], bill["stored"]))
        written.append((tmp_path / "texts.jsonl").read_bytes())
    assert len(chat_server.requests) == 9
    assert bills == [(9, 0), (0, 9)]
    assert written[0] == written[1]
    assert (tmp_path / "responses.db").exists()


def test_unknown_prompt_leaves_the_old_texts(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    output = tmp_path / "texts.jsonl"
    output.write_text("old", "utf8")
    briefs = write_rows(_BRIEF, {**_BRIEF, "id": "c", "topic": "bread"})
    with pytest.raises(InstaNERError, match="No answer"):
        generate(make_generator((_BRIEF, "1. Thanks.")), briefs, output)
    assert output.read_text("utf8") == "old"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"topic": "soup"}], 'line 1: "id" has to be a string'),
        ([_BRIEF, _BRIEF], 'line 2: the id "b" occurs a second time'),
        ([{**_BRIEF, "split": 1}], 'line 1: the brief "b": split is 1. It has to be'),
    ],
)
def test_broken_brief_is_named(
    make_generator: MakeGenerator,
    write_rows: WriteRows,
    tmp_path: Path,
    rows: list[dict[str, Any]],
    message: str,
) -> None:
    nlp = make_generator((_BRIEF, "1. Thanks."))
    with pytest.raises(InstaNERError, match=f"rows.jsonl, {message}"):
        generate(nlp, write_rows(*rows), tmp_path / "texts.jsonl")


def test_teacher_is_no_generator(
    make_teacher: MakeTeacher, write_rows: WriteRows, tmp_path: Path
) -> None:
    with pytest.raises(InstaNERError, match="has 0 llm components whose task is"):
        generate(make_teacher({}), write_rows(_BRIEF), tmp_path / "texts.jsonl")


def test_demo_prompts_are_all_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    task = make_generate_task(
        srsly.read_yaml("assets/labels.yml"),
        examples=Path("assets/generate_examples.txt"),
    )
    rows = srsly.read_jsonl("assets/recordings/generate.jsonl")
    recorded = {row["prompt_sha256"] for row in rows}
    briefs = list(srsly.read_jsonl("assets/briefs.jsonl"))
    missing = [
        brief["id"]
        for brief in briefs
        if hash_prompt(_render(task, brief)) not in recorded
    ]
    assert (len(briefs), missing) == (100, [])


def test_demo_gives_all_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    nlp = load_teacher("configs/generator.cfg")
    assert len(get_llms(nlp)) == 1
    summary = generate(nlp, Path("assets/briefs.jsonl"), tmp_path / "texts.jsonl")
    assert summary.texts == 1200
    assert not any(reading.status.is_loss for reading in summary.readings)


def test_brief_that_does_not_say_what_to_write_is_named(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    brief = {"id": "b", "split": "train"}
    message = 'line 1: the brief "b": It does not say what to write'
    with pytest.raises(InstaNERError, match=message):
        generate(
            make_generator((_BRIEF, "1. A wok.")),
            write_rows(brief),
            tmp_path / "texts.jsonl",
        )


def _write(*texts: str) -> str:
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))


@pytest.fixture
def live(chat_server: ChatServer) -> Language:
    """A pipeline that asks the server for two texts at a time."""
    nlp = spacy.blank("en")
    config = {
        "task": {"@llm_tasks": "instaner.Generate.v1", "labels": _TWO, "n": 2},
        "model": {
            "@llm_models": "instaner.Chat.v1",
            "name": "m",
            "base_url": chat_server.url,
            "max_concurrency": 1,
        },
    }
    nlp.add_pipe("llm", config=config)
    return nlp


_TWO = {"EQUIPMENT": "A tool.", "DISH": "Food."}
_MANY = [{**_BRIEF, "id": f"b{i}", "topic": f"topic {i}"} for i in range(9)]
_FAR = ["Nobody came to the market today", "Rust is a slow kind of fire", "I overslept"]


def _count_up() -> Callable[[Mapping[str, Any]], Any]:
    """Behaves as a model that always writes something new, and what it is asked for."""
    words = iter(f"{a}{b}{c}" for a in "bcdfgh" for b in "klmnpqrst" for c in "vwxz")

    def answer(body: Mapping[str, Any]) -> Any:
        prompt = body["messages"][-1]["content"]
        label = "DISH" if "at least one DISH" in prompt else "EQUIPMENT"
        mark = "." if "without labels or marks" in prompt else f"({label})."
        texts = [f"{next(words) * 9} [{next(words)}]{mark}" for _ in range(2)]
        return complete(_write(*texts))

    return answer


def test_no_more_briefs_are_asked_than_are_needed(
    live: Language, chat_server: ChatServer, write_rows: WriteRows, tmp_path: Path
) -> None:
    chat_server.behave = _count_up()
    summary = generate(live, write_rows(*_MANY), tmp_path / "texts.jsonl", n=6)
    assert (summary.texts, summary.short) == (6, "")
    assert len(chat_server.requests) == 3


def test_briefs_are_asked_again_until_there_are_enough_texts(
    live: Language, chat_server: ChatServer, write_rows: WriteRows, tmp_path: Path
) -> None:
    chat_server.behave = _count_up()
    briefs, output = write_rows(*_MANY[:2]), tmp_path / "texts.jsonl"
    summary = generate(live, briefs, output, n=12)
    assert summary.texts == 12
    assert len({row["id"] for row in srsly.read_jsonl(output)}) == 12
    first, asked = output.read_bytes(), len(chat_server.requests)
    generate(live, briefs, output, n=12)  # from the store, samples included
    assert output.read_bytes() == first
    assert len(chat_server.requests) == asked == 6


def test_label_that_falls_short_is_asked_for(
    live: Language, chat_server: ChatServer, write_rows: WriteRows, tmp_path: Path
) -> None:
    chat_server.behave = _count_up()
    output = tmp_path / "texts.jsonl"
    summary = generate(live, write_rows(*_MANY), output, n=4, per_label=6)
    assert min(summary.labels[label] for label in _TWO) >= 6
    assert summary.short == ""
    assert summary.texts < 20


def test_texts_without_entities_are_not_asked_for_a_label(
    live: Language, chat_server: ChatServer, write_rows: WriteRows, tmp_path: Path
) -> None:
    chat_server.behave = _count_up()
    plain = {**_BRIEF, "id": "plain", "lookalikes": []}
    briefs = write_rows(plain, *_MANY[:1])
    generate(live, briefs, tmp_path / "texts.jsonl", per_label=8)
    prompts = [r.body["messages"][-1]["content"] for r in chat_server.requests]
    assert not any("at least one" in p and "mark nothing." in p for p in prompts)


def test_nothing_new_ends_it_with_a_message(
    live: Language, chat_server: ChatServer, write_rows: WriteRows, tmp_path: Path
) -> None:
    chat_server.behave = lambda body: complete(_write("My [wok](EQUIPMENT).", "No."))
    output = tmp_path / "texts.jsonl"
    summary = generate(live, write_rows(*_MANY), output, n=50, per_label=3)
    assert summary.texts == 2
    assert summary.short == (
        "2 of 50 texts, 1 of 3 EQUIPMENT, 0 of 3 DISH; the last "
        f"{len(chat_server.requests) - 1} answers brought nothing new"
    )
    assert len(chat_server.requests) < 40
    assert summary.repeats["an earlier text"] > 10


@pytest.mark.parametrize("n", [100, 5000])
@pytest.mark.parametrize("fruitful", [0, 5])
def test_model_that_brings_nothing_new_is_asked_ten_times_more(
    fruitful: int,
    n: int,
    live: Language,
    chat_server: ChatServer,
    write_rows: WriteRows,
    tmp_path: Path,
) -> None:
    answer, number = _count_up(), count()

    def behave(body: Mapping[str, Any]) -> Any:
        return answer(body) if next(number) < fruitful else complete("I cannot.")

    chat_server.behave = behave
    path = write_rows({**_BRIEF, "id": "t", "split": "test"}, *_MANY)
    try:
        generate(live, path, tmp_path / "t.jsonl", n=n, max_failures=1)
    except InstaNERError:
        assert not fruitful
    assert len(chat_server.requests) <= fruitful + 11


def test_many_answers_are_asked_for_at_a_time_if_they_bring_something(
    live: Language, chat_server: ChatServer, write_rows: WriteRows, tmp_path: Path
) -> None:
    chat_server.behave = _count_up()
    sizes = []
    fetch = Model.fetch_requests
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Model,
            "fetch_requests",
            lambda self, requests, **kwargs: (
                sizes.append(len(requests)),
                fetch(self, requests, **kwargs),
            ),
        )
        generate(live, write_rows(*_MANY), tmp_path / "t.jsonl", n=90)
    assert sizes == [10, 10, 20, 5]


def test_briefs_without_entities_and_a_target_for_them_are_an_error(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    path = write_rows(
        {**_BRIEF, "lookalikes": []}, {**_BRIEF, "id": "t", "split": "test"}
    )
    with pytest.raises(InstaNERError, match="No brief in .* has entities"):
        generate(make_generator(), path, tmp_path / "t.jsonl", per_label=3)


def test_gold_texts_and_those_of_corpora_are_left_out(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    nlp = make_generator((_BRIEF, _write(*_FAR)))
    gold = write_rows({"text": f"{_FAR[0]}!"}, name="gold.jsonl")
    corpus = write_rows({"text": _FAR[1].upper()}, name="corpus.jsonl")
    output = tmp_path / "texts.jsonl"
    summary = generate(nlp, write_rows(_BRIEF), output, gold=gold, against=[corpus])
    assert [row["text"] for row in srsly.read_jsonl(output)] == [_FAR[2]]
    assert summary.leaks == [(_FAR[0], f"{_FAR[0]}!")]
    assert summary.repeats == {str(corpus): 1}


def test_texts_for_testing_may_be_gold(
    make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    brief = {**_BRIEF, "split": "test"}
    nlp = make_generator((brief, _write(_FAR[0])))
    gold = write_rows({"text": _FAR[0]}, name="gold.jsonl")
    output = tmp_path / "texts.jsonl"
    assert generate(nlp, write_rows(brief), output, gold=gold).texts == 1


@pytest.mark.parametrize("target", ["n", "per_label"])
def test_target_below_one_is_an_error(
    target: str, make_generator: MakeGenerator, write_rows: WriteRows, tmp_path: Path
) -> None:
    nlp = make_generator((_BRIEF, "1. Thanks."))
    with pytest.raises(InstaNERError, match="Give 1 or more"):
        generate(nlp, write_rows(_BRIEF), tmp_path / "t.jsonl", **{target: 0})  # type: ignore[arg-type]


@pytest.fixture
def live_for_categories(live: Language, chat_server: ChatServer) -> Language:
    config = live.get_pipe_config("llm")
    nlp = spacy.blank("en")
    task = {**config["task"], "task": "textcat"}
    nlp.add_pipe("llm", config={"task": task, "model": config["model"]})
    return nlp


def test_category_that_was_asked_for_is_its_writers_vote(
    live_for_categories: Language,
    chat_server: ChatServer,
    write_rows: WriteRows,
    tmp_path: Path,
) -> None:
    chat_server.behave = _count_up()
    briefs = [
        {**brief, "focus": label} for brief, label in zip(_MANY, _TWO, strict=False)
    ]
    output = tmp_path / "texts.jsonl"
    summary = generate(live_for_categories, write_rows(*briefs, _MANY[2]), output)
    assert summary.labels == {"EQUIPMENT": 2, "DISH": 2}
    assert summary.task == "textcat"
    rows = list(srsly.read_jsonl(output))
    assert [row.get("cats") for row in rows] == [
        *["EQUIPMENT"] * 2,
        *["DISH"] * 2,
        *[None] * 2,
    ]
    assert not any("spans" in row for row in rows)
    votes = [text.votes for text in read_texts(output)]
    assert votes[2] == {"generator": [make_mark("DISH")]}
    assert votes[4] == {}


def test_category_that_falls_short_is_asked_for(
    live_for_categories: Language,
    chat_server: ChatServer,
    write_rows: WriteRows,
    tmp_path: Path,
) -> None:
    chat_server.behave = _count_up()
    briefs = write_rows(*({**brief, "focus": "DISH"} for brief in _MANY))
    output = tmp_path / "texts.jsonl"
    summary = generate(live_for_categories, briefs, output, n=4, per_label=6)
    assert min(summary.labels[label] for label in _TWO) >= 6
    assert Counter(row["cats"] for row in srsly.read_jsonl(output)) == summary.labels
