from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import srsly
from spacy.language import Language
from spacy.tokens import Doc

from instaner.corpus import (
    PROVENANCE,
    read_docs,
    write_docs,
    write_shards,
)
from instaner.errors import InstaNERError
from instaner.gold import read_gold
from instaner.split import SplitCounts, split

from .conftest import GOLD, WriteRows, make_doc


def _split(
    docs: Iterable[Doc], gold: Path, nlp: Language, **settings: Any
) -> SplitCounts:
    annotated = gold.with_name("annotated")
    write_shards(docs, annotated)
    return split(annotated, gold, gold.with_name("corpus"), nlp, **settings)


def _read(gold: Path, name: str, nlp: Language) -> list[Doc]:
    return list(read_docs(gold.with_name("corpus") / f"{name}.spacy", nlp.vocab))


def _get_briefs(docs: Iterable[Doc]) -> set[str]:
    return {doc.user_data[PROVENANCE]["brief"] for doc in docs}


def test_split_writes_all_texts(gold: Path, nlp: Language) -> None:
    counts = _split((make_doc(nlp, n) for n in range(20)), gold, nlp, dev=0.2)
    assert counts == SplitCounts(
        16,
        4,
        1,
        0,
        [],
        0,
        counts.labels,
        {"train": {"generated": 16}, "dev": {"generated": 4}, "test": {}},
        {},
        "ents",
    )
    assert counts.labels == {"EQUIPMENT": 20}
    written = [*_read(gold, "train", nlp), *_read(gold, "dev", nlp)]
    assert {doc[1].text for doc in written} == {str(n) for n in range(20)}


def test_split_writes_the_gold(gold: Path, nlp: Language) -> None:
    _split((make_doc(nlp, n) for n in range(4)), gold, nlp)
    (doc,) = _read(gold, "test", nlp)
    assert (doc.text, len(doc.ents)) == (GOLD["text"], 1)


@pytest.mark.parametrize("seed", range(5))
def test_split_keeps_briefs_whole(gold: Path, nlp: Language, seed: int) -> None:
    docs = (make_doc(nlp, n, brief=f"b{n % 5}") for n in range(30))
    _split(docs, gold, nlp, dev=0.3, seed=seed)
    train, dev = (_get_briefs(_read(gold, name, nlp)) for name in ("train", "dev"))
    assert train & dev == set()
    assert len(train | dev) == 5


def test_split_by_the_same_seed_is_the_same(gold: Path, nlp: Language) -> None:
    drawn: list[set[str]] = []
    for seed in (1, 1, 2):
        docs = (make_doc(nlp, n) for n in range(20))
        annotated = gold.with_name(f"annotated-{len(drawn)}")
        write_shards(docs, annotated)
        split(annotated, gold, gold.with_name("corpus"), nlp, dev=0.3, seed=seed)
        drawn.append(_get_briefs(_read(gold, "dev", nlp)))
    assert drawn[0] == drawn[1] != drawn[2]


def test_split_counts_disputed_tokens(gold: Path, nlp: Language) -> None:
    docs = [make_doc(nlp, n) for n in range(4)]
    docs[0].set_ents([], missing=[docs[0][0:2]], default="outside")
    assert _split(docs, gold, nlp).disputed == 2


@pytest.mark.parametrize("has_ids", [True, False])
def test_split_leaves_duplicates_out(gold: Path, nlp: Language, has_ids: bool) -> None:
    docs = [make_doc(nlp, n) for n in range(4)]
    docs += [make_doc(nlp, n, text=docs[0].text.upper()) for n in (4, 0)]
    if not has_ids:  # a corpus of someone else's
        for doc in docs:
            del doc.user_data[PROVENANCE]
    counts = _split(docs, gold, nlp)
    assert (counts.train + counts.dev, counts.duplicates) == (4, 2)


@pytest.mark.parametrize(
    "text", ["A wok on the stove, and rice!", "a WOK on the big stove and rice"]
)
def test_split_leaves_near_duplicates_out(gold: Path, nlp: Language, text: str) -> None:
    docs = [make_doc(nlp, n) for n in range(4)]
    docs.insert(1, make_doc(nlp, 4, text="A wok on the stove and rice."))
    docs.append(make_doc(nlp, 5, text=text))
    counts = _split(docs, gold, nlp)
    assert (counts.train + counts.dev, counts.duplicates) == (5, 1)


def test_split_refuses_a_test_text(gold: Path, nlp: Language) -> None:
    docs = [make_doc(nlp, n) for n in range(4)]
    docs.append(make_doc(nlp, 4, text="Nothing beats a good cast-iron skillet."))
    docs.append(make_doc(nlp, 5, text=str(GOLD["text"]).upper()))
    with pytest.raises(InstaNERError) as caught:
        _split(docs, gold, nlp)
    assert str(caught.value).startswith(
        't4 "Nothing beats a good cast-iron skillet." is the test text gold-0 '
        '"Nothing beats a cast iron skillet.", or nearly, and so are 1 more.'
    )
    assert "--drop-leaks" in str(caught.value)
    assert not gold.with_name("corpus").exists()


def test_long_texts_are_shown_in_part(write_rows: WriteRows, nlp: Language) -> None:
    text = 30 * "wok "
    gold = write_rows({"text": text, "spans": []}, name="gold.jsonl")
    with pytest.raises(InstaNERError, match=f'"{text[:80]}…" is the test text gold-1'):
        _split([make_doc(nlp, 0, text=text)], gold, nlp)


def test_split_leaves_out_and_names_a_test_text(gold: Path, nlp: Language) -> None:
    docs = [make_doc(nlp, n) for n in range(4)]
    docs.append(make_doc(nlp, 4, text=str(GOLD["text"]).upper()))
    counts = _split(docs, gold, nlp, drop_leaks=True)
    assert counts.train + counts.dev == 4
    assert counts.leaks == [("t4", "gold-0")]


def test_failed_split_leaves_the_old_one(gold: Path, nlp: Language) -> None:
    old = gold.with_name("corpus") / "train.spacy"
    old.parent.mkdir()
    old.write_bytes(b"old")
    docs = [make_doc(nlp, 0, text=str(GOLD["text"]))]
    with pytest.raises(InstaNERError, match="too few to split"):
        _split(docs, gold, nlp, drop_leaks=True)
    assert [path.read_bytes() for path in old.parent.iterdir()] == [b"old"]


@pytest.mark.parametrize("count", [0, 1])
def test_split_refuses_too_few_briefs(gold: Path, nlp: Language, count: int) -> None:
    with pytest.raises(InstaNERError, match=f"has {count} texts from {count} briefs"):
        _split((make_doc(nlp, n) for n in range(count)), gold, nlp)


def test_split_refuses_a_corpus_without_entities(gold: Path, nlp: Language) -> None:
    docs = [make_doc(nlp, n) for n in range(4)]
    for doc in docs:
        doc.set_ents([])
    with pytest.raises(InstaNERError, match="has no entities or categories in 4 texts"):
        _split(docs, gold, nlp)


def test_split_refuses_empty_gold(write_rows: WriteRows, nlp: Language) -> None:
    with pytest.raises(InstaNERError, match=r"gold.jsonl has no texts"):
        _split([make_doc(nlp, 0)], write_rows(name="gold.jsonl"), nlp)


@pytest.mark.parametrize("dev", [0.0, 1.0, -0.1])
def test_split_refuses_a_wrong_share(gold: Path, nlp: Language, dev: float) -> None:
    with pytest.raises(InstaNERError, match=f"The share for dev is {dev}"):
        _split([make_doc(nlp, 0)], gold, nlp, dev=dev)


def test_split_without_an_annotated_folder(gold: Path, nlp: Language) -> None:
    with pytest.raises(InstaNERError, match=r"Corpus not found: .*nowhere"):
        split(gold.with_name("nowhere"), gold, gold.with_name("corpus"), nlp)


def _split_without_gold(
    docs: Iterable[Doc], folder: Path, nlp: Language, **settings: Any
) -> SplitCounts:
    write_shards(docs, folder / "annotated")
    return split(folder / "annotated", None, folder / "corpus", nlp, **settings)


@pytest.mark.parametrize("seed", range(5))
def test_without_gold_whole_briefs_are_held_out(
    tmp_path: Path, nlp: Language, seed: int
) -> None:
    docs = (make_doc(nlp, n, brief=f"b{n % 8}") for n in range(40))
    counts = _split_without_gold(docs, tmp_path, nlp, test=0.2, seed=seed)
    assert (counts.train, counts.dev, counts.test) == (25, 5, 10)
    gold = tmp_path / "gold.jsonl"
    briefs = [_get_briefs(_read(gold, n, nlp)) for n in ("train", "dev", "test")]
    assert [len(drawn) for drawn in briefs] == [5, 1, 2]
    assert len(set.union(*briefs)) == 8


def test_dev_is_the_same_without_gold(gold: Path, nlp: Language) -> None:
    _split((make_doc(nlp, n) for n in range(20)), gold, nlp)
    dev = _get_briefs(_read(gold, "dev", nlp))
    split(gold.with_name("annotated"), None, gold.with_name("corpus"), nlp)
    assert _get_briefs(_read(gold, "dev", nlp)) == dev


@pytest.mark.parametrize("share", [0.0, 0.9, -0.1])
def test_split_refuses_a_wrong_share_for_test(
    tmp_path: Path, nlp: Language, share: float
) -> None:
    with pytest.raises(InstaNERError, match=f"The share for test is {share}"):
        _split_without_gold([make_doc(nlp, 0)], tmp_path, nlp, test=share)


def test_split_without_gold_needs_a_third_brief(tmp_path: Path, nlp: Language) -> None:
    with pytest.raises(InstaNERError, match="too few to split into train and dev and"):
        _split_without_gold((make_doc(nlp, n) for n in range(2)), tmp_path, nlp)


_REAL = [
    {
        "id": f"r{n}",
        "text": f"Kettle {n} {n**4} {3 * (name + ' ')}",
        "brief": f"page-{n // 2}",
        "spans": [{"start": 0, "end": 6, "label": "EQUIPMENT"}],
    }
    for n, name in enumerate(2 * ["tin", "copper", "glass", "steel", "iron"])
]


@pytest.fixture
def real(tmp_path: Path) -> Path:
    srsly.write_jsonl(tmp_path / "real.jsonl", _REAL)
    return tmp_path / "real.jsonl"


def _get_sources(docs: Iterable[Doc]) -> list[str]:
    return sorted(doc.user_data[PROVENANCE]["source"] for doc in docs)


def test_real_texts_are_drawn_apart(gold: Path, real: Path, nlp: Language) -> None:
    docs = (make_doc(nlp, n) for n in range(20))
    counts = _split(docs, gold, nlp, real=[real], dev=0.2)
    assert counts.texts == {
        "train": {"real": 8, "generated": 16},
        "dev": {"real": 2, "generated": 4},
        "test": {},
    }
    train, dev = (_read(gold, name, nlp) for name in ("train", "dev"))
    assert _get_sources(dev) == [*4 * ["generated"], *2 * ["real"]]
    assert not _get_briefs(train) & _get_briefs(dev)


def test_real_texts_leave_the_generated_where_they_are(
    gold: Path, real: Path, nlp: Language
) -> None:
    drawn = []
    for settings in ({}, {"real": [real]}):
        annotated = gold.with_name(f"annotated-{len(drawn)}")
        write_shards((make_doc(nlp, n) for n in range(20)), annotated)
        split(annotated, gold, gold.with_name("corpus"), nlp, **settings)  # type: ignore[arg-type]
        briefs = _get_briefs(_read(gold, "dev", nlp))
        drawn.append({brief for brief in briefs if brief.startswith("b")})
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(("weight", "least", "most"), [(3, 24, 24), (2.5, 16, 24)])
def test_real_texts_are_repeated(
    gold: Path, real: Path, nlp: Language, weight: float, least: int, most: int
) -> None:
    docs = [make_doc(nlp, n) for n in range(20)]
    counts = _split(docs, gold, nlp, real=[real], real_weight=weight, dev=0.2)
    assert least <= counts.texts["train"]["real"] <= most
    assert counts.train == counts.texts["train"]["real"] + 16
    assert counts.texts["dev"]["real"] == 2
    assert counts.labels["EQUIPMENT"] == 30


def test_part_of_the_real_texts_is_left_out(gold: Path, nlp: Language) -> None:
    rows = [
        {**_REAL[0], "id": "", "brief": f"{n}", "text": f"Kettle {n**9:030} ."}
        for n in range(100)
    ]
    real = gold.with_name("real.spacy")
    path = gold.with_name("rows.jsonl")
    srsly.write_jsonl(path, rows)
    write_docs(read_gold(path, nlp), real)
    docs = [make_doc(nlp, n) for n in range(20)]
    counts = _split(docs, gold, nlp, real=[real], real_weight=0.5)
    kept = counts.texts["train"]["real"]
    assert 0.3 < kept / (100 - counts.duplicates - counts.texts["dev"]["real"]) < 0.7
    again = split(
        gold.with_name("annotated"),
        gold,
        gold.with_name("again"),
        nlp,
        real=[real],
        real_weight=0.5,
    )
    assert again == counts


def test_dev_can_be_real_alone(gold: Path, real: Path, nlp: Language) -> None:
    docs = (make_doc(nlp, n) for n in range(20))
    counts = _split(docs, gold, nlp, real=[real, real], dev_real=True, dev=0.5)
    assert counts.texts["dev"] == {"real": 6}
    assert counts.texts["train"] == {"real": 4, "generated": 20}
    assert counts.duplicates == 10


def test_generated_text_near_a_real_one_is_left_out(
    gold: Path, real: Path, nlp: Language
) -> None:
    docs = [make_doc(nlp, n) for n in range(20)]
    docs.append(make_doc(nlp, 20, text=f"My {_REAL[3]['text']}"))
    counts = _split(docs, gold, nlp, real=[real], dev=0.2)
    assert counts.duplicates == 1
    assert counts.texts["train"]["real"] + counts.texts["dev"]["real"] == 10


def test_real_text_that_is_gold_is_refused(
    gold: Path, real: Path, nlp: Language
) -> None:
    srsly.write_jsonl(real, [*_REAL, {**GOLD, "id": "mine"}])
    with pytest.raises(InstaNERError, match='^mine "Nothing beats .* text gold-0 "'):
        _split([make_doc(nlp, n) for n in range(9)], gold, nlp, real=[real])


def test_labels_of_one_source_are_named(gold: Path, real: Path, nlp: Language) -> None:
    span = {"start": 0, "end": 6, "label": "KETTLE"}
    srsly.write_jsonl(real, [{**row, "spans": [span]} for row in _REAL])
    docs = [make_doc(nlp, n) for n in range(9)]
    counts = _split(docs, gold, nlp, real=[real])
    assert counts.unshared == {"KETTLE": "real", "EQUIPMENT": "generated"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"real_weight": 0}, "The weight of real texts is 0"),
        ({"real_weight": float("nan")}, "The weight of real texts is nan"),
        ({"real_weight": float("inf")}, "The weight of real texts is inf"),
        ({"real": [], "dev_real": True}, "Give --real FILE, or leave out --dev-real"),
        ({"real": [Path("none.jsonl")]}, "not found: none.jsonl"),
    ],
)
def test_split_refuses_wrong_settings(
    settings: dict[str, Any], message: str, gold: Path, real: Path, nlp: Language
) -> None:
    with pytest.raises(InstaNERError, match=message):
        _split([make_doc(nlp, 0)], gold, nlp, **{"real": [real], **settings})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "real.jsonl has no texts"),
        ([{"text": 5}], "real.jsonl, line 1"),
        (_REAL[:2], "real.jsonl has 2 texts from 1 briefs: too few"),
    ],
)
def test_split_refuses_broken_real_texts(
    rows: list[Any], message: str, gold: Path, real: Path, nlp: Language
) -> None:
    srsly.write_jsonl(real, rows)
    with pytest.raises(InstaNERError, match=message):
        _split([make_doc(nlp, n) for n in range(9)], gold, nlp, real=[real])


@pytest.mark.parametrize("is_gold", [True, False])
def test_split_refuses_another_kind_of_annotation(
    write_rows: WriteRows, gold: Path, nlp: Language, is_gold: bool
) -> None:
    docs = [make_doc(nlp, number) for number in range(12)]
    sorted_ = write_rows({"text": "Where is it?", "cats": "A"}, name="sorted.jsonl")
    real = [] if is_gold else [sorted_]
    with pytest.raises(InstaNERError, match="have entities, but the (gold|real) ones"):
        _split(docs, sorted_ if is_gold else gold, nlp, real=real)


def test_split_counts_what_is_annotated(
    write_rows: WriteRows, gold: Path, nlp: Language
) -> None:
    docs = [make_doc(nlp, number) for number in range(12)]
    real = [
        {"text": f"{word} is here", "spans": [], "cats": "A"} for word in ("Tea", "Oil")
    ]
    path = write_rows(*real, name="real.jsonl")
    counts = _split(docs, gold, nlp, real=[path])
    assert counts.labels == {"EQUIPMENT": 12}
