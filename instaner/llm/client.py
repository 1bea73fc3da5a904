"""One request: sent within the limits, tried again where that helps, and stored."""

import asyncio
import json
import logging
import os
import re
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple

from ..errors import InstaNERError
from .cost import BYTES_PER_TOKEN, Price, make_price
from .limits import Limits, get_delay, read_duration, read_pause, read_retry_after
from .store import Failure, Reason, Request, Response, Store

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
# The names under which servers take the most tokens that an answer may have.
ANSWER_LIMITS = ("max_completion_tokens", "max_tokens")

_TEMPLATE_TOKENS = 32  # what a server puts around the messages, at most
_SHORTEST_KEY = 12  # characters; what is shorter is the word for a local server
_LONGEST_LINE = 400  # characters of a server's message
_CONNECT = 10.0  # seconds
_LONG_PAUSE = 5.0  # seconds after which a person wants to know why
_LONGEST_WAIT = 3600.0  # seconds that a server may ask to wait for
_MOST_FAILURES = 100  # in a row, with no answer between them
_MOST_TOKENS = 2**40  # a count above it is an error

# Not whatever speaks of billing: messages about limits per minute do that, too.
_QUOTA = re.compile(
    r"insufficient[_ ](quota|balance|funds|credit)|billing_(hard_limit|not_active)",
    re.IGNORECASE,
)
_RETRY_IN = re.compile(
    r"try(?: again)? in (\d[\d.]*(?:ms|[smh])(?:[\d.]+(?:ms|[smh]))*)"
)
_FILTERED = re.compile(
    r"content[_ ](filter|policy)|moderation|flagged|responsible ?ai", re.IGNORECASE
)
_FORMAT = re.compile(r"response_format|json_schema", re.IGNORECASE)
_NO_FORMAT = (
    'Set format = "lines" in the task\'s config, or a response_format that the server '
    "knows in the model's params."
)
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|maximum context|prompt is too long|too many "
    r"(input )?tokens|(input|prompt).{0,40}exceeds?|string_above_max_length",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Settings:
    """What a client is told by a config; see chat.make_chat."""

    name: str
    base_url: str | None
    key_variable: str
    max_concurrency: int
    requests_per_minute: float | None
    tokens_per_minute: float | None
    max_retries: int
    timeout: float
    budget: float | None
    prices: dict[str, float] | None

    def find_url(self) -> str:
        """RETURNS (str): The address: the config's, the environment's or OpenAI's."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI

    def make_price(self) -> Price | None:
        """RETURNS (Optional[Price]): What says an answer's price, if it is known."""
        return make_price(self.name, self.find_url(), self.prices)


class _Kind(Enum):
    RUN = "nothing more can be asked"
    TEXT = "the request is at fault"
    TRY_AGAIN = "the next attempt may do better"
    SLOW_DOWN = "the next attempt may do better, if all requests wait"


class _Trouble(NamedTuple):
    """Why an attempt gave no answer.

    kind (_Kind): What to do.
    detail (str): What happened.
    reason (Reason): For the list of failures.
    delay (Optional[float]): Seconds that the server asks to wait.
    may_cost (bool): Whether the server may have answered, and charged for it.
    ends_run (bool): Whether nothing more can be asked if the next attempts fail, too.
    advice (str): What to do if nothing more can be asked.
    """

    kind: _Kind
    detail: str
    reason: Reason = Reason.SERVER
    delay: float | None = None
    may_cost: bool = False
    ends_run: bool = False
    advice: str = ""


class Client:
    """A connection pool in an event loop of its own, so that it works in a notebook,
    whose loop is taken.

    settings (Settings): The settings.
    store (Optional[Store]): Where answers are put as they arrive.
    asked (Counter[str]): What the answers took: answers, prompt_tokens,
        completion_tokens, seconds, cost (US dollars) and unpriced (answers whose cost
        is not known).
    error (Optional[Exception]): Why nothing more can be asked.
    """

    def __init__(
        self, settings: Settings, store: Store | None, asked: Counter[str]
    ) -> None:
        self.settings = settings
        self.store = store
        self.asked = asked
        self.error: Exception | None = None
        self._price = settings.make_price()
        if settings.budget is not None and self._price is None:
            raise InstaNERError(
                f"The budget cannot be kept: the price of {settings.name} is not "
                "known. Set prices in the config: input and output, in US dollars per "
                "million tokens."
            )
        self._openai = self._make_openai()
        # For messages: a password in it is no one's business.
        self._address = re.sub(r"//[^/@]*@", "//", str(self._openai.base_url))
        self._answered: float | None = None
        self._failed_in_a_row = 0
        self._sending = 0
        self._waiting: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run_loop, args=(self._loop,), daemon=True).start()
        self._limits, self._settled = self._run(self._make_queue())
        closing = weakref.finalize(self, _close, self._openai, self._loop)
        closing.atexit = False

    def submit(self, request: Request) -> "Future[Response | Failure]":
        """Ask for an answer.

        request (Request): The request.
        RETURNS (Future[Union[Response, Failure]]): The answer, which is stored by then.
            It raises InstaNERError if nothing more can be asked.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(request), self._loop)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _make_queue(self) -> tuple[Limits, asyncio.Event]:
        settings = self.settings
        limits = Limits(settings.requests_per_minute, settings.tokens_per_minute)
        return limits, asyncio.Event()

    def _make_openai(self) -> "openai.AsyncOpenAI":
        import openai

        settings = self.settings
        key = os.environ.get(settings.key_variable, "").strip()
        if not key:
            raise InstaNERError(
                f"No API key for {settings.name}: set the environment variable "
                f"{settings.key_variable} (to any word, if your server needs no key)."
            )
        if not (key.isascii() and key.isprintable()):
            raise InstaNERError(
                f"The API key in {settings.key_variable} has characters that no key "
                "has. Set it anew."
            )
        try:
            return openai.AsyncOpenAI(
                api_key=key,
                base_url=settings.find_url(),
                max_retries=0,  # ours also keep the limits and the budget
                timeout=openai.Timeout(
                    settings.timeout, connect=min(_CONNECT, settings.timeout)
                ),
            )
        except Exception as err:  # the InvalidURL of the SDK's HTTP library
            raise InstaNERError(
                f"The address of {settings.name} cannot be used ({err}). Mend "
                "OPENAI_BASE_URL or the config's base_url."
            ) from err

    def stop(self) -> None:
        """Cancel the requests that are not on their way."""
        self._loop.call_soon_threadsafe(self._cancel_waiting)

    def _cancel_waiting(self) -> None:
        for task in self._waiting:
            task.cancel()

    async def _ask(self, request: Request) -> Response | Failure:
        try:
            return await self._try(request)
        except Exception as err:
            if self.error is None:
                self.error = err
            self.stop()
            raise

    async def _try(self, request: Request) -> Response | Failure:
        expected = self._expect_tokens(request)
        attempt = 0
        while True:
            if self.error is not None:
                raise self.error
            with self._wait():
                await self._limits.wait(expected)
                reserved = await self._reserve(request)
            sent = time.monotonic()
            outcome = await self._send(request)
            if isinstance(outcome, Response):
                if reserved and outcome.cost is None:
                    outcome = replace(outcome, cost=reserved)  # no usage: the most
                self._count(outcome, expected)
                if self.store is not None:
                    self.store.put(request, outcome, reserved=reserved)
                self._settled.set()
                return outcome
            if reserved and not outcome.may_cost and self.store is not None:
                self.store.release(request.model, reserved)
            self._settled.set()
            if outcome.kind is _Kind.RUN:
                raise InstaNERError(f"{outcome.detail} {outcome.advice}".strip())
            if outcome.kind is _Kind.TEXT:
                return self._fail(request, outcome)
            # While others get through, too many requests are not this one's fault.
            progress = self._answered is not None and self._answered > sent
            if not (outcome.kind is _Kind.SLOW_DOWN and progress):
                attempt += 1
            if attempt > self.settings.max_retries:
                return self._fail(request, outcome)
            # Most limits are by the minute: all attempts together take longer.
            patience = attempt + 3 * (outcome.kind is _Kind.SLOW_DOWN)
            delay = get_delay(patience) if outcome.delay is None else outcome.delay
            if delay > _LONGEST_WAIT:
                raise InstaNERError(
                    f"{self._address} asks to wait {delay / 3600:.1f} hours before "
                    f"the next request. Run again then: what was received is stored. "
                    f"{outcome.detail}"
                )
            if outcome.kind is _Kind.SLOW_DOWN:
                if self._limits.pause(delay) and delay >= _LONG_PAUSE:
                    logger.warning("Waiting %.0f s: %s", delay, outcome.detail)
            else:
                with self._wait():
                    await asyncio.sleep(delay)

    def _fail(self, request: Request, trouble: _Trouble) -> Failure:
        """There is no answer to this request; the others may go on."""
        worked = self._answered is not None or (
            self.store is not None and self.store.has_like(request)
        )
        if trouble.ends_run or (trouble.reason is Reason.REFUSED and not worked):
            raise InstaNERError(f"{trouble.detail} {trouble.advice}".strip())
        self._failed_in_a_row += trouble.kind is not _Kind.TEXT or (
            trouble.reason is Reason.REFUSED
        )
        if self._failed_in_a_row >= _MOST_FAILURES:
            raise InstaNERError(
                f"The last {_MOST_FAILURES} requests failed, the last one so: "
                f"{trouble.detail} Run again later: what was received is stored."
            )
        return Failure(trouble.reason, trouble.detail)

    @contextmanager
    def _wait(self) -> Iterator[None]:
        """Nothing of the request is on its way: it can be cancelled for nothing."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can wait")
        self._waiting.add(task)
        try:
            yield
        finally:
            self._waiting.discard(task)

    async def _reserve(self, request: Request) -> float:
        budget = self.settings.budget
        if budget is None or self.store is None:
            return 0.0
        most = self._get_most_cost(request)
        while not self.store.reserve(request.model, most, budget):
            if not self._sending:
                spent = self.store.get_spending(request.model)
                raise InstaNERError(
                    f"The budget of {budget:g} US dollars for {request.model} is used "
                    f"up: {spent:.6f} are spent (a request that broke off counts as "
                    "the most that it could cost), and the next one could cost "
                    f"{most:.6f}. What was received is stored: raise budget in the "
                    "config, and run again."
                )
            self._settled.clear()
            await self._settled.wait()
        return most

    def _get_most_cost(self, request: Request) -> float:
        """RETURNS (float): The most that an answer can cost, US dollars: a token has at
        least one byte.
        """
        if self._price is None:
            return 0.0
        prompt = _count_bytes(request) + _TEMPLATE_TOKENS
        number = request.params.get("n") or 1
        return self._price(prompt, 0, get_answer_limit(request.params) or 0) * number

    def _expect_tokens(self, request: Request) -> float:
        answers = self.asked["answers"]
        answer = self.asked["completion_tokens"] / answers if answers else 0
        return _count_bytes(request) / BYTES_PER_TOKEN + answer

    def _count(self, response: Response, expected: float) -> None:
        self._answered = time.monotonic()
        self._failed_in_a_row = 0
        self.asked.update(count_usage(response))
        used = (response.prompt_tokens or 0) + (response.completion_tokens or 0)
        self._limits.correct(used - expected if used else 0)

    async def _send(self, request: Request) -> Response | _Trouble:
        import httpx2
        import openai

        messages = request.messages
        body = {**request.params, "model": request.model, "messages": messages}
        start = time.monotonic()
        self._sending += 1
        try:
            reply = await asyncio.wait_for(
                self._openai.post(
                    "/chat/completions", cast_to=httpx2.Response, body=body
                ),
                self.settings.timeout,
            )
        except (asyncio.TimeoutError, openai.APIConnectionError) as err:
            return self._judge_connection(err)
        except openai.APIStatusError as err:
            return self._judge_status(err)
        finally:
            self._sending -= 1
        pause = read_pause(reply.headers)
        if pause <= _LONGEST_WAIT:  # else the server can refuse the next one itself
            self._limits.pause(pause)
        try:
            response = read_completion(reply.content)
        except (
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as err:
            is_page = "html" in reply.headers.get("content-type", "")
            first = self._answered is None
            return _Trouble(
                _Kind.RUN if is_page and first else _Kind.TRY_AGAIN,
                f"{self._address} did not answer with a chat completion "
                f"({self._clean(str(err))}).",
                may_cost=True,
                ends_run=first,
                advice="Check that the address is that of an OpenAI-compatible server, "
                "which often ends in /v1.",
            )
        seconds = round(time.monotonic() - start, 3)
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        return replace(
            response, seconds=seconds, created=now, cost=self._get_cost(response)
        )

    def _get_cost(self, response: Response) -> float | None:
        prompt, answer = response.prompt_tokens, response.completion_tokens
        if self._price is None or prompt is None or answer is None:
            return None
        return self._price(prompt, response.cached_tokens or 0, answer)

    def _judge_connection(self, err: Exception) -> _Trouble:
        import httpx2

        late = isinstance(err, asyncio.TimeoutError)
        cause = err if late else err.__cause__ or err
        said = self._clean(str(cause)) or type(cause).__name__
        if not isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            if late or isinstance(cause, httpx2.TimeoutException):
                seconds = f"{self.settings.timeout:g}"
                detail = f"{self._address} gave no answer in {seconds} s."
                return _Trouble(_Kind.TRY_AGAIN, detail, may_cost=True)
            if isinstance(cause, httpx2.NetworkError | httpx2.RemoteProtocolError):
                detail = f"{self._address} broke the connection ({said})."
                return _Trouble(_Kind.TRY_AGAIN, detail, may_cost=True)
        detail = f"{self._address} cannot be reached ({said})."
        return _Trouble(
            _Kind.RUN if self._answered is None else _Kind.TRY_AGAIN,
            detail,
            ends_run=True,
            advice="Check the network, and the address in OPENAI_BASE_URL or the "
            "config's base_url.",
        )

    def _judge_status(self, err: "openai.APIStatusError") -> _Trouble:
        status = err.status_code
        said = f"{err.code} {err.type} {err.message}"
        line = (
            f"{self._address} refused a request to {self.settings.name}: "
            f"{self._clean(err.message).rstrip('.')}."
        )
        wait = read_retry_after(err.response.headers)
        if status == 402 or (status in (403, 429) and _QUOTA.search(said)):
            advice = "Top up the account, then run again: what was received is stored."
            return _Trouble(_Kind.RUN, line, advice=advice)
        if status == 429 or (status == 503 and wait is not None):
            if wait is None and (hint := _RETRY_IN.search(err.message)):
                wait = read_duration(hint[1])
            pause = read_pause(err.response.headers)
            delay = max(wait or 0, pause) if wait is not None or pause else None
            return _Trouble(
                _Kind.SLOW_DOWN,
                line,
                delay=delay,
                ends_run=True,
                advice="Lower requests_per_minute or max_concurrency in the config.",
            )
        if status in (408, 409) or status >= 500:
            return _Trouble(_Kind.TRY_AGAIN, line, delay=wait)
        if status in (400, 403, 422) and _FILTERED.search(said):
            return _Trouble(_Kind.TEXT, line, Reason.FILTERED)
        if status == 413 or (status in (400, 422) and _TOO_LONG.search(said)):
            return _Trouble(_Kind.TEXT, line, Reason.TOO_LONG)
        if status in (400, 403, 422):
            advice = _NO_FORMAT if _FORMAT.search(said) else ""
            return _Trouble(_Kind.TEXT, line, Reason.REFUSED, advice=advice)
        advice = {
            401: f"Check the key in {self.settings.key_variable}.",
            404: "Check the model's name, and the address, which often ends in /v1.",
        }.get(status, "")
        return _Trouble(_Kind.RUN, line, advice=advice)

    def _clean(self, message: str) -> str:
        # Some servers quote the key that they refuse. A short one may be any word.
        key = re.escape(self._openai.api_key)
        if len(self._openai.api_key) < _SHORTEST_KEY:
            key = rf"(?<!\w){key}(?!\w)"
        line = re.sub(key, "…", " ".join(message.split()))
        return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} …"


def get_answer_limit(params: Mapping[str, Any]) -> int | None:
    """RETURNS (Optional[int]): Most tokens that an answer may have, if it is set."""
    # A server may keep either.
    return max((params[n] for n in ANSWER_LIMITS if params.get(n)), default=None)


def count_usage(response: Response) -> dict[str, Any]:
    """RETURNS (Dict[str, Any]): What an answer took, to be added up."""
    return {
        "answers": 1,
        "prompt_tokens": response.prompt_tokens or 0,
        "completion_tokens": response.completion_tokens or 0,
        "seconds": response.seconds or 0.0,
        "cost": response.cost or 0.0,
        "unpriced": int(response.cost is None),
    }


def read_completion(content: bytes) -> Response:
    """Read a chat completion. The SDK does not check a server's JSON against its types.

    content (bytes): JSON of the completion.
    RETURNS (Response): The answer and its usage, as far as the server tells it.
    RAISES (AttributeError, LookupError, RecursionError, TypeError, ValueError): If it
        is no chat completion.
    """
    data = json.loads(content)
    if not data.get("choices") and data.get("error"):
        raise ValueError(f"it says {json.dumps(data['error'])}")
    choice = data["choices"][0]
    message = choice["message"]
    text = message.get("content")
    reason = choice.get("finish_reason")
    if reason == "error":  # OpenRouter: its provider was lost in the middle
        raise ValueError("it broke off")
    if isinstance(text, list):  # parts, as some servers send them
        text = "".join(part["text"] for part in text if part.get("type") == "text")
    if text is None and isinstance(message.get("refusal"), str):
        text, reason = message["refusal"], "content_filter"
    if text is not None and not isinstance(text, str):
        raise TypeError(f"its content is of type {type(text).__name__}")
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    return Response(
        _make_valid(text or ""),
        finish_reason=_make_valid(reason) if isinstance(reason, str) else None,
        prompt_tokens=_read_count(usage, "prompt_tokens"),
        completion_tokens=_read_count(usage, "completion_tokens"),
        cached_tokens=_read_count(
            details if isinstance(details, dict) else {}, "cached_tokens"
        ),
    )


def _read_count(usage: Mapping[str, Any], name: str) -> int | None:
    count = usage.get(name)
    if type(count) is not int or not 0 <= count < _MOST_TOKENS:
        return None
    return count


def _make_valid(text: str) -> str:
    # JSON can hold half of a surrogate pair, which no file can.
    return text.encode("utf8", "replace").decode("utf8")


def _count_bytes(request: Request) -> int:
    params = json.dumps(request.params) if request.params else ""
    return len(request.prompt.encode("utf8", "replace")) + len(params)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _close(client: "openai.AsyncOpenAI", loop: asyncio.AbstractEventLoop) -> None:
    async def close() -> None:
        await client.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)
