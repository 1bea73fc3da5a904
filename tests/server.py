"""A server of chat completions for tests: real HTTP, on a free port of this machine."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Reply = tuple[int, dict[str, str], bytes]
Behaviour = Callable[[dict[str, Any]], Reply]

# The SDK waits this long before it sends a request again, instead of a second.
RETRY_AT_ONCE = {"retry-after-ms": "1"}


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
    content: Any, *, prompt_tokens: int = 7, completion_tokens: int = 2
) -> Reply:
    """RETURNS (Reply): A chat completion with an answer and its usage."""
    message = {"role": "assistant", "content": content}
    return reply(
        200,
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        },
    )


class ChatServer:
    """Answers POST /v1/chat/completions, and records the requests.

    behave (Behaviour): From a request's body to status, headers and body of the reply.
    """

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[Request] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length) or b"{}")
                headers = {key.lower(): value for key, value in self.headers.items()}
                server.requests.append(Request(self.path, headers, body))
                if self.path == "/v1/chat/completions":
                    status, reply_headers, content = server.behave(body)
                else:
                    status, reply_headers, content = 404, {}, b"Not Found"
                self.send_response(status)
                for key, value in reply_headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """RETURNS (str): The base URL."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"


@contextmanager
def serve(behave: Behaviour | None = None) -> Iterator[ChatServer]:
    """Run a server.

    behave (Optional[Behaviour]): What it does; it can be set later, too.
    YIELDS (ChatServer): The server.
    """
    server = ChatServer(behave or (lambda body: complete("ok")))
    http = server._http
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
