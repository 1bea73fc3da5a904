from functools import partial
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from instaner.corpus import PROVENANCE, read_docs, write_shards
from instaner.decisions import RANDOM, Answer, Decisions
from instaner.errors import InstaNERError
from instaner.evaluate import evaluate
from instaner.gold import read_bare, read_gold, read_gold_texts
from instaner.split import SplitCounts, split
from instaner.targets import Target, make_mark

from .conftest import decide

_TEXT = "A cast iron skillet and rice."
_SKILLET, _IRON_SKILLET = (12, 19, "EQUIPMENT"), (2, 19, "EQUIPMENT")
_RICE = (24, 28, "DISH")


_decide = partial(decide, text=_TEXT)


def _get_missing(doc: Doc) -> list[str]:
    return [token.text for token in doc if token.ent_iob == 0]


def test_accepted_text_is_gold(reviews: Decisions, nlp: Language) -> None:
    _decide(reviews, _SKILLET, _RICE, text_id="a", queue="disputed")
    _decide(reviews, text="No.", answer=Answer.REJECT)
    _decide(reviews, text="Nothing.", queue=RANDOM)
    one, other = read_gold(reviews.path, nlp)
    assert [(ent.text, ent.label_) for ent in one.ents] == [
        ("skillet", "EQUIPMENT"),
        ("rice", "DISH"),
    ]
    assert one.user_data[PROVENANCE] == {
        "id": "a",
        "source": "human",
        "reviewers": ["anna"],
        "queues": ["disputed"],
    }
    assert (other.text, other.ents, _get_missing(other)) == ("Nothing.", (), [])
    assert other.user_data[PROVENANCE]["id"] == "reviews-2"
    assert list(read_bare(reviews.path)) == [_TEXT, "Nothing."]


def test_what_reviewers_disagree_on_is_unknown(
    reviews: Decisions, nlp: Language
) -> None:
    _decide(reviews, _SKILLET, _RICE)
    _decide(reviews, _IRON_SKILLET, _RICE, reviewer="ben")
    _decide(reviews, reviewer="cleo", answer=Answer.REJECT)
    (doc,) = read_gold(reviews.path, nlp)
    assert [ent.text for ent in doc.ents] == ["rice"]
    assert _get_missing(doc) == ["cast", "iron", "skillet"]
    assert doc.user_data[PROVENANCE]["reviewers"] == ["anna", "ben"]
    (gold,) = read_gold_texts(reviews.path)
    assert gold == (_TEXT, [_RICE], [(2, 19)], False)


def test_majority_of_reviewers_decides(reviews: Decisions, nlp: Language) -> None:
    for reviewer in ("anna", "ben"):
        _decide(reviews, _SKILLET, reviewer=reviewer)
    _decide(reviews, _IRON_SKILLET, reviewer="cleo")
    (doc,) = read_gold(reviews.path, nlp)
    assert [ent.text for ent in doc.ents] == ["skillet"]
    assert _get_missing(doc) == ["cast", "iron"]
    (gold,) = read_gold_texts(reviews.path, "ents")
    assert (gold.spans, gold.unknown) == ([_SKILLET], [(2, 12)])


@pytest.mark.parametrize("exclusive", [True, False])
def test_categories_are_gold(
    reviews: Decisions, nlp: Language, exclusive: bool
) -> None:
    reviews.set_target(Target("cats", ("BILL", "SHIP"), exclusive))
    bill, ship = make_mark("BILL"), make_mark("SHIP")
    _decide(reviews, bill, attr="cats")
    _decide(reviews, attr="cats", text="Hm.")
    for reviewer, mark in (("anna", bill), ("ben", ship)):
        _decide(reviews, mark, attr="cats", text="Which?", reviewer=reviewer)
    docs = [(doc.text, doc.cats) for doc in read_gold(reviews.path, nlp)]
    assert docs[0] == (_TEXT, {"BILL": 1, "SHIP": 0})
    # No category is one of several, but not where there has to be one.
    rest = [] if exclusive else [("Hm.", {"BILL": 0, "SHIP": 0})]
    assert docs[1:] == rest
    golds = [(gold.text, gold.spans) for gold in read_gold_texts(reviews.path)]
    assert golds == [(_TEXT, [bill]), *(("Hm.", []) for _ in rest)]


def test_entities_come_before_categories(reviews: Decisions, nlp: Language) -> None:
    reviews.set_target(Target("cats", ("BILL",), exclusive=True))
    _decide(reviews, make_mark("BILL"), attr="cats")
    _decide(reviews, _RICE)
    (doc,) = read_gold(reviews.path, nlp)
    assert (len(doc.ents), doc.cats) == (1, {})
    assert [gold.spans for gold in read_gold_texts(reviews.path)] == [[_RICE]]
    cats = read_gold_texts(reviews.path, "cats")
    assert [gold.spans for gold in cats] == [[make_mark("BILL")]]
    assert list(read_bare(reviews.path)) == [_TEXT]


def test_categories_have_to_be_known(reviews: Decisions, nlp: Language) -> None:
    _decide(reviews, make_mark("BILL"), attr="cats")
    with pytest.raises(InstaNERError, match="does not say which categories there are"):
        list(read_gold(reviews.path, nlp))


def test_mark_off_the_tokens_is_named(reviews: Decisions, nlp: Language) -> None:
    _decide(reviews, (3, 6, "DISH"))
    with pytest.raises(InstaNERError, match=r'the span 3:6 \("ast"\) of the text "A c'):
        list(read_gold(reviews.path, nlp))


def test_overlapping_marks_are_named(reviews: Decisions, nlp: Language) -> None:
    _decide(reviews, _SKILLET, _IRON_SKILLET)
    message = 'spans 2:19 and 12:19 of the text "A cast iron skillet.* overlap'
    with pytest.raises(InstaNERError, match=message):
        list(read_gold(reviews.path, nlp))
    with pytest.raises(InstaNERError, match=message):
        read_gold_texts(reviews.path)


@pytest.mark.parametrize("suffix", [".sqlite", ".sqlite3"])
def test_store_can_have_other_suffixes(
    suffix: str, tmp_path: Path, nlp: Language
) -> None:
    reviews = Decisions(tmp_path / f"anna{suffix}")
    _decide(reviews, _RICE)
    (doc,) = read_gold(reviews.path, nlp)
    assert [ent.text for ent in doc.ents] == ["rice"]
    assert [gold.spans for gold in read_gold_texts(reviews.path)] == [[_RICE]]
    assert list(read_bare(reviews.path)) == [_TEXT]


def test_nothing_reviewed_is_an_error(reviews: Decisions, nlp: Language) -> None:
    with pytest.raises(InstaNERError, match="Run `instaner review`"):
        list(read_gold(reviews.path, nlp))
    assert not reviews.path.exists()


def test_pipeline_is_scored_on_reviews(reviews: Decisions) -> None:
    ruled = spacy.blank("en")
    ruler: Any = ruled.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "DISH", "pattern": "rice"}])
    _decide(reviews, _RICE)
    result = evaluate(ruled, reviews.path)
    assert result["ents_f"] == 1


def _split(
    reviews: Decisions, nlp: Language, *more: str, **settings: Any
) -> SplitCounts:
    docs = []
    for number, name in enumerate([*"abcdefgh", *more]):
        unlike = ["salt", "rice", "corn", "leek", "kale", "lime"][number % 6]
        text = name if len(name) > 1 else f"Wok {number} {unlike} {number**9}"
        docs.append(nlp.make_doc(text))
        docs[-1].set_ents([Span(docs[-1], 0, 1, "EQUIPMENT")])
        docs[-1].user_data[PROVENANCE] = {"id": f"t{number}"}
    annotated = reviews.path.with_name("annotated")
    write_shards(docs, annotated)
    output = annotated.with_name("corpus")
    return split(annotated, reviews.path, output, nlp, **settings)


def test_reviewed_texts_are_the_test_set(reviews: Decisions, nlp: Language) -> None:
    near = "A cast-iron skillet, and rice!"
    _decide(reviews, _SKILLET, text_id="t8", queue=RANDOM)
    _decide(reviews, text="Elsewhere.", queue="disputed")
    counts = _split(reviews, nlp, _TEXT, near)
    assert (counts.train + counts.dev, counts.test) == (8, 2)
    assert (counts.leaks, counts.at_random) == ([("t9", "t8")], 1)
    corpus = reviews.path.with_name("corpus")
    docs = list(read_docs(corpus / "test.spacy", nlp.vocab))
    assert [doc.user_data[PROVENANCE]["source"] for doc in docs] == ["human"] * 2
    assert not any(gold.silver for gold in read_gold_texts(corpus / "test.spacy"))
    for name in ("train", "dev"):
        texts = list(read_bare(corpus / f"{name}.spacy"))
        assert not {_TEXT, near} & set(texts)


def test_nothing_accepted_is_no_test_set(reviews: Decisions, nlp: Language) -> None:
    _decide(reviews, answer=Answer.REJECT)
    with pytest.raises(InstaNERError, match="run `instaner review`, and accept some"):
        _split(reviews, nlp)
