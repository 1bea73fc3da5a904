from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language
from spacy.tokens import Doc

from instaner.annotate import Summary, annotate
from instaner.corpus import PROVENANCE, read_docs
from instaner.decisions import Answer, Decisions
from instaner.errors import InstaNERError
from instaner.recheck import Suspect
from instaner.split import split
from instaner.targets import make_mark
from instaner.vote import Policy, Remedy, Rule

from .conftest import MakeTeacher, WriteRows, decide

_TEXT = "My wok is full of ramen."
_WOK = "1. wok | True | EQUIPMENT | a pan"
_RAMEN = "2. ramen | True | DISH | a soup"
_MY_WOK, _JUST_WOK, _SOUP = (0, 6, "EQUIPMENT"), (3, 6, "EQUIPMENT"), (18, 23, "DISH")
_BILL, _SIZE = make_mark("BILL"), make_mark("SIZE")


_decide = partial(decide, text=_TEXT)


def _annotate(nlp: Language, texts: Path, **settings: Any) -> tuple[Summary, list[Doc]]:
    output = texts.with_name("annotated")
    summary = annotate(nlp, texts, output, **{"max_failures": 1, **settings})
    return summary, list(read_docs(output, nlp.vocab))


def _get_ents(doc: Doc) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


def _get_missing(doc: Doc) -> list[str]:
    return [token.text for token in doc if token.ent_iob == 0]


@pytest.mark.parametrize("policy", [Policy(), Policy(Rule.ESTIMATED)])
@pytest.mark.parametrize("samples", [1, 2])
def test_marks_of_a_person_win(
    make_teacher: MakeTeacher,
    write_rows: WriteRows,
    reviews: Decisions,
    policy: Policy,
    samples: int,
) -> None:
    _decide(reviews, _MY_WOK)
    nlp = make_teacher({_TEXT: [f"{_WOK}\n{_RAMEN}", _WOK]})
    rows = write_rows({"text": _TEXT})
    summary, (doc,) = _annotate(nlp, rows, samples=samples, policy=policy)
    assert (_get_ents(doc), _get_missing(doc)) == ([("My wok", "EQUIPMENT")], [])
    assert (summary.reviewed, summary.rejected) == (1, [])
    assert "human/anna" in summary.voters
    assert [span.text for span in doc.spans["human/anna"]] == ["My wok"]


def test_person_can_say_there_is_nothing(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews)
    _, (doc,) = _annotate(make_teacher({_TEXT: _WOK}), write_rows({"text": _TEXT}))
    assert (_get_ents(doc), _get_missing(doc)) == ([], [])


def test_what_reviewers_disagree_on_is_disputed(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews, _JUST_WOK, _SOUP)
    _decide(reviews, _JUST_WOK, reviewer="ben")
    nlp = make_teacher({_TEXT: "No entities"})
    rows = write_rows({"text": _TEXT})
    summary, (doc,) = _annotate(nlp, rows)
    assert (_get_ents(doc), _get_missing(doc)) == ([("wok", "EQUIPMENT")], ["ramen"])
    assert summary.disputes == {"existence": 1}
    # Nor is a teacher asked to decide: it would fail, as nothing of it is recorded.
    summary, (doc,) = _annotate(nlp, rows, policy=Policy(disputed=Remedy.ASK))
    assert (_get_missing(doc), summary.asked_again) == (["ramen"], {})


def test_rejected_text_is_left_out(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews, answer=Answer.REJECT)
    _decide(reviews, text="Both.", answer=Answer.REJECT)
    _decide(reviews, text="Both.", reviewer="ben")
    nlp = make_teacher({"Both.": _WOK})  # about the other text there is no answer
    rows = write_rows({"id": "x", "text": _TEXT}, {"text": "Both."})
    summary, docs = _annotate(nlp, rows)
    assert [(doc.text, _get_ents(doc)) for doc in docs] == [("Both.", [])]
    assert (summary.reviewed, summary.rejected) == (2, ["x"])


def test_all_texts_rejected_is_an_error(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews, answer=Answer.REJECT)
    with pytest.raises(InstaNERError, match="None of the 1 texts .* 1 were rejected"):
        _annotate(make_teacher({_TEXT: _WOK}), write_rows({"text": _TEXT}))


def test_marks_that_do_not_fit_the_tokens_are_told(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews, (3, 5, "EQUIPMENT"), _SOUP, (10, 23, "DISH"))
    nlp = make_teacher({_TEXT: _WOK})
    summary, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}))
    assert _get_ents(doc) == [("full of ramen", "DISH")]
    assert [(r["voter"], r["status"], r["text"]) for r in summary.unread] == [
        ("human/anna", "off token", "wo"),
        ("human/anna", "overlap", "ramen"),
    ]


def test_decided_text_needs_no_answer(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews, _JUST_WOK)
    nlp = make_teacher({_TEXT: "", "Other": "None"})
    _, docs = _annotate(nlp, write_rows({"text": _TEXT}, {"text": "Other"}))
    assert [_get_ents(doc) for doc in docs] == [[("wok", "EQUIPMENT")], []]


def test_decided_text_is_not_rechecked(
    make_teacher: MakeTeacher,
    write_rows: WriteRows,
    reviews: Decisions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(*_: Any, **__: Any) -> Iterable[Suspect]:
        return [Suspect(0, 3, 6, (_JUST_WOK,), (), 0.0)]

    monkeypatch.setattr("instaner.annotate.find_suspects", find)
    monkeypatch.setattr("instaner.annotate.import_cleanlab", lambda: None)
    _decide(reviews, _JUST_WOK)
    nlp = make_teacher({_TEXT: "No entities"})
    summary, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), recheck=5)
    assert (_get_ents(doc), summary.rechecked) == ([("wok", "EQUIPMENT")], [])


def test_without_reviews_no_store_is_made(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    summary, _ = _annotate(make_teacher({_TEXT: _WOK}), write_rows({"text": _TEXT}))
    assert (summary.reviewed, summary.voters) == (0, ["llm/0"])
    assert not reviews.path.exists()


def test_texts_for_testing_are_not_counted_as_reviewed(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews, text="Unknown.", answer=Answer.REJECT)
    rows = write_rows({"text": _TEXT}, {"text": "Unknown.", "split": "test"})
    summary, _ = _annotate(make_teacher({_TEXT: _WOK}), rows)
    assert (summary.held_out, summary.reviewed, summary.rejected) == (1, 0, [])


def test_people_can_be_named_where_none_reviewed(
    make_teacher: MakeTeacher, write_rows: WriteRows
) -> None:
    policy = Policy(decisive=["human", "llm"])
    nlp = make_teacher({_TEXT: _WOK})
    summary, _ = _annotate(nlp, write_rows({"text": _TEXT}), policy=policy)
    assert summary.texts == 1


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("rule", [Rule.SOFT, Rule.MAJORITY])
def test_categories_of_a_person_win(
    make_classifier: MakeTeacher,
    write_rows: WriteRows,
    reviews: Decisions,
    exclusive: bool,
    rule: Rule,
) -> None:
    _decide(reviews, _SIZE, attr="cats")
    _decide(reviews, _JUST_WOK, attr="ents")  # about something else
    nlp = make_classifier({_TEXT: "BILL"}, exclusive=exclusive)
    rows = write_rows({"text": _TEXT})
    _, (doc,) = _annotate(nlp, rows, policy=Policy(rule))
    assert doc.cats == {"BILL": 0, "SHIP": 0, "SIZE": 1}


@pytest.mark.parametrize(
    ("exclusive", "cats"), [(True, {}), (False, {"SHIP": 0.0})], ids=["one", "several"]
)
def test_reviewers_disagree_on_categories(
    make_classifier: MakeTeacher,
    write_rows: WriteRows,
    reviews: Decisions,
    exclusive: bool,
    cats: dict[str, float],
) -> None:
    _decide(reviews, _SIZE, attr="cats")
    _decide(reviews, _BILL, attr="cats", reviewer="ben")
    nlp = make_classifier({_TEXT: "SHIP"}, exclusive=exclusive)
    rows = write_rows({"text": _TEXT})
    _, (doc,) = _annotate(nlp, rows, policy=Policy(Rule.SOFT))
    assert doc.cats == cats


def test_person_can_say_that_no_category_fits(
    make_classifier: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews, attr="cats")
    nlp = make_classifier({_TEXT: "BILL"}, exclusive=False)
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}))
    assert doc.cats == {"BILL": 0, "SHIP": 0, "SIZE": 0}


def _get_reasons(doc: Doc) -> list[dict[str, str]]:
    return [row["reasons"] for row in doc.user_data[PROVENANCE]["spans"]]


def test_reasons_stand_beside_the_spans(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews, _JUST_WOK)
    other = "1. wok | True | EQUIPMENT\n2. ramen | False | ==NONE== | no dish"
    nlp = make_teacher({_TEXT: [f"{_WOK}\n{_RAMEN}", other]})
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), samples=2)
    assert _get_reasons(doc) == [{"llm/0": "a pan"}, {"llm/0": "a soup"}]


@pytest.mark.parametrize("exclusive", [True, False])
def test_reasons_stand_beside_the_categories(
    make_classifier: MakeTeacher, write_rows: WriteRows, exclusive: bool
) -> None:
    answer = '{"reason": "It is about money.", "label": "BILL"}'
    nlp = make_classifier({_TEXT: [answer, "BILL"]}, exclusive=exclusive)
    _, (doc,) = _annotate(nlp, write_rows({"text": _TEXT}), samples=2)
    assert _get_reasons(doc) == [{"llm/0": "It is about money."}]


def test_corrected_boundary_is_trained_on(
    make_teacher: MakeTeacher, write_rows: WriteRows, reviews: Decisions
) -> None:
    _decide(reviews, _MY_WOK)
    others = ["A wok for rice.", "Where is that old wok?", "Leek, corn, and a wok!"]
    nlp = make_teacher(dict.fromkeys([_TEXT, *others], _WOK))
    rows = write_rows(*({"text": text} for text in (_TEXT, *others)))
    _annotate(nlp, rows)
    corpus = rows.with_name("corpus")
    for seed in range(9):  # until the text is not in dev
        split(rows.with_name("annotated"), None, corpus, nlp, test=0.2, seed=seed)
        docs = {doc.text: doc for doc in read_docs(corpus / "train.spacy", nlp.vocab)}
        if _TEXT in docs:
            break
    assert _get_ents(docs[_TEXT]) == [("My wok", "EQUIPMENT")]
