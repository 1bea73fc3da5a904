import random

import numpy as np
import pytest
import spacy
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example

from instaner.scores import (
    TP,
    GoldText,
    Kind,
    calibrate,
    count,
    count_confusion,
    count_errors,
    get_examples,
    get_prf,
    match,
    match_texts,
    score,
    score_categories,
)
from instaner.targets import Offsets, make_mark

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


def _make_cats(seed: int, n: int, most: int) -> list[list[Offsets]]:
    rng = random.Random(seed)
    return [
        [make_mark(la) for la in rng.sample(_LABELS, rng.randint(most == 1, most))]
        for _ in range(n)
    ]


def _to_golds(marks: list[list[Offsets]]) -> list[GoldText]:
    return [GoldText("A text.", spans, [], False) for spans in marks]


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_one_category_are_those_of_sklearn(seed: int) -> None:
    gold, found = _make_cats(seed, 80, 1), _make_cats(seed + 99, 80, 1)
    golds = _to_golds(gold)
    counts = count(match_texts(golds, found), _LABELS, one_category=True).sum(axis=0)
    ours = score_categories(golds, found, counts[1:])
    y, p = ([spans[0][2] for spans in marks] for marks in (gold, found))
    assert score(counts[0])["f"] == pytest.approx(accuracy_score(y, p))
    assert ours["cats_acc"] == pytest.approx(accuracy_score(y, p))
    assert ours["cats_macro_f"] == pytest.approx(f1_score(y, p, average="macro"))
    balanced = balanced_accuracy_score(y, p)
    assert ours["cats_balanced_acc"] == pytest.approx(balanced)
    by_label = f1_score(y, p, labels=_LABELS, average=None)
    assert get_prf(counts[1:])[:, 2] == pytest.approx(by_label)
    assert count_errors(match_texts(golds, found))["label"] == len(y) - counts[0, TP]


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_several_categories_are_those_of_sklearn(seed: int) -> None:
    gold, found = _make_cats(seed, 80, 3), _make_cats(seed + 99, 80, 3)
    golds = _to_golds(gold)
    counts = count(match_texts(golds, found), _LABELS).sum(axis=0)
    ours = score_categories(golds, found, counts[1:])
    y, p = (
        np.array([[make_mark(la) in spans for la in _LABELS] for spans in marks])
        for marks in (gold, found)
    )
    assert score(counts[0])["f"] == pytest.approx(f1_score(y, p, average="micro"))
    assert ours["cats_macro_f"] == pytest.approx(f1_score(y, p, average="macro"))
    assert ours["cats_acc"] == pytest.approx(accuracy_score(y, p))
    assert ours["cats_balanced_acc"] is None


def test_text_without_an_answer_counts_as_wrong() -> None:
    golds = _to_golds([[make_mark("A")], [make_mark("B")]])
    matches = match_texts(golds, [[make_mark("A")], []])
    counts = count(matches, ["A", "B"], one_category=True).sum(axis=0)
    assert get_prf(counts[0]).tolist() == [0.5, 0.5, 0.5]
    assert counts[2].tolist() == [0, 0, 1, 0]  # but it was not taken for another


def test_what_nobody_knows_of_a_text_is_not_scored() -> None:
    golds = [*_to_golds([[make_mark("A")]]), GoldText("?", [], [(-1, 0)], False)]
    marks = [[make_mark("A")], [make_mark("B")]]
    counts = count(match_texts(golds, marks), ["A", "B"], one_category=True)
    assert counts[1].tolist() == np.zeros((3, 4)).tolist()
    assert score_categories(golds, marks, counts.sum(axis=0)[1:])["cats_acc"] == 1


def test_calibration_error_is_the_mean_distance_in_bins() -> None:
    golds = _to_golds([[make_mark(la)] for la in "AABB"])
    cats = [{"A": s, "B": 1 - s} for s in (0.95, 0.97, 0.91, 0.35)]
    found = calibrate(golds, cats)
    assert found is not None
    # Three scores in the last bin, of which one does not hold; one in the seventh.
    assert [row["count"] for row in found["bins"]] == [1, 3]
    mean = (0.95 + 0.97 + 0.91) / 3
    expected = 3 / 4 * abs(mean - 2 / 3) + 1 / 4 * abs(0.65 - 1)
    assert found["ece"] == pytest.approx(expected)


def test_scores_that_are_right_as_often_as_they_say_have_no_error() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.5, 1, 20_000)
    labels = np.where(rng.uniform(size=len(scores)) < scores, "A", "B")
    golds = _to_golds([[make_mark(str(label))] for label in labels])
    found = calibrate(golds, [{"A": float(s), "B": float(1 - s)} for s in scores])
    assert found is not None
    assert found["ece"] < 0.015


def test_hard_labels_are_not_calibrated() -> None:
    golds = _to_golds([[make_mark("A")]])
    assert calibrate(golds, [{"A": 1.0, "B": 0.0}]) is None
    assert calibrate(golds, [{}]) is None
