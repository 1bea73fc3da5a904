import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from email.utils import formatdate

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaner.llm.limits import (
    Limits,
    get_delay,
    read_duration,
    read_pause,
    read_retry_after,
)

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
QUICK = 6000.0  # a minute: one in 0.01 seconds

DURATIONS = st.text() | st.from_regex(r"(\d{1,20}(\.\d{1,3})?(ms|[smhd])?)+")
DATES = st.from_regex(
    r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,5} \d\d:\d\d:\d\d( GMT| [+-]\d{1,6})?",
    fullmatch=True,
)


@pytest.fixture
def _now(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It is NOW, and the machine is not in UTC."""
    with monkeypatch.context() as patch:
        patch.setattr("instaner.llm.limits.time.time", lambda: NOW)
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


def _measure(run: Callable[[], Awaitable[None]]) -> float:
    """RETURNS (float): Seconds."""

    async def measure() -> float:
        start = time.monotonic()
        await run()
        return time.monotonic() - start

    return asyncio.run(measure())


@pytest.mark.usefixtures("_now")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 5 ", 5),
        ("1.5", 1.5),
        ("20ms", 0.02),
        ("7.66s", 7.66),
        ("6m0s", 360),
        ("1h2m3s", 3723),
        ("1d", 86400),
        ("1m30.951s", 90.951),
        ("2027-01-15T08:00:30Z", 30),
        ("2027-01-15T10:00:30+02:00", 30),
        ("2027-01-15T07:59:30Z", 0),
        ("1800000030", 30),
        ("1800000030000", 30),
        ("1700000000", 0),
    ],
)
def test_duration_is_read(value: str, seconds: float) -> None:
    assert read_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [None, "", "soon", "nan", "inf", "-inf", "1e400", "-1", "-1s", "5 s", "s", "1e15"],
)
def test_rubbish_is_no_duration(value: str | None) -> None:
    assert read_duration(value) is None


@given(value=DURATIONS)
def test_any_duration_is_none_or_not_negative(value: str) -> None:
    seconds = read_duration(value)
    assert seconds is None or seconds >= 0


def test_duration_is_not_infinite() -> None:
    assert read_duration("9" * 400 + "s") != math.inf


@pytest.mark.usefixtures("_now")
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0),
        ({"retry-after": "Fri, 15 Jan 2027 08:01:00 GMT"}, 60),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: Mapping[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers) == seconds


@given(value=st.text() | DATES)
def test_any_retry_after_is_none_or_not_negative(value: str) -> None:
    seconds = read_retry_after({"retry-after": value})
    assert seconds is None or seconds >= 0


@pytest.mark.usefixtures("_now")
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "1h",
            },
            360,
        ),
        (
            {
                "X-RateLimit-Remaining-Requests": "0",
                "X-RateLimit-Reset-Requests": "20ms",
                "X-RateLimit-Remaining-Tokens": " 0 ",
                "X-RateLimit-Reset-Tokens": "3s",
            },
            3,
        ),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:30Z",
                "anthropic-ratelimit-tokens-remaining": "5",
                "anthropic-ratelimit-tokens-reset": "2027-01-15T09:00:00Z",
            },
            30,
        ),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "7"}, 7),
        ({"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": "3s"}, 0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, 0),
        ({"x-ratelimit-remaining-tokens": "0"}, 0),
        ({}, 0),
    ],
)
def test_pause_lasts_until_what_is_used_up_is_filled_again(
    headers: dict[str, str], seconds: float
) -> None:
    assert read_pause(httpx.Headers(headers)) == seconds


@pytest.mark.parametrize(
    ("attempt", "longest"), [(0, 0.5), (1, 1), (2, 2), (5, 16), (6, 30), (10**6, 30)]
)
def test_delay_doubles_up_to_half_a_minute(attempt: int, longest: float) -> None:
    delays = [get_delay(attempt) for _ in range(50)]
    assert longest / 2 <= min(delays) < max(delays) <= longest


@pytest.mark.parametrize(
    ("limits", "tokens", "least"),
    [
        ((QUICK, None), 1000, 0.1),
        ((None, QUICK), 2, 0.2),
        ((QUICK, QUICK), 2, 0.2),
        ((QUICK, QUICK), 0.5, 0.1),
    ],
)
def test_requests_keep_the_limits(
    limits: tuple[float | None, float | None], tokens: float, least: float
) -> None:
    async def run() -> None:
        queue = Limits(*limits)
        await asyncio.gather(*(queue.wait(tokens) for _ in range(11)))

    assert least <= _measure(run) < 10 * least


def test_requests_do_not_wait_without_limits() -> None:
    async def run() -> None:
        queue = Limits(None, None)
        for _ in range(100):
            await queue.wait(10**9)

    assert _measure(run) < 0.5


def test_idle_time_is_not_saved_up() -> None:
    async def run() -> None:
        for _ in range(6):
            await queue.wait(0)

    async def start() -> None:
        await queue.wait(0)
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        await run()
        seconds.append(time.monotonic() - begin)

    queue, seconds = Limits(QUICK, None), list[float]()
    asyncio.run(start())
    assert seconds[0] >= 0.05


@pytest.mark.parametrize(
    ("waited_for", "correction", "least", "most"),
    [(0, 10, 0.1, 5), (10, 10, 0.2, 5), (1000, -1000, 0, 5), (1000, -990, 0.1, 5)],
)
def test_corrected_tokens_count(
    waited_for: float, correction: float, least: float, most: float
) -> None:
    async def run() -> None:
        queue = Limits(None, QUICK)
        await queue.wait(waited_for)
        queue.correct(correction)
        await queue.wait(0)

    # What the correction was made on began a moment before.
    assert least - 0.01 <= _measure(run) < most


def test_pause_holds_all_requests() -> None:
    async def run() -> None:
        queue = Limits(None, None)
        queue.pause(0.1)
        queue.pause(0.01)
        await asyncio.gather(*(queue.wait(0) for _ in range(3)))

    assert 0.1 <= _measure(run) < 1


def test_pause_holds_a_request_that_waits_already() -> None:
    async def run() -> None:
        queue = Limits(QUICK, None)
        await queue.wait(0)
        waiting = asyncio.create_task(queue.wait(0))
        await asyncio.sleep(0)
        queue.pause(0.1)
        await waiting

    assert _measure(run) >= 0.1


def test_first_come_is_first_served() -> None:
    sent: list[int] = []

    async def send(queue: Limits, number: int) -> None:
        await queue.wait(5 if number % 2 else 0)
        sent.append(number)

    async def run() -> None:
        queue = Limits(QUICK, QUICK)
        await asyncio.gather(*(send(queue, number) for number in range(6)))

    asyncio.run(run())
    assert sent == list(range(6))


def test_cancelled_request_holds_up_no_other() -> None:
    async def run() -> None:
        queue = Limits(300, None)
        await queue.wait(0)
        first = asyncio.create_task(queue.wait(0))
        second = asyncio.create_task(queue.wait(0))
        await asyncio.sleep(0.01)
        first.cancel()
        await second

    assert 0.2 <= _measure(run) < 0.4
