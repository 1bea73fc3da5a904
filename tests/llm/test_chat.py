import asyncio
import json
import logging
import multiprocessing
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language

from instaner.errors import InstaNERError
from instaner.llm.chat import Chat, make_chat
from instaner.llm.store import Failure, Prompt, Reason, Response, Store

from ..conftest import KEY, LABELS
from ..server import ChatServer, Faulty, Reply, complete, reply


@pytest.fixture(autouse=True)
def _retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instaner.llm.client.get_delay", lambda attempt: 0.001)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a store can be."""
    return tmp_path / "responses.db"


def _make_chat(server: ChatServer, **settings: Any) -> Chat:
    return make_chat("m", base_url=server.url, **{"max_retries": 0, **settings})


def _ask(model: Chat, prompt: str = "hello") -> str:
    ((answer,),) = model([[prompt]])
    return answer


def _get_content(body: dict[str, Any]) -> str:
    return "".join(message["content"] for message in body["messages"])


def _echo(body: dict[str, Any]) -> Reply:
    return complete(_get_content(body))


def _get_prompts(server: ChatServer) -> list[str]:
    return sorted(_get_content(request.body) for request in server.requests)


def test_answer_comes_through(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: complete("1. wök | True | EQUIPMENT | a pan\n")
    assert _ask(_make_chat(chat_server)) == "1. wök | True | EQUIPMENT | a pan\n"


def test_shards_are_answered_in_order(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: complete(_get_content(body).upper())
    model = _make_chat(chat_server)
    assert list(model([["a", "b"], [], ["c"]])) == [["A", "B"], [], ["C"]]


def test_answers_are_in_order_however_long_they_take(chat_server: ChatServer) -> None:
    chat_server.behave = Faulty(_get_content, latency=0.01, jitter=0.01)
    prompts = [[f"{n}"] for n in range(80)]
    assert list(_make_chat(chat_server)(prompts)) == prompts


@pytest.mark.parametrize("number", [1, 7])
def test_max_concurrency_requests_are_in_flight(
    chat_server: ChatServer, number: int
) -> None:
    chat_server.behave = Faulty(latency=0.02)
    model = _make_chat(chat_server, max_concurrency=number)
    assert len(list(model([[f"{n}"] for n in range(4 * number)]))) == 4 * number
    assert chat_server.most_in_flight == number


def test_slow_answer_does_not_idle_the_others(chat_server: ChatServer) -> None:
    others = threading.Semaphore(0)

    def behave(body: dict[str, Any]) -> Reply:
        if _get_content(body) != "slow":
            others.release()
            return complete("ok")
        done = [others.acquire(timeout=5) for _ in range(40)]
        return complete(str(all(done)))

    chat_server.behave = behave
    prompts = [["slow"], *([f"{n}"] for n in range(40))]
    first, *_ = _make_chat(chat_server, max_concurrency=2)(prompts)
    assert first == ["True"]


def test_prompts_are_taken_as_there_is_room(chat_server: ChatServer) -> None:
    taken = []

    def make_prompts() -> Iterator[list[str]]:
        for number in range(1000):
            taken.append(number)
            yield [f"{number}"]

    chat_server.behave = Faulty(latency=0.05)
    answers = iter(_make_chat(chat_server, max_concurrency=4)(make_prompts()))
    next(answers)
    assert 4 <= len(taken) <= 16


def test_answers_ahead_of_a_slow_one_are_bounded(chat_server: ChatServer) -> None:
    seen = threading.Event()
    taken = []

    def behave(body: dict[str, Any]) -> Reply:
        if _get_content(body) == "0":
            seen.wait(0.3)
        return complete("ok")

    def make_prompts() -> Iterator[list[str]]:
        for number in range(1000):
            taken.append(number)
            yield [f"{number}"]

    chat_server.behave = behave
    answers = iter(_make_chat(chat_server, max_concurrency=2)(make_prompts()))
    next(answers)
    seen.set()
    assert 10 <= len(taken) <= 100


@pytest.mark.parametrize("stored", [False, True])
def test_identical_prompts_in_flight_are_asked_once(
    chat_server: ChatServer, store: Path, stored: bool
) -> None:
    chat_server.behave = Faulty(_get_content, latency=0.05)
    model = _make_chat(chat_server, store=store if stored else None)
    assert list(model([["a"], ["a", "b"], ["a"]])) == [["a"], ["a", "b"], ["a"]]
    assert _get_prompts(chat_server) == ["a", "b"]


def test_stored_prompts_are_not_asked_again(
    chat_server: ChatServer, store: Path
) -> None:
    prompts = [["a"], ["b"]]
    list(_make_chat(chat_server, store=store)(prompts))
    model = _make_chat(chat_server, store=store)
    assert list(model([*prompts, ["c"]])) == [["ok"]] * 3
    assert _get_prompts(chat_server) == ["a", "b", "c"]
    assert (model.recalled["answers"], model.recalled["prompt_tokens"]) == (2, 14)
    assert model.asked["answers"] == 1


def test_stored_prompts_need_no_key(
    chat_server: ChatServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ask(_make_chat(chat_server, store=store))
    monkeypatch.delenv("OPENAI_API_KEY")
    assert _ask(_make_chat(chat_server, store=store)) == "ok"


@pytest.mark.parametrize(
    ("name", "params", "prompt", "sample", "asked"),
    [
        ("m", {"temperature": 0}, "a", 0, 1),
        ("n", {"temperature": 0}, "a", 0, 2),
        ("m", {"temperature": 1}, "a", 0, 2),
        ("m", {"temperature": 0, "seed": 1}, "a", 0, 2),
        ("m", {"temperature": 0}, "b", 0, 2),
        ("m", {"temperature": 0}, Prompt("a", constant=0), 0, 1),
        ("m", {"temperature": 0}, "a", 1, 2),
    ],
)
def test_only_another_request_is_asked_anew(
    chat_server: ChatServer,
    store: Path,
    name: str,
    params: dict[str, Any],
    prompt: str,
    sample: int,
    asked: int,
) -> None:
    old = {"temperature": 0}
    _make_chat(chat_server, store=store, params=old).fetch([("a", 0)])
    model = make_chat(name, base_url=chat_server.url, store=store, params=params)
    model.fetch([(prompt, sample)])
    assert len(chat_server.requests) == asked


def test_other_address_is_no_other_request(
    chat_server: ChatServer, store: Path
) -> None:
    _ask(_make_chat(chat_server, store=store))
    assert _ask(make_chat("m", base_url="http://127.0.0.1:1/v1", store=store)) == "ok"


def test_store_is_made_when_it_is_used(chat_server: ChatServer, store: Path) -> None:
    model = _make_chat(chat_server, store=store)
    assert not store.exists()
    _ask(model)
    assert store.exists()


def test_works_inside_a_running_loop(chat_server: ChatServer) -> None:
    async def ask() -> str:  # as in a notebook
        return _ask(_make_chat(chat_server))

    assert asyncio.run(ask()) == "ok"


def test_works_twice(chat_server: ChatServer) -> None:
    model = _make_chat(chat_server)
    assert [_ask(model), _ask(model)] == ["ok", "ok"]
    assert len(chat_server.requests) == 2


def test_works_again_after_an_error(chat_server: ChatServer) -> None:
    replies = iter([reply(404, {}), complete("ok")])
    chat_server.behave = lambda body: next(replies)
    model = _make_chat(chat_server)
    with pytest.raises(InstaNERError, match="refused"):
        _ask(model)
    assert _ask(model) == "ok"


def test_works_again_after_its_answers_were_left(chat_server: ChatServer) -> None:
    chat_server.behave = Faulty(_get_content, latency=0.01)
    model = _make_chat(chat_server, max_concurrency=2)
    next(iter(model([[f"{n}"] for n in range(10)])))
    assert list(model([["a"], ["b"], ["c"]])) == [["a"], ["b"], ["c"]]


def test_copy_by_pickle_works(chat_server: ChatServer, store: Path) -> None:
    model = _make_chat(chat_server, store=store)
    _ask(model, "a")
    copy = pickle.loads(pickle.dumps(model))
    assert [_ask(copy, "a"), _ask(copy, "b")] == ["ok", "ok"]
    assert _get_prompts(chat_server) == ["a", "b"]
    assert (model.asked["answers"], copy.asked["answers"]) == (1, 2)


def test_works_in_a_forked_process_after_use(chat_server: ChatServer) -> None:
    model = _make_chat(chat_server)
    _ask(model)
    context = multiprocessing.get_context("fork")  # as nlp.pipe(n_process=2) on Linux
    process = context.Process(target=_ask, args=(model, "b"))
    process.start()
    process.join(2)
    process.kill()
    process.join()
    assert process.exitcode == 0


def test_numbers_add_up(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: complete(
        "ok", prompt_tokens=11, completion_tokens=4
    )
    model = _make_chat(chat_server, prices={"input": 2, "output": 5})
    list(model([["a"], ["b"]]))
    seconds, cost = model.asked.pop("seconds"), model.asked.pop("cost")
    assert model.asked == {
        "answers": 2,
        "prompt_tokens": 22,
        "completion_tokens": 8,
        "unpriced": 0,
    }
    assert cost == pytest.approx(2 * (11 * 2 + 4 * 5) / 1e6)
    assert 0 < seconds < 10


def test_usage_may_be_missing(chat_server: ChatServer) -> None:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "ok"}}]
    chat_server.behave = lambda body: reply(200, {"choices": choices})
    model = _make_chat(chat_server)
    assert _ask(model) == "ok"
    assert (model.asked["answers"], model.asked["prompt_tokens"]) == (1, 0)
    assert model.asked["unpriced"] == 1


def test_prompt_and_name_are_sent(chat_server: ChatServer) -> None:
    _ask(_make_chat(chat_server), "Mark the dishes.")
    (request,) = chat_server.requests
    assert request.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Mark the dishes."}],
    }


@pytest.mark.parametrize(
    ("system", "messages"),
    [(True, [("system", "Mark: "), ("user", "wok")]), (False, [("user", "Mark: wok")])],
)
def test_constant_part_is_the_system_message(
    chat_server: ChatServer, system: bool, messages: list[tuple[str, str]]
) -> None:
    model = _make_chat(chat_server, system_message=system)
    _ask(model, Prompt("Mark: wok", constant=6))
    (request,) = chat_server.requests
    sent = [(m["role"], m["content"]) for m in request.body["messages"]]
    assert sent == messages


def test_params_are_passed_on(chat_server: ChatServer) -> None:
    _ask(_make_chat(chat_server, params={"temperature": 0.5, "other": {"a": [3]}}))
    (request,) = chat_server.requests
    assert (request.body["temperature"], request.body["other"]) == (0.5, {"a": [3]})


_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


def test_response_format_of_a_prompt_is_sent(chat_server: ChatServer) -> None:
    model = _make_chat(chat_server, params={"temperature": 0})
    _ask(model, Prompt("a", response_format=_FORMAT))
    _ask(model, Prompt("a"))
    first, second = (request.body for request in chat_server.requests)
    assert (first["temperature"], first["response_format"]) == (0, _FORMAT)
    assert "response_format" not in second


@pytest.mark.parametrize("own", [{"type": "json_object"}, None])
def test_response_format_of_the_params_comes_first(
    chat_server: ChatServer, own: dict[str, str] | None
) -> None:
    model = _make_chat(chat_server, params={"response_format": own})
    _ask(model, Prompt("a", response_format=_FORMAT))
    assert chat_server.requests[0].body["response_format"] == own


def test_response_format_is_part_of_the_key() -> None:
    model = make_chat("m", params={"temperature": 0})
    prompts = ["a", Prompt("a"), Prompt("a", constant=0, response_format=_FORMAT)]
    plain, without, with_ = (model.make_request(prompt, 0).key for prompt in prompts)
    assert plain == without != with_
    # That of the recordings and stores that there are.
    assert plain.startswith("24527d87d674c0a2")


def test_prompt_can_be_pickled() -> None:
    prompt = Prompt("Mark: wok", constant=6, response_format=_FORMAT)
    copy = pickle.loads(pickle.dumps(prompt))
    assert (copy, copy.constant, copy.response_format) == (prompt, 6, _FORMAT)


def test_server_without_response_format_is_named(chat_server: ChatServer) -> None:
    message = "'response_format' of type 'json_schema' is not supported"
    chat_server.behave = lambda body: reply(400, {"error": {"message": message}})
    with pytest.raises(InstaNERError, match=f'{message}.*Set format = "lines"'):
        _ask(_make_chat(chat_server), Prompt("a", response_format=_FORMAT))


def test_key_is_sent(chat_server: ChatServer) -> None:
    _ask(_make_chat(chat_server))
    assert chat_server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_key_variable_is_read(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", " mine\n")
    _ask(_make_chat(chat_server, key_variable="MY_KEY"))
    assert chat_server.requests[0].headers["authorization"] == "Bearer mine"


def test_address_is_read_from_the_environment(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    assert _ask(make_chat("m")) == "ok"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "environment variable MY_KEY"),
        (" ", "environment variable MY_KEY"),
        ("schlüssel", "in MY_KEY has characters that no key has"),
        ("a\nb", "in MY_KEY has characters that no key has"),
    ],
)
def test_missing_key_is_named_before_any_request(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, key: str, message: str
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    model = _make_chat(chat_server, key_variable="MY_KEY")
    with pytest.raises(InstaNERError, match=message):
        _ask(model)
    assert chat_server.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"params": {"model": "n"}}, '"model" cannot be in the params'),
        ({"params": {"stream": True}}, '"stream" cannot be in the params'),
        ({"params": {"extra_headers": {}}}, '"extra_headers" cannot be in the params'),
        ({"max_concurrency": 0}, "max_concurrency of m has to be a number from 1"),
        ({"max_concurrency": 5000}, "to 1000, found 5000"),
        ({"requests_per_minute": 0}, "requests_per_minute of m has to be a number"),
        ({"tokens_per_minute": -1}, "tokens_per_minute of m has to be a number"),
        ({"timeout": float("nan")}, "timeout of m has to be .*found nan"),
        ({"context_length": 10**20}, "context_length of m has to be a number"),
        ({"max_retries": -1}, "max_retries of m has to be a number from 0"),
        ({"budget": "5"}, "budget of m has to be a number from 0 .*found '5'"),
        ({"budget": -1}, "budget of m has to be a number from 0"),
        ({"base_url": "http://me:word@host/v1"}, "base_url of m holds a password"),
    ],
)
def test_settings_that_cannot_be_are_named(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InstaNERError, match=message):
        make_chat("m", **settings)


@pytest.mark.parametrize(
    ("given", "warning", "answer"),
    [
        (complete(None), "No good answer: empty answer", ""),
        (complete(" \n"), "No good answer: empty answer", " \n"),
        (complete("wo", finish_reason="length"), "cut at the token limit", "wo"),
        (complete("", finish_reason="content_filter"), "content filter", ""),
        (
            reply(400, {"error": {"message": "No.", "code": "content_filter"}}),
            "No good answer: content filter",
            "",
        ),
        (
            reply(400, {"error": {"message": "", "code": "context_length_exceeded"}}),
            "No good answer: too long for the context",
            "",
        ),
    ],
)
def test_bad_answer_is_a_warning(
    chat_server: ChatServer,
    caplog: pytest.LogCaptureFixture,
    given: Reply,
    warning: str,
    answer: str,
) -> None:
    chat_server.behave = lambda body: (
        given if _get_content(body) == "bad" else complete("ok")
    )
    with caplog.at_level(logging.WARNING, "instaner"):
        answers = list(_make_chat(chat_server)([["bad"], ["good"]]))
    assert answers == [[answer], ["ok"]]
    (record,) = caplog.records
    assert warning in record.getMessage()


def test_server_error_is_one_line(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: reply(500, {"error": {"message": "it is\nso"}})
    with pytest.raises(InstaNERError, match=r"a request to m: .*it is so") as caught:
        _ask(_make_chat(chat_server, max_retries=2))
    assert "\n" not in str(caught.value)
    assert len(chat_server.requests) == 3


def test_fetch_stores_everything(chat_server: ChatServer, store: Path) -> None:
    chat_server.behave = Faulty(_get_content, latency=0.005, jitter=0.005)
    model = _make_chat(chat_server, store=store)
    wanted = [(f"{n}", sample) for n in range(20) for sample in range(2)]
    model.fetch(wanted)
    for prompt, sample in wanted:
        response = model.recall(prompt, sample)
        assert isinstance(response, Response)
        assert response.text == prompt
    assert len(list(Store(store).read())) == len(chat_server.requests) == 40


def test_fetched_answer_knows_what_it_took(
    chat_server: ChatServer, store: Path
) -> None:
    model = _make_chat(chat_server, store=store, prices={"input": 1, "output": 1})
    model.fetch([("a", 0)])
    response = model.recall("a", 0)
    assert isinstance(response, Response)
    assert (response.prompt_tokens, response.completion_tokens) == (7, 2)
    assert response.finish_reason == "stop"
    assert response.cost == pytest.approx(9e-6)
    assert response.created is not None
    assert response.created.endswith("+00:00")


def test_fetch_counts_every_request(chat_server: ChatServer, store: Path) -> None:
    done: list[int] = []
    model = _make_chat(chat_server, store=store)
    model.fetch([("a", 0)])
    model.fetch([("a", 0), ("b", 0), ("b", 0)], on_answer=lambda: done.append(1))
    deadline = time.monotonic() + 1  # the last callback may still run
    while len(done) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(done) == 3


def test_fetch_takes_requests_as_there_is_room(
    chat_server: ChatServer, store: Path
) -> None:
    chat_server.behave = Faulty(latency=0.01)
    ahead = []
    model = _make_chat(chat_server, store=store, max_concurrency=3)

    def make_requests() -> Iterator[tuple[str, int]]:
        for number in range(20):
            ahead.append(number - model.asked["answers"])
            yield f"{number}", 0

    model.fetch(make_requests())
    assert max(ahead) <= 4


def test_error_of_the_requests_keeps_the_answers(
    chat_server: ChatServer, store: Path
) -> None:
    def make_requests() -> Iterator[tuple[str, int]]:
        yield "a", 0
        yield "b", 0
        raise InstaNERError("No more.")

    chat_server.behave = Faulty(latency=0.05)
    with pytest.raises(InstaNERError, match="No more"):
        _make_chat(chat_server, store=store).fetch(make_requests())
    assert len(list(Store(store).read())) == 2


@pytest.mark.parametrize("stored", [False, True])
def test_recall_of_what_was_not_fetched_is_named(store: Path, stored: bool) -> None:
    model = make_chat("m", store=store if stored else None)
    with pytest.raises(InstaNERError, match=r"No answer \(sample 1\) of m is stored"):
        model.recall("a", 1)


def test_failure_is_asked_again_by_the_next_fetch(
    chat_server: ChatServer, store: Path
) -> None:
    replies = iter([reply(500, {}), complete("ok")])
    chat_server.behave = lambda body: next(replies)
    model = _make_chat(chat_server, store=store)
    model.fetch([("a", 0), ("a", 0)])
    failure = model.recall("a", 0)
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.SERVER
    model.fetch([("a", 0)])
    assert isinstance(model.recall("a", 0), Response)


def _make_nlp(
    server: ChatServer, *, format: str = "lines", **settings: Any
) -> Language:
    nlp = spacy.blank("en")
    model = {
        "@llm_models": "instaner.Chat.v1",
        "name": "m",
        "base_url": server.url,
        "max_retries": 0,
        **settings,
    }
    task = {"@llm_tasks": "instaner.NER.v1", "labels": LABELS, "format": format}
    nlp.add_pipe("llm", config={"task": task, "model": model, "save_io": True})
    return nlp


def _find_wok(body: dict[str, Any]) -> str:
    wok = "1. wok | True | EQUIPMENT | a pan"
    return wok if "wok" in body["messages"][-1]["content"] else "No entities"


@pytest.mark.parametrize("n_process", [1, 2])
def test_pipeline_works_with_a_store(
    chat_server: ChatServer, store: Path, n_process: int
) -> None:
    chat_server.behave = Faulty(_find_wok, latency=0.002, jitter=0.002)
    texts = [f"My {'wok' if n % 2 else 'pan'} number {n}" for n in range(20)]
    for _ in range(2):
        nlp = _make_nlp(chat_server, store=str(store))
        docs = list(nlp.pipe(texts, batch_size=6, n_process=n_process))
        assert [doc.text for doc in docs] == texts
        assert [[ent.text for ent in doc.ents] for doc in docs] == [[], ["wok"]] * 10
    assert len(chat_server.requests) == 20


@pytest.mark.parametrize("n_process", [1, 2])
def test_pipeline_asks_for_json(chat_server: ChatServer, n_process: int) -> None:
    answer = '{"entities": [{"text": "Wok", "label": "EQUIPMENT"}]}'
    chat_server.behave = lambda body: complete(answer)
    nlp = _make_nlp(chat_server, format="json")
    docs = list(nlp.pipe(["My wok", "A wok"], batch_size=1, n_process=n_process))
    assert [[(e.text, e.label_) for e in d.ents] for d in docs] == [
        [("wok", "EQUIPMENT")]
    ] * 2
    for request in chat_server.requests:
        wanted = request.body["response_format"]
        assert wanted["type"] == "json_schema"
        assert f'"enum": {json.dumps(LABELS)}' in json.dumps(wanted["json_schema"])


def test_pipeline_keeps_prompt_and_answer(chat_server: ChatServer) -> None:
    chat_server.behave = Faulty(_find_wok)
    doc = _make_nlp(chat_server)("A wok.")
    (prompt,) = doc.user_data["llm_io"]["llm"]["prompt"]
    assert type(prompt) is str
    assert prompt.endswith("Paragraph: A wok.\nAnswer:")


def test_pipeline_ends_with_one_line(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: reply(401, {"error": {"message": "No.\nNo."}})
    with pytest.raises(InstaNERError, match="refused a request to m") as caught:
        list(_make_nlp(chat_server).pipe(["a", "b"]))
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_one_setting(chat_server: ChatServer, store: Path) -> None:
    for temperature in (0, 0.0):
        params = {"temperature": temperature, "stop": ["0.0"], "top_p": 0.5}
        _ask(_make_chat(chat_server, store=store, params=params))
    (request,) = chat_server.requests
    assert (request.body["stop"], request.body["top_p"]) == (["0.0"], 0.5)
