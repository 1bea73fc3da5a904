"""What a run has to survive: the real commands in processes of their own, and a real
server.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import srsly
from spacy.vocab import Vocab

from instaner.corpus import read_docs
from instaner.llm.store import Store

from .conftest import KEY, ROOT
from .server import ChatServer, Faulty, complete, reply, serve

TEXTS = 300
IN_FLIGHT = 16

Run = Callable[..., subprocess.CompletedProcess[str]]


def _answer(body: dict[str, Any]) -> str:
    """An answer that fits only the text that was asked about: its first two words."""
    paragraph = body["messages"][-1]["content"].partition("Paragraph: ")[2]
    return f"1. {' '.join(paragraph.split()[:2])} | True | DISH | it says so"


def _get_text(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the demo's configs and assets, and texts that are all different."""
    for name in ("assets", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    rows = [{"id": str(n), "text": f"Dish {n} was good."} for n in range(TEXTS)]
    srsly.write_jsonl(tmp_path / "texts.jsonl", rows)
    return tmp_path


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve(Faulty(_answer, latency=0.05, jitter=0.04)) as server:
        yield server


def _get_command(server: ChatServer, output: str, *args: str) -> list[str]:
    settings = {
        "base_url": server.url,
        "max_concurrency": str(IN_FLIGHT),
        "timeout": "2",
        "store": f"{output}.db",
    }
    options = [
        f"--components.llm.model.{name}={value}" for name, value in settings.items()
    ]
    command = [sys.executable, "-m", "instaner", "annotate", "configs/teacher_live.cfg"]
    return [*command, "texts.jsonl", output, *options, *args]


def _get_env() -> dict[str, str]:
    return {**os.environ, "OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def run(project: Path, server: ChatServer) -> Run:
    """Runs `instaner annotate` to its end."""

    def call(
        output: str = "out", *args: str, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _get_command(server, output, *args),
            cwd=project,
            env=_get_env(),
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )

    return call


def _check_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word in line


def _check_all_answered(folder: Path) -> None:
    docs = list(read_docs(folder, Vocab()))
    assert [doc.text for doc in docs] == [f"Dish {n} was good." for n in range(TEXTS)]
    assert [[ent.text for ent in doc.ents] for doc in docs] == [
        [f"Dish {n}"] for n in range(TEXTS)
    ]


def _read_stored(path: Path) -> set[str]:
    if not path.exists():
        return set()
    store = Store(path)
    stored = {_get_text(row) for row in store.read()}
    store.close()
    return stored


def test_killed_runs_lose_nothing_and_pay_little_twice(
    project: Path, server: ChatServer, run: Run
) -> None:
    assert run("whole").returncode == 0
    draw = random.Random(0)
    on_the_way = 0
    server.paid.clear()
    for _ in range(10):
        stored = _read_stored(project / "out.db")
        server.requests.clear()
        process = subprocess.Popen(
            _get_command(server, "out"),
            cwd=project,
            env=_get_env(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # At any number of requests, and in the middle of one.
        after = draw.randint(1, 2 * IN_FLIGHT)
        while len(server.requests) < after and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
        asked = [_get_text(request.body) for request in server.requests]
        assert stored.isdisjoint(asked)
        lost = set(asked) - _read_stored(project / "out.db")
        assert len(lost) <= IN_FLIGHT
        on_the_way += len(lost)
    assert run("out").returncode == 0
    _check_all_answered(project / "out")
    paid = Counter(map(_get_text, server.paid))
    assert len(paid) == TEXTS
    assert sum(paid.values()) <= TEXTS + on_the_way
    whole, out = project / "whole", project / "out"
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    for name in names:
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_failing_requests_lose_and_swap_nothing(
    project: Path, server: ChatServer, run: Run
) -> None:
    server.behave = Faulty(
        _answer,
        latency=0.05,
        jitter=0.04,
        too_many=0.03,
        retry_after=0.03,
        retry_after_seconds=0.1,
        server_error=0.04,
        hang=0.01,
        cut=0.03,
        malformed=0.03,
        wrong_types=0.03,
    )
    done = run()
    assert done.returncode == 0, done.stderr
    assert len(server.requests) > 1.1 * TEXTS
    _check_all_answered(project / "out")
    assert not (project / "out/failed.jsonl").exists()


def test_second_run_asks_nothing(server: ChatServer, run: Run) -> None:
    assert run().returncode == 0
    server.requests.clear()
    done = run()
    assert (done.returncode, server.requests) == (0, [])
    assert f"0 answers, {TEXTS} more were stored" in done.stdout


def test_two_runs_share_a_store(project: Path, server: ChatServer, run: Run) -> None:
    processes = [
        subprocess.Popen(
            _get_command(server, output, f"--components.llm.model.store={store}"),
            cwd=project,
            env=_get_env(),
            stdout=subprocess.DEVNULL,
        )
        for output, store in (("one", "both.db"), ("two", "both.db"))
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    for output in ("one", "two"):
        _check_all_answered(project / output)
    assert len(_read_stored(project / "both.db")) == TEXTS


def test_full_disk_is_one_line_and_loses_nothing(
    project: Path, server: ChatServer, run: Run
) -> None:
    def fill_up() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    _check_one_line(run("out", preexec_fn=fill_up), "out.db", "disk")
    stored = _read_stored(project / "out.db")
    assert stored
    server.requests.clear()
    assert run().returncode == 0
    assert stored.isdisjoint(_get_text(request.body) for request in server.requests)
    _check_all_answered(project / "out")


def _respect_permissions() -> None:
    """Make root a user whom permissions bind, by prctl(PR_CAPBSET_DROP, …)."""
    import ctypes

    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="root needs Linux's capabilities")
def test_read_only_store_is_one_line(
    project: Path, server: ChatServer, run: Run
) -> None:
    store = Store(project / "out.db")
    store.check()
    store.close()
    (project / "out.db").chmod(0o444)
    _check_one_line(run("out", preexec_fn=_respect_permissions), "out.db", "readonly")
    assert server.requests == []


def test_corrupt_store_is_set_aside(
    project: Path, server: ChatServer, run: Run
) -> None:
    (project / "out.db").write_bytes(b"This is no database, but it may be dear. " * 99)
    content = (project / "out.db").read_bytes()
    done = run()
    (aside,) = project.glob("out.db.damaged-*")
    _check_one_line(done, "out.db is damaged", aside.name)
    assert (aside.read_bytes(), server.requests) == (content, [])
    assert run().returncode == 0
    _check_all_answered(project / "out")


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}"}, ["Incorrect API key"]),
        (404, {"message": "The model `m` does not exist"}, ["does not exist"]),
        (429, {"message": "No more", "code": "insufficient_quota"}, ["Top up"]),
    ],
)
def test_what_no_request_can_mend_ends_the_run(
    status: int,
    error: dict[str, str],
    words: list[str],
    project: Path,
    server: ChatServer,
    run: Run,
) -> None:
    good = server.behave

    def behave(body: dict[str, Any]) -> Any:
        if len(server.requests) > TEXTS // 2:
            return reply(status, {"error": error})
        return complete(_answer(body))

    server.behave = behave
    done = run()
    _check_one_line(done, *words)
    assert KEY not in done.stderr
    assert len(server.requests) <= TEXTS // 2 + IN_FLIGHT
    assert len(_read_stored(project / "out.db")) >= TEXTS // 2 - IN_FLIGHT
    server.behave = good
    server.requests.clear()
    assert run().returncode == 0
    assert len(server.requests) <= TEXTS // 2 + IN_FLIGHT


def test_budget_is_hard_and_can_be_raised(
    project: Path, server: ChatServer, run: Run
) -> None:
    server.behave = Faulty(_answer, latency=0.05, jitter=0.04, server_error=0.1)
    prices = {"input": 10, "output": 100}

    def get_bill() -> float:
        tokens = Counter[str]()
        for body in server.paid:
            n_bytes = sum(len(m["content"].encode()) for m in body["messages"])
            tokens.update(input=n_bytes // 4, output=len(_answer(body)) // 4)
        return sum(prices[name] * tokens[name] for name in prices) / 1e6

    def spend(budget: float) -> subprocess.CompletedProcess[str]:
        model = "--components.llm.model"
        return run(
            "out",
            f"{model}.budget={budget}",
            f"{model}.prices={json.dumps(prices)}",
            f"{model}.params.max_tokens=100",
        )

    _check_one_line(spend(0.5), "budget of 0.5 US dollars", "raise budget")
    assert 0.45 < get_bill() <= 0.5
    # Of what breaks off, nobody knows whether it was paid for.
    server.behave = Faulty(_answer, cut=0.1, malformed=0.1)
    _check_one_line(spend(0.8), "budget of 0.8 US dollars", "raise budget")
    assert 0.5 < get_bill() <= 0.8
    stored = _read_stored(project / "out.db")
    server.requests.clear()
    done = spend(50)
    assert done.returncode == 0, done.stderr
    assert stored.isdisjoint(_get_text(request.body) for request in server.requests)
    _check_all_answered(project / "out")


def test_interrupted_run_says_so_and_keeps_what_it_has(
    project: Path, server: ChatServer
) -> None:
    server.behave = Faulty(_answer, latency=0.1)  # it is not over before the signal
    process = subprocess.Popen(
        _get_command(server, "out"),
        cwd=project,
        env=_get_env(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(server.requests) < 3 * IN_FLIGHT:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()) == (130, ["Stopped."])
    asked = {_get_text(request.body) for request in server.requests}
    assert _read_stored(project / "out.db") == asked


def test_key_is_in_no_file(project: Path, server: ChatServer, run: Run) -> None:
    server.behave = Faulty(_answer, filtered=0.02)
    assert run("out", "--max-failures", "1").returncode == 0
    for path in project.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes()
