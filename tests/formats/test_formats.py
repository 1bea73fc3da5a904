"""Files as other tools write them, and what is wrong with some."""

import csv
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import spacy
import srsly
from spacy.language import Language

from instaner.decisions import Answer
from instaner.errors import InstaNERError
from instaner.formats import FORMATS, Losses, Mark, Record, find_format, read, write

TEXT = "I had ramen."
DISH = Mark(6, 11, "DISH")
ANNA = Record(TEXT, "t", (DISH,), answer=Answer.ACCEPT, reviewer="anna")
VOTED = Record(TEXT, "t", (DISH._replace(score=0.75, voters=("llm/0",)),))
CHOSEN = Record(
    TEXT, "t", (Mark(-1, 0, "GOOD"),), "cats", ("GOOD", "BAD"), True, Answer.ACCEPT
)


def _read(path: Path, name: str) -> list[Record]:
    return [*read(path, FORMATS[name], Losses())]


def _read_text(tmp_path: Path, name: str, text: str) -> list[Record]:
    path = tmp_path / "file.x"
    path.write_bytes(text.encode("utf8"))
    return _read(path, name)


def _write(tmp_path: Path, name: str, nlp: Language, *records: Record) -> Path:
    write(records, tmp_path / "file.x", FORMATS[name], Losses(), nlp)
    return tmp_path / "file.x"


def test_prodigy_has_the_shape_that_its_pages_tell(
    tmp_path: Path, nlp: Language
) -> None:
    """From https://prodi.gy/docs/api-interfaces: spans_manual has tokens (text, start,
    end, id, ws) and spans (start, end, token_start, token_end, label), where token_end
    is the span's last token; answer is accept, reject or ignore."""
    text = "I like noodle soup a lot"
    record = Record(text, "t", (Mark(7, 18, "DISH"),), answer=Answer.ACCEPT)
    (row,) = srsly.read_jsonl(_write(tmp_path, "prodigy", nlp, record))
    (span,) = row["spans"]
    assert span == {
        "start": 7,
        "end": 18,
        "token_start": 2,
        "token_end": 3,
        "label": "DISH",
    }
    assert row["answer"] == "accept"
    for number, token in enumerate(row["tokens"]):
        assert set(token) == {"text", "start", "end", "id", "ws"}
        assert token["id"] == number
        assert text[token["start"] : token["end"]] == token["text"]
    words = [token["text"] + " " * token["ws"] for token in row["tokens"]]
    assert "".join(words) == text


def test_prodigy_choice_has_the_shape_that_its_pages_tell(
    tmp_path: Path, nlp: Language
) -> None:
    """From https://prodi.gy/docs/api-interfaces: options have id and text, accept has
    the ids chosen, and choice_style is single or multiple."""
    (row,) = srsly.read_jsonl(_write(tmp_path, "prodigy", nlp, CHOSEN))
    assert [option["id"] for option in row["options"]] == ["GOOD", "BAD"]
    assert all(isinstance(option["text"], str) for option in row["options"])
    assert row["accept"] == ["GOOD"]
    assert row["config"] == {"choice_style": "single"}


def test_prodigy_answers_of_other_recipes(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": TEXT, "spans": [{"start": 6, "end": 11, "label": "DISH"}]},
        {"text": TEXT, "spans": [], "answer": "ignore", "_session_id": "s-bob"},
    ]
    rows.append({**rows[0], "answer": "reject", "_view_id": "ner"})
    srsly.write_jsonl(tmp_path / "out.jsonl", rows)
    losses = Losses()
    task, skipped = read(tmp_path / "out.jsonl", FORMATS["prodigy"], losses)
    assert (task.id, task.marks, task.answer) == ("out-1", (DISH,), None)
    assert (skipped.answer, skipped.reviewer) == (Answer.SKIP, "s-bob")
    with pytest.raises(InstaNERError, match=r"about one mark alone.*1 \(out-3\)"):
        losses.check()


def _check_argilla(row: dict[str, Any], question: str) -> None:
    """From https://docs.argilla.io/latest/reference/argilla/records/records, and
    Record.from_dict of argilla 2.8.0, which these records were read with."""
    assert {*row} == {
        *("id", "fields", "metadata", "suggestions", "responses", "vectors")
    }
    assert isinstance(row["id"], str)
    assert isinstance(row["fields"]["text"], str)
    for value in row["metadata"].values():
        assert isinstance(value, str | int | float | list)
    for name, suggestion in row["suggestions"].items():
        assert name == question
        assert {*suggestion} == {"value", "score", "agent"}
        if isinstance(suggestion["value"], list) and suggestion["score"] is not None:
            assert len(suggestion["score"]) == len(suggestion["value"])
    for name, responses in row["responses"].items():
        assert name == question
        for response in responses:
            assert {*response} == {"value", "user_id", "status"}
            assert response["status"] in ("draft", "submitted", "discarded")
            assert response["value"] is not None
            UUID(response["user_id"])


def test_argilla_has_the_shape_that_its_pages_tell(
    tmp_path: Path, nlp: Language
) -> None:
    rejected = ANNA._replace(marks=(), answer=Answer.REJECT, reviewer="bob")
    path = _write(tmp_path, "argilla", nlp, VOTED, ANNA, rejected)
    (row,) = json.loads(path.read_text("utf8"))
    _check_argilla(row, "spans")
    span = {"start": 6, "end": 11, "label": "DISH"}
    assert row["suggestions"]["spans"]["value"] == [span]
    assert row["suggestions"]["spans"]["score"] == [0.75]
    statuses = [r["status"] for r in row["responses"]["spans"]]
    assert statuses == ["submitted", "discarded"]


@pytest.mark.parametrize(("exclusive", "value"), [(True, "GOOD"), (False, ["GOOD"])])
def test_argilla_has_a_label_or_labels(
    exclusive: bool, value: Any, tmp_path: Path, nlp: Language
) -> None:
    chosen = CHOSEN._replace(exclusive=exclusive)
    rejected = chosen._replace(id="u", marks=(), answer=Answer.REJECT)
    path = _write(tmp_path, "argilla", nlp, chosen, rejected)
    rows = json.loads(path.read_text("utf8"))
    for row in rows:
        _check_argilla(row, "label")
    assert rows[0]["responses"]["label"][0]["value"] == value


def test_argilla_answers_without_a_status_were_submitted(tmp_path: Path) -> None:
    span = {"start": 6, "end": 11, "label": "DISH"}
    row = {
        "id": "t",
        "fields": {"review": TEXT},
        "responses": {"what": [{"value": [span], "user_id": "u-1"}]},
    }
    srsly.write_jsonl(tmp_path / "file.x", [row])
    losses = Losses()
    (record,) = read(tmp_path / "file.x", FORMATS["argilla"], losses)
    assert record == ANNA._replace(reviewer="u-1")
    assert losses.describe() == ["statuses (taken as submitted), left out: 1 (t)"]


def _respond(tmp_path: Path, **said: list[Any]) -> tuple[list[Record], list[str]]:
    """A record with values and statuses that one user gave to questions."""
    responses = {
        question: [{"value": said[question][0], "user_id": "u", "status": status}]
        for question in said
        for status in said[question][1:]
    }
    row = {"id": "t", "fields": {"text": TEXT}, "responses": responses}
    srsly.write_jsonl(tmp_path / "file.x", [row])
    losses = Losses()
    return [*read(tmp_path / "file.x", FORMATS["argilla"], losses)], losses.describe()


_HAD = {"start": 2, "end": 5, "label": "X"}
_RAMEN = {"start": 6, "end": 11, "label": "DISH"}


def test_argilla_questions_that_one_user_answers_are_one_opinion(
    tmp_path: Path,
) -> None:
    found, lost = _respond(
        tmp_path,
        dishes=[[_RAMEN], "submitted"],
        others=[[_HAD], "submitted"],
        kind=["GOOD", "submitted"],
        stars=[5, "submitted"],
    )
    marks = (Mark(2, 5, "X"), DISH)
    assert found == [ANNA._replace(reviewer="u", marks=marks)]
    assert lost == [
        'responses to "kind", left out: 1 (t)',
        'responses to "stars", left out: 1 (t)',
    ]


@pytest.mark.parametrize(
    ("one", "other", "label"),
    [
        (["GOOD", "submitted"], ["NEW", "submitted"], "GOOD"),
        (["GOOD", "draft"], ["NEW", "submitted"], "NEW"),
        (["GOOD", "submitted"], ["NEW", "draft"], "GOOD"),
    ],
)
def test_argilla_responses_that_cannot_be_merged_are_told(
    one: list[str], other: list[str], label: str, tmp_path: Path
) -> None:
    (record,), lost = _respond(tmp_path, one=one, other=other)
    assert [mark.label for mark in record.marks] == [label]
    assert lost == ["responses of a user that contradict each other, left out: 1 (t)"]


def _make_task(text: str, value: dict[str, Any]) -> str:
    result = {"from_name": "label", "to_name": "text", "type": "labels"}
    annotation = {"completed_by": 7, "result": [{**result, "value": value}]}
    task = {"id": 1, "data": {"text": text}, "annotations": [annotation]}
    return json.dumps([{**task, "predictions": [3]}])


@pytest.mark.parametrize(("start", "end"), [(2, 7), (3, 8)])
def test_label_studio_counts_code_points_and_once_utf_16(
    start: int, end: int, tmp_path: Path
) -> None:
    value = {"start": start, "end": end, "text": "ramen", "labels": ["DISH"]}
    (record,) = _read_text(tmp_path, "label-studio", _make_task("🍜 ramen", value))
    assert record.marks == (Mark(2, 7, "DISH"),)
    assert record.reviewer == "7"


def test_label_studio_text_that_is_another(tmp_path: Path) -> None:
    value = {"start": 0, "end": 5, "text": "soup", "labels": ["DISH"]}
    with pytest.raises(InstaNERError, match=r"line 1: the span 0:5 is .*'soup'"):
        _read_text(tmp_path, "label-studio", _make_task("🍜 ramen", value))


@pytest.mark.parametrize("key", ["label", "labels"])
def test_doccano_spans_and_categories(key: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": 1, "text": TEXT, key: [[6, 11, "DISH"]]}]
    srsly.write_jsonl(tmp_path / "file.x", rows)
    (record,) = _read(tmp_path / "file.x", "doccano")
    assert record.marks == (DISH,)
    srsly.write_jsonl(tmp_path / "file.x", [{"text": TEXT, key: ["GOOD"]}])
    (record,) = _read(tmp_path / "file.x", "doccano")
    assert (record.attr, record.marks) == ("cats", CHOSEN.marks)


def test_doccano_entities_and_relations(tmp_path: Path) -> None:
    entity = {"id": 4, "label": "DISH", "start_offset": 6, "end_offset": 11}
    relation = {"id": 1, "from_id": 4, "to_id": 4, "type": "IS"}
    row = {"id": 1, "text": TEXT, "entities": [entity], "relations": [relation]}
    srsly.write_jsonl(tmp_path / "file.x", [{**row, "Comments": ["why?"]}])
    losses = Losses()
    (record,) = read(tmp_path / "file.x", FORMATS["doccano"], losses)
    assert record.marks == (DISH,)
    assert losses.describe() == [
        "relations, left out: 1 (1)",
        "comments, left out: 1 (1)",
    ]


@pytest.mark.parametrize(
    "tags",
    [
        ["O", "B-DISH", "I-DISH", "B-DISH", "B-DISH"],
        ["O", "I-DISH", "I-DISH", "B-DISH", "B-DISH"],  # IOB1
        ["O", "B-DISH", "L-DISH", "U-DISH", "U-DISH"],
        ["O", "B-DISH", "E-DISH", "S-DISH", "S-DISH"],
    ],
)
@pytest.mark.parametrize("line", ["{}\t{}", "{} {}", "{} NN B-NP {}"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_conll_from_elsewhere(
    tags: list[str], line: str, end: str, tmp_path: Path
) -> None:
    words = ["a", "big", "soup", "ramen", "#"]
    rows = [line.format(*pair) for pair in zip(words, tags, strict=True)]
    text = end.join(["-DOCSTART- -X- -X- O", "", *rows, "", "", line.format("x", "O")])
    one, two = _read_text(tmp_path, "conll", text)
    assert one.text == "a big soup ramen #"
    spans = [(2, 10), (11, 16), (17, 18)]
    assert one.marks == tuple(Mark(*span, "DISH") for span in spans)
    assert (two.text, two.marks) == ("x", ())


def test_conll_shows_its_comments(tmp_path: Path, nlp: Language) -> None:
    record = Record(TEXT, "t", (DISH,), answer=Answer.ACCEPT)
    lines = _write(tmp_path, "conll", nlp, record).read_text("utf8").split("\n")
    assert lines == [
        "# id = t",
        "# text = I had ramen.",
        *("I\tO", "had\tO", "ramen\tB-DISH", ".\tO", "", ""),
    ]


def test_docbin_has_spans_where_they_overlap(tmp_path: Path, nlp: Language) -> None:
    apart = Record(TEXT, "t", (DISH,), answer=Answer.ACCEPT)
    nested = apart._replace(id="u", marks=(Mark(2, 11, "X"), DISH))
    path = _write(tmp_path, "docbin", nlp, apart, nested)
    docs = [*spacy.tokens.DocBin().from_disk(path).get_docs(nlp.vocab)]
    assert [ent.text for ent in docs[0].ents] == ["ramen"]
    assert [span.text for span in docs[1].spans["sc"]] == ["had ramen", "ramen"]
    assert not docs[1].ents


def test_csv_is_for_a_person(tmp_path: Path, nlp: Language) -> None:
    path = _write(tmp_path, "csv", nlp, ANNA)
    raw = path.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    assert '"t","I had [ramen](DISH).","accept","anna",""' in raw.decode("utf8")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_has_no_formula(text: str, tmp_path: Path, nlp: Language) -> None:
    record = Record(text, "=cmd|' /C calc'!A0", answer=Answer.ACCEPT, reviewer="@x")
    path = _write(tmp_path, "csv", nlp, record)
    with path.open(encoding="utf-8-sig", newline="") as file_:
        _, cells = csv.reader(file_)
    assert not any(cell.startswith(tuple("=+-@\t\r")) for cell in cells)
    assert _read(path, "csv") == [record]


def test_csv_that_a_person_made(tmp_path: Path) -> None:
    text = "text,answer\n'tis [ramen](DISH),Accept\n"
    (record,) = _read_text(tmp_path, "csv", text)
    assert record.text == "'tis ramen"
    assert record.marks == (Mark(5, 10, "DISH"),)
    assert record.answer is Answer.ACCEPT


OUTSIDE = '{"text": "a", "spans": [{"start": 6, "end": 99, "label": "X"}]}'


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("prodigy", '{"text": "a"}\n{"text": ', "line 2: broken JSON"),
        ("prodigy", OUTSIDE, "line 1: a span from 6"),
        ("prodigy", '{"text": "a", "answer": "yes"}', "answer 'yes'"),
        ("prodigy", '{"text": 1}', '"text" has to be a string'),
        ("label-studio", '[\n{"data": {"text": "a"}},\n{"data"', "line 3: broken JSON"),
        ("label-studio", '[{"data": {"text": "a"}}', "breaks off"),
        ("label-studio", '{"text": "a", "spans": []}', 'no "data"'),
        ("label-studio", "[1]", "a JSON object"),
        ("argilla", '{"text": "a"}', '"text" has to be a string'),
        ("argilla", '[{"fields": 1}]', '"fields" has to be an object'),
        ("doccano", '{"text": "a", "label": [[0, 1]]}', "start, end and label"),
        ("doccano", '{"text": "a", "label": [[0, 9, "X"]]}', "a span from 0 to 9"),
        ("conll", "a B-X\nb\n", "line 2: 'b' is no token"),
        ("conll", '{"text": "a"}', "is no token"),
        ("conll", "# text = a b\na O\nc O\n", "line 3: the token 'c'"),
        ("csv", "a,b\n1,2\n", 'no column "text"'),
        ("csv", "text,id\na\n", "line 2: 2 cells"),
        ("csv", "text\n[a\n", "a [ has no"),
        ("csv", "text\na]\n", "is no mark"),
        ("csv", "text,answer\na,yes\n", "answer 'yes'"),
        ("jsonl", '{"text": "a", "spans": [{"start": "0"}]}', "a span from '0'"),
        ("jsonl", '{"text": "a", "cats": {"X": 2}}', "cats have to be"),
        ("docbin", "x", "is no DocBin"),
    ],
)
def test_bad_input_is_named(name: str, text: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(InstaNERError) as err:
        _read_text(tmp_path, name, text)
    assert word in str(err.value)
    assert str(tmp_path / "file.x") in str(err.value)


@pytest.mark.parametrize("name", FORMATS)
def test_empty_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InstaNERError, match=r"file\.x"):
        _read_text(tmp_path, name, "")


@pytest.mark.parametrize("name", FORMATS)
def test_binary_file_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.x").write_bytes(b"\xff\xfe\x00text\n" * 3)
    with pytest.raises(InstaNERError, match=r"file\.x"):
        _read(tmp_path / "file.x", name)


def test_format_is_guessed_where_it_can_be() -> None:
    assert find_format("", Path("a.SPACY")) is FORMATS["docbin"]
    assert find_format("", Path("a.csv")) is FORMATS["csv"]
    assert find_format("jsonl", Path("a.csv")) is FORMATS["jsonl"]
    with pytest.raises(InstaNERError, match=r"several formats. Give --format, one of"):
        find_format("", Path("a.jsonl"))
    with pytest.raises(InstaNERError, match='no format "brat"'):
        find_format("brat", Path("a.jsonl"))
