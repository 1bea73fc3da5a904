from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language

from instaner.corpus import (
    PROVENANCE,
    read_texts,
    write_docs,
)
from instaner.errors import InstaNERError
from instaner.gold import read_gold, read_gold_texts

from .conftest import GOLD, WriteRows, make_doc


def test_read_gold_sets_entities(gold: Path, nlp: Language) -> None:
    (doc,) = read_gold(gold, nlp)
    assert [(ent.text, ent.label_) for ent in doc.ents] == [
        ("cast iron skillet", "EQUIPMENT")
    ]


def test_read_gold_reads_a_docbin(tmp_path: Path, nlp: Language) -> None:
    write_docs([make_doc(nlp, 0)], tmp_path / "gold.spacy")
    (doc,) = read_gold(tmp_path / "gold.spacy", nlp)
    assert [ent.label_ for ent in doc.ents] == ["EQUIPMENT"]


def test_read_gold_refuses_half_a_token(write_rows: WriteRows, nlp: Language) -> None:
    spans = [{"start": 2, "end": 4, "label": "EQUIPMENT"}]
    path = write_rows({"text": "A wok.", "spans": spans})
    with pytest.raises(InstaNERError, match=r'line 1: the span 2:4 \("wo"\)'):
        list(read_gold(path, nlp))


def test_read_gold_refuses_overlaps(write_rows: WriteRows, nlp: Language) -> None:
    span = {"start": 2, "end": 5, "label": "EQUIPMENT"}
    path = write_rows({"text": "A wok.", "spans": [span, span]})
    with pytest.raises(InstaNERError, match="line 1: two spans overlap"):
        list(read_gold(path, nlp))


def test_read_gold_keeps_id_and_brief(write_rows: WriteRows, nlp: Language) -> None:
    (doc,) = read_gold(write_rows({**GOLD, "brief": "page-0"}), nlp)
    assert doc.user_data[PROVENANCE] == {"id": "gold-0", "brief": "page-0"}


@pytest.mark.parametrize(
    ("cats", "expected"),
    [
        ("A", {"A": 1, "B": 0}),
        (["A", "B"], {"A": 1, "B": 1}),
        ([], {"A": 0, "B": 0}),
        ({"A": 0.3}, {"A": 0.3, "B": 0}),
        ({"A": True, "B": False}, {"A": 1, "B": 0}),
    ],
)
def test_read_gold_sets_categories(
    write_rows: WriteRows, nlp: Language, cats: Any, expected: dict[str, float]
) -> None:
    path = write_rows({"text": "One.", "cats": cats}, {"text": "Two.", "cats": "B"})
    doc, _ = read_gold(path, nlp)
    assert {"A": 0, **doc.cats} == expected
    assert not doc.has_annotation("ENT_IOB")


@pytest.mark.parametrize("cats", [None, 5, [1], {"A": 2}, {"A": "yes"}, {" ": 1}])
def test_broken_categories_are_named(
    write_rows: WriteRows, nlp: Language, cats: Any
) -> None:
    path = write_rows({"text": "One.", "cats": cats})
    for read in (read_texts, read_gold_texts, lambda path: read_gold(path, nlp)):
        with pytest.raises(InstaNERError, match=r"rows\.jsonl, line 1: cats have to"):
            list(read(path))


def test_gold_categories_are_marks(write_rows: WriteRows) -> None:
    rows = [{"text": "One.", "cats": ["A", "B"]}, {"text": "Two.", "cats": []}]
    path = write_rows(*rows, {"text": "Three.", "spans": []})
    one, two, three = read_gold_texts(path)
    assert one.spans == [(-1, 0, "A"), (-1, 0, "B")]
    assert (two.spans, two.unknown) == ([], [])
    assert (three.spans, three.unknown) == ([], [(-1, 0)])


def test_entities_of_gold_come_before_its_categories(write_rows: WriteRows) -> None:
    path = write_rows({**GOLD, "cats": "A"})
    (gold,) = read_gold_texts(path)
    assert gold.spans == [(16, 33, "EQUIPMENT")]


def test_gold_is_read_for_what_is_wanted(write_rows: WriteRows) -> None:
    path = write_rows({**GOLD, "cats": "A"}, {"text": "Two.", "cats": "B"})
    ents, cats = (read_gold_texts(path, attr) for attr in ("ents", "cats"))
    assert [gold.spans for gold in ents] == [[(16, 33, "EQUIPMENT")], []]
    assert [gold.unknown for gold in ents] == [[], [(0, 4)]]
    assert [gold.spans for gold in cats] == [[(-1, 0, "A")], [(-1, 0, "B")]]


def test_gold_without_what_is_wanted_is_an_error(gold: Path) -> None:
    with pytest.raises(InstaNERError, match="nothing says what is of which category"):
        read_gold_texts(gold, "cats")
