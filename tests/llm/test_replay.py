from pathlib import Path
from typing import Any

import pytest

from instaner.errors import InstaNERError
from instaner.llm.replay import make_replay
from instaner.llm.store import Failure, Reason, Response, hash_prompt

from ..conftest import Record, WriteRows


def test_hash_is_sha256_of_utf8() -> None:
    assert hash_prompt("ü") == (
        "607474ca475a9724d7360aba71a56d5df77e61350e3f724cfa1f46e857e2d85f"
    )


def test_answers_in_order(record: Record) -> None:
    model = make_replay(record({"one": "1", "two": "2", "three": "3"}))
    assert list(model([["two"], ["three", "one"]])) == [["2"], ["3", "1"]]


def test_takes_a_path_from_a_config(record: Record) -> None:
    model = make_replay(str(record({"one": "1"})))  # type: ignore[arg-type]
    assert list(model([["one"]])) == [["1"]]


def test_sample_chooses_the_answer(record: Record) -> None:
    model = make_replay(record({"one": ["first", "second"]}))
    assert model.recall("one", 1) == Response("second")
    assert list(model([["one"]])) == [["first"]]


def test_sample_is_0_where_there_is_none(write_rows: WriteRows) -> None:
    path = write_rows({"prompt_sha256": hash_prompt("one"), "response": "1"})
    assert list(make_replay(path)([["one"]])) == [["1"]]


def test_unknown_prompt_is_named(record: Record) -> None:
    model = make_replay(record({"one": "1"}))
    message = f"No answer .sample 0. .*recording.jsonl .*{hash_prompt('two')}.*two"
    with pytest.raises(InstaNERError, match=message):
        list(model([["two"]]))


def test_unknown_sample_is_named(record: Record) -> None:
    model = make_replay(record({"one": "1"}))
    with pytest.raises(InstaNERError, match=r"No answer \(sample 1\)"):
        model.recall("one", 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"response": " "}, Reason.EMPTY),
        ({"response": "1", "finish_reason": "length"}, Reason.CUT),
        ({"response": "", "finish_reason": "content_filter"}, Reason.FILTERED),
    ],
)
def test_answer_that_cannot_be_used_is_a_failure(
    write_rows: WriteRows, row: dict[str, str], reason: Reason
) -> None:
    model = make_replay(write_rows({"prompt_sha256": hash_prompt("one"), **row}))
    failure = model.recall("one", 0)
    assert isinstance(failure, Failure)
    assert failure.reason is reason
    assert list(model([["one"]])) == [[row["response"]]]


def test_prompt_is_found_by_its_messages(write_rows: WriteRows) -> None:
    messages = [
        {"role": "system", "content": "Mark: "},
        {"role": "user", "content": "wok"},
    ]
    model = make_replay(write_rows({"messages": messages, "response": "1"}))
    assert list(model([["Mark: wok"]])) == [["1"]]


def test_error_is_one_line(record: Record) -> None:
    model = make_replay(record({}))
    with pytest.raises(InstaNERError) as caught:
        list(model([["a\nprompt\nof lines"]]))
    assert "\n" not in str(caught.value)


def test_answers_are_lazy(record: Record) -> None:
    answers = iter(make_replay(record({"one": "1"}))([["one"], ["two"]]))
    assert next(answers) == ["1"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"response": "1"}, '"prompt_sha256" has to be a string'),
        ({"prompt_sha256": "a"}, '"response" has to be a string'),
        ({"prompt_sha256": "a", "response": ["1"]}, '"response" has to be of type str'),
        (
            {"prompt_sha256": "a", "response": "1", "sample": "0"},
            "\"sample\" has to be of type int, from 0 on, found '0'",
        ),
    ],
)
def test_broken_line_is_named(
    write_rows: WriteRows, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InstaNERError, match=f"rows.jsonl, line 1: {message}"):
        make_replay(write_rows(row))


def test_missing_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match=r"not found: .*nowhere.jsonl"):
        make_replay(tmp_path / "nowhere.jsonl")


def test_second_answer_to_a_prompt_is_named(write_rows: WriteRows) -> None:
    rows = [{"prompt_sha256": "a", "response": answer} for answer in "112"]
    with pytest.raises(InstaNERError, match="line 3: another answer to a prompt"):
        make_replay(write_rows(*rows))
