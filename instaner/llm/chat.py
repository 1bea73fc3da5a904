import json
import logging
import os
import re
from collections import Counter, deque
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, wait
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Callable, Iterable

from ..errors import InstaNERError
from .client import ANSWER_LIMITS, Client, Settings, count_usage, get_answer_limit
from .store import (
    Failure,
    Reason,
    Request,
    Response,
    Store,
    check_response,
    make_messages,
)

logger = logging.getLogger(__name__)

_AHEAD = 32  # answers, for each that is on its way, that may wait for an earlier one
_MOST_CONNECTIONS = 1000  # of the SDK's pool
_MOST = 1e9
# Set for each request, or meant for the SDK and not for the server.
_OWN = ("model", "messages", "stream")
_SDKS = ("extra_headers", "extra_query", "extra_body")
_GRACE = 5.0  # seconds for the answers on their way when nothing more can be asked

Outcome = Response | Failure


class Chat:
    """A model behind any server that speaks OpenAI's chat completions.

    settings (Settings): Where and how it is asked.
    params (Dict[str, Any]): Passed on with each request.
    context_length (Optional[int]): Tokens of the longest prompt: spacy-llm splits
        longer texts.
    system_message (bool): Send the constant part of a prompt as a system message.
    store (Optional[Store]): Where answers are kept: what is there is not asked again.
        It can be set later.
    asked (Counter[str]): What the answers took that were asked for; see
        client.count_usage.
    recalled (Counter[str]): What those took, when they were asked for, that came out of
        the store.
    failed (Counter[str]): Answers by reason that were given, but cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        params: dict[str, Any],
        context_length: int | None,
        system_message: bool,
        store: Store | None,
    ) -> None:
        self.settings = settings
        self.params = params
        self.context_length = context_length
        self.system_message = system_message
        self._store = store
        self.asked: Counter[str] = Counter()
        self.recalled: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._failures: dict[str, Failure] = {}
        self._stale: set[str] = set()
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._client: Client | None = None
        self._slots = BoundedSemaphore(self.settings.max_concurrency)
        self._on_the_way: dict[str, Future[Outcome]] = {}

    @property
    def store(self) -> Store | None:
        return self._store

    @store.setter
    def store(self, store: Store | None) -> None:
        self._store = store
        self._client = None

    @property
    def name(self) -> str:
        """RETURNS (str): Name of the model, as the server knows it."""
        return self.settings.name

    def __getstate__(self) -> dict[str, Any]:
        # For nlp.pipe(n_process=…): each process has its own connections.
        own = ("_client", "_slots", "_on_the_way")
        return {k: v for k, v in self.__dict__.items() if k not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __call__(self, prompts: Iterable[Iterable[str]]) -> Iterable[Iterable[str]]:
        """Ask for the answers to prompts, max_concurrency at a time. Prompts are taken
        as there is room for them, and answers given in their order.

        prompts (Iterable[Iterable[str]]): Prompts of the shards of each doc.
        YIELDS (Iterable[str]): Answers to the shards of each doc. One that is filtered,
            cut or empty is given as far as it goes, with a warning in the log.
        RAISES (InstaNERError): Without a key, and when nothing more can be asked.
        """
        ahead = self.settings.max_concurrency * _AHEAD
        queue: deque[list[Future[Outcome]]] = deque()
        self._failures.clear()
        self._begin()
        try:
            for shards in prompts:
                queue.append([self._submit(prompt, 0) for prompt in shards])
                while queue and (
                    len(queue) > ahead or all(future.done() for future in queue[0])
                ):
                    yield [self._get_text(future) for future in queue.popleft()]
            while queue:
                yield [self._get_text(future) for future in queue.popleft()]
        except (InstaNERError, KeyboardInterrupt):
            self._end()
            raise

    def fetch(
        self,
        requests: Iterable[tuple[str, int]],
        *,
        on_answer: Callable[[], object] = lambda: None,
    ) -> None:
        """Ask for all answers that are not stored, max_concurrency at a time, in any
        order, and store each as it arrives. Recall gives them then.

        requests (Iterable[Tuple[str, int]]): Prompts, and which of several answers to
            each is asked for, from 0. They are taken as there is room for them.
        on_answer (Callable[[], object]): Called for each request that is done.
        RAISES (InstaNERError): Without a key, and when nothing more can be asked.
        """
        # What failed in an earlier fetch is asked for anew, if it is asked for; until
        # then it can still be recalled.
        self._stale = set(self._failures)
        self._begin()
        try:
            for prompt, sample in requests:
                future = self._submit(prompt, sample)
                future.add_done_callback(lambda _: on_answer())
            while on_the_way := list(self._on_the_way.values()):
                self._check()
                wait(on_the_way, return_when=FIRST_EXCEPTION)
            self._check()
        except (InstaNERError, KeyboardInterrupt):
            self._end()
            raise

    def recall(self, prompt: str, sample: int) -> Outcome:
        """Get an answer that was fetched.

        prompt (str): The prompt.
        sample (int): Which of several answers, from 0.
        RETURNS (Union[Response, Failure]): The answer, or why there is none.
        RAISES (InstaNERError): If it was not fetched, or the store cannot be used.
        """
        request = self.make_request(prompt, sample)
        response = None if self.store is None else self.store.get(request.key)
        if response is not None:
            return check_response(response)
        if request.key in self._failures:
            return self._failures[request.key]
        raise InstaNERError(
            f"No answer (sample {sample}) of {self.name} is stored for a "
            "prompt that was asked. Was the store changed meanwhile? Run again."
        )

    def make_request(self, prompt: str, sample: int) -> Request:
        """RETURNS (Request): The request that asks for an answer."""
        messages = make_messages(prompt, system=self.system_message)
        params = self.params
        response_format = getattr(prompt, "response_format", None)
        if response_format is not None and "response_format" not in params:
            params = {**params, "response_format": response_format}
        return Request(self.name, messages, params, sample)

    def _begin(self) -> None:
        if self._process != os.getpid():  # forked: the thread stayed behind
            self._start()
        if self._client is not None:
            self._client.error = None

    def _check(self) -> None:
        if self._client is not None and self._client.error is not None:
            raise self._client.error

    def _end(self) -> None:
        """Nothing more can be asked: keep what arrives in a moment."""
        if self._client is not None:
            self._client.stop()
        on_the_way = list(self._on_the_way.values())
        wait(on_the_way, timeout=_GRACE)
        for future in on_the_way:
            future.cancel()
        self._client = None  # the next one may find another key, or another network

    def _submit(self, prompt: str, sample: int) -> "Future[Outcome]":
        request = self.make_request(prompt, sample)
        key = request.key
        # First those on their way: one that is no more is stored.
        future = self._on_the_way.get(key)
        if future is not None:
            return future
        if key in self._stale:
            self._stale.remove(key)
            self._failures.pop(key, None)
        stored = None if self.store is None else self.store.get(key)
        outcome: Outcome | None = stored or self._failures.get(key)
        if outcome is not None:
            if stored is not None:
                self.recalled.update(count_usage(stored))
            future = Future()
            future.set_result(outcome)
            return future
        if self._client is None:
            if self.store is not None:
                self.store.check()
            self._client = Client(self.settings, self.store, self.asked)
        self._slots.acquire()
        try:
            self._check()
        except Exception:  # the client's, whatever it is
            self._slots.release()
            raise
        future = self._client.submit(request)
        self._on_the_way[key] = future
        future.add_done_callback(lambda future: self._finish(key, future))
        return future

    def _finish(self, key: str, future: "Future[Outcome]") -> None:
        if not future.cancelled() and future.exception() is None:
            outcome = future.result()
            if isinstance(outcome, Failure) and self.store is not None:
                self._failures[key] = outcome
        self._on_the_way.pop(key, None)
        self._slots.release()

    def _get_text(self, future: "Future[Outcome]") -> str:
        try:
            outcome = future.result()
        except CancelledError:
            self._check()
            raise
        checked = check_response(outcome) if isinstance(outcome, Response) else outcome
        if isinstance(checked, Failure):
            if checked.reason is Reason.SERVER:
                raise InstaNERError(checked.detail)
            self.failed[checked.reason.value] += 1
            reason, detail = checked
            logger.warning("No good answer: %s (%s)", reason.value, detail)
        return outcome.text if isinstance(outcome, Response) else ""


def make_chat(
    name: str,
    *,
    base_url: str | None = None,
    key_variable: str = "OPENAI_API_KEY",
    params: dict[str, Any] | None = None,
    max_concurrency: int = 16,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    max_retries: int = 5,
    timeout: float = 120.0,
    context_length: int | None = None,
    system_message: bool = True,
    store: Path | None = None,
    budget: float | None = None,
    prices: dict[str, float] | None = None,
) -> Chat:
    """Registered as instaner.Chat.v1: a spacy-llm model over any server that speaks
    OpenAI's chat completions, by the official SDK.

    name (str): Name of the model, as the server knows it.
    base_url (Optional[str]): Address of the server, up to and with /v1. None: that of
        the environment variable OPENAI_BASE_URL, else OpenAI's own.
    key_variable (str): Environment variable that holds the key. The key itself is
        never a setting, so that it is in no file.
    params (Optional[Dict[str, Any]]): Passed on with each request, e.g. temperature or
        max_tokens. A response_format stands in the place of what the task wants.
    max_concurrency (int): Most requests at a time.
    requests_per_minute (Optional[float]): Most requests sent in a minute.
    tokens_per_minute (Optional[float]): Most tokens, of prompts and answers, in a
        minute; they are estimated before a request, and corrected after it.
    max_retries (int): How often a request is sent again that failed with 408, 409, 429
        or 5xx, timed out, was cut off, or answered with something else than a chat
        completion. Too many requests count only while nothing else gets through.
    timeout (float): Seconds to wait for an answer.
    context_length (Optional[int]): Tokens of the longest prompt. Longer texts are split
        by spacy-llm, and put together again. None: they are not.
    system_message (bool): Send the part of a prompt that is the same for each text as a
        system message: providers cache it. False: for servers that take none.
    store (Optional[Path]): SQLite file of answers. What is there is not asked again.
    budget (Optional[float]): Most US dollars that may ever be spent on this model's
        answers in this store, as the store keeps account of it.
    prices (Optional[Dict[str, float]]): US dollars per million tokens: input, output
        and, if it has one, cached_input. None: those that genai-prices knows.
    RETURNS (Chat): The model. No request is sent, and no key read, before it is called.
    RAISES (InstaNERError): On settings that cannot be.
    """
    params = dict(params or {})
    for reserved in (*_OWN, *_SDKS):
        if reserved in params:
            raise InstaNERError(
                f'"{reserved}" cannot be in the params of instaner.Chat.v1: they are '
                "what is added to the body of each request. Remove it."
            )
    # 0 and 0.0 are one setting.
    params = json.loads(json.dumps(params), parse_float=_parse_float)
    if re.search(r"//[^/]*@", base_url or ""):
        raise InstaNERError(
            f"The base_url of {name} holds a password, which would be in files then. "
            "Put it into the environment variable OPENAI_BASE_URL."
        )
    numbers: dict[str, tuple[Any, float, float]] = {
        "max_concurrency": (max_concurrency, 1, _MOST_CONNECTIONS),
        "requests_per_minute": (requests_per_minute, 0.01, _MOST),
        "tokens_per_minute": (tokens_per_minute, 1, _MOST),
        "max_retries": (max_retries, 0, 100),
        "timeout": (timeout, 0.01, _MOST),
        "context_length": (context_length, 1, _MOST),
        "budget": (budget, 0, _MOST),
    }
    for setting, (value, least, most) in numbers.items():
        good = isinstance(value, int | float) and least <= value <= most
        if value is not None and not good:
            raise InstaNERError(
                f"{setting} of {name} has to be a number from {least:g} to {most:g}, "
                f"found {value!r}."
            )
    limit = get_answer_limit(params)
    if budget is not None and (store is None or type(limit) is not int or limit < 1):
        raise InstaNERError(
            f"The budget for {name} needs store, where what was spent is kept, and "
            f"{' or '.join(ANSWER_LIMITS)} in params, a whole number, as an answer "
            "without a limit can cost anything. Set both beside it."
        )
    settings = Settings(
        name=name,
        base_url=base_url,
        key_variable=key_variable,
        max_concurrency=max_concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        max_retries=max_retries,
        timeout=timeout,
        budget=budget,
        prices=prices,
    )
    return Chat(
        settings,
        params=params,
        context_length=context_length,
        system_message=system_message,
        store=None if store is None else Store(Path(store)),  # a config gives a string
    )


def _parse_float(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number
