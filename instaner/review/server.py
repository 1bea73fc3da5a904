"""The review page's server: on this machine alone, unless asked, and then by token."""

import hmac
import json
import secrets
import socket
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ..errors import InstaNERError
from .index import Filter, Queue, Status
from .review import Review, get_reviewer

LOCAL = ("127.0.0.1", "localhost", "::1")

_COOKIE = "instaner_review"
_BIGGEST = 10_000_000  # bytes of a request
_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src "
    "'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def make_app(review: Review, *, host: str = LOCAL[0], token: str = "") -> Starlette:
    """Make the application.

    review (Review): What it serves.
    host (str): The address that it listens on, which has to be in a request's Host.
    token (str): What a request has to bring, in the address once, then as a cookie; "":
        nothing.
    RETURNS (Starlette): The application.
    """

    def serve(name: str, kind: str) -> Callable[[Request], Response]:
        content = files(__package__).joinpath(name).read_bytes()
        return lambda request: Response(content, media_type=kind, headers=_HEADERS)

    def answer(
        function: Callable[[Request, dict[str, Any]], Any],
    ) -> Callable[[Request], Any]:
        async def run(request: Request) -> Response:
            try:
                body = await _read_body(request) if request.method == "POST" else {}
                # In a thread: a large corpus must not hold up others.
                found = await run_in_threadpool(function, request, body)
            except InstaNERError as err:
                return _say(str(err))
            return JSONResponse(found, headers=_HEADERS)

        return run

    def get_next(request: Request, body: dict[str, Any]) -> Any:
        wanted, after = _read_filter(request)
        return review.get_next(wanted, after)

    def get_progress(request: Request, body: dict[str, Any]) -> Any:
        return review.get_progress(get_reviewer(request.query_params))

    posts: dict[str, Callable[[dict[str, Any]], Any]] = {
        "/api/decisions": review.decide,
        "/api/undo": review.undo,
        "/api/examples": review.show_to_teacher,
        "/api/try": review.try_text,
    }
    gets: dict[str, Callable[[Request, dict[str, Any]], Any]] = {
        "/api/session": lambda request, body: review.describe(),
        "/api/next": get_next,
        "/api/progress": get_progress,
        "/api/agreement": lambda request, body: review.get_agreement(),
    }
    routes = [
        *(Route(path, serve(*page)) for path, page in _PAGE.items()),
        *(Route(path, answer(function)) for path, function in gets.items()),
        *(
            Route(path, answer(lambda _, body, f=f: f(body)), methods=["POST"])  # type: ignore[misc]
            for path, f in posts.items()
        ),
    ]
    # Of another site that had its name point here, the Host would be that name.
    hosts = ["*"] if token else [*LOCAL, "[::1]", host]
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]
    app = Starlette(routes=routes, middleware=middleware)
    if token:
        app.add_middleware(_Guard, token=token)
    return app


def _say(trouble: str, status: int = 400) -> Response:
    return JSONResponse({"trouble": trouble}, status_code=status, headers=_HEADERS)


class _Guard:
    """Lets nobody in without the token."""

    def __init__(self, app: Any, token: str) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        given = request.query_params.get("token")
        response: Any = self.app
        if given is not None and request.url.path == "/" and self._is_right(given):
            response = RedirectResponse("/", headers=_HEADERS)
            response.set_cookie(
                _COOKIE, self.token, httponly=True, samesite="lax", path="/"
            )
        elif not self._is_right(request.cookies.get(_COOKIE, "")):
            response = _say("Open the address with its token, as it was printed.", 403)
        await response(scope, receive, send)

    def _is_right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


async def _read_body(request: Request) -> dict[str, Any]:
    # Another site's page can send a form here, but not JSON.
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise InstaNERError("The request has to be JSON.")
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _BIGGEST:
            raise InstaNERError("The request is too long.")
    try:
        body = json.loads(data)
    except (RecursionError, ValueError) as err:
        raise InstaNERError(f"The request is no JSON ({err}).") from err
    if not isinstance(body, dict):
        raise InstaNERError("The request has to be a JSON object.")
    return body


def _read_filter(request: Request) -> tuple[Filter, tuple[float, int] | None]:
    query = request.query_params
    reviewer = get_reviewer(query)
    try:
        wanted = Filter(
            reviewer,
            Queue(query["queue"]) if query.get("queue") else None,
            Status(query.get("status", Status.TODO.value)),
            query.get("label", ""),
            query.get("voter", ""),
            query.get("search", ""),
        )
        after = None
        if query.get("after"):
            place, n = query["after"].split(",")
            after = float(place), int(n)
    except ValueError as err:
        raise InstaNERError(f"The filter cannot be read ({err}).") from err
    return wanted, after


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; those who come wait until it is served.

    host (str): Address.
    port (int): Port; 0: any that is free.
    RETURNS (socket.socket): The socket.
    RAISES (InstaNERError): If it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, UnicodeError) as err:
        listener.close()
        raise InstaNERError(
            f"{host}, port {port}, cannot be listened on ({err}). Give another --port, "
            "or --host."
        ) from err
    listener.listen(128)
    return listener


def serve(review: Review, listener: socket.socket, *, host: str, token: str) -> None:
    """Serve the page until the process is ended; see make_app."""
    app = make_app(review, host=host, token=token)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])


def make_token() -> str:
    """RETURNS (str): A token that nobody can guess."""
    return secrets.token_urlsafe(24)
