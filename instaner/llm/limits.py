"""How fast requests may go out: limits per minute, and what the server asks for."""

import asyncio
import random
import re
import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Mapping

_FIRST_DELAY = 0.5  # seconds
_LONGEST_DELAY = 30.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


class Limits:
    """A queue that requests wait in before they are sent: first come, first served.

    requests_per_minute (Optional[float]): Requests are sent at least 60 / this seconds
        apart, so that no minute has more.
    tokens_per_minute (Optional[float]): The same for tokens.
    """

    def __init__(
        self, requests_per_minute: float | None, tokens_per_minute: float | None
    ) -> None:
        self._per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next_request = self._next_token = self._paused_until = 0.0
        self._queue = asyncio.Lock()

    async def wait(self, tokens: float) -> None:
        """Wait until a request may be sent.

        tokens (float): Tokens that it will probably need, prompt and answer.
        """
        async with self._queue:
            while (left := self._get_start() - time.monotonic()) > 0:
                await asyncio.sleep(left)
            now = time.monotonic()
            self._next_request = max(self._next_request, now) + self._per_request
            self._next_token = max(self._next_token, now) + self._per_token * tokens

    def correct(self, tokens: float) -> None:
        """Count tokens that a request needed beyond those it waited for, or fewer."""
        self._next_token += self._per_token * tokens

    def pause(self, seconds: float) -> bool:
        """Send nothing for a while.

        RETURNS (bool): Whether that is news: it was not to be paused for as long.
        """
        until = time.monotonic() + seconds
        is_news = until > self._paused_until + 1
        self._paused_until = max(self._paused_until, until)
        return is_news

    def _get_start(self) -> float:
        return max(self._next_request, self._next_token, self._paused_until)


def get_delay(attempt: int) -> float:
    """Exponential back-off with jitter, by half: Marc Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015.

    attempt (int): Number of attempts that failed before this one.
    RETURNS (float): Seconds to wait.
    """
    delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(attempt, 10))
    return delay * random.uniform(0.5, 1)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how long a server asks to wait: Retry-After (RFC 9110, 10.2.3), and
    retry-after-ms.

    headers (Mapping[str, str]): Headers of its reply.
    RETURNS (Optional[float]): Seconds, or None if it does not say, or unreadably.
    """
    milliseconds = read_duration(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = read_duration(value)
    if seconds is None and value:
        try:
            seconds = max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError):
            return None
    return seconds


def read_pause(headers: Mapping[str, str]) -> float:
    """Read from a reply's rate-limit headers how long nothing more may be sent.

    headers (Mapping[str, str]): Headers, e.g. x-ratelimit-remaining-tokens and
        x-ratelimit-reset-tokens, or anthropic-ratelimit-requests-remaining and -reset.
    RETURNS (float): Seconds until what is used up is filled again. 0 if nothing is.
    """
    pause = 0.0
    for name, value in headers.items():
        name = name.lower()
        if "ratelimit" in name and "remaining" in name and value.strip() == "0":
            reset = read_duration(headers.get(name.replace("remaining", "reset")))
            pause = max(pause, reset or 0.0)
    return pause


def read_duration(value: str | None) -> float | None:
    """Read a time to wait, as servers write it.

    value (Optional[str]): Seconds, a duration ("6m0s", "20ms"), or a point in time:
        ISO 8601, or seconds or milliseconds since 1970.
    RETURNS (Optional[float]): Seconds from now, or None if it is none of these.
    """
    value = (value or "").strip()
    if _DURATION.fullmatch(value):
        value = str(sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(value)))
    try:
        number = float(value)
    except ValueError:
        try:
            moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
            return max(0.0, moment.timestamp() - time.time())
        except (ValueError, OverflowError, OSError):
            return None
    if not 0 <= number < 1e15:  # NaN and infinity too
        return None
    for scale in (1000, 1):
        if number >= 1e9 * scale:
            return max(0.0, number / scale - time.time())
    return number
