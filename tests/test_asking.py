from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.tokens import Doc

from instaner.asking import Answer, Failures, Foreign, Model, TooManyFailures
from instaner.errors import InstaNERError
from instaner.llm.chat import Chat
from instaner.llm.store import Failure, Reason, Store
from instaner.pipeline import get_llms
from instaner.tasks.grounding import Reading, Status

from .conftest import KEY, LABELS, MakeTeacher
from .server import ChatServer, Reply, complete, reply

_WOK = "1. wok | True | EQUIPMENT | a pan"
_LONG = "My wok is here. " * 40

Prompts = Iterable[Iterable[str]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a store can be."""
    return tmp_path / "responses.db"


def _make_nlp(server: ChatServer, **settings: Any) -> Language:
    nlp = spacy.blank("en")
    model = {
        "@llm_models": "instaner.Chat.v1",
        "name": "m",
        "base_url": server.url,
        "max_retries": 0,
        **settings,
    }
    task = {"@llm_tasks": "instaner.NER.v1", "labels": LABELS}
    nlp.add_pipe("llm", config={"task": task, "model": model})
    return nlp


def _make_model(nlp: Language, store: Path) -> Model:
    ((name, llm),) = get_llms(nlp)
    return Model(nlp, name, llm, store=store)


def _make_foreign(nlp: Language, call: Callable[[Prompts], Any], store: Path) -> Model:
    ((_, llm),) = get_llms(nlp)
    llm._model = call
    return _make_model(nlp, store)


def _name(nlp: Language, *texts: str) -> list[tuple[str, Doc]]:
    return [(f"Text {n}", nlp.make_doc(text)) for n, text in enumerate(texts)]


def _get_ents(answer: Answer) -> list[str]:
    return [ent.text for ent in answer.doc.ents]


def _get_prompt(body: dict[str, Any]) -> str:
    return "".join(message["content"] for message in body["messages"])


def test_answers_of_a_chat_are_read_in_order(
    chat_server: ChatServer, store: Path
) -> None:
    chat_server.behave = lambda body: complete(
        _WOK if "A wok" in _get_prompt(body) else "No entities"
    )
    nlp = _make_nlp(chat_server)
    model = _make_model(nlp, store)
    texts = ["Nothing.", "A wok.", "Not much."]
    model.fetch(_name(nlp, *texts))
    answers = list(model.read(_name(nlp, *texts)))
    assert [answer.doc.text for answer in answers] == texts
    assert list(map(_get_ents, answers)) == [[], ["wok"], []]
    assert [answer.failure for answer in answers] == [None] * 3
    reading = Reading(Status.EXACT, "wok", "EQUIPMENT", 2, 5, "a pan")
    assert answers[1].readings == [reading]
    assert answers[1].prompts[0].endswith("Paragraph: A wok.\nAnswer:")


def test_answers_of_a_recording_are_read(
    make_teacher: MakeTeacher, store: Path
) -> None:
    nlp = make_teacher({"A wok.": _WOK})
    model = _make_model(nlp, store)
    model.fetch(_name(nlp, "A wok.", "Unknown."))  # nothing to fetch
    (answer,) = model.read(_name(nlp, "A wok."))
    assert _get_ents(answer) == ["wok"]
    assert not store.exists()


def test_answers_of_a_foreign_model_are_stored(
    make_teacher: MakeTeacher, store: Path
) -> None:
    asked = []

    def call(prompts: Prompts) -> Prompts:
        for shards in prompts:
            asked.extend(shards)
            yield [_WOK for _ in shards]

    for _ in range(2):
        nlp = make_teacher({})
        model = _make_foreign(nlp, call, store)
        model.fetch(_name(nlp, "A wok.", "Wok."))
        answers = list(model.read(_name(nlp, "A wok.", "Wok.")))
        assert list(map(_get_ents, answers)) == [["wok"], ["Wok"]]
    assert len(asked) == 2


def test_config_of_a_foreign_model_tells_its_answers_apart(
    make_teacher: MakeTeacher, store: Path
) -> None:
    asked = []

    def call(prompts: Prompts) -> Prompts:
        asked.append(1)
        return [[_WOK] for _ in prompts]

    for name in ("a", "b", "a"):
        nlp = make_teacher({})
        config = nlp.get_pipe_config("llm")
        config["model"] = {"@llm_models": "tests.Mine.v1", "name": name}
        model = _make_foreign(nlp, call, store)
        model.fetch(_name(nlp, "A wok."))
    assert len(asked) == 2
    assert {row["model"] for row in Store(store).read()} == {
        "tests.Mine.v1/a",
        "tests.Mine.v1/b",
    }


def test_error_of_a_foreign_model_is_that_of_its_text(
    make_teacher: MakeTeacher, store: Path
) -> None:
    def call(prompts: Prompts) -> Prompts:
        for (prompt,) in prompts:
            if "Paragraph: wok" in prompt:
                raise ConnectionError("It is\nbroken.")
            yield [_WOK]

    nlp = make_teacher({})
    model = _make_foreign(nlp, call, store)
    texts = "A wok.", "wok", "The wok."
    model.fetch(_name(nlp, *texts))
    assert len(list(Store(store).read())) == 2
    failures = [answer.failure for answer in model.read(_name(nlp, *texts))]
    detail = "instaner.Replay.v1 did not answer: It is broken."
    assert failures == [None, (Reason.SERVER, detail), None]


def test_foreign_model_that_never_answers_ends_the_run(
    make_teacher: MakeTeacher, store: Path
) -> None:
    calls = []

    def call(prompts: Prompts) -> Prompts:
        calls.append(prompts)
        raise ConnectionError("It is\nbroken.")

    nlp = make_teacher({})
    model = _make_foreign(nlp, call, store)
    with pytest.raises(InstaNERError, match="did not answer: It is broken"):
        model.fetch(_name(nlp, "A wok.", "wok"))
    assert len(calls) == 1


def test_key_in_the_config_of_a_foreign_model_is_not_stored(store: Path) -> None:
    config = {"@llm_models": "f", "api_key": KEY, "config": {"max_tokens": 3}}
    model = Foreign(lambda prompts: [["1"]], config, Store(store))
    model.fetch([("a", 0)], on_answer=lambda: None)
    (row,) = Store(store).read()
    assert row["params"] == {"@llm_models": "f", "config": {"max_tokens": 3}}


@pytest.mark.parametrize("given", [[], [["a"], ["b"]], [["a", "b"]], [[]], None])
def test_odd_answer_of_a_foreign_model_is_one_line(
    make_teacher: MakeTeacher, store: Path, given: Any
) -> None:
    nlp = make_teacher({})
    model = _make_foreign(nlp, lambda prompts: given, store)
    with pytest.raises(InstaNERError, match="did not answer: ") as caught:
        model.fetch(_name(nlp, "A wok."))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["chat", "foreign"])
def test_samples_are_asked_and_read_apart(
    chat_server: ChatServer, store: Path, kind: str
) -> None:
    replies = iter([_WOK, "No entities", "None"])
    chat_server.behave = lambda body: complete(next(replies))
    nlp = _make_nlp(chat_server, max_concurrency=1)
    model = _make_model(nlp, store)
    if kind == "foreign":
        model = _make_foreign(nlp, lambda prompts: [[next(replies)]], store)
    model.fetch(_name(nlp, "A wok."), samples=3)
    read = [list(model.read(_name(nlp, "A wok."), sample=k)) for k in range(3)]
    assert [_get_ents(answer) for (answer,) in read] == [["wok"], [], []]


def test_sample_that_is_not_recorded_names_the_text(
    make_teacher: MakeTeacher, store: Path
) -> None:
    nlp = make_teacher({"A wok.": _WOK})
    model = _make_model(nlp, store)
    with pytest.raises(InstaNERError, match=r"^Text 0: No answer \(sample 1\)"):
        list(model.read(_name(nlp, "A wok."), sample=1))


@pytest.mark.parametrize("kind", ["chat", "foreign"])
def test_text_that_was_not_fetched_is_named(
    chat_server: ChatServer, store: Path, kind: str
) -> None:
    nlp = _make_nlp(chat_server)
    model = _make_model(nlp, store)
    if kind == "foreign":
        model = _make_foreign(nlp, lambda prompts: [[_WOK]], store)
    model.fetch(_name(nlp, "A wok."))
    with pytest.raises(
        InstaNERError, match=r"^Text 1: No answer \(sample 0\) of .* is"
    ):
        list(model.read(_name(nlp, "A wok.", "Another.")))


def test_prompt_that_cannot_be_made_names_the_text(
    chat_server: ChatServer, store: Path
) -> None:
    nlp = _make_nlp(chat_server, context_length=300)  # two words are too many
    model = _make_model(nlp, store)
    with pytest.raises(
        InstaNERError, match="^Text 0: The prompt is longer than context_length"
    ) as caught:
        model.fetch(_name(nlp, "two words"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (reply(500, {}), Reason.SERVER),
        (complete(""), Reason.EMPTY),
        (complete(_WOK, finish_reason="length"), Reason.CUT),
        (complete("I am sorry."), Reason.UNREADABLE),
    ],
)
def test_answer_that_cannot_be_used_is_a_failure(
    chat_server: ChatServer, store: Path, given: Reply, reason: Reason
) -> None:
    chat_server.behave = lambda body: (
        given if "bad" in _get_prompt(body) else complete(_WOK)
    )
    nlp = _make_nlp(chat_server)
    model = _make_model(nlp, store)
    model.fetch(_name(nlp, "A wok.", "A bad wok."))
    good, bad = model.read(_name(nlp, "A wok.", "A bad wok."))
    assert (good.failure, bad.failure and bad.failure.reason) == (None, reason)
    assert _get_ents(good) == ["wok"]


def test_shard_that_fails_fails_the_text(chat_server: ChatServer, store: Path) -> None:
    def behave(body: dict[str, Any]) -> Reply:
        if "bad" in _get_prompt(body):
            return complete(_WOK, finish_reason="length")
        return complete(_WOK)

    chat_server.behave = behave
    nlp = _make_nlp(chat_server, context_length=500)
    model = _make_model(nlp, store)
    docs = _name(nlp, _LONG + "bad", _LONG)
    model.fetch(docs)
    failed, fine = model.read(docs)
    assert len(failed.prompts) > 1
    assert failed.failure is not None
    assert failed.failure.reason is Reason.CUT
    assert failed.readings == []
    assert (fine.failure, fine.doc.text) == (None, _LONG)
    assert _get_ents(fine) == ["wok"] * len(fine.prompts)


def test_every_answer_is_counted(chat_server: ChatServer, store: Path) -> None:
    nlp = _make_nlp(chat_server, context_length=500)
    done: list[int] = []
    model = _make_model(nlp, store)
    model.fetch(_name(nlp, _LONG), samples=2, on_answer=lambda: done.append(1))
    assert len(done) >= 4
    assert len(done) % 2 == 0


def test_store_of_the_config_is_kept(chat_server: ChatServer, tmp_path: Path) -> None:
    own, other = tmp_path / "own.db", tmp_path / "other.db"
    nlp = _make_nlp(chat_server, store=str(own))
    _make_model(nlp, other).fetch(_name(nlp, "A wok."))
    assert own.exists()
    assert not other.exists()


def test_chat_that_was_used_before_stores_its_answers(
    chat_server: ChatServer, store: Path
) -> None:
    chat_server.behave = lambda body: complete(_WOK)
    nlp = _make_nlp(chat_server)
    nlp("A pan.")
    model = _make_model(nlp, store)
    model.fetch(_name(nlp, "A wok."))
    (answer,) = model.read(_name(nlp, "A wok."))
    assert _get_ents(answer) == ["wok"]


def test_bill_of_a_chat(chat_server: ChatServer, store: Path) -> None:
    prices = {"input": 1.0, "output": 2.0}
    for text in ("A wok.", "A pan."):
        nlp = _make_nlp(chat_server, prices=prices)
        model = _make_model(nlp, store)
        model.fetch(_name(nlp, "A wok.", text))
    assert model.make_bill() == {
        "component": "llm",
        "model": "m",
        "stored": 1,
        "answers": 1,
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "cost": 11e-6,
        "kwh": None,
        "kg_co2e": None,
    }


def test_bill_without_a_price_has_no_cost(chat_server: ChatServer, store: Path) -> None:
    nlp = _make_nlp(chat_server)
    model = _make_model(nlp, store)
    model.fetch(_name(nlp, "A wok."))
    bill = model.make_bill()
    assert (bill["answers"], bill["cost"]) == (1, None)


def test_bill_of_nothing_asked(chat_server: ChatServer, store: Path) -> None:
    bill = _make_model(_make_nlp(chat_server), store).make_bill()
    assert (bill["answers"], bill["stored"], bill["cost"], bill["kwh"]) == (
        0,
        0,
        0,
        None,
    )


def test_bill_of_a_foreign_model(make_teacher: MakeTeacher, store: Path) -> None:
    nlp = make_teacher({})
    model = _make_foreign(nlp, lambda prompts: [[_WOK] for _ in prompts], store)
    model.fetch(_name(nlp, "A wok.", "A wok."))
    bill = model.make_bill()
    assert (bill["answers"], bill["stored"], bill["cost"]) == (1, 1, None)


def test_bill_of_a_recording_is_estimated(
    make_teacher: MakeTeacher, store: Path
) -> None:
    nlp = make_teacher({"A wok.": _WOK})
    model = _make_model(nlp, store)
    assert model.make_bill()["answers"] == 0
    for _ in range(2):  # each answer is counted once
        list(model.read(_name(nlp, "A wok.")))
    bill = model.make_bill()
    assert (bill["model"], bill["answers"], bill["cost"]) == (None, 1, None)
    assert bill["completion_tokens"] == round(len(_WOK) / 4)
    assert bill["prompt_tokens"] > 100


def _make_failures(failed: int, asked: int) -> Failures:
    failures = Failures()
    for number in range(asked):
        reason = Reason.CUT if number % 3 else Reason.EMPTY
        failure = Failure(reason, f"end {number}") if number < failed else None
        failures.add(f"{number}", "llm/0", failure)
    return failures


@pytest.mark.parametrize(
    ("failed", "asked", "at_most"), [(0, 0, 0.0), (0, 9, 0.0), (1, 20, 0.05), (9, 9, 1)]
)
def test_few_failures_pass(failed: int, asked: int, at_most: float) -> None:
    _make_failures(failed, asked).check(at_most, Path("f.jsonl"))


@pytest.mark.parametrize(
    ("failed", "asked", "at_most"), [(1, 9, 0.0), (2, 20, 0.05), (5, 9, 0.5)]
)
def test_too_many_failures_are_an_error(
    failed: int, asked: int, at_most: float
) -> None:
    with pytest.raises(TooManyFailures, match=rf"^{failed} of {asked} answers failed"):
        _make_failures(failed, asked).check(at_most, Path("f.jsonl"))


def test_error_counts_the_reasons() -> None:
    message = r"\(cut at the token limit: 3, empty answer: 2\): .* 0\.05.* f\.jsonl"
    with pytest.raises(TooManyFailures, match=message):
        _make_failures(5, 9).check(0.05, Path("f.jsonl"))


def test_failures_are_written(tmp_path: Path) -> None:
    _make_failures(2, 9).write(tmp_path / "new" / "failed.jsonl")
    assert list(srsly.read_jsonl(tmp_path / "new" / "failed.jsonl")) == [
        {"id": "0", "voter": "llm/0", "reason": "empty answer", "detail": "end 0"},
        {
            "id": "1",
            "voter": "llm/0",
            "reason": "cut at the token limit",
            "detail": "end 1",
        },
    ]


def test_chat_keeps_the_store_it_was_given(
    chat_server: ChatServer, store: Path
) -> None:
    nlp = _make_nlp(chat_server)
    _make_model(nlp, store)
    ((_, llm),) = get_llms(nlp)
    assert isinstance(llm._model, Chat)
    assert llm._model.store is not None
    assert llm._model.store.path == store
