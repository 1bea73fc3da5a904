import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner import recheck
from instaner.corpus import PROVENANCE
from instaner.errors import InstaNERError
from instaner.recheck import Suspect, find_suspects
from instaner.targets import Offsets, Target

pytest.importorskip("cleanlab")

_FOODS = "rice onions lentils garlic noodles spinach tofu carrots".split()
_TOOLS = "wok kettle skillet steamer blender grater".split()
_TEMPLATES = (
    "Fry the {food} in a {tool} for ten minutes.",
    "My {tool} is too small for so much {food}!",
)
_SWAPPED, _DROPPED, _ADDED = 10, 37, 71  # docs with a planted error


def _make_doc(nlp: Language, text: str, brief: str, ents: list[Offsets]) -> Doc:
    doc = nlp.make_doc(text)
    doc.set_ents([doc.char_span(start, end, label) for start, end, label in ents])
    doc.user_data[PROVENANCE] = {"id": text, "brief": brief}
    return doc


def _find(text: str, surface: str, label: str) -> Offsets:
    start = text.index(surface)
    return start, start + len(surface), label


def _make_docs(nlp: Language) -> list[Doc]:
    """All templates with all words, one brief for each template and food."""
    docs = []
    for template in _TEMPLATES:
        for food in _FOODS:
            for tool in _TOOLS:
                text = template.format(food=food, tool=tool)
                ents = [_find(text, food, "INGREDIENT"), _find(text, tool, "EQUIPMENT")]
                if len(docs) == _SWAPPED:
                    ents[1] = (*ents[1][:2], "INGREDIENT")
                if len(docs) == _DROPPED:
                    del ents[0]
                if len(docs) == _ADDED:
                    ents.append(_find(text, "small", "INGREDIENT"))
                docs.append(_make_doc(nlp, text, f"{template} {food}", ents))
    return docs


@pytest.fixture(scope="module", autouse=True)
def _fewer_students() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recheck, "_ROUNDS", 1)
        yield


@pytest.fixture(scope="module")
def docs(nlp: Language) -> list[Doc]:
    return _make_docs(nlp)


@pytest.fixture(scope="module")
def suspects(docs: list[Doc]) -> list[Suspect]:
    return find_suspects(docs, folds=4)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Students that are hardly trained."""
    monkeypatch.setattr(recheck._Tokens, "epochs", 1)
    monkeypatch.setattr(recheck._Texts, "epochs", 1)
    monkeypatch.setattr(recheck, "_MIN_STEPS", 1)


def test_planted_errors_come_first(suspects: list[Suspect]) -> None:
    assert {s.doc for s in suspects[:3]} == {_SWAPPED, _DROPPED, _ADDED}


@pytest.mark.parametrize(
    ("number", "surface", "given", "predicted"),
    [
        (_SWAPPED, "blender", ["INGREDIENT"], ["EQUIPMENT"]),
        (_DROPPED, "tofu", [], ["INGREDIENT"]),
        (_ADDED, "small", ["INGREDIENT"], []),
    ],
)
def test_suspect_says_what_is_given_and_predicted(
    docs: list[Doc],
    suspects: list[Suspect],
    number: int,
    surface: str,
    given: list[str],
    predicted: list[str],
) -> None:
    (suspect,) = [s for s in suspects[:3] if s.doc == number]
    spans = [_find(docs[number].text, surface, label) for label in (*given, *predicted)]
    assert (suspect.start, suspect.end) == spans[0][:2]
    assert suspect.given == tuple(spans[: len(given)])
    assert suspect.predicted == tuple(spans[len(given) :])


def test_scores_rise_from_0_to_1(suspects: list[Suspect]) -> None:
    scores = [s.score for s in suspects]
    assert scores == sorted(scores)
    assert all(0 <= score <= 1 for score in scores)


def test_same_seed_finds_the_same(docs: list[Doc], suspects: list[Suspect]) -> None:
    assert find_suspects(iter(docs), folds=4) == suspects


@pytest.mark.usefixtures("untrained")
def test_seed_decides(docs: list[Doc]) -> None:
    assert find_suspects(docs, folds=2) != find_suspects(docs, folds=2, seed=1)


def test_docs_are_as_they_were(
    nlp: Language, docs: list[Doc], suspects: list[Suspect]
) -> None:
    fresh = _make_docs(nlp)
    assert [doc.to_bytes() for doc in docs] == [doc.to_bytes() for doc in fresh]


@pytest.mark.usefixtures("untrained")
def test_disputed_tokens_are_no_suspects(nlp: Language) -> None:
    docs = _make_docs(nlp)
    for doc in docs[:20]:
        doc.set_ents([], default="missing")
    suspects = find_suspects(docs, folds=2)
    assert suspects
    assert all(suspect.doc >= 20 for suspect in suspects)


def test_disputed_tokens_are_not_learned(nlp: Language) -> None:
    # Were they taken for outside of entities, they would outvote the annotated.
    docs = _make_docs(nlp)
    for doc in docs[::6] + docs[1::6] + docs[2::6] + docs[3::6]:
        doc.set_ents([], default="missing")
    assert len(find_suspects(docs, folds=4)) < 10


@pytest.mark.usefixtures("untrained")
def test_briefs_are_never_split(
    docs: list[Doc], monkeypatch: pytest.MonkeyPatch
) -> None:
    brief_of = {doc.text: doc.user_data[PROVENANCE]["brief"] for doc in docs}
    learned: list[set[str]] = []
    asked: list[set[str]] = []
    train, predict = recheck._train, recheck._predict

    def watch_train(judge: Any, examples: list[Any], seed: int) -> Any:
        learned.append({brief_of[eg.text] for eg in examples})
        return train(judge, examples, seed)

    def watch_predict(
        judge: Any, student: Any, examples: list[Any], numbers: list[int]
    ) -> Any:
        asked.append({brief_of[examples[i].text] for i in numbers})
        return predict(judge, student, examples, numbers)

    monkeypatch.setattr(recheck, "_train", watch_train)
    monkeypatch.setattr(recheck, "_predict", watch_predict)
    find_suspects(docs, folds=3)
    assert len(learned) == len(asked) == 3
    assert not any(a & b for a, b in zip(learned, asked, strict=True))
    assert set.union(*asked) == set(brief_of.values())


@pytest.mark.usefixtures("untrained")
def test_empty_docs_are_counted(nlp: Language, docs: list[Doc]) -> None:
    empty = nlp.make_doc("")
    suspects = find_suspects(docs, folds=2)
    assert suspects
    shifted = find_suspects([empty, *docs, empty], folds=2)
    assert shifted == [s._replace(doc=s.doc + 1) for s in suspects]


@pytest.mark.usefixtures("untrained")
def test_docs_need_no_briefs_nor_a_language() -> None:
    docs = [Doc(Vocab(), words=[word], ents=["B-FOOD"]) for word in _FOODS]
    assert all(0 <= suspect.score <= 1 for suspect in find_suspects(docs, folds=2))


@pytest.mark.parametrize(
    ("ents", "seen", "expected"),
    [
        ("OOOO", "____", []),
        ("BIOB", "FF_F", []),
        ("OOOO", "_FF_", [(2, 5, 0, 1)]),
        ("BIOB", "_F_F", [(0, 3, 1, 1)]),
        ("BOBO", "FFFF", [(0, 7, 2, 1)]),
        ("BIBI", "T__F", [(0, 3, 1, 1), (4, 7, 1, 1)]),
    ],
)
def test_spans_that_overlap_are_one_suspect(
    vocab: Vocab, ents: str, seen: str, expected: list[tuple[int, int, int, int]]
) -> None:
    tags = [tag if tag == "O" else f"{tag}-F" for tag in ents]
    doc = Doc(vocab, words=list("abcd"), ents=tags)
    judge = recheck._Tokens([])
    judge.values = ["", "F", "T"]
    given = np.array(judge.get_given(doc))
    values = np.array(["_FT".index(letter) for letter in seen])
    found = judge.compare(0, doc, values, np.where(given != values, 0.5, np.inf))
    assert [(s.start, s.end, len(s.given), len(s.predicted)) for s in found] == expected


def test_spans_do_not_end_with_white_space(nlp: Language) -> None:
    doc = _make_doc(nlp, "rice\n\nwok", "", [(0, 4, "F")])
    judge = recheck._Tokens([doc])
    probs = np.array([[0.1, 0.9], [0.1, 0.9], [0.2, 0.8]], "float32")
    quality, seen = recheck._rate(np.array(judge.get_given(doc)), probs, 1)
    assert np.isfinite(quality).tolist() == [False, False, True]
    (suspect,) = judge.compare(0, doc, seen, quality)
    assert suspect.predicted == ((6, 9, "F"),)


def test_quality_is_relative_to_what_is_usual_for_the_label() -> None:
    probs = np.array([[0.7, 0.3], [0.1, 0.9], [0.3, 0.7], [0.9, 0.1]], "float32")
    quality, _ = recheck._rate(np.array([1, 1, 0, 0]), probs, 1)
    assert quality.tolist() == pytest.approx([0.3 / 0.6, np.inf, 0.3 / 0.6, np.inf])


def test_every_question_is_rated_by_itself() -> None:
    first = [[0.7, 0.3], [0.1, 0.9], [0.9, 0.1]]
    other = [[0.8, 0.2], [0.2, 0.8], [0.6, 0.4]]
    probs = np.array([first, other], "float32").transpose(1, 0, 2).reshape(6, 2)
    given = np.array([1, -1, 1, 1, 0, 1])
    quality, seen = recheck._rate(given, probs, 2)
    inf = np.inf
    expected = [0.3 / 0.6, inf, inf, inf, inf, 0.4 / 0.6]
    assert quality.tolist() == pytest.approx(expected)
    assert seen.tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("module", ["cleanlab.count", "cleanlab.rank"])
def test_missing_cleanlab_is_said_first(
    docs: list[Doc], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InstaNERError, match=r'pip install "instaner\[recheck\]"$'):
        find_suspects(docs)


@pytest.mark.parametrize(
    ("pick", "folds", "message"),
    [
        (lambda docs: [], 5, "0 texts from 0 briefs cannot be checked in 5 folds"),
        (lambda docs: docs[:12], 5, "12 texts from 2 briefs cannot be .* in 5 folds"),
        (lambda docs: docs, 1, "96 texts from 16 briefs cannot be .* in 1 folds"),
    ],
)
def test_too_few_briefs_are_counted(
    docs: list[Doc], pick: Callable[[list[Doc]], list[Doc]], folds: int, message: str
) -> None:
    with pytest.raises(InstaNERError, match=message):
        find_suspects(pick(docs), folds=folds)


def test_corpus_without_entities_is_refused(nlp: Language) -> None:
    docs = [nlp.make_doc(text) for text in _FOODS]
    with pytest.raises(InstaNERError, match="None of the 8 texts has an entity"):
        find_suspects(docs)


_TOPICS = {
    "PRICE": "The {} costs too much, and I want my money back.",
    "SIZE": "This {} is too small for me: does it come larger?",
    "CARE": "How do I clean the {} when it is burnt?",
}
_ONE = Target("cats", tuple(_TOPICS), exclusive=True)
_MANY = Target("cats", tuple(_TOPICS))


def _classify(nlp: Language, text: str, cats: dict[str, float]) -> Doc:
    doc = _make_doc(nlp, text, text, [])
    doc.cats = cats
    return doc


def _make_cats(labels: Iterable[str]) -> dict[str, float]:
    return {label: float(label in labels) for label in _TOPICS}


def _make_classified(nlp: Language, target: Target) -> list[Doc]:
    """Texts of one topic each, or of two."""
    docs = []
    for number, thing in enumerate((*_FOODS, *_TOOLS)):
        for label, sentence in _TOPICS.items():
            named = {label: sentence}
            if not target.exclusive:
                other = list(_TOPICS)[number % len(_TOPICS)]
                named[other] = _TOPICS[other]
            text = " ".join(template.format(thing) for template in named.values())
            docs.append(_classify(nlp, text, _make_cats(named)))
    return docs


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_wrong_category_comes_first(nlp: Language, share: float) -> None:
    docs = _make_classified(nlp, _ONE)
    docs[15].cats = {"PRICE": (1 - share) / 2, "SIZE": (1 - share) / 2, "CARE": share}
    suspect, *others = find_suspects(docs, _ONE, folds=4)
    assert suspect[:5] == (15, -1, 0, ((-1, 0, "CARE"),), ((-1, 0, "PRICE"),))
    assert 0 <= suspect.score <= 1
    assert len(others) < 3


def test_each_of_several_categories_is_judged(nlp: Language) -> None:
    docs = _make_classified(nlp, _MANY)
    docs[6].cats["PRICE"] = 0.0
    docs[22].cats["CARE"] = 1.0
    price, _, care = sorted(_MANY.make_marks(_TOPICS), reverse=True)
    suspects = find_suspects(docs, _MANY, folds=4)
    assert {suspect[:5] for suspect in suspects[:2]} == {
        (6, *price[:2], (), (price,)),
        (22, *care[:2], (care,), ()),
    }


@pytest.mark.parametrize("target", [_ONE, _MANY])
def test_texts_without_categories_are_no_suspects(
    nlp: Language, target: Target
) -> None:
    docs = _make_classified(nlp, target)
    for doc in docs[:20]:
        doc.cats = {}
    docs[30].cats = _make_cats(["CARE"])
    empty = _classify(nlp, "", _make_cats(["SIZE"]))
    suspects = find_suspects([empty, *docs], target, folds=4)
    assert suspects[0].doc == 31
    assert all(suspect.doc >= 21 for suspect in suspects)


@pytest.mark.usefixtures("untrained")
def test_disputed_category_is_no_suspect(nlp: Language) -> None:
    docs = _make_classified(nlp, _MANY)
    for doc in docs[:20]:
        doc.cats = {la: score for la, score in doc.cats.items() if la != "PRICE"}
    ((place, *_),) = _MANY.make_marks(["PRICE"])
    suspects = find_suspects(docs, _MANY, folds=2)
    assert any(suspect.doc < 20 for suspect in suspects)
    assert not any(suspect[:2] == (n, place) for suspect in suspects for n in range(20))


@pytest.mark.parametrize("target", [_ONE, _MANY])
def test_classified_docs_are_as_they_were(nlp: Language, target: Target) -> None:
    docs = _make_classified(nlp, target)
    find_suspects(docs, target, folds=2)
    fresh = _make_classified(nlp, target)
    assert [doc.to_bytes() for doc in docs] == [doc.to_bytes() for doc in fresh]


def test_text_of_one_category_or_not(nlp: Language) -> None:
    target = Target("cats", ("CARE",))
    docs = _make_classified(nlp, _ONE)
    for doc in docs:
        doc.cats = {"CARE": doc.cats["CARE"]}
    docs[15].cats = {"CARE": 1.0}
    suspect = find_suspects(docs, target, folds=4)[0]
    assert suspect[:5] == (15, -2, -1, ((-2, -1, "CARE"),), ())


@pytest.mark.parametrize("cats", [{}, _make_cats([])])
def test_corpus_without_categories_is_refused(
    nlp: Language, cats: dict[str, float]
) -> None:
    docs = [_classify(nlp, text, cats) for text in _FOODS]
    for target in (_ONE, _MANY):
        with pytest.raises(InstaNERError, match="None of the 8 texts has a category"):
            find_suspects(docs, target)
