import sqlite3

import pytest

from instaner.decisions import (
    Answer,
    Decision,
    Decisions,
    get_ballots,
    is_rejected,
)
from instaner.errors import InstaNERError
from instaner.targets import Target

DISH = (6, 11, "DISH")


@pytest.fixture
def decisions(tmp_path):
    return Decisions(tmp_path / "corpus" / "reviews.db")


def make_decision(reviewer="anna", answer=Answer.ACCEPT, marks=(DISH,), **values):
    values = {"text": "I had ramen.", "attr": "ents", **values}
    return Decision(reviewer=reviewer, answer=answer, marks=tuple(marks), **values)


def find(decisions, text="I had ramen.", attr="ents"):
    return [(d.reviewer, d.answer, d.marks) for d in decisions.find(text, attr)]


def test_another_process_sees_a_decision_at_once(decisions):
    decisions.add(make_decision(text_id="a", queue="disputed", seconds=1.5))
    (again,) = Decisions(decisions.path).find("I had ramen.", "ents")
    assert again == make_decision(
        text_id="a", queue="disputed", seconds=1.5, created=again.created
    )


def test_the_last_decision_of_a_person_counts(decisions):
    decisions.add(make_decision())
    decisions.add(make_decision("ben", marks=()))
    decisions.add(make_decision(answer=Answer.REJECT, marks=()))
    assert find(decisions) == [
        ("ben", Answer.ACCEPT, ()),
        ("anna", Answer.REJECT, ()),
    ]


def test_skip_takes_nothing_back(decisions):
    decisions.add(make_decision())
    decisions.add(make_decision(answer=Answer.SKIP, marks=()))
    assert find(decisions) == [("anna", Answer.ACCEPT, (DISH,))]


def test_undo_brings_back_what_counted_before(decisions):
    decisions.add(make_decision())
    decisions.add(make_decision("ben"))
    decisions.add(make_decision(marks=()))
    decisions.undo("anna", "ents")
    assert ("anna", Answer.ACCEPT, (DISH,)) in find(decisions)
    assert decisions.get_last("anna", "ents").marks == (DISH,)
    decisions.undo("anna", "ents")
    assert find(decisions) == [("ben", Answer.ACCEPT, (DISH,))]
    assert decisions.get_last("anna", "ents") is None
    decisions.undo("anna", "ents")  # there is nothing


def test_what_is_undone_stays_in_the_file(decisions):
    decisions.add(make_decision())
    decisions.undo("anna", "ents")
    with sqlite3.connect(decisions.path) as connection:
        rows = connection.execute("SELECT reviewer, undone FROM decisions").fetchall()
    assert rows == [("anna", 1)]


def test_entities_and_categories_are_apart(decisions):
    decisions.add(make_decision())
    decisions.add(make_decision(attr="cats", marks=[(-1, 0, "PRAISE")]))
    assert find(decisions, attr="cats") == [
        ("anna", Answer.ACCEPT, ((-1, 0, "PRAISE"),))
    ]
    assert [d.attr for (d,) in decisions.read("ents")] == ["ents"]


def test_read_gives_the_people_of_each_text_together(decisions):
    decisions.add(make_decision(text="One."))
    decisions.add(make_decision(text="Two."))
    decisions.add(make_decision("ben", text="One."))
    decisions.add(make_decision("ben", text="Three.", answer=Answer.SKIP))
    assert [[(d.text, d.reviewer) for d in ds] for ds in decisions.read("ents")] == [
        [("One.", "anna"), ("One.", "ben")],
        [("Two.", "anna")],
    ]


def test_reading_makes_no_file(decisions):
    assert [*decisions.read("ents")] == []
    assert decisions.find("a", "ents") == []
    assert decisions.get_target("ents") is None
    assert not decisions.path.exists()


def test_labels_of_earlier_runs_stay(decisions):
    decisions.set_target(Target("cats", ("A", "B"), exclusive=True))
    decisions.set_target(Target("cats", ("B", "C"), exclusive=True))
    assert decisions.get_target("cats") == Target("cats", ("A", "B", "C"), True)


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\nb"])
def test_a_name_that_is_no_voters_is_refused(decisions, name):
    with pytest.raises(InstaNERError, match="is no name for a reviewer"):
        decisions.add(make_decision(name))


def test_a_response_store_is_no_review_store(tmp_path):
    path = tmp_path / "responses.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (id INTEGER)")
    with pytest.raises(InstaNERError, match="no review store of this version"):
        Decisions(path).find("a", "ents")


@pytest.mark.parametrize(
    ("answers", "rejected"),
    [
        ([Answer.REJECT], True),
        ([Answer.REJECT, Answer.ACCEPT], False),
        ([Answer.REJECT, Answer.REJECT, Answer.ACCEPT], True),
        ([], False),
    ],
)
def test_more_have_to_reject_than_accept(answers, rejected):
    found = [make_decision(f"r{k}", answer) for k, answer in enumerate(answers)]
    assert is_rejected(found) is rejected


def test_ballots_are_of_those_who_accept():
    found = [make_decision(), make_decision("ben", Answer.REJECT)]
    assert get_ballots(found) == {"human/anna": [DISH]}


def test_no_category_is_an_opinion_too():
    found = [make_decision(attr="cats", marks=())]
    assert get_ballots(found) == {"human/anna": [(-1, 0, "")]}


def test_a_text_that_is_skipped_later_still_counts_as_accepted(decisions):
    decisions.add(make_decision(proposed=[DISH], seconds=2))
    decisions.add(make_decision(answer=Answer.SKIP, marks=()))
    decisions.add(make_decision(text="Other.", answer=Answer.SKIP, marks=()))
    assert decisions.count("anna", "ents") == {
        "accepted": 1,
        "rejected": 0,
        "skipped": 1,
        "unchanged": 1,
        "seconds": 2,
    }
