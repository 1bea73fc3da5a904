"""A server of chat completions for tests and benchmarks: real HTTP, on a free port of
this machine. To run it in a process of its own: python -m tests.server --help"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, cast

Reply = tuple[int, dict[str, str], bytes]
Behaviour = Callable[[dict[str, Any]], Reply]

# The SDK waits this long before it sends a request again, instead of a second.
RETRY_AT_ONCE = {"retry-after-ms": "1"}

FAULTS = (
    "too_many",  # 429
    "retry_after",  # 429 that says when to come back
    "server_error",  # 500
    "hang",  # no reply until the client gives up
    "cut",  # the connection is closed, before the reply or in the middle of it
    "malformed",  # 200 with half of the JSON
    "wrong_types",  # 200 with JSON that is no chat completion
    "truncated",  # a completion that stopped at its limit of tokens
    "empty",  # a completion without content
    "filtered",  # 400 of a content filter
)


class Request(NamedTuple):
    """A request that came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def reply(status: int, body: Any, **headers: str) -> Reply:
    """RETURNS (Reply): A reply with a JSON body."""
    kind = {"Content-Type": "application/json"}
    return status, {**kind, **headers}, json.dumps(body).encode("utf8")


def complete(
    content: Any,
    *,
    prompt_tokens: int = 7,
    completion_tokens: int = 2,
    finish_reason: str = "stop",
) -> Reply:
    """RETURNS (Reply): A chat completion with an answer and its usage."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return reply(
        200,
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [choice],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        },
    )


def _fail(status: int, code: str, **headers: str) -> Reply:
    error = {"message": f"Refused: {code}", "type": None, "param": None, "code": code}
    return reply(status, {"error": error}, **headers)


class Faulty:
    """Answers after a while, and at set rates misbehaves.

    answer (Optional[Callable[[dict[str, Any]], str]]): From a request's body to the
        content of the completion. It has to be quick, as everyone waits for it.
    latency (float): How long an answer takes, in seconds.
    jitter (float): By how much that differs at most, in seconds.
    slow (float): Rate of the requests that take slow_seconds instead.
    slow_seconds (float): How long these take.
    retry_after_seconds (float): What the fault retry_after asks for.
    seed (int): Of the draws.
    sticky (bool): Whether a prompt always meets the same fate, however often it is
        sent. Otherwise each request draws anew.
    rates (float): Rate of each of FAULTS, by name.
    """

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], str] | None = None,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        slow: float = 0.0,
        slow_seconds: float = 5.0,
        retry_after_seconds: float = 1.0,
        seed: int = 0,
        sticky: bool = False,
        **rates: float,
    ) -> None:
        if unknown := sorted(set(rates) - set(FAULTS)):
            raise ValueError(f"No such faults: {unknown}. There are {list(FAULTS)}.")
        rest = 1 - sum(rates.values())
        if min(rates.values(), default=0) < 0 or rest < -1e-9:
            raise ValueError(f"Rates are shares of all requests, not so in {rates}.")
        self._answer = answer or (lambda body: "ok")
        self._latency, self._jitter = latency, jitter
        self._slow, self._slow_seconds = slow, slow_seconds
        self._retry_after = f"{retry_after_seconds:g}"
        self._seed, self._sticky = seed, sticky
        self._random = random.Random(seed)
        self._fates = [*rates, ""]
        self._weights = [*rates.values(), max(rest, 0.0)]

    async def behave(self, body: dict[str, Any]) -> Reply | None:
        """RETURNS (Optional[Reply]): The reply, or nothing if there is to be none."""
        messages = body.get("messages", ())
        prompt = "\n".join(str(message.get("content")) for message in messages)
        rng = random.Random(f"{self._seed} {prompt}") if self._sticky else self._random
        (fate,) = rng.choices(self._fates, self._weights)
        seconds = self._latency + rng.uniform(-self._jitter, self._jitter)
        if rng.random() < self._slow:
            seconds = self._slow_seconds
        variant = rng.randrange(6)
        if seconds > 0:
            await asyncio.sleep(seconds)
        if fate == "hang":
            await asyncio.Event().wait()
        if fate == "too_many":
            return _fail(429, "rate_limit_exceeded")
        if fate == "retry_after":
            headers = {"Retry-After": self._retry_after}
            return _fail(429, "rate_limit_exceeded", **headers)
        if fate == "server_error":
            return _fail(500, "server_error")
        if fate == "filtered":
            return _fail(400, "content_filter")
        content = "" if fate == "empty" else self._answer(body)
        status, headers, written = complete(
            content,
            prompt_tokens=len(prompt.encode("utf8")) // 4,
            completion_tokens=max(1, len(content.encode("utf8")) // 4),
            finish_reason="length" if fate == "truncated" else "stop",
        )
        if fate == "cut":
            if variant % 2:
                return None
            headers["Content-Length"] = str(len(written))
        if fate in ("cut", "malformed"):
            written = written[: len(written) // 2]
        if fate == "wrong_types":
            return reply(status, _mistype(json.loads(written), variant % 3))
        return status, headers, written


def _mistype(completion: dict[str, Any], variant: int) -> dict[str, Any]:
    if variant == 0:
        completion["choices"] = "ok"
    elif variant == 1:
        completion["choices"][0]["message"]["content"] = 5
    else:
        completion["usage"] = {key: "many" for key in completion["usage"]}
    return completion


class ChatServer:
    """Answers POST /v1/chat/completions, and records the requests.

    behave (Union[Behaviour, Faulty]): From a request's body to status, headers and body
        of the reply. A reply that is shorter than its Content-Length is cut.
    record (bool): Whether to keep the requests.
    """

    def __init__(self, behave: Behaviour | Faulty, *, record: bool = True) -> None:
        self.behave = behave
        self.record = record
        self.requests: list[Request] = []
        # Bodies of the requests that got a whole reply with status 200.
        self.paid: list[dict[str, Any]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._connections: set[asyncio.Transport] = set()
        self._pool = ThreadPoolExecutor(256)
        self._closed: Future[None] = Future()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._port = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        """RETURNS (str): The base URL."""
        return f"http://127.0.0.1:{self._port}/v1"

    def close(self) -> None:
        """End run, from any thread; who waits for a reply gets none."""
        self._closed.set_result(None)

    async def run(self) -> None:
        """Answer requests until the server is closed."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: _Connection(self), sock=self._socket, backlog=1024
        )
        await asyncio.wrap_future(self._closed)
        listener.close()
        for connection in list(self._connections):
            connection.abort()
        self._pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.sleep(0)  # The connections are closed in the next round.

    async def _reply(self, body: dict[str, Any]) -> Reply | None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if isinstance(self.behave, Faulty):
                return await self.behave.behave(body)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, _call, self.behave, body)
        finally:
            self.in_flight -= 1


def _call(behave: Behaviour, body: dict[str, Any]) -> Reply:
    try:
        return behave(body)
    except StopIteration as err:  # which no future can hold
        raise RuntimeError("The behaviour has no reply left") from err


class _Connection(asyncio.Protocol):
    """Takes one request after the other. That of a client which left is dropped."""

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self._received = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server._connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._connections.discard(self._transport)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._take()

    def _take(self) -> None:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if self._task is not None or not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", 0))
        if len(rest) >= length:
            self._received = rest[length:]
            answer = self._answer(first, headers, rest[:length])
            self._task = asyncio.create_task(answer)

    async def _answer(self, first: str, headers: dict[str, str], sent: bytes) -> None:
        try:
            method, path, _ = first.split(" ")
            body = json.loads(sent or b"{}")
            if method == "POST" and self._server.record:
                self._server.requests.append(Request(path, headers, body))
            if (method, path) == ("POST", "/v1/chat/completions"):
                self._send(await self._server._reply(body), body)
            elif (method, path) == ("GET", "/v1/models"):
                self._send(reply(200, {"data": []}))
            else:
                self._send((404, {}, b"Not Found"))
        except Exception:
            self._transport.abort()
            raise
        if headers.get("connection", "").lower() == "close":
            self._transport.close()
        self._task = None
        self._take()

    def _send(self, given: Reply | None, body: dict[str, Any] | None = None) -> None:
        if given is None:
            self._transport.abort()
        if given is None or self._transport.is_closing():
            return
        status, headers, content = given
        headers = {"Content-Length": str(len(content)), **headers}
        cut = int(headers["Content-Length"]) != len(content)
        paid = status == 200 and not cut and body is not None and self._server.record
        if body is not None and paid:
            # Before the client can see the reply, and ask for this.
            self._server.paid.append(body)
        reason = HTTPStatus(status).phrase
        lines = [f"HTTP/1.1 {status} {reason}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""])
        self._transport.write(head.encode("latin-1") + content)
        if paid and self._transport.is_closing():
            self._server.paid.pop()
        if cut:
            self._transport.close()


@contextmanager
def serve(
    behave: Behaviour | Faulty | None = None, *, record: bool = True
) -> Iterator[ChatServer]:
    """Run a server in a thread.

    behave (Optional[Union[Behaviour, Faulty]]): What it does; it can be set later, too.
    record (bool): Whether to keep the requests.
    YIELDS (ChatServer): The server.
    """
    server = ChatServer(behave or (lambda body: complete("ok")), record=record)
    thread = threading.Thread(target=lambda: asyncio.run(server.run()), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


@contextmanager
def serve_apart(*args: str) -> Iterator[str]:
    """Run a server in a process of its own.

    args (str): Its command line.
    YIELDS (str): The base URL.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "tests.server", *args],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"The server did not start with {args}")
            yield url
        finally:
            process.terminate()


def main() -> None:
    """Print the base URL, and serve until stdin is closed."""
    parser = argparse.ArgumentParser(prog="python -m tests.server")
    for name in ("latency", "jitter", "slow", "slow-seconds", "retry-after-seconds"):
        parser.add_argument(f"--{name}", type=float, default=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sticky", action="store_true")
    parser.add_argument("--rate", action="append", default=[], metavar="NAME=VALUE")
    settings = vars(parser.parse_args())
    rates = (rate.partition("=") for rate in settings.pop("rate"))
    settings.update({name: float(value) for name, _, value in rates})
    with serve(Faulty(**settings), record=False) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
