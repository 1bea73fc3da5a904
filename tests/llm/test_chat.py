import json
import socket
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instaner.errors import InstaNERError
from instaner.llm.chat import Chat, make_chat

from ..conftest import KEY
from ..server import RETRY_AT_ONCE, ChatServer, Reply, complete, reply

_HTML = {"Content-Type": "text/html"}
_JSON = {"Content-Type": "application/json"}


def _ask(model: Chat, prompt: str = "hello") -> str:
    (answers,) = model([[prompt]])
    (answer,) = answers
    return answer


def _make_chat(server: ChatServer, **settings: Any) -> Chat:
    return make_chat("m", base_url=server.url, **{"max_retries": 0, **settings})


def test_answer_comes_through(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: complete("1. wök | True | EQUIPMENT | a pan\n")
    assert _ask(_make_chat(chat_server)) == "1. wök | True | EQUIPMENT | a pan\n"


def test_shards_are_answered_in_order(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: complete(body["messages"][0]["content"].upper())
    model = _make_chat(chat_server)
    assert list(model([["a", "b"], ["c"]])) == [["A", "B"], ["C"]]


def test_requests_are_lazy(chat_server: ChatServer) -> None:
    next(iter(_make_chat(chat_server)([["a"], ["b"]])))
    assert len(chat_server.requests) == 1


def test_usage_adds_up(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: complete(
        "ok", prompt_tokens=11, completion_tokens=4
    )
    model = _make_chat(chat_server)
    list(model([["a"], ["b"]]))
    assert model.usage == {
        "requests": 2,
        "prompt_tokens": 22,
        "completion_tokens": 8,
    }


def test_usage_may_be_missing(chat_server: ChatServer) -> None:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "ok"}}]
    chat_server.behave = lambda body: reply(200, {"choices": choices})
    model = _make_chat(chat_server)
    assert _ask(model) == "ok"
    assert model.usage == {"requests": 1}


def test_empty_content_is_an_empty_answer(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: complete(None)
    assert _ask(_make_chat(chat_server)) == ""


def test_prompt_and_name_are_sent(chat_server: ChatServer) -> None:
    _ask(_make_chat(chat_server), "Mark the dishes.")
    (request,) = chat_server.requests
    assert request.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Mark the dishes."}],
    }


def test_params_are_passed_on(chat_server: ChatServer) -> None:
    _ask(_make_chat(chat_server, params={"temperature": 0.5, "seed": 3}))
    (request,) = chat_server.requests
    assert (request.body["temperature"], request.body["seed"]) == (0.5, 3)


def test_key_is_sent(chat_server: ChatServer) -> None:
    _ask(_make_chat(chat_server))
    assert chat_server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_key_variable_is_read(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "mine")
    _ask(_make_chat(chat_server, key_variable="MY_KEY"))
    assert chat_server.requests[0].headers["authorization"] == "Bearer mine"


def test_address_is_read_from_the_environment(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    assert _ask(make_chat("m")) == "ok"


def test_missing_key_is_named_before_any_request(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    model = _make_chat(chat_server, key_variable="MY_KEY")
    with pytest.raises(InstaNERError, match="environment variable MY_KEY"):
        _ask(model)
    assert chat_server.requests == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_refusal_is_one_line(chat_server: ChatServer, status: int) -> None:
    error = {"error": {"message": "it is\nnot to be"}}
    chat_server.behave = lambda body: reply(status, error)
    with pytest.raises(InstaNERError, match=r"a request to m: .*not to be") as caught:
        _ask(_make_chat(chat_server))
    assert "\n" not in str(caught.value)


def test_refusal_is_not_retried(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: reply(401, {}, **RETRY_AT_ONCE)
    with pytest.raises(InstaNERError, match="refused"):
        _ask(_make_chat(chat_server, max_retries=3))
    assert len(chat_server.requests) == 1


def test_page_of_html_as_a_refusal_is_one_line(chat_server: ChatServer) -> None:
    page = b"<html>\n<body>\nNot Found\n</body>\n</html>"
    chat_server.behave = lambda body: (404, _HTML, page)
    with pytest.raises(InstaNERError, match=r"a request to m: .*404") as caught:
        _ask(_make_chat(chat_server))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_key_is_not_in_the_error(chat_server: ChatServer, status: int) -> None:
    # Some servers quote the key that they refuse.
    error = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    chat_server.behave = lambda body: reply(status, error)
    with pytest.raises(InstaNERError, match="Incorrect API key") as caught:
        _ask(_make_chat(chat_server))
    assert KEY not in str(caught.value)


def test_unreachable_server_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as probe:  # a port that is free, as it is bound and closed
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    with pytest.raises(InstaNERError, match=rf"{url}/ cannot be reached") as caught:
        _ask(make_chat("m", base_url=url, max_retries=0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "localhost:1/v1", "http://[/v1", "http://a:b/v1"])
def test_broken_address_is_one_line(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InstaNERError) as caught:
        _ask(make_chat("m", base_url=url or "http://", max_retries=0))
    assert "\n" not in str(caught.value)


def test_timeout_is_one_line(chat_server: ChatServer) -> None:
    def sleep(body: dict[str, Any]) -> Reply:
        time.sleep(0.3)
        return complete("late")

    chat_server.behave = sleep
    with pytest.raises(InstaNERError, match=r"cannot be reached \(Request timed out"):
        _ask(_make_chat(chat_server, timeout=0.05))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failed_request_is_sent_again(chat_server: ChatServer, status: int) -> None:
    replies = iter([reply(status, {}, **RETRY_AT_ONCE), complete("at last")])
    chat_server.behave = lambda body: next(replies)
    assert _ask(_make_chat(chat_server, max_retries=1)) == "at last"
    assert len(chat_server.requests) == 2


def test_failing_server_is_given_up(chat_server: ChatServer) -> None:
    chat_server.behave = lambda body: reply(500, {}, **RETRY_AT_ONCE)
    with pytest.raises(InstaNERError, match="refused"):
        _ask(_make_chat(chat_server, max_retries=2))
    assert len(chat_server.requests) == 3


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (_HTML, b"<html>Welcome</html>"),
        (_JSON, b"<html>Welcome</html>"),
        (_JSON, b""),
        (_JSON, b"\xff"),
        (_JSON, b"null"),
        (_JSON, b"[]"),
        (_JSON, b"{}"),
        (_JSON, b'{"choices": null}'),
        (_JSON, b'{"choices": []}'),
        (_JSON, b'{"choices": {}}'),
        (_JSON, b'{"choices": {"a": 1}}'),
        (_JSON, b'{"choices": [null]}'),
        (_JSON, b'{"choices": [{"message": null}]}'),
        (_JSON, b'{"choices": [{"message": "ok"}]}'),
        (_JSON, b'{"choices": [{"message": {"content": 5}}]}'),
        (_JSON, b'{"choices": [{"message": {"content": ["ok"]}}]}'),
        (_JSON, b'{"choices": [{"message": {"content": "ok"}}], "usage": 5}'),
        (
            _JSON,
            b'{"choices": [{"message": {"content": "ok"}}],'
            b' "usage": {"prompt_tokens": "7"}}',
        ),
    ],
)
def test_no_chat_completion_is_one_line(
    chat_server: ChatServer, headers: dict[str, str], body: bytes
) -> None:
    chat_server.behave = lambda _: (200, headers, body)
    with pytest.raises(InstaNERError, match="did not answer with a chat") as caught:
        _ask(_make_chat(chat_server))
    assert "\n" not in str(caught.value)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(
            st.sampled_from(["message", "content", "prompt_tokens"]), values, max_size=2
        )
    ),
    max_leaves=4,
)
_COMPLETIONS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(st.fixed_dictionaries({"message": _VALUES}) | _VALUES),
        "usage": _VALUES,
    },
)


# One server for all examples is what is wanted.
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=_COMPLETIONS | _VALUES)
def test_any_json_is_an_answer_or_one_line(chat_server: ChatServer, body: Any) -> None:
    chat_server.behave = lambda _: (200, _JSON, json.dumps(body).encode("utf8"))
    try:
        answer = _ask(_make_chat(chat_server))
    except InstaNERError as err:
        answer = str(err)
    assert isinstance(answer, str)
    assert "\n" not in answer
