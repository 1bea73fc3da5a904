import hashlib
import json
import multiprocessing
import pickle
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instaner.errors import InstaNERError
from instaner.llm.store import (
    Failure,
    Prompt,
    Reason,
    Request,
    Response,
    Store,
    check_response,
    hash_prompt,
    make_messages,
    read_recording,
)

from ..conftest import WriteRows

FULL = Response(
    "1. wök | True | 🍳\n", "stop", 11, 4, 8, 1.25, 0.5, "2026-01-02T03:04:05.678+00:00"
)
PARAMS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda values: st.lists(values, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)
WORKER = """
import os, signal, sys
from pathlib import Path
from instaner.errors import InstaNERError
from instaner.llm.store import Request, Response, Store

def ask(user):
    return Request("m", [{"role": "user", "content": str(user)}], {}, 0)

store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
"""


def _ask(
    user: str = "Ada met Bob",
    *,
    system: str | None = "Find the names.",
    model: str = "m",
    params: dict[str, Any] | None = None,
    sample: int = 0,
) -> Request:
    messages = [{"role": "user", "content": user}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return Request(model, messages, params or {}, sample)


def _row(**fields: Any) -> dict[str, Any]:
    """A line of a recording, less its fields that are None."""
    row = {**_ask()._asdict(), "response": "1", **fields}
    return {name: value for name, value in row.items() if value is not None}


def _start(store: Store, *codes: str) -> "list[subprocess.Popen[str]]":
    """Processes that begin at the same time to work with a store that is there."""
    store.release("m", 0)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER + code, str(store.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for code in codes
    ]
    for worker in workers:
        assert _read_line(worker) == "ready"
    for worker in workers:
        _write_line(worker, "go")
    return workers


def _read_line(worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().rstrip("\n")


def _write_line(worker: "subprocess.Popen[str]", line: object) -> None:
    assert worker.stdin is not None
    worker.stdin.write(f"{line}\n")
    worker.stdin.flush()


def _run_at_once(store: Store, *codes: str) -> list[str]:
    """What each of several processes printed."""
    workers = _start(store, *codes)
    printed = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    return printed


def _count(store: Store, table: str) -> int:
    connection = sqlite3.connect(store.path)
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(count)


def _get_users(store: Store) -> list[str]:
    return sorted(row["messages"][-1]["content"] for row in store.read())


def _export(store: Store, path: Path) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in store.read())
    path.write_text("".join(lines), "utf8")
    return path


def _put_one(store: Store, user: str) -> None:
    store.put(_ask(user), Response("1"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "new" / "store.sqlite")
    yield store
    store.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "other.sqlite")
    yield store
    store.close()


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("shared") / "store.sqlite")
    yield store
    store.close()


# Requests


def test_key_is_sha256_of_canonical_json() -> None:
    data = (
        '{"messages":[{"content":"ü","role":"user"}],"model":"m",'
        '"params":{"a":1,"b":2},"sample":0}'
    )
    request = _ask("ü", system=None, params={"b": 2, "a": 1})
    assert request.key == hashlib.sha256(data.encode("utf8")).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        _ask("Bob met Ada"),
        _ask(system="Find the places."),
        _ask(system=None),
        _ask("Find the names.Ada met Bob", system=None),
        _ask(model="n"),
        _ask(params={"temperature": 0}),
        _ask(sample=1),
    ],
)
def test_key_depends_on_all_of_the_request(other: Request) -> None:
    assert other.key != _ask().key


def test_key_depends_on_no_order_of_params() -> None:
    first = _ask(params={"seed": 1, "stop": {"a": 1, "b": 2}})
    second = _ask(params={"stop": {"b": 2, "a": 1}, "seed": 1})
    assert first.key == second.key


def test_prompt_of_a_request_is_its_messages_joined() -> None:
    assert _ask("b", system="a").prompt == "ab"


@pytest.mark.parametrize(
    ("prompt", "system", "messages"),
    [
        (Prompt("aüb", constant=2), True, [("system", "aü"), ("user", "b")]),
        (Prompt("ab", constant=2), True, [("user", "ab")]),
        (Prompt("ab", constant=0), True, [("user", "ab")]),
        (Prompt("ab", constant=1), False, [("user", "ab")]),
        ("ab", True, [("user", "ab")]),
    ],
)
def test_prompt_is_split_where_its_constant_part_ends(
    prompt: str, system: bool, messages: list[tuple[str, str]]
) -> None:
    made = make_messages(prompt, system=system)
    assert [(message["role"], message["content"]) for message in made] == messages


@given(text=st.text(), constant=st.integers(0, 20), system=st.booleans())
def test_contents_of_messages_are_the_prompt(
    text: str, constant: int, system: bool
) -> None:
    messages = make_messages(Prompt(text, constant=constant), system=system)
    assert "".join(message["content"] for message in messages) == text


@pytest.mark.parametrize(
    ("response", "failure"),
    [
        (Response("a", "content_filter"), Failure(Reason.FILTERED, "a")),
        (Response("b" + "a" * 100, "length"), Failure(Reason.CUT, "a" * 100)),
        (Response(" \n", "stop"), Failure(Reason.EMPTY, "")),
        (Response("", "length"), Failure(Reason.CUT, "")),
    ],
)
def test_response_that_cannot_be_used_is_a_failure(
    response: Response, failure: Failure
) -> None:
    assert check_response(response) == failure


@pytest.mark.parametrize("finish_reason", ["stop", None, "eos"])
def test_response_that_can_be_used_is_itself(finish_reason: str | None) -> None:
    response = Response("a", finish_reason)
    assert check_response(response) is response


# Answers


@pytest.mark.parametrize("response", [FULL, Response("a")])
def test_response_comes_back_whole(store: Store, response: Response) -> None:
    store.put(_ask(), response)
    assert store.get(_ask().key) == response


def test_request_without_an_answer_has_none(store: Store) -> None:
    store.put(_ask("Ada met Bob"), Response("1"))
    assert store.get(_ask("Bob met Ada").key) is None


def test_answers_are_there_when_opened_again(store: Store) -> None:
    store.put(_ask(), FULL)
    store.close()
    assert store.get(_ask().key) == FULL


def test_first_answer_stays(store: Store) -> None:
    store.put(_ask(), Response("first"))
    store.put(_ask(), Response("second"))
    assert store.get(_ask().key) == Response("first")


def test_system_message_is_stored_once(store: Store) -> None:
    for system in ("one", "two", None):
        for user in "abc":
            store.put(_ask(user, system=system), Response("1"))
    assert _count(store, "systems") == 2
    assert _count(store, "responses") == 9


@settings(deadline=None)  # a disk can be slow
@given(
    user=st.text(),
    system=st.none() | st.text(),
    model=st.text(),
    params=PARAMS,
    sample=st.integers(0, 9),
    text=st.text(),
)
def test_any_text_and_params_come_back(
    shared_store: Store,
    user: str,
    system: str | None,
    model: str,
    params: dict[str, Any],
    sample: int,
    text: str,
) -> None:
    request = _ask(user, system=system, model=model, params=params, sample=sample)
    shared_store.prune()
    shared_store.put(request, Response(text))
    assert shared_store.get(request.key) == Response(text)
    (row,) = shared_store.read()
    assert Request(*(row[name] for name in Request._fields)) == request


def test_half_a_surrogate_pair_is_replaced_in_a_prompt() -> None:
    assert make_messages("a \ud800") == [{"role": "user", "content": "a ?"}]


def test_pickled_store_has_the_answers(store: Store) -> None:
    store.put(_ask(), FULL)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.get(_ask().key) == FULL
    copy.put(_ask("new"), FULL)
    copy.close()
    assert store.get(_ask("new").key) == FULL


# Money


def test_reserved_money_is_spent(store: Store) -> None:
    assert store.get_spending("m") == 0
    assert store.reserve("m", 0.25, 1)
    assert store.get_spending("m") == 0.25
    assert store.get_spending("n") == 0


def test_put_replaces_what_was_reserved(store: Store) -> None:
    store.reserve("m", 0.5, 1)
    store.put(_ask(), Response("1", cost=0.125), reserved=0.5)
    assert store.get_spending("m") == 0.125


def test_second_answer_costs_money_too(store: Store) -> None:
    for _ in range(2):
        store.put(_ask(), Response("1", cost=0.125))
    assert store.get_spending("m") == 0.25


def test_released_money_is_not_spent(store: Store) -> None:
    store.reserve("m", 0.5, 1)
    store.release("m", 0.5)
    assert store.get_spending("m") == 0


def test_nothing_is_reserved_beyond_the_budget(store: Store) -> None:
    assert [store.reserve("m", 0.5, 1.25) for _ in range(3)] == [True, True, False]
    assert store.get_spending("m") == 1
    assert store.reserve("m", 0.25, 1.25)


def test_budget_is_used_up_in_tenths(store: Store) -> None:
    assert all(store.reserve("m", 0.1, 0.3) for _ in range(3))


def test_budget_is_kept_by_two_stores_on_one_file(store: Store) -> None:
    second = Store(store.path)
    granted = [one.reserve("m", 0.5, 1) for one in (store, second, store, second)]
    second.close()
    assert granted == [True, True, False, False]


def test_budget_is_kept_by_threads(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        granted = list(pool.map(lambda _: store.reserve("m", 0.25, 10), range(100)))
    assert sum(granted) == 40
    assert store.get_spending("m") == 10


def test_budget_is_kept_by_processes(store: Store) -> None:
    code = "print(sum(store.reserve('m', 0.25, 50) for _ in range(100)))"
    printed = _run_at_once(store, *[code] * 4)
    assert sum(map(int, printed)) == 200
    assert store.get_spending("m") == 50


def test_what_a_killed_process_reserved_is_spent(store: Store) -> None:
    code = "store.reserve('m', 0.5, 1); os.kill(os.getpid(), signal.SIGKILL)"
    (worker,) = _start(store, code)
    worker.communicate(timeout=60)
    assert store.get_spending("m") == 0.5


def test_spending_is_the_models_own(store: Store) -> None:
    store.put(_ask(model="m"), Response("1", cost=0.5))
    store.put(_ask(model="n"), Response("1", cost=0.25))
    assert (store.get_spending("m"), store.get_spending("n")) == (0.5, 0.25)


# Several at once


def test_processes_lose_no_answers(store: Store) -> None:
    code = "for n in range(200): store.put(ask(n), Response('1'))"
    apart = [code.replace("(n)", f"('{i} %s' % n)") for i in range(2)]
    _run_at_once(store, code, code, *apart)
    assert _count(store, "responses") == 600


def test_processes_can_make_one_store_at_once(store: Store, tmp_path: Path) -> None:
    code = """
for line in sys.stdin:
    try:
        Store(Path(line.strip())).put(ask(""), Response("1"))
        print("", flush=True)
    except InstaNERError as err:
        print(err, flush=True)
"""
    workers = _start(store, *[code] * 4)
    errors = set()
    for number in range(60):
        for worker in workers:
            _write_line(worker, tmp_path / f"{number}.sqlite")
        errors |= {_read_line(worker) for worker in workers}
    for worker in workers:
        worker.communicate(timeout=60)
    assert errors == {""}


def test_killed_process_loses_no_answer_that_it_had_put(store: Store) -> None:
    code = """
for n in range(10**6):
    store.put(ask(n), Response("1"))
    print(n, flush=True)
"""
    (worker,) = _start(store, code)
    for _ in range(100):
        _read_line(worker)
    worker.kill()
    rest, _ = worker.communicate(timeout=60)
    put = 100 + len(re.findall(r"\d+\n", rest))
    assert set(map(str, range(put))) <= set(_get_users(store))


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork"
)
def test_answers_of_a_forked_process_are_kept(store: Store) -> None:
    _put_one(store, "parent")
    context = multiprocessing.get_context("fork")
    closed = context.Event()

    def work() -> None:
        closed.wait()
        _put_one(store, "child")

    child = context.Process(target=work)
    child.start()
    store.close()
    closed.set()
    child.join()
    assert _get_users(store) == ["child", "parent"]


def test_threads_do_not_wait_for_a_reader(store: Store) -> None:
    for user in "abc":
        _put_one(store, user)
    rows = store.read()
    next(rows)
    thread = threading.Thread(target=store.get, args=("",))
    thread.start()
    thread.join(0.2)
    blocked = thread.is_alive()
    rows.close()  # type: ignore[attr-defined]
    thread.join()
    assert not blocked


# Counts


def test_summary_counts_answers_of_each_model(store: Store) -> None:
    store.put(_ask(sample=0), FULL)
    store.put(_ask(sample=1), Response("cut", "length", created="2026-02-01"))
    store.put(_ask("b"), Response("", "stop", 1, 0, cost=0.25, created="2025-12-01"))
    store.put(_ask("c", model="a"), Response("x", "content_filter"))
    unknown = {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cost": 0,
        "unpriced": 1,
        "spending": 0,
    }
    assert store.summarise() == [
        {
            "model": "a",
            "prompts": 1,
            "answers": 1,
            "failed": 1,
            **unknown,
            "first": None,
            "last": None,
        },
        {
            "model": "m",
            "prompts": 2,
            "answers": 3,
            "failed": 2,
            "prompt_tokens": 12,
            "completion_tokens": 4,
            "cost": 0.75,
            "unpriced": 1,
            "spending": 0.75,
            "first": "2025-12-01",
            "last": "2026-02-01",
        },
    ]


def test_summary_of_an_empty_store_is_empty(store: Store) -> None:
    assert store.summarise() == []


def test_answer_of_white_space_is_counted_as_failed(store: Store) -> None:
    store.put(_ask(), Response(" \n"))
    (row,) = store.summarise()
    assert row["failed"] == 1


def test_average_is_by_bytes_of_the_prompt(store: Store) -> None:
    store.put(_ask("ü" * 5, system="s" * 10), Response("1", None, 10, 4, seconds=1))
    store.put(_ask("u" * 30, system="s" * 10), Response("1", None, 5, 2, seconds=2))
    assert store.average(_ask("other", system="s" * 10)) == {
        "answers": 2,
        "completion_tokens": 3,
        "seconds": 1.5,
        "prompt_tokens_per_byte": 0.25,
    }


def test_average_without_a_system_message(store: Store) -> None:
    store.put(_ask("u" * 10, system=None), Response("1", None, 5, 2))
    average = store.average(_ask(system=None))
    assert average is not None
    assert average["prompt_tokens_per_byte"] == 0.5


@pytest.mark.parametrize(
    "request_",
    [
        _ask(system="other"),
        _ask(model="other"),
        _ask(params={"temperature": 1}),
    ],
)
def test_average_is_of_the_same_kind_of_requests(
    store: Store, request_: Request
) -> None:
    store.put(request_, Response("1", None, 5, 2))
    assert store.average(_ask()) is None


def test_average_for_a_new_system_message_is_unknown(store: Store) -> None:
    store.put(_ask(system=None), Response("1", None, 5, 2))
    assert store.average(_ask(system="never seen")) is None


@pytest.mark.parametrize("response", [Response("1"), Response("1", None, 5, None)])
def test_average_is_of_answers_with_counts(store: Store, response: Response) -> None:
    store.put(_ask(), response)
    assert store.average(_ask()) is None


# Recordings


@pytest.fixture
def recording(store: Store, tmp_path: Path) -> Path:
    """Of several answers that are stored."""
    store.put(_ask(params={"seed": 2, "stop": ["\n", "ü"], "top_p": None}), FULL)
    store.put(_ask("b", sample=1), Response("\u2028", created="2026-01-01"))
    store.put(_ask("c", system=None, model="n"), Response("3", seconds=2))
    return _export(store, tmp_path / "recording.jsonl")


def test_read_row_has_what_is_known(store: Store) -> None:
    store.put(_ask(), FULL)
    fields = {name: value for name, value in asdict(FULL).items() if name != "text"}
    assert list(store.read()) == [
        {
            "key": _ask().key,
            "prompt_sha256": hash_prompt("Find the names.Ada met Bob"),
            **_ask()._asdict(),
            "response": FULL.text,
            **fields,
        }
    ]


def test_read_leaves_out_what_is_not_known(store: Store) -> None:
    store.put(_ask(), Response("1"))
    (row,) = store.read()
    assert list(row) == [
        *("key", "prompt_sha256", "messages", "model", "params", "sample", "response")
    ]


def test_read_can_read_one_model(store: Store) -> None:
    for model in "mn":
        store.put(_ask(model, model=model), Response("1"))
    assert [row["model"] for row in store.read(model="n")] == ["n"]


def test_order_of_reading_is_that_of_arrival(
    store: Store, other: Store, tmp_path: Path
) -> None:
    for user in ("b2", "b1", "a2", "b3", "a1"):
        store.put(_ask(user), Response("1", created=user[0]))
    other.add(_export(store, tmp_path / "recording.jsonl"))
    for one in (store, other):
        users = [row["messages"][-1]["content"] for row in one.read()]
        assert users == ["a2", "a1", "b2", "b1", "b3"]


def test_recording_comes_in_whole(store: Store, other: Store, recording: Path) -> None:
    assert other.add(recording) == 3
    assert list(other.read()) == list(store.read())


def test_recording_comes_in_once(other: Store, recording: Path) -> None:
    other.add(recording)
    before = list(other.read())
    assert other.add(recording) == 0
    assert list(other.read()) == before


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (_ask(params={"temperature": 0.7}), Response("1")),
        (_ask(), Response("1", seconds=0.3)),
        (_ask(), Response("1", cost=0.036)),
    ],
)
def test_recording_keeps_numbers(
    store: Store, other: Store, tmp_path: Path, request_: Request, response: Response
) -> None:
    store.put(request_, response)
    other.add(_export(store, tmp_path / "recording.jsonl"))
    assert other.get(request_.key) == response


@settings(deadline=None)  # a disk can be slow
@given(user=st.text(), system=st.none() | st.text(), text=st.text())
def test_recording_of_any_text_comes_in(
    shared_store: Store, user: str, system: str | None, text: str
) -> None:
    request = _ask(user, system=system)
    shared_store.prune()
    shared_store.put(request, Response(text))
    rows = list(shared_store.read())
    path = _export(shared_store, shared_store.path.with_name("recording.jsonl"))
    shared_store.prune()
    assert shared_store.add(path) == 1
    assert list(shared_store.read()) == rows


def test_stored_answer_stays_when_a_recording_has_another(
    store: Store, write_rows: WriteRows
) -> None:
    store.put(_ask(), Response("stored"))
    assert store.add(write_rows(_row(response="recorded"))) == 0
    assert store.get(_ask().key) == Response("stored")


def test_recording_is_no_spending(store: Store, write_rows: WriteRows) -> None:
    store.add(write_rows(_row(cost=0.5)))
    assert store.get_spending("m") == 0


def test_recording_with_a_key_needs_no_messages(
    store: Store, other: Store, write_rows: WriteRows, tmp_path: Path
) -> None:
    row = {"key": "k", "prompt_sha256": "p", "model": "m", "response": "1"}
    assert store.add(write_rows(row)) == 1
    assert store.get("k") == Response("1")
    assert other.add(_export(store, tmp_path / "recording.jsonl")) == 1


def test_recording_with_messages_needs_no_key(
    store: Store, write_rows: WriteRows
) -> None:
    store.add(write_rows(_row(params=None, sample=None)))
    assert store.get(_ask().key) == Response("1")


_SYSTEM, _USER = _ask().messages


@pytest.mark.parametrize(
    ("row", "message"),
    [
        *(
            (_row(**{name: value}), f'"{name}" has to be of type')
            for name, value in {
                "key": 5,
                "prompt_sha256": ["a"],
                "messages": "hi",
                "model": 5,
                "params": [],
                "sample": "0",
                "response": ["1"],
                "finish_reason": False,
                "prompt_tokens": 1.5,
                "completion_tokens": "1",
                "cached_tokens": True,
                "seconds": "1",
                "cost": {},
                "created": 2026,
            }.items()
        ),
        (_row(key=_ask("other").key), "the key is not that of its messages"),
        (_row(sample=1, key=_ask().key), "the key is not that of its messages"),
        (_row(messages=None, prompt_sha256="a"), "neither key nor messages"),
        (_row(messages=None, key="k"), '"prompt_sha256" has to be a string'),
        (_row(response=None), '"response" has to be a string'),
        (_row(model=None), '"model" has to be a string'),
        *(
            (_row(messages=messages), '"messages" has to be a user message')
            for messages in (
                [],
                ["hi"],
                [_SYSTEM],
                [_USER, _SYSTEM],
                [_USER, _USER],
                [{"role": "user"}],
                [{"content": "hi"}],
                [{"role": "user", "content": 5}],
                [{"role": "assistant", "content": "hi"}],
            )
        ),
    ],
)
def test_broken_line_is_named_and_nothing_comes_in(
    store: Store, write_rows: WriteRows, row: dict[str, Any], message: str
) -> None:
    path = write_rows(_row(messages=[_SYSTEM, {**_USER, "content": "fine"}]), row)
    with pytest.raises(InstaNERError, match=f"rows.jsonl, line 2: {message}"):
        store.add(path)
    assert list(store.read()) == []
    assert _count(store, "systems") == 0


def test_half_a_line_is_named_and_nothing_comes_in(
    store: Store, write_rows: WriteRows
) -> None:
    path = write_rows(_row(), _row(sample=1))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InstaNERError, match="rows.jsonl, line 2: broken JSON"):
        store.add(path)
    assert list(store.read()) == []


def test_missing_recording_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match=r"not found: .*nowhere.jsonl"):
        store.add(tmp_path / "nowhere.jsonl")


def test_recording_with_a_lone_surrogate_fails_in_one_way(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(_row(response="\ud800")) + "\n", "utf8")
    with pytest.raises(InstaNERError, match="rows.jsonl, line 1"):
        store.add(path)


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"prompt_sha256": "a"}, {"prompt_sha256": "a", "sample": 0}),
        ({"prompt_sha256": "a", "sample": 2}, {"prompt_sha256": "a", "sample": 2}),
        (
            {"messages": [_USER]},
            {
                "messages": [_USER],
                "sample": 0,
                "prompt_sha256": hash_prompt("Ada met Bob"),
            },
        ),
        ({"prompt_sha256": "a", "mine": 1}, {"prompt_sha256": "a", "sample": 0}),
        ({"prompt_sha256": "a", "cost": None}, {"prompt_sha256": "a", "sample": 0}),
    ],
)
def test_line_of_a_recording_needs_little(
    write_rows: WriteRows, row: dict[str, Any], fields: dict[str, Any]
) -> None:
    path = write_rows({**row, "response": "1"})
    assert list(read_recording(path)) == [(1, {**fields, "response": "1"})]


# Removing


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({}, []),
        ({"model": "m"}, ["filtered", "other"]),
        ({"before": "2026-01-01"}, ["blank", "filtered", "new", "other"]),
        ({"failed": True}, ["new", "old", "other"]),
        (
            {"model": "m", "before": "2026-01-01", "failed": True},
            ["blank", "filtered", "new", "old", "other"],
        ),
    ],
)
def test_prune_removes_what_is_asked(
    store: Store, arguments: dict[str, Any], left: list[str]
) -> None:
    old, new = "2025-12-31T00:00:00", "2026-01-01T00:00:00"
    for user, model, response in (
        ("old", "m", Response("1", created=old)),
        ("new", "m", Response("1", created=new)),
        ("cut", "m", Response("1", "length", created=old)),
        ("blank", "m", Response(" ", "stop", created=new)),
        ("filtered", "n", Response("1", "content_filter", created=new)),
        ("other", "n", Response("1")),
    ):
        store.put(_ask(user, model=model), response)
    assert store.prune(**arguments) == 6 - len(left)
    assert _get_users(store) == left


def test_prune_removes_answers_of_white_space_as_failed(store: Store) -> None:
    store.put(_ask(), Response("\n"))
    assert store.prune(failed=True) == 1


def test_prune_removes_system_messages_of_removed_answers(store: Store) -> None:
    for model in "mn":
        store.put(_ask(system=f"of {model}", model=model), Response("1"))
        store.put(_ask(system="of both", model=model), Response("1"))
    store.prune(model="m")
    assert _count(store, "systems") == 2
    assert {row["messages"][0]["content"] for row in store.read()} == {
        *("of n", "of both")
    }


def test_prune_keeps_the_spending(store: Store) -> None:
    store.put(_ask(), Response("1", cost=0.5))
    store.prune()
    assert store.get_spending("m") == 0.5


# Files that are not what they should be


def _find_aside(error: BaseException) -> Path:
    found = re.search(r"set aside as (\S+)\. Put", str(error))
    assert found is not None
    return Path(found[1])


def test_file_of_other_bytes_is_set_aside(store: Store) -> None:
    content = bytes(range(256)) * 40
    store.path.parent.mkdir()
    store.path.write_bytes(content)
    with pytest.raises(InstaNERError, match=r"store\.sqlite is damaged") as caught:
        store.get("")
    assert _find_aside(caught.value).read_bytes() == content
    _put_one(store, "new")
    assert _get_users(store) == ["new"]


def test_damaged_store_is_set_aside(store: Store) -> None:
    for n in range(500):
        _put_one(store, str(n))
    store.close()
    content = bytearray(store.path.read_bytes())
    assert len(content) > 20 * 4096
    content[3 * 4096 : -4096] = b"\xa5" * (len(content) - 4 * 4096)
    store.path.write_bytes(content)
    with pytest.raises(InstaNERError, match=r"store\.sqlite is damaged") as caught:
        list(store.read())
    assert _find_aside(caught.value).read_bytes() == content
    _put_one(store, "new")
    assert _get_users(store) == ["new"]


def test_store_with_damaged_text_is_not_said_to_be_safe(store: Store) -> None:
    store.put(_ask("Ada met Bob"), Response("1"))
    store.close()
    content = store.path.read_bytes()
    store.path.write_bytes(content.replace(b"Ada met Bob", b"\xff" * 11))
    with pytest.raises(InstaNERError, match=r"store\.sqlite is damaged"):
        list(store.read())


def test_healthy_store_is_not_set_aside_for_a_wrong_cost(store: Store) -> None:
    _put_one(store, "a")
    with suppress(Exception):
        store.put(_ask("a"), Response("1", cost=float("nan")))
    assert _get_users(store) == ["a"]


def test_healthy_store_is_not_set_aside_when_closed_by_a_reader(store: Store) -> None:
    for user in "abc":
        _put_one(store, user)
    rows = store.read()
    next(rows)
    store.close()
    with suppress(Exception):
        list(rows)
    assert _get_users(store) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE recipes (name TEXT)",
        "CREATE TABLE responses (key TEXT); PRAGMA user_version = 1",
        "CREATE TABLE responses (key TEXT); PRAGMA application_id = 0x494E4552; "
        "PRAGMA user_version = 2",
    ],
)
def test_database_of_another_program_is_left_alone(store: Store, script: str) -> None:
    store.path.parent.mkdir()
    connection = sqlite3.connect(store.path)
    connection.executescript(script)
    connection.close()
    content = store.path.read_bytes()
    with pytest.raises(InstaNERError, match="no response store of this version"):
        _put_one(store, "a")
    assert list(store.path.parent.iterdir()) == [store.path]
    assert store.path.read_bytes() == content


def test_path_under_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "store.sqlite")
    with pytest.raises(InstaNERError, match=r"file/store\.sqlite cannot be made"):
        _put_one(store, "a")


def test_path_of_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match=f"{tmp_path} cannot be used"):
        Store(tmp_path).get("")


def test_only_what_is_written_makes_the_file(store: Store) -> None:
    assert store.get(_ask().key) is None
    assert store.get_spending("m") == 0
    assert store.average(_ask()) is None
    assert not store.path.parent.exists()


def test_full_disk_loses_nothing(store: Store) -> None:
    _put_one(store, "a")
    with store._use() as connection:
        connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(InstaNERError, match=r"full.*what is stored is safe"):
        _put_one(store, "b" * 100_000)
    assert _get_users(store) == ["a"]
    with store._use() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    _put_one(store, "c")
    assert _get_users(store) == ["a", "c"]


def test_file_that_cannot_grow_loses_nothing(store: Store) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for n in range(1000):
    try:
        store.put(ask(n), Response("1" * 1000))
    except InstaNERError as err:
        print(n, err, flush=True)
        os._exit(0)
"""
    (printed,) = _run_at_once(store, code)
    put, error = printed.split(" ", 1)
    assert "what is stored is safe" in error
    assert int(put) > 10
    assert _get_users(store) == sorted(map(str, range(int(put))))


@pytest.mark.parametrize("content", [b'{"text": "mine"}\n', b"", b"My thesis."])
def test_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content + b"x" * 999)
    with pytest.raises(InstaNERError, match=r"mine\.jsonl is no response store"):
        Store(path).get("")
    assert path.read_bytes() == content + b"x" * 999
    assert list(tmp_path.iterdir()) == [path]


def test_export_onto_the_store_is_refused(store: Store) -> None:
    store.put(_ask(), Response("1"))
    with pytest.raises(InstaNERError, match="is the store itself"):
        store.export(store.path)
    assert store.get(_ask().key) == Response("1")


@pytest.mark.parametrize(
    "values", [{"prompt_tokens": 2**60}, {"cost": -5}, {"sample": -1}]
)
def test_numbers_that_cannot_be_are_not_imported(
    store: Store, write_rows: WriteRows, values: dict[str, Any]
) -> None:
    (name,) = values
    with pytest.raises(InstaNERError, match=f'line 1: "{name}" has to be'):
        store.add(write_rows(_row(**values)))
