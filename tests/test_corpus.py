from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language
from spacy.tokens import Span
from spacy.vocab import Vocab

from instaner import corpus
from instaner.corpus import (
    GENERATOR,
    PROVENANCE,
    Text,
    read_docs,
    read_texts,
    write_docs,
    write_shards,
)
from instaner.errors import InstaNERError

from .conftest import GOLD, WriteRows, make_doc


def test_read_texts_takes_votes(write_rows: WriteRows) -> None:
    mark = {"start": 2, "end": 5, "label": "TOOL"}
    row = {"text": "A wok.", "spans": [mark], "votes": {"human": [mark], "ruler": []}}
    (text,) = read_texts(write_rows(row))
    wok = (2, 5, "TOOL")
    assert text.votes == {"generator": [wok], "human": [wok], "ruler": []}


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ([], '"votes" has to be an object'),
        ({"human": {}}, "spans have to be a list"),
        ({"human": [{"start": 0, "end": 9, "label": "TOOL"}]}, "spans have to be a"),
    ],
)
def test_votes_that_cannot_be_read(
    votes: Any, message: str, write_rows: WriteRows
) -> None:
    with pytest.raises(InstaNERError, match=rf"rows\.jsonl, line 1: {message}"):
        list(read_texts(write_rows({"text": "A wok.", "votes": votes})))


def test_read_texts_needs_a_text_alone(write_rows: WriteRows) -> None:
    path = write_rows({"text": "A wok."}, name="mine.jsonl")
    assert list(read_texts(path)) == [
        Text("mine-1", "A wok.", "mine-1", "train", {}),
    ]


def test_read_texts_reads_all_fields(write_rows: WriteRows) -> None:
    spans = [{"start": 2, "end": 5, "label": "EQUIPMENT"}]
    row = {"id": "a", "text": "A wok.", "brief": "b", "split": "test", "spans": spans}
    (text,) = read_texts(write_rows(row))
    marks = {"generator": [(2, 5, "EQUIPMENT")]}
    assert text == ("a", "A wok.", "b", "test", marks)


def test_read_texts_knows_no_marks_from_none(write_rows: WriteRows) -> None:
    (text,) = read_texts(write_rows({"text": "A wok.", "spans": []}))
    assert text.votes == {"generator": []}


def test_read_texts_refuses_a_repeated_id(write_rows: WriteRows) -> None:
    path = write_rows({"id": "a", "text": "A wok."}, {"id": "a", "text": "A pan."})
    message = 'rows.jsonl, line 2: the id "a" occurs a second time'
    with pytest.raises(InstaNERError, match=message):
        list(read_texts(path))


@pytest.mark.parametrize(
    "row", [{}, {"text": 5}, {"text": "A", "id": 5}, {"text": "A", "split": None}]
)
def test_read_texts_names_a_wrong_type(
    write_rows: WriteRows, row: dict[str, Any]
) -> None:
    with pytest.raises(InstaNERError, match=r"rows.jsonl, line 1: .* to be a string"):
        list(read_texts(write_rows(row)))


@pytest.mark.parametrize(
    "spans",
    [
        None,
        {},
        5,
        ["wok"],
        [{"start": 0, "end": 1}],
        [{"start": "0", "end": 1, "label": "DISH"}],
        [{"start": 0.0, "end": 1.0, "label": "DISH"}],
        [{"start": 0, "end": 1, "label": None}],
        [{"start": 0, "end": 7, "label": "DISH"}],
        [{"start": -1, "end": 1, "label": "DISH"}],
        [{"start": 1, "end": 1, "label": "DISH"}],
    ],
)
def test_broken_spans_are_named(write_rows: WriteRows, spans: Any) -> None:
    path = write_rows({"text": "A wok.", "spans": spans})
    with pytest.raises(InstaNERError, match=r"rows\.jsonl, line 1: spans have to"):
        list(read_texts(path))


def test_docs_come_back(tmp_path: Path, nlp: Language) -> None:
    doc = nlp.make_doc("A big wok")
    doc.set_ents([Span(doc, 2, 3, "EQUIPMENT")], missing=[doc[1:2]], default="outside")
    doc.user_data[PROVENANCE] = {"id": "a", "votes": {"llm/0": 1}}
    write_docs([doc], tmp_path / "docs.spacy")
    (read,) = read_docs(tmp_path / "docs.spacy", Vocab())
    assert read.text == doc.text
    assert [token.ent_iob for token in read] == [2, 0, 3]
    assert read.user_data == doc.user_data


def test_shards_are_cut_and_come_back_in_order(
    tmp_path: Path, nlp: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "SHARD_SIZE", 2)
    write_shards((make_doc(nlp, n) for n in range(5)), tmp_path / "shards")
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert names == ["00000.spacy", "00001.spacy", "00002.spacy"]
    docs = read_docs(tmp_path / "shards", nlp.vocab)
    assert [doc[1].text for doc in docs] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("content", [b"", b"no docs"])
def test_broken_docbin_is_named(tmp_path: Path, vocab: Vocab, content: bytes) -> None:
    (tmp_path / "a.spacy").write_bytes(content)
    with pytest.raises(InstaNERError, match=r"a.spacy is no DocBin"):
        list(read_docs(tmp_path, vocab))


def test_missing_corpus_is_named(tmp_path: Path, vocab: Vocab) -> None:
    with pytest.raises(InstaNERError, match=r"Corpus not found: .*nowhere.spacy"):
        list(read_docs(tmp_path / "nowhere.spacy", vocab))


def test_writer_can_give_both_entities_and_categories(write_rows: WriteRows) -> None:
    (text,) = read_texts(write_rows({**GOLD, "cats": {"A": 0.4, "B": 0.6}}))
    assert text.votes == {GENERATOR: [(16, 33, "EQUIPMENT"), (-1, 0, "B")]}
