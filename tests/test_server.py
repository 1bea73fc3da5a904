import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from typing import Any
from urllib.parse import urlsplit

import pytest

from .server import ChatServer, Faulty, Reply, complete, serve, serve_apart


@contextmanager
def _connect(url: str, timeout: float = 5.0) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()


def _send(connection: HTTPConnection, prompt: str = "hello") -> None:
    body = {"messages": [{"role": "user", "content": prompt}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))


def _read(connection: HTTPConnection) -> tuple[int, Any]:
    with connection.getresponse() as response:
        return response.status, json.loads(response.read())


def _ask(server: ChatServer, prompt: str = "hello") -> tuple[int, Any]:
    with _connect(server.url) as connection:
        _send(connection, prompt)
        return _read(connection)


def _wait_until_idle(server: ChatServer) -> None:
    deadline = time.monotonic() + 2
    while server.in_flight and time.monotonic() < deadline:
        time.sleep(0.001)
    assert server.in_flight == 0


def test_answer_has_the_usage_of_its_bytes() -> None:
    with serve(Faulty(lambda body: "wök" * 4)) as server:
        status, body = _ask(server, "a" * 40)
    assert status == 200
    assert body["choices"][0]["message"]["content"] == "wök" * 4
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens"] == 10
    assert body["usage"]["completion_tokens"] == 4


def test_connection_is_kept() -> None:
    with serve() as server, _connect(server.url) as connection:
        _send(connection)
        _read(connection)
        kept = connection.sock
        _send(connection)
        assert _read(connection)[0] == 200
        assert connection.sock is kept is not None
    assert len(server.requests) == 2


def _sleep(body: dict[str, Any]) -> Reply:
    time.sleep(0.5)
    return complete("ok")


@pytest.mark.parametrize("behave", [_sleep, Faulty(latency=0.5)])
def test_requests_do_not_wait_for_each_other(behave: Any) -> None:
    with serve(behave) as server:
        connections = [HTTPConnection(urlsplit(server.url).netloc) for _ in range(64)]
        start = time.monotonic()
        for connection in connections:
            _send(connection)
        statuses = [_read(connection)[0] for connection in connections]
        assert 0.5 <= time.monotonic() - start < 5
        for connection in connections:
            connection.close()
    assert statuses == [200] * 64
    assert (server.most_in_flight, server.in_flight) == (64, 0)


def test_some_requests_are_slow() -> None:
    with serve(Faulty(slow=1, slow_seconds=0.1)) as server:
        start = time.monotonic()
        _ask(server)
        assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("too_many", 429, "rate_limit_exceeded"),
        ("retry_after", 429, "rate_limit_exceeded"),
        ("server_error", 500, "server_error"),
        ("filtered", 400, "content_filter"),
    ],
)
def test_refusal_is_not_paid(fault: str, status: int, code: str) -> None:
    rates: dict[str, Any] = {fault: 1}
    with serve(Faulty(**rates)) as server:
        given, body = _ask(server)
    assert (given, body["error"]["code"]) == (status, code)
    assert len(server.requests) == 1
    assert server.paid == []


@pytest.mark.parametrize(
    ("faulty", "header"),
    [
        (Faulty(too_many=1), None),
        (Faulty(retry_after=1, retry_after_seconds=0.5), "0.5"),
    ],
)
def test_retry_after_is_said(faulty: Faulty, header: str | None) -> None:
    with serve(faulty) as server, _connect(server.url) as connection:
        _send(connection)
        assert connection.getresponse().getheader("Retry-After") == header


def test_client_that_gave_up_is_not_in_flight() -> None:
    with serve(Faulty(hang=1)) as server:
        with _connect(server.url, timeout=0.05) as connection:
            _send(connection)
            with pytest.raises(TimeoutError):
                connection.getresponse()
            assert server.in_flight == 1
        _wait_until_idle(server)
    assert server.paid == []


def test_reply_to_a_client_that_left_is_not_paid() -> None:
    with serve(Faulty(latency=0.1)) as server:
        with _connect(server.url) as connection:
            _send(connection)
            while not server.in_flight:
                time.sleep(0.001)
        _wait_until_idle(server)
    assert server.paid == []


def test_closed_server_lets_go_of_clients() -> None:
    with serve(Faulty(hang=1)) as server:
        connection = HTTPConnection(urlsplit(server.url).netloc, timeout=5)
        _send(connection)
        while not server.in_flight:
            time.sleep(0.001)
    with pytest.raises((RemoteDisconnected, ConnectionResetError)):
        connection.getresponse()


def test_connections_are_cut_before_and_in_the_reply() -> None:
    met = set()
    with serve(Faulty(cut=1)) as server:
        for _ in range(20):
            with pytest.raises((RemoteDisconnected, IncompleteRead)) as caught:
                _ask(server)
            met.add(caught.type)
    assert met == {RemoteDisconnected, IncompleteRead}
    assert server.paid == []


def test_malformed_reply_is_whole_but_no_json() -> None:
    with serve(Faulty(malformed=1)) as server, pytest.raises(json.JSONDecodeError):
        _ask(server)
    assert len(server.paid) == 1


def test_types_are_wrong_in_each_way() -> None:
    with serve(Faulty(wrong_types=1)) as server:
        bodies = [_ask(server)[1] for _ in range(30)]
    plain = [body for body in bodies if body["choices"] != "ok"]
    contents = {body["choices"][0]["message"]["content"] for body in plain}
    usages = {body["usage"]["prompt_tokens"] for body in plain}
    assert len(plain) < len(bodies)
    assert contents == {5, "ok"}
    assert usages == {1, "many"}


def test_truncated_answer_says_so() -> None:
    with serve(Faulty(truncated=1)) as server:
        _, body = _ask(server)
    assert body["choices"][0]["finish_reason"] == "length"


def test_empty_answer_has_usage() -> None:
    with serve(Faulty(empty=1)) as server:
        _, body = _ask(server)
    assert body["choices"][0]["message"]["content"] == ""
    assert body["usage"]["completion_tokens"] == 1


def _meet(prompts: list[str], **settings: Any) -> list[int]:
    with serve(Faulty(server_error=0.3, too_many=0.2, **settings)) as server:
        return [_ask(server, prompt)[0] for prompt in prompts]


def test_draws_are_those_of_the_seed() -> None:
    fates = _meet(["a"] * 40, seed=1)
    assert set(fates) == {200, 429, 500}
    assert _meet(["a"] * 40, seed=1) == fates
    assert _meet(["a"] * 40, seed=2) != fates


def test_sticky_fates_are_those_of_the_prompts() -> None:
    prompts = [f"prompt {number}" for number in range(40)]
    fates = _meet(prompts, sticky=True)
    assert set(fates) == {200, 429, 500}
    assert _meet(prompts[::-1], sticky=True) == fates[::-1]
    assert len(set(_meet(prompts[:1] * 10, sticky=True))) == 1


@pytest.mark.parametrize("rates", [{"cuts": 0.1}, {"cut": 1.1}, {"cut": -0.1}])
def test_wrong_rates_are_refused(rates: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"No such faults|Rates are"):
        Faulty(**rates)


def test_behaviour_that_fails_closes_the_connection() -> None:
    replies = iter([complete("ok")])
    with serve(lambda body: next(replies)) as server:
        assert _ask(server)[0] == 200
        with pytest.raises(RemoteDisconnected):
            _ask(server)


def test_server_in_its_own_process() -> None:
    args = ["--latency", "0.01", "--rate", "server_error=1"]
    with serve_apart(*args) as url, _connect(url) as connection:
        connection.request("GET", "/v1/models")
        assert _read(connection) == (200, {"data": []})
        _send(connection)
        assert _read(connection)[0] == 500
    with _connect(url) as connection, pytest.raises(ConnectionRefusedError):
        _send(connection)
