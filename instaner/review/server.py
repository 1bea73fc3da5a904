"""The review page's server: on this machine alone, unless asked, and then by token."""

import hmac
import json
import os
import secrets
import signal
import socket
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any

import uvicorn
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import import_file
from spacy.vocab import Vocab
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ..agreement import Agreement
from ..decisions import Answer, Decision, Decisions, check_reviewer
from ..errors import InstaNERError
from ..llm.store import hash_prompt
from ..pipeline import load_pipeline, load_teacher
from ..targets import ENTS, Offsets, Target, make_mark
from ..tasks.examples import add_example, make_example, remove_example
from .index import Filter, Index, Item, Queue, Status, build

LOCAL = ("127.0.0.1", "localhost", "::1")

_LEASE = 600  # seconds for which a text is its reviewer's
_COOKIE = "instaner_review"
_LONGEST = 100_000  # characters of a text to try
_MOST = 2**53
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


@dataclass
class Settings:
    """What a review page is about.

    source (Path): Folder of annotated shards, or a DocBin.
    target (Target): What is annotated; of entities, with the labels that are known.
    reviewer (str): Who reviews, if the page is not told another name.
    definitions (Dict[str, str]): Definitions of labels.
    guidelines (str): Text to show beside them.
    examples (Optional[Path]): File of the teacher's prompt examples.
    systems (Dict[str, str]): Pipelines to try, "teacher" and "student", by name.
    overlap (float): Share of the texts that every reviewer sees, between 0 and 1. Of
        the others each is shown to one.
    suspects (int): In how many texts to look for label errors.
    fingerprint (str): See index.get_fingerprint.
    code (Optional[Path]): Python file that the pipelines need.
    """

    source: Path
    target: Target
    reviewer: str
    definitions: dict[str, str] = field(default_factory=dict)
    guidelines: str = ""
    examples: Path | None = None
    systems: dict[str, str] = field(default_factory=dict)
    overlap: float = 0.1
    suspects: int = 0
    fingerprint: str = ""
    code: Path | None = None


class _Refused(Exception):
    """A request that cannot be met; its message is for the person."""


class Review:
    """What the page asks for.

    settings (Settings): What it is about.
    index (Index): The texts.
    decisions (Decisions): What people decided.
    """

    def __init__(self, settings: Settings, index: Index, decisions: Decisions) -> None:
        self.settings = settings
        self.index = index
        self.decisions = decisions
        self.target = settings.target
        self.worker: BaseProcess | None = None  # that makes the index, if one does
        self.lock: IO[bytes] | None = None  # that is held while this is
        self._lock = Lock()
        self._leases: dict[int, tuple[str, float]] = {}
        self._trying = Lock()  # apart: a teacher takes its time
        self._systems: dict[str, Language] = {}

    def describe(self) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): What the page has to know once."""
        settings = self.settings
        return {
            "attr": self.target.attr,
            "exclusive": self.target.exclusive,
            "labels": self.labels,
            "voters": self.index.get_names("voter"),
            "definitions": settings.definitions,
            "guidelines": settings.guidelines,
            "reviewer": settings.reviewer,
            "source": str(settings.source),
            "queues": [queue.value for queue in Queue],
            "statuses": [status.value for status in Status],
            "examples": None if settings.examples is None else str(settings.examples),
            "systems": list(settings.systems),
        }

    @property
    def labels(self) -> list[str]:
        """RETURNS (List[str]): The labels that a mark can have."""
        seen = () if self.target.attr == "cats" else self.index.get_names("label")
        return list(dict.fromkeys((*self.target.labels, *seen)))

    def get_progress(self, reviewer: str) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): How far the index and this person are."""
        state = self.index.get_state()
        if not state.get("trouble") and self.worker and self.worker.exitcode:
            state["trouble"] = "The corpus was not read to its end; see the terminal."
        return {
            "state": state,
            "texts": self.index.count_decided(self.target.attr),
            **self.decisions.count(reviewer, self.target.attr),
        }

    def get_agreement(self) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): How often each person left what was proposed as it
        was, and how far people agree where they decided about the same texts."""
        target = self._agreed_target
        people = Agreement(target)
        teacher: dict[str, Agreement] = {}
        both = 0
        for decisions in self.decisions.read(self.target.attr):
            accepted = [d for d in decisions if d.answer is Answer.ACCEPT]
            if not accepted:
                continue
            item = self.index.find(accepted[0].text)
            if item is None:
                continue  # of another corpus
            units = [start for start, _ in item.tokens]
            if target.attr == "cats":
                units = target.get_units(Doc(Vocab()))
            for decision in accepted:
                pair = {"teacher": decision.proposed, "person": decision.marks}
                teacher.setdefault(decision.reviewer, Agreement(target)).add_places(
                    units, {name: self._place(marks) for name, marks in pair.items()}
                )
            if len(accepted) > 1:
                both += 1
                people.add_places(
                    units, {d.reviewer: self._place(d.marks) for d in accepted}
                )
        return {
            "teacher": {name: found.to_json() for name, found in teacher.items()},
            "people": people.to_json(),
            "texts": both,
        }

    @property
    def _agreed_target(self) -> Target:
        if self.target.attr == "ents":
            return ENTS
        return self.target._replace(labels=tuple(self.labels))

    def _place(self, marks: tuple[Offsets, ...]) -> list[Offsets]:
        if self.target.attr == "ents":
            return [*marks]
        return self._agreed_target.make_marks(label for *_, label in marks)

    def get_next(
        self, wanted: Filter, after: tuple[float, int] | None
    ) -> dict[str, Any] | None:
        """RETURNS (Optional[Dict[str, Any]]): The next text, which is kept for this
        person, or None."""
        with self._lock:
            now = time.monotonic()
            self._leases = {
                n: lease for n, lease in self._leases.items() if lease[1] > now
            }
            item = self.index.get_next(
                wanted,
                self.target.attr,
                after=after,
                overlap=self.settings.overlap,
                taken=[
                    n
                    for n, (reviewer, _) in self._leases.items()
                    if reviewer != wanted.reviewer
                ],
            )
            if item is None:
                return None
            self._leases[item.n] = (wanted.reviewer, now + _LEASE)
        return self._show(item, wanted.reviewer)

    def _get(self, body: Mapping[str, Any]) -> Item:
        """RETURNS (Item): The text that a request is about, as its n and key say."""
        n = _get_int(body, "n")
        item = self.index.get(n) if abs(n) < _MOST else None
        if item is None:
            raise _Refused(
                f"There is no text {n}, or not yet: try again when all are read."
            )
        if body.get("key") != hash_prompt(item.text):
            raise _Refused(
                "The corpus has changed since this text was shown: it is another one "
                "now. Reload the page."
            )
        return item

    def _show(self, item: Item, reviewer: str) -> dict[str, Any]:
        found = self.decisions.find(item.text, self.target.attr)
        mine = next((d for d in found if d.reviewer == reviewer), None)
        marks = mine.marks if mine and mine.answer is Answer.ACCEPT else item.proposed
        starts = [*(start for start, _ in item.tokens), len(item.text)][1:]
        first = item.tokens[0][0] if item.tokens else len(item.text)
        return {
            "n": item.n,
            "key": hash_prompt(item.text),
            "id": item.id,
            "place": item.place,
            "queue": item.queue.value,
            "before": item.text[:first],
            "tokens": [
                [item.text[start:end], item.text[end:following]]
                for (start, end), following in zip(item.tokens, starts, strict=True)
            ],
            "candidates": [
                {**row, **self._find_tokens(item, (row["start"], row["end"]))}
                for row in item.candidates
            ],
            "proposed": self._to_tokens(item, item.proposed),
            "marks": self._to_tokens(item, marks),
            "answer": mine.answer.value if mine else None,
            "others": [d.reviewer for d in found if d.reviewer != reviewer],
        }

    def _to_tokens(self, item: Item, marks: Any) -> list[dict[str, Any]]:
        return [
            {"label": label, **self._find_tokens(item, (start, end))}
            for start, end, label in marks
        ]

    def _find_tokens(self, item: Item, place: tuple[int, int]) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): First token, and that after the last, of a span."""
        if self.target.attr == "cats":
            return {"first": -1, "last": -1}
        start, end = place
        first = bisect_right(item.tokens, start, key=lambda token: token[1])
        last = bisect_left(item.tokens, end, key=lambda token: token[0])
        return {"first": first, "last": max(first + 1, last)}

    def decide(self, body: Mapping[str, Any]) -> None:
        """Store a decision.

        body (Mapping[str, Any]): n, key, reviewer, answer, marks (label, and first and
            last token of entities), seconds, and by_chance.
        """
        item = self._get(body)
        answer = Answer(_get_one(body, "answer", [answer.value for answer in Answer]))
        marks = self._read_marks(item, body.get("marks", []))
        seconds = body.get("seconds")
        is_time = isinstance(seconds, int | float) and 0 <= seconds < _MOST
        self.decisions.add(
            Decision(
                item.text,
                self.target.attr,
                _get_reviewer(body),
                answer,
                tuple(marks) if answer is Answer.ACCEPT else (),
                tuple(item.proposed),
                item.id,
                Queue.RANDOM.value if body.get("by_chance") else item.queue.value,
                round(float(seconds), 1) if is_time else None,  # type: ignore[arg-type]
            )
        )
        with self._lock:
            self._leases.pop(item.n, None)

    def _read_marks(self, item: Item, given: Any) -> list[Offsets]:
        if not isinstance(given, list) or not all(isinstance(m, dict) for m in given):
            raise _Refused("marks have to be a list of objects.")
        marks: list[Offsets] = []
        last = 0
        if self.target.attr == "cats":
            labels = [_get_one(mark, "label", self.labels) for mark in given]
            if self.target.exclusive and len(labels) != 1:
                raise _Refused("A text has exactly one of these categories. Choose it.")
            return sorted({make_mark(label) for label in labels})
        for mark in sorted(given, key=lambda m: _get_int(m, "first")):
            first, end = _get_int(mark, "first"), _get_int(mark, "last")
            label = _get_one(mark, "label", self.labels)
            if not last <= first < end <= len(item.tokens):
                raise _Refused("Spans have to be in the text, and must not overlap.")
            marks.append((item.tokens[first][0], item.tokens[end - 1][1], label))
            last = end
        return marks

    def undo(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): The text about which the last decision is taken
        back, with the marks that it had."""
        reviewer = _get_reviewer(body)
        decision = self.decisions.get_last(reviewer, self.target.attr)
        if decision is None:
            raise _Refused("There is nothing to undo.")
        item = self.index.find(decision.text)
        if item is None:
            raise _Refused(
                f"The last decision is about text {decision.text_id}, which is not in "
                "this corpus: it is not undone."
            )
        self.decisions.undo(reviewer, self.target.attr)
        shown = self._show(item, reviewer)
        if decision.answer is Answer.ACCEPT:
            shown["marks"] = self._to_tokens(item, decision.marks)
        return shown

    def show_to_teacher(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Add a text to the prompt examples, or take it out of them.

        body (Mapping[str, Any]): n, key, marks (each with a reason), deleted (proposed
            marks that are none, each with a reason), and remove.
        RETURNS (Dict[str, Any]): file, and what was done.
        """
        path = self.settings.examples
        if path is None:
            raise _Refused(
                "The teacher's config has no file of examples. Start the page with "
                "--teacher CONFIG, or --examples FILE."
            )
        item = self._get(body)
        with self._lock:
            if body.get("remove"):
                done = remove_example(path, item.text)
                return {"file": str(path), "done": "removed" if done else "not there"}
            given = body.get("marks", [])
            marks = self._read_marks(item, given)
            deleted = body.get("deleted", [])
            if not isinstance(deleted, list):
                raise _Refused("deleted has to be a list.")
            reasons: dict[Offsets, str] = {}
            for row in [*given, *deleted]:
                (mark,) = self._read_marks(item, [row])
                reasons[mark] = str(row.get("reason", ""))[:1000]
            decision = Decision(
                item.text,
                self.target.attr,
                _get_reviewer(body),
                Answer.ACCEPT,
                tuple(marks),
                tuple(item.proposed),
            )
            add_example(path, make_example(decision, self.labels, reasons))
        return {"file": str(path), "done": "added"}

    def try_text(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): What each system says of a text, or its trouble."""
        text = body.get("text")
        if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
            raise _Refused(f"Give a text, of at most {_LONGEST:,} characters.")
        answers = {}
        for name, source in self.settings.systems.items():
            with self._trying:
                try:
                    if name not in self._systems:
                        load = load_teacher if name == "teacher" else load_pipeline
                        self._systems[name] = load(source)
                    doc = self._systems[name](text)
                except InstaNERError as err:
                    answers[name] = {"trouble": str(err)}
                    continue
            answers[name] = _show_doc(doc)
        return answers


def _show_doc(doc: Doc) -> dict[str, Any]:
    parts: list[list[str]] = []
    end = 0
    for ent in doc.ents:
        parts += [[doc.text[end : ent.start_char], ""], [ent.text, ent.label_]]
        end = ent.end_char
    parts.append([doc.text[end:], ""])
    cats = sorted(doc.cats.items(), key=lambda pair: -pair[1])
    return {"parts": [part for part in parts if part[0]], "cats": cats}


def _get_int(body: Mapping[str, Any], key: str) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Refused(f"{key} has to be a whole number, found {value!r}.")
    return value


def _get_one(body: Mapping[str, Any], key: str, options: list[str]) -> str:
    value = body.get(key)
    if value not in options:
        raise _Refused(f"{key} has to be one of {', '.join(options)}, found {value!r}.")
    return str(value)


def _get_reviewer(body: Mapping[str, Any]) -> str:
    name = body.get("reviewer")
    if not isinstance(name, str):
        raise _Refused("A reviewer's name is needed.")
    name = name.strip()
    check_reviewer(name)
    return name


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
            except (_Refused, InstaNERError) as err:
                return _say(str(err))
            return JSONResponse(found, headers=_HEADERS)

        return run

    def get_next(request: Request, body: dict[str, Any]) -> Any:
        wanted, after = _read_filter(request)
        return review.get_next(wanted, after)

    def get_progress(request: Request, body: dict[str, Any]) -> Any:
        return review.get_progress(_get_reviewer(request.query_params))

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
        raise _Refused("The request has to be JSON.")
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _BIGGEST:
            raise _Refused("The request is too long.")
    try:
        body = json.loads(data)
    except (RecursionError, ValueError) as err:
        raise _Refused(f"The request is no JSON ({err}).") from err
    if not isinstance(body, dict):
        raise _Refused("The request has to be a JSON object.")
    return body


def _read_filter(request: Request) -> tuple[Filter, tuple[float, int] | None]:
    query = request.query_params
    try:
        wanted = Filter(
            _get_reviewer(query),
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
        raise _Refused(f"The filter cannot be read ({err}).") from err
    return wanted, after


def _work(settings: Settings, path: Path, reviews: Path, parent: int) -> None:
    """Make the index, in a process of its own, which ends when the server does."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=watch, daemon=True).start()
    index = Index(path, reviews)
    try:
        if settings.code is not None:
            import_file("python_code", settings.code)
        student = settings.systems.get("student")
        build(
            index,
            settings.source,
            settings.target,
            student=None if student is None else load_pipeline(student),
            suspects=settings.suspects,
        )
        index.set_state(fingerprint=settings.fingerprint)
    except InstaNERError as err:
        index.set_state(trouble=str(err))


def _lock(path: Path, source: Path) -> IO[bytes] | None:
    """Hold a corpus, as two servers would show two people the same text."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file_ = path.open("wb")
    except OSError as err:
        raise InstaNERError(
            f"{path} cannot be written ({err.strerror}). A page keeps its files beside "
            "the corpus: check the folder's permissions."
        ) from err
    try:
        fcntl.lockf(file_, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a copy of this has it not
    except OSError as err:
        file_.close()
        raise InstaNERError(
            f"{source} is open on another page. Take its address: several people can "
            "review there, each with a name."
        ) from err
    return file_


def prepare(settings: Settings, path: Path, reviews: Path) -> Review:
    """Make ready what a page needs; an index that has to be made is made by a process
    of its own, while the page is used.

    settings (Settings): What the page is about.
    path (Path): File for the index.
    reviews (Path): The review store, which is made.
    RETURNS (Review): What the page asks for.
    RAISES (InstaNERError): If a file cannot be used.
    """
    lock = _lock(path.with_name(f"{path.name}.lock"), settings.source)
    decisions = Decisions(reviews)
    decisions.set_target(settings.target)
    index = Index(path, reviews)
    review = Review(settings, index, decisions)
    review.lock = lock
    if path.exists():
        if index.get_state().get("fingerprint") == settings.fingerprint:
            return review
        index.close()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    index.set_state(stage="reading", done=0, total=None, trouble=None)
    # A copy of this process has nothing to import, and shares its memory.
    way = "fork" if sys.platform == "linux" else "spawn"
    index.close()  # what is open, the copy would have, too
    decisions.close()
    review.worker = get_context(way).Process(  # type: ignore[attr-defined]
        target=_work, args=(settings, path, reviews, os.getpid()), daemon=True
    )
    review.worker.start()
    return review


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
