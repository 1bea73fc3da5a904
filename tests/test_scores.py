import random

import numpy as np
import pytest
import spacy
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example

from instaner.scores import (
    TP,
    GoldText,
    Kind,
    count,
    count_confusion,
    count_errors,
    get_examples,
    get_prf,
    match,
    match_texts,
    score,
)
from instaner.vote import Offsets

_LABELS = ["A", "B", "C"]


def _make_docs(seed: int, n: int, *, missing: bool = False) -> list[Doc]:
    """Docs of the same words for each seed, with entities of its own."""
    vocab = spacy.blank("en").vocab
    rng = random.Random(seed)
    docs = []
    for _ in range(n):
        doc = Doc(vocab, words=["w"] * 12)
        ends = sorted(rng.sample(range(13), 6))
        spans = [
            Span(doc, start, end, label=rng.choice(_LABELS))
            for start, end in zip(ends[::2], ends[1::2], strict=True)
            if rng.random() < 0.8
        ]
        unknown = spans[1:2] if missing else []
        known = [span for span in spans if span not in unknown]
        doc.set_ents(known, missing=unknown, default="outside")
        docs.append(doc)
    return docs


def _read(docs: list[Doc]) -> list[GoldText]:
    golds = []
    for doc in docs:
        unknown = [(t.idx, t.idx + len(t)) for t in doc if t.ent_iob == 0]
        spans = [(e.start_char, e.end_char, e.label_) for e in doc.ents]
        golds.append(GoldText(doc.text, spans, unknown, False))
    return golds


@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        ([], [], []),
        ([(0, 3, "A")], [(0, 3, "A")], [None]),
        ([(0, 3, "A")], [], [Kind.MISSED]),
        ([], [(0, 3, "A")], [Kind.SPURIOUS]),
        ([(0, 3, "A")], [(0, 3, "B")], [Kind.LABEL]),
        ([(0, 3, "A")], [(0, 5, "A")], [Kind.BOUNDARY]),
        ([(0, 3, "A")], [(2, 5, "B")], [Kind.BOTH]),
        ([(0, 3, "A")], [(3, 5, "A")], [Kind.MISSED, Kind.SPURIOUS]),
        # One with one: the second part is of no entity.
        ([(0, 9, "A")], [(0, 3, "A"), (4, 9, "A")], [Kind.BOUNDARY, Kind.SPURIOUS]),
        # The same is taken before what overlaps, and one label before another.
        ([(0, 3, "A"), (4, 9, "A")], [(0, 3, "A")], [None, Kind.MISSED]),
        ([(0, 9, "A")], [(0, 6, "B"), (7, 9, "A")], [Kind.BOUNDARY, Kind.SPURIOUS]),
    ],
)
def test_errors_have_a_kind(
    gold: list[Offsets], predicted: list[Offsets], kinds: list[Kind | None]
) -> None:
    assert [m.kind for m in match(gold, predicted)] == kinds


def test_longest_overlap_is_taken() -> None:
    (first, second) = match([(0, 9, "A")], [(0, 3, "A"), (4, 9, "A")])
    assert (first.predicted, second.predicted) == ((4, 9, "A"), (0, 3, "A"))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_spacy(seed: int, missing: bool) -> None:
    docs, found = _make_docs(seed, 50, missing=missing), _make_docs(seed + 99, 50)
    examples = [Example(f, d) for f, d in zip(found, docs, strict=True)]
    theirs = get_ner_prf(examples)
    matches = match_texts(_read(docs), [gold.spans for gold in _read(found)])
    overall, *counts = count(matches, _LABELS).sum(axis=0)
    ours = score(overall)
    for name in "prf":
        assert ours[name] == pytest.approx(theirs[f"ents_{name}"])
    for label, row in zip(_LABELS, counts, strict=True):
        expected = theirs["ents_per_type"][label]
        assert {n: score(row)[n] for n in "prf"} == pytest.approx(expected)


def test_partial_scores_are_those_of_nervaluate() -> None:
    nervaluate = pytest.importorskip("nervaluate")
    docs, found = _make_docs(1, 50), _make_docs(2, 50)

    def convert(docs: list[Doc]) -> list[list[dict[str, object]]]:
        return [
            [{"label": s[2], "start": s[0], "end": s[1]} for s in gold.spans]
            for gold in _read(docs)
        ]

    evaluator = nervaluate.Evaluator(convert(docs), convert(found), tags=_LABELS)
    theirs = evaluator.evaluate()["overall"]["ent_type"]
    matches = match_texts(_read(docs), [gold.spans for gold in _read(found)])
    counts = count(matches, _LABELS).sum(axis=0)[0]
    partial = score(counts)["partial"]
    assert partial["p"] == pytest.approx(theirs.precision)
    assert partial["r"] == pytest.approx(theirs.recall)


def test_no_entities_have_no_score() -> None:
    scores = score(np.zeros(4, int))
    assert scores["f"] is None
    assert scores["acc"] is None
    assert scores["partial"] == {"p": None, "r": None, "f": None}


def test_nothing_found_is_0() -> None:
    counts = count([match([(0, 3, "A")], [])], ["A"])[0, 0]
    assert score(counts)["p"] == 0
    assert score(counts)["f"] == 0


def test_overlap_is_partly_right() -> None:
    counts = count([match([(0, 3, "A")], [(0, 5, "A")])], ["A"])[0, 0]
    assert (score(counts)["f"], score(counts)["partial"]["f"]) == (0, 1)


def test_accuracy_counts_errors_on_both_sides() -> None:
    matches = [match([(0, 3, "A"), (5, 6, "A")], [(0, 3, "A"), (8, 9, "A")])]
    assert score(count(matches, ["A"])[0, 0])["acc"] == pytest.approx(1 / 3)


def test_scores_of_many_are_of_their_shape() -> None:
    assert get_prf(np.ones((7, 2, 4))).shape == (7, 2, 3)


def test_every_entity_is_counted_once() -> None:
    docs, found = _make_docs(3, 50), _make_docs(4, 50)
    matches = match_texts(_read(docs), [gold.spans for gold in _read(found)])
    counts = count(matches, _LABELS).sum(axis=0)[1:]
    support = [
        sum(e.label_ == label for d in docs for e in d.ents) for label in _LABELS
    ]
    assert [score(row)["support"] for row in counts] == support
    confusion = count_confusion(matches)
    assert [sum(confusion[label].values()) for label in _LABELS] == support
    errors = count_errors(matches)
    total = sum(sum(given.values()) for given in confusion.values())
    assert sum(errors.values()) == total - counts[:, TP].sum()


def test_examples_are_few_and_name_their_text() -> None:
    matches = [match([(0, 3, "A")], [])] * 50
    examples = get_examples(matches)
    assert len(examples["missed"]) < 10
    assert examples["missed"][1] == {"text": 1, "gold": (0, 3, "A"), "predicted": None}
    assert examples["label"] == []
