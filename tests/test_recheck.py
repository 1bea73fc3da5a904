import sys

import pytest
from spacy.tokens import Doc
from spacy.vocab import Vocab

from instaner import recheck
from instaner.corpus import PROVENANCE
from instaner.errors import InstaNERError
from instaner.recheck import Suspect, find_suspects

_NAMES = "Ann Bob Cem Dora Eve Finn Gina Hugo Ines Jan Kim Leo Mia Nils Ola Pam".split()
_FOODS = ("soup", "rice", "fish", "stew", "toast", "curry")
# Numbers of the docs with an error, with a disputed token, and without text.
_SWAPPED, _DROPPED, _INVENTED, _DISPUTED, _EMPTY = 10, 33, 70, 50, 95


def _make_doc(vocab: Vocab, number: int, tags: list[str]) -> Doc:
    name, food = _NAMES[number % 16], _FOODS[number // 16]
    doc = Doc(vocab, words=[name, "cooks", food, "in", "a", "wok", "."], ents=tags)
    doc.user_data[PROVENANCE] = {"id": f"{number}", "brief": f"{number // 3}"}
    return doc


def _make_docs() -> list[Doc]:
    vocab = Vocab()
    right = ["O", "O", "B-DISH", "O", "O", "B-TOOL", "O"]
    docs = [_make_doc(vocab, number, right) for number in range(96)]
    for number, place, tag in (
        (_SWAPPED, 5, "B-DISH"),
        (_DROPPED, 2, "O"),
        (_INVENTED, 0, "B-TOOL"),
    ):
        tags = [*right[:place], tag, *right[place + 1 :]]
        docs[number] = _make_doc(vocab, number, tags)
    wok = docs[_DISPUTED][5:6]
    docs[_DISPUTED].set_ents(docs[_DISPUTED].ents[:1], missing=[wok])
    docs[_EMPTY] = Doc(vocab, words=[])
    return docs


@pytest.fixture
def docs() -> list[Doc]:
    return _make_docs()


@pytest.fixture(scope="module")
def suspects() -> list[Suspect]:
    return find_suspects(_make_docs())


def test_planted_errors_come_first(suspects: list[Suspect]) -> None:
    assert {s.doc for s in suspects[:3]} == {_SWAPPED, _DROPPED, _INVENTED}
    scores = [s.score for s in suspects]
    assert scores == sorted(scores)
    assert 0 <= scores[0] <= scores[-1] <= 1


def test_suspect_says_what_is_given_and_what_a_student_sees(
    suspects: list[Suspect], docs: list[Doc]
) -> None:
    found = {s.doc: s for s in suspects[:3]}
    swapped, dropped, invented = (found[n] for n in (_SWAPPED, _DROPPED, _INVENTED))
    wok, food, name = docs[_SWAPPED][5], docs[_DROPPED][2], docs[_INVENTED][0]
    start, end = wok.idx, wok.idx + len(wok)
    assert (swapped.start, swapped.end) == (start, end)
    assert swapped.given == ((start, end, "DISH"),)
    assert swapped.predicted == ((start, end, "TOOL"),)
    assert dropped.given == ()
    assert dropped.predicted == ((food.idx, food.idx + len(food), "DISH"),)
    assert invented.given == ((0, len(name), "TOOL"),)
    assert invented.predicted == ()


def test_disputed_tokens_are_not_judged(suspects: list[Suspect]) -> None:
    assert _DISPUTED not in {suspect.doc for suspect in suspects}


def test_same_seed_finds_the_same(suspects: list[Suspect], docs: list[Doc]) -> None:
    assert find_suspects(docs) == suspects


def test_texts_of_a_brief_are_judged_by_students_of_others(
    docs: list[Doc], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[set[str]] = []
    train = recheck._train

    def spy(examples: list, *args):  # type: ignore[no-untyped-def, type-arg]
        learned.append({eg.x.text for eg in examples})
        return train(examples, *args)

    monkeypatch.setattr(recheck, "_train", spy)
    monkeypatch.setattr(recheck, "_MIN_STEPS", 1)
    find_suspects(docs, folds=4)
    for texts in learned:
        held_out = [doc for doc in docs[:_EMPTY] if doc.text not in texts]
        assert held_out
        briefs = {doc.user_data[PROVENANCE]["brief"] for doc in held_out}
        of_briefs = [
            d for d in docs[:_EMPTY] if d.user_data[PROVENANCE]["brief"] in briefs
        ]
        assert len(held_out) == len(of_briefs)


def test_too_few_briefs(docs: list[Doc]) -> None:
    with pytest.raises(InstaNERError, match="3 texts from 1 briefs cannot be checked"):
        find_suspects(docs[:3])


def test_no_entities() -> None:
    docs = [_make_doc(Vocab(), number, ["O"] * 7) for number in range(30)]
    with pytest.raises(InstaNERError, match="None of the 30 texts has an entity"):
        find_suspects(docs)


def test_missing_extra_is_one_line(
    docs: list[Doc], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
    with pytest.raises(InstaNERError, match=r'pip install "instaner\[recheck\]"'):
        find_suspects(docs)
