import itertools
import json
import logging
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instaner.errors import InstaNERError
from instaner.llm.chat import Chat, make_chat
from instaner.llm.client import read_completion
from instaner.llm.limits import Limits, get_delay
from instaner.llm.store import Failure, Reason, Response, Store

from ..conftest import KEY
from ..server import RETRY_AT_ONCE, ChatServer, Faulty, Reply, complete, reply, serve

_HTML = {"Content-Type": "text/html"}
_JSON = {"Content-Type": "application/json"}
_PRICES = {"input": 3.0, "output": 15.0}


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


def _fetch(model: Chat, prompts: Iterable[str]) -> None:
    model.fetch((prompt, 0) for prompt in prompts)


def _number(count: int) -> Iterator[str]:
    return (f"Text {n}" for n in range(count))


def _get_prompt(body: dict[str, Any]) -> str:
    return "".join(message["content"] for message in body["messages"])


def _refuse(status: int, message: str, code: str | None = None, **more: str) -> Reply:
    return reply(status, {"error": {"message": message, "code": code}}, **more)


def _get_end(model: Chat, prompts: Iterable[str] = ("hello",)) -> str:
    """RETURNS (str): The one line that a run ends with."""
    with pytest.raises(InstaNERError) as caught:
        _fetch(model, prompts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# One request, and what is wrong with it


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (_refuse(400, "No.", "content_filter"), Reason.FILTERED),
        (_refuse(400, "No.", "content_policy_violation"), Reason.FILTERED),
        (_refuse(403, "Your input was flagged by moderation."), Reason.FILTERED),
        (complete("No", finish_reason="content_filter"), Reason.FILTERED),
        (_refuse(400, "Too long.", "context_length_exceeded"), Reason.TOO_LONG),
        (
            _refuse(
                400,
                "This model's maximum context length is 4096 tokens. However, you "
                "requested 9000 tokens in the messages.",
            ),
            Reason.TOO_LONG,
        ),
        (
            _refuse(400, "prompt is too long: 250000 tokens > 200000 maximum"),
            Reason.TOO_LONG,
        ),
        (
            _refuse(400, "the request exceeds the available context size, try more"),
            Reason.TOO_LONG,
        ),
        (
            _refuse(
                400,
                "The input token count (1200000) exceeds the maximum number of tokens "
                "allowed (1048576).",
            ),
            Reason.TOO_LONG,
        ),
        (_refuse(400, "No.", "string_above_max_length"), Reason.TOO_LONG),
        ((413, _HTML, b"<h1>Request Entity Too Large</h1>"), Reason.TOO_LONG),
        (_refuse(422, "Too many input tokens"), Reason.TOO_LONG),
        (complete("1. wok | Tr", finish_reason="length"), Reason.CUT),
        (complete(None), Reason.EMPTY),
        (complete(" \n"), Reason.EMPTY),
        (_refuse(500, "Overloaded"), Reason.SERVER),
        (_refuse(408, "Too late"), Reason.SERVER),
        (_refuse(409, "Locked"), Reason.SERVER),
        ((200, {"Content-Length": "99"}, b'{"choices"'), Reason.SERVER),
    ],
)
def test_bad_request_does_not_end_the_run(
    chat_server: ChatServer, store: Path, given: Reply, reason: Reason
) -> None:
    chat_server.behave = lambda body: (
        given if _get_prompt(body) == "bad" else complete("ok")
    )
    model = _make_chat(chat_server, store=store, max_concurrency=2)
    prompts = ["a", "b", "bad", "c", "d"]
    _fetch(model, prompts)
    outcomes = {prompt: model.recall(prompt, 0) for prompt in prompts}
    failure = outcomes.pop("bad")
    assert isinstance(failure, Failure)
    assert failure.reason is reason
    assert "\n" not in failure.detail
    assert {type(outcome) for outcome in outcomes.values()} == {Response}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (_refuse(401, "Incorrect\nAPI key"), "refused a request to m: .*Incorrect API"),
        (_refuse(403, "Not for you"), "refused a request to m: .*Not for you"),
        (_refuse(404, "No model m", "model_not_found"), "refused .*No model m"),
        ((404, _HTML, b"<html>\n<body>\nNot Found</html>"), "refused .*404"),
        (_refuse(400, "Unknown parameter: 'top_k'."), "refused .*top_k"),
        (_refuse(422, "temperature: not a number"), "refused .*temperature"),
        (_refuse(402, "Insufficient Balance"), "refused .*Top up the account"),
        (_refuse(429, "Too much.", "insufficient_quota"), "Top up the account"),
        (_refuse(429, "Wait.", **{"Retry-After": "86400"}), "asks to wait 24.0 hours"),
        (_refuse(503, "Wait.", **{"Retry-After": "7200"}), "asks to wait 2.0 hours"),
    ],
)
def test_hopeless_request_ends_the_run_at_once(
    chat_server: ChatServer, store: Path, given: Reply, line: str
) -> None:
    chat_server.behave = lambda body: given
    model = _make_chat(chat_server, store=store, max_concurrency=4, max_retries=3)
    start = time.monotonic()
    with pytest.raises(InstaNERError, match=line) as caught:
        _fetch(model, _number(50))
    assert "\n" not in str(caught.value)
    assert len(chat_server.requests) <= 4
    assert time.monotonic() - start < 1


def test_what_was_received_before_the_end_is_stored(
    chat_server: ChatServer, store: Path
) -> None:
    replies = iter([complete("ok")] * 3 + [_refuse(402, "No money")])
    chat_server.behave = lambda body: next(replies)
    _get_end(_make_chat(chat_server, store=store, max_concurrency=1), _number(9))
    assert len(list(Store(store).read())) == 3


def test_what_is_on_its_way_at_the_end_is_stored(
    chat_server: ChatServer, store: Path
) -> None:
    together = threading.Barrier(4)

    def behave(body: dict[str, Any]) -> Reply:
        together.wait(5)
        if _get_prompt(body) == "Text 2":
            return _refuse(401, "No.")
        time.sleep(0.1)
        return complete("ok")

    chat_server.behave = behave
    _get_end(_make_chat(chat_server, store=store, max_concurrency=4), _number(50))
    assert len(list(Store(store).read())) == 3


def test_nothing_is_sent_again_after_the_end(
    chat_server: ChatServer, store: Path
) -> None:
    together = threading.Barrier(2)

    def behave(body: dict[str, Any]) -> Reply:
        if len(chat_server.requests) <= 2:
            together.wait(5)
        if _get_prompt(body) == "Text 0":
            return _refuse(401, "No.")
        time.sleep(0.05)
        return _refuse(500, "Later.")

    chat_server.behave = behave
    model = _make_chat(chat_server, store=store, max_concurrency=2, max_retries=5)
    _get_end(model, _number(9))
    assert len(chat_server.requests) == 2


def test_unreachable_server_ends_the_run_at_once(
    monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as probe:  # a port that is free, as it is bound and closed
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    line = _get_end(make_chat("m", base_url=url, store=store), _number(50))
    assert line.startswith(f"{url}/ cannot be reached")


@pytest.mark.parametrize("url", ["", "localhost:1/v1", "http://[/v1", "http://a:b/v1"])
def test_broken_address_is_one_line(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    _get_end(make_chat("m", base_url=url or "http://"))


def test_server_that_dies_ends_the_run_and_keeps_the_answers(
    monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ExitStack() as stack:
        server = stack.enter_context(serve())

        def make_prompts() -> Iterator[str]:
            yield from _number(30)
            stack.close()
            yield from (f"Later {n}" for n in range(30))

        model = _make_chat(server, store=store, max_concurrency=4, max_retries=2)
        line = _get_end(model, make_prompts())
    assert "cannot be reached" in line
    assert 26 <= len(list(Store(store).read())) <= 30


def test_slow_answer_is_asked_again(chat_server: ChatServer) -> None:
    slow = iter([True, False])

    def behave(body: dict[str, Any]) -> Reply:
        if next(slow):
            time.sleep(0.3)
        return complete("ok")

    chat_server.behave = behave
    assert _ask(_make_chat(chat_server, timeout=0.1, max_retries=1)) == "ok"


def test_timeout_is_one_line(chat_server: ChatServer) -> None:
    chat_server.behave = Faulty(hang=1)
    with pytest.raises(InstaNERError, match=r"/v1/ gave no answer in 0\.05 s\."):
        _ask(_make_chat(chat_server, timeout=0.05, max_retries=1))


def test_answer_that_trickles_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
                for _ in range(40):
                    connection.sendall(b" ")
                    time.sleep(0.02)
            except OSError:  # the client has left
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with pytest.raises(InstaNERError, match=r"gave no answer in 0\.1 s"):
            _ask(make_chat("m", base_url=url, timeout=0.1, max_retries=0))
        thread.join()


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_failed_request_is_sent_again(chat_server: ChatServer, status: int) -> None:
    replies = iter([reply(status, {}, **RETRY_AT_ONCE), complete("at last")])
    chat_server.behave = lambda body: next(replies)
    assert _ask(_make_chat(chat_server, max_retries=1)) == "at last"
    assert len(chat_server.requests) == 2


@pytest.mark.parametrize("fault", ["cut", "malformed", "wrong_types", "server_error"])
def test_faults_that_pass_are_overcome(
    chat_server: ChatServer, store: Path, fault: str
) -> None:
    chat_server.behave = Faulty(_get_prompt, **{fault: 0.3})  # type: ignore[arg-type]
    model = _make_chat(chat_server, store=store, max_retries=30)
    _fetch(model, _number(40))
    assert {o["response"] for o in Store(store).read()} == set(_number(40))


@pytest.mark.parametrize("status", [500, 503])
def test_failing_server_is_given_up(chat_server: ChatServer, status: int) -> None:
    chat_server.behave = lambda body: reply(status, {})
    with pytest.raises(InstaNERError, match="refused"):
        _ask(_make_chat(chat_server, max_retries=2))
    assert len(chat_server.requests) == 3


def test_hundred_failures_in_a_row_end_the_run(
    chat_server: ChatServer, store: Path
) -> None:
    count = itertools.count(1)
    chat_server.behave = lambda body: (
        complete("ok") if next(count) <= 10 else reply(500, {})
    )
    model = _make_chat(chat_server, store=store, max_concurrency=4)
    line = _get_end(model, _number(300))
    assert line.startswith("The last 100 requests failed, the last one so: ")
    assert 110 <= len(chat_server.requests) <= 114
    assert len(list(Store(store).read())) == 10


def test_failures_between_answers_do_not_end_the_run(
    chat_server: ChatServer, store: Path
) -> None:
    count = itertools.count(1)
    chat_server.behave = lambda body: (
        complete("ok") if next(count) % 60 == 0 else reply(500, {})
    )
    model = _make_chat(chat_server, store=store, max_concurrency=2)
    _fetch(model, _number(240))
    assert len(chat_server.requests) == 240


# How fast


def test_too_many_requests_end_the_run(chat_server: ChatServer, store: Path) -> None:
    chat_server.behave = lambda body: _refuse(429, "Slow down", **RETRY_AT_ONCE)
    line = _get_end(_make_chat(chat_server, store=store, max_retries=3))
    assert "Lower requests_per_minute or max_concurrency" in line
    assert len(chat_server.requests) == 4


def test_too_many_requests_do_not_count_while_others_get_through(
    chat_server: ChatServer, store: Path
) -> None:
    refused = Counter[str]()

    def behave(body: dict[str, Any]) -> Reply:
        if _get_prompt(body) == "Text 0" and refused["Text 0"] < 3:
            refused["Text 0"] += 1
            wanted = len(chat_server.paid) + 8
            deadline = time.monotonic() + 5
            while len(chat_server.paid) < wanted and time.monotonic() < deadline:
                time.sleep(0.001)
            return _refuse(429, "Slow down", **RETRY_AT_ONCE)
        return complete("ok")

    chat_server.behave = behave
    _fetch(_make_chat(chat_server, store=store, max_concurrency=4), _number(60))
    assert refused == {"Text 0": 3}
    assert len(list(Store(store).read())) == 60


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (429, {"Retry-After": "0.15"}),
        (429, {"retry-after-ms": "150"}),
        (503, {"Retry-After": "0.15"}),
        (
            429,
            {
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "150ms",
            },
        ),
    ],
)
def test_everyone_waits_as_long_as_the_server_asks(
    chat_server: ChatServer, store: Path, status: int, headers: dict[str, str]
) -> None:
    together = threading.Barrier(4)
    refused: list[float] = []
    later: list[float] = []

    def behave(body: dict[str, Any]) -> Reply:
        if len(refused) < 4 and not later:
            refused.append(time.monotonic())
            together.wait(5)
            return _refuse(status, "Slow down", **headers)
        later.append(time.monotonic())
        return complete("ok")

    chat_server.behave = behave
    model = _make_chat(chat_server, store=store, max_concurrency=4, max_retries=2)
    _fetch(model, _number(12))
    assert len(later) == 12
    assert 0.15 <= min(later) - max(refused) < 0.4


def test_requests_per_minute_are_kept(chat_server: ChatServer, store: Path) -> None:
    arrived: list[float] = []

    def behave(body: dict[str, Any]) -> Reply:
        arrived.append(time.monotonic())
        return complete("ok") if len(arrived) % 2 else reply(500, {})

    chat_server.behave = behave
    model = _make_chat(
        chat_server, store=store, requests_per_minute=1200, max_retries=9
    )
    _fetch(model, _number(4))
    assert len(arrived) >= 7
    assert arrived[-1] - arrived[0] >= (len(arrived) - 1) * 0.05 - 0.03


def test_tokens_per_minute_are_kept(chat_server: ChatServer, store: Path) -> None:
    arrived: list[float] = []

    def behave(body: dict[str, Any]) -> Reply:
        arrived.append(time.monotonic())
        return complete("ok", prompt_tokens=90, completion_tokens=10)

    chat_server.behave = behave
    model = _make_chat(  # 100 tokens in 0.05 s
        chat_server, store=store, tokens_per_minute=120_000, max_concurrency=1
    )
    _fetch(model, _number(6))
    assert arrived[-1] - arrived[0] >= 5 * 0.05 - 0.03


def test_limit_that_is_used_up_pauses(chat_server: ChatServer, store: Path) -> None:
    arrived: list[float] = []

    def behave(body: dict[str, Any]) -> Reply:
        arrived.append(time.monotonic())
        status, headers, written = complete("ok")
        left = {"remaining": "0", "reset": "150ms"}
        more = {f"x-ratelimit-{k}-requests": v for k, v in left.items()}
        return status, {**headers, **more}, written

    chat_server.behave = behave
    _fetch(_make_chat(chat_server, store=store, max_concurrency=1), _number(2))
    assert arrived[1] - arrived[0] >= 0.15


_FREE_TIER = (
    "Rate limit reached for m in organization org-1 on requests per min (RPM): Limit "
    "3, Used 3, Requested 1. Please try again in 20s. You can increase your rate limit "
    "by adding a payment method to your account at "
    "https://platform.openai.com/account/billing."
)


def test_rate_limit_that_names_billing_is_waited_for(chat_server: ChatServer) -> None:
    replies = iter(
        [
            _refuse(429, _FREE_TIER, "rate_limit_exceeded", **RETRY_AT_ONCE),
            complete("ok"),
        ]
    )
    chat_server.behave = lambda body: next(replies)
    assert _ask(_make_chat(chat_server, max_retries=1)) == "ok"


# What it costs


def _get_bill(server: ChatServer, prices: dict[str, float] = _PRICES) -> float:
    """RETURNS (float): What the server would charge."""
    bill = 0.0
    for body in server.paid:
        prompt = "\n".join(message["content"] for message in body["messages"])
        prompt_tokens = len(prompt.encode("utf8")) // 4
        completion_tokens = max(1, len(_say(body).encode("utf8")) // 4)
        bill += prompt_tokens * prices["input"] + completion_tokens * prices["output"]
    return bill / 1e6


def _say(body: dict[str, Any]) -> str:
    length = random.Random(_get_prompt(body)).randrange(1, 80)  # up to 20 tokens
    return "x" * length


def _make_paid(server: ChatServer, store: Path, budget: float, **more: Any) -> Chat:
    settings = {
        "params": {"max_tokens": 20},
        "prices": _PRICES,
        "max_concurrency": 8,
        "max_retries": 20,
    }
    return _make_chat(server, store=store, budget=budget, **{**settings, **more})


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"server_error": 0.2, "cut": 0.2, "too_many": 0.1},
        {"malformed": 0.2, "wrong_types": 0.1, "empty": 0.1, "truncated": 0.1},
    ],
)
def test_budget_is_never_exceeded(
    chat_server: ChatServer, store: Path, faults: dict[str, float]
) -> None:
    chat_server.behave = Faulty(_say, latency=0.003, jitter=0.003, **faults)  # type: ignore[arg-type]
    line = _get_end(_make_paid(chat_server, store, 0.01), _number(200))
    assert line.startswith("The budget of 0.01 US dollars for m is used up")
    assert "raise budget" in line
    spent = Store(store).get_spending("m")
    assert 0 < _get_bill(chat_server) <= spent + 1e-12
    assert 0.009 < spent <= 0.01


def test_budget_counts_what_timed_out(chat_server: ChatServer, store: Path) -> None:
    chat_server.behave = Faulty(hang=1)
    model = _make_paid(chat_server, store, 0.01, timeout=0.05, max_retries=0)
    try:
        _fetch(model, ["a"])
    except InstaNERError:
        pass
    assert Store(store).get_spending("m") > 0


def test_budget_that_is_raised_finishes(chat_server: ChatServer, store: Path) -> None:
    chat_server.behave = Faulty(_say, latency=0.002)
    _get_end(_make_paid(chat_server, store, 0.01), _number(100))
    received = len(list(Store(store).read()))
    assert 0 < received < 100
    model = _make_paid(chat_server, store, 1)
    _fetch(model, _number(100))
    assert (model.recalled["answers"], model.asked["answers"]) == (
        received,
        100 - received,
    )
    assert len(chat_server.requests) == 100
    assert Store(store).get_spending("m") == pytest.approx(_get_bill(chat_server))


def test_budget_too_small_for_one_request_sends_none(
    chat_server: ChatServer, store: Path
) -> None:
    line = _get_end(_make_paid(chat_server, store, 0.0001), _number(9))
    assert "could cost" in line
    assert chat_server.requests == []


def test_refused_request_costs_nothing(chat_server: ChatServer, store: Path) -> None:
    chat_server.behave = lambda body: reply(500, {})
    _fetch(_make_paid(chat_server, store, 1, max_retries=2), ["a"])
    assert Store(store).get_spending("m") == pytest.approx(0)


@pytest.mark.parametrize("content", [b'{"choices"', b"<html>"])
def test_answer_that_cannot_be_read_may_have_cost(
    chat_server: ChatServer, store: Path, content: bytes
) -> None:
    replies = iter([(200, _JSON, content), complete("ok")])
    chat_server.behave = lambda body: next(replies)
    _fetch(_make_paid(chat_server, store, 1), ["a"])
    (row,) = Store(store).read()
    assert Store(store).get_spending("m") > row["cost"] + 20 * 15e-6


def test_answer_without_usage_costs_what_was_reserved(
    chat_server: ChatServer, store: Path
) -> None:
    choices = [{"message": {"content": "ok"}}]
    chat_server.behave = lambda body: reply(200, {"choices": choices})
    _fetch(_make_paid(chat_server, store, 1), ["a"])
    spent = Store(store).get_spending("m")
    (row,) = Store(store).read()
    assert row["cost"] == pytest.approx(spent)
    assert spent > 20 * 15e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"params": {"max_tokens": 5}},
        {"store": Path("a.db")},
        {"store": Path("a.db"), "params": {"temperature": 0}},
    ],
)
def test_budget_needs_a_store_and_a_limit(settings: dict[str, Any]) -> None:
    with pytest.raises(InstaNERError, match="The budget for m needs store, .*max_tok"):
        make_chat("m", budget=1, prices=_PRICES, **settings)


def test_budget_needs_a_price(chat_server: ChatServer, store: Path) -> None:
    line = _get_end(_make_paid(chat_server, store, 1, prices=None))
    assert line.startswith("The budget cannot be kept: the price of m is not known")
    assert chat_server.requests == []


@pytest.mark.parametrize(
    ("cached_price", "cost"), [(None, 100 * 3 + 15), (0.3, 40 * 3 + 60 * 0.3 + 15)]
)
def test_cost_uses_the_price_of_cached_tokens(
    chat_server: ChatServer, store: Path, cached_price: float | None, cost: float
) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 60},
    }
    choices = [{"message": {"content": "ok"}}]
    chat_server.behave = lambda body: reply(200, {"choices": choices, "usage": usage})
    prices = {**_PRICES, **({"cached_input": cached_price} if cached_price else {})}
    model = _make_chat(chat_server, store=store, prices=prices)
    _fetch(model, ["a"])
    (row,) = Store(store).read()
    assert row["cost"] == model.asked["cost"] == pytest.approx(cost / 1e6)
    assert row["cached_tokens"] == 60


# The key


def _read_bytes(store: Path) -> bytes:
    return b"".join(path.read_bytes() for path in store.parent.glob(f"{store.name}*"))


_ECHO = f"Incorrect key: {KEY}. You sent 'Authorization: Bearer {KEY}'"


@pytest.mark.parametrize("status", [400, 401, 402, 404, 429, 500, 503])
def test_key_is_in_no_error_and_no_log(
    chat_server: ChatServer,
    store: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    chat_server.behave = lambda body: _refuse(status, _ECHO, _ECHO, **RETRY_AT_ONCE)
    caplog.set_level(logging.DEBUG)
    model = _make_chat(chat_server, store=store, max_retries=1)
    try:
        _fetch(model, ["a"])
        seen = str(model.recall("a", 0))
    except InstaNERError as err:
        seen = str(err)
    with pytest.raises(InstaNERError) as caught:
        _ask(model)
    assert "refused" in seen
    for place in (seen, str(caught.value), caplog.text, str(_read_bytes(store))):
        assert KEY not in place
        assert "Bearer sk" not in place


def test_key_is_in_no_store_and_no_log_of_answers(
    chat_server: ChatServer, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model = _make_chat(chat_server, store=store)
    _fetch(model, _number(3))
    assert b"Text 2" in _read_bytes(store)
    for place in (str(_read_bytes(store)), caplog.text, repr(vars(model))):
        assert KEY not in place
        assert "Bearer sk" not in place


@pytest.mark.parametrize("echo", [f"Bearer%20{KEY}", f"{KEY}_", f"ä{KEY}"])
def test_key_beside_a_letter_is_not_in_the_error(
    chat_server: ChatServer, echo: str
) -> None:
    chat_server.behave = lambda body: _refuse(401, echo)
    assert KEY not in _get_end(_make_chat(chat_server))


def test_key_that_is_cut_is_not_in_the_error(chat_server: ChatServer) -> None:
    message = f"{'x ' * 187}y {KEY}"
    chat_server.behave = lambda body: reply(200, {"error": {"message": message}})
    assert KEY[:9] not in _get_end(_make_chat(chat_server))


# What is a chat completion

_KNOWN = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


def _read(message: Any, **more: Any) -> Response:
    completion = {"choices": [{"message": message, **more.pop("choice", {})}], **more}
    return read_completion(json.dumps(completion).encode("utf8"))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "wök"}, "wök"),
        ({"content": None}, ""),
        ({}, ""),
        ({"content": None, "tool_calls": []}, ""),
        ({"content": []}, ""),
        (
            {
                "content": [
                    {"type": "reasoning", "text": "Hm."},
                    {"type": "text", "text": "a"},
                    {"type": "text", "text": "b"},
                ]
            },
            "ab",
        ),
        ({"content": "ok", "refusal": None}, "ok"),
        ({"content": "a \ud800 b"}, "a ? b"),
        ({"content": "\ud83d\ude00"}, "😀"),
    ],
)
def test_content_is_read(message: Any, text: str) -> None:
    assert _read(message) == Response(text)


def test_refusal_is_filtered() -> None:
    given = {"content": None, "refusal": "I cannot."}
    read = _read(given, choice={"finish_reason": "stop"})
    assert read == Response("I cannot.", finish_reason="content_filter")


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None, None, None)),
        (5, (None, None, None)),
        ({"prompt_tokens": "7", "completion_tokens": 2}, (None, 2, None)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None, None)),
        ({"prompt_tokens": 2**70, "completion_tokens": 1.5}, (None, None, None)),
        ({"prompt_tokens": 7, "prompt_tokens_details": None}, (7, None, None)),
        ({"prompt_tokens_details": {"cached_tokens": 5}}, (None, None, 5)),
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 0,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 9},
            },
            (7, 0, 0),
        ),
    ],
)
def test_usage_is_read(usage: Any, counts: tuple[int | None, ...]) -> None:
    read = _read({"content": "ok"}, usage=usage)
    assert (read.prompt_tokens, read.completion_tokens, read.cached_tokens) == counts


def test_error_with_status_200_is_named(chat_server: ChatServer) -> None:
    error = {"error": {"message": "Provider returned\nan error", "code": 502}}
    chat_server.behave = lambda body: reply(200, error)
    line = _get_end(_make_chat(chat_server, max_retries=2))
    assert "it says" in line
    assert "Provider returned" in line
    assert len(chat_server.requests) == 3


@pytest.mark.parametrize("headers", [_HTML, _JSON])
def test_page_of_html_is_one_line(
    chat_server: ChatServer, headers: dict[str, str]
) -> None:
    chat_server.behave = lambda _: (200, headers, b"<html>\nWelcome</html>")
    line = _get_end(_make_chat(chat_server))
    assert "did not answer with a chat completion" in line
    assert "often ends in /v1" in line


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": {}}',
        b'{"choices": {"a": 1}}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": "ok"}]}',
        b'{"choices": [{"message": {"content": 5}}]}',
        b'{"choices": [{"message": {"content": ["ok"]}}]}',
        b'{"choices": [{"message": {"content": [{"type": "text"}]}}]}',
        b"[" * 100_000,
        b"1" * 5000,
    ],
)
def test_no_chat_completion_is_an_error(content: bytes) -> None:
    with pytest.raises(_KNOWN):
        read_completion(content)


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(st.characters(), max_size=3),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "message",
                    "content",
                    "refusal",
                    "type",
                    "text",
                    "prompt_tokens",
                    "prompt_tokens_details",
                    "cached_tokens",
                    "finish_reason",
                    "error",
                ]
            ),
            values,
            max_size=3,
        )
    ),
    max_leaves=6,
)
_COMPLETIONS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(st.fixed_dictionaries({"message": _VALUES}) | _VALUES),
        "usage": _VALUES,
        "error": _VALUES,
    },
)


@given(body=_COMPLETIONS | _VALUES)
def test_any_json_is_a_response_or_a_known_error(body: Any) -> None:
    try:
        read = read_completion(json.dumps(body).encode("utf8"))
    except _KNOWN:
        return
    assert read.text.encode("utf8").decode("utf8") == read.text
    assert isinstance(read.finish_reason, str | None)
    for count in (read.prompt_tokens, read.completion_tokens, read.cached_tokens):
        assert count is None or count >= 0


@given(content=st.binary(max_size=30))
def test_any_bytes_are_a_response_or_a_known_error(content: bytes) -> None:
    with pytest.raises(_KNOWN):
        read_completion(content)


@pytest.fixture
def model(chat_server: ChatServer) -> Chat:
    return _make_chat(chat_server)


# One server and model for all examples is what is wanted.
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=_COMPLETIONS | _VALUES)
def test_any_json_is_an_answer_or_one_line(
    chat_server: ChatServer, model: Chat, body: Any
) -> None:
    chat_server.behave = lambda _: (200, _JSON, json.dumps(body).encode("utf8"))
    try:
        answer = _ask(model)
    except InstaNERError as err:
        answer = str(err)
        assert "\n" not in answer
    assert isinstance(answer, str)


def test_refusal_of_one_text_does_not_end_the_run(
    chat_server: ChatServer, store: Path
) -> None:
    chat_server.behave = lambda body: (
        _refuse(400, "Invalid prompt") if _get_prompt(body) == "bad" else complete("ok")
    )
    model = _make_chat(chat_server, store=store, max_concurrency=1)
    _fetch(model, ["a", "bad", "b"])
    outcome = model.recall("bad", 0)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, model.asked["answers"]) == (Reason.REFUSED, 2)
    # Also when it is the only one left.
    again = _make_chat(chat_server, store=store)
    _fetch(again, ["a", "bad", "b"])
    assert again.recall("bad", 0) == outcome


def test_limit_by_the_minute_is_outlasted(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("instaner.llm.client.get_delay", get_delay)
    monkeypatch.setattr(Limits, "pause", lambda self, seconds: pauses.append(seconds))
    chat_server.behave = lambda body: reply(429, {"error": {"message": "Slow."}})
    with pytest.raises(InstaNERError, match="Lower requests_per_minute"):
        _ask(_make_chat(chat_server, max_retries=5))
    assert sum(pauses) > 55


def test_long_pause_is_logged_once(
    chat_server: ChatServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("instaner.llm.client._LONG_PAUSE", 0.3)
    slow = reply(429, {"error": {"message": "Slow."}}, **{"Retry-After": "1.2"})
    replies = iter([slow] * 4)
    chat_server.behave = lambda body: next(replies, complete("ok"))
    with caplog.at_level(logging.WARNING, "instaner"):
        list(_make_chat(chat_server, max_concurrency=4, max_retries=1)(["abcd"]))
    (record,) = caplog.records
    assert record.getMessage().startswith("Waiting 1 s: ")
