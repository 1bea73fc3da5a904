from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language
from spacy.tokens import Doc

from instaner.corpus import Text
from instaner.errors import InstaNERError
from instaner.voters import Opinions, Teacher

from .conftest import MakeTeacher

_TEXT = "My wok is full of ramen."
_WOK = "1. wok | True | EQUIPMENT | a pan"


def _read(nlp: Language, *, samples: int = 1, **votes: Any) -> tuple[Teacher, Opinions]:
    teacher = Teacher(nlp, samples=samples, store=Path("unused.db"))
    (opinions,) = teacher.read([Text("x", _TEXT, "x", "train", votes)])
    return teacher, opinions


def test_samples_are_voters(make_teacher: MakeTeacher) -> None:
    nlp = make_teacher({_TEXT: [_WOK, "None"]})
    teacher, opinions = _read(nlp, samples=2)
    assert teacher.voters == ["llm/0", "llm/1"]
    assert opinions.ballots == {"llm/0": {(3, 6, "EQUIPMENT"): "exact"}, "llm/1": {}}


def test_ballot_says_how_a_span_was_found(make_teacher: MakeTeacher) -> None:
    nlp = make_teacher({_TEXT: "1. WOK | True | EQUIPMENT | a pan"})
    _, opinions = _read(nlp)
    assert opinions.ballots["llm/0"] == {(3, 6, "EQUIPMENT"): "normalised"}


@pytest.mark.parametrize("place", ["before", "after"])
def test_ruler_is_a_voter(make_teacher: MakeTeacher, place: str) -> None:
    nlp = make_teacher({_TEXT: _WOK})
    ruler = nlp.add_pipe("entity_ruler", **{place: "llm"})
    ruler.add_patterns([{"label": "DISH", "pattern": [{"LOWER": "ramen"}]}])  # type: ignore[attr-defined]
    teacher, opinions = _read(nlp)
    assert teacher.voters == ["llm/0", "entity_ruler"]
    assert opinions.ballots == {
        "llm/0": {(3, 6, "EQUIPMENT"): "exact"},
        "entity_ruler": {(18, 23, "DISH"): ""},
    }


@pytest.mark.filterwarnings("ignore:.*does not have any patterns")
def test_what_stands_before_a_voter_runs_for_it(make_teacher: MakeTeacher) -> None:
    nlp = make_teacher({_TEXT: _WOK})
    seen = []

    @Language.component("tests_before")
    def before(doc: Doc) -> Doc:
        seen.append(doc.text)
        return doc

    nlp.add_pipe("entity_ruler", name="first")
    nlp.add_pipe("tests_before")
    nlp.add_pipe("entity_ruler", name="second")
    _read(nlp)
    assert seen == [_TEXT]  # neither for the llm component nor for the first ruler


def test_votes_that_texts_bring(make_teacher: MakeTeacher) -> None:
    nlp = make_teacher({_TEXT: _WOK})
    _, opinions = _read(nlp, human=[(18, 23, "DISH")], generator=[])
    assert opinions.ballots == {
        "human": {(18, 23, "DISH"): "exact"},
        "generator": {},
        "llm/0": {(3, 6, "EQUIPMENT"): "exact"},
    }


@pytest.mark.parametrize("name", ["llm/0", "llm", ""])
def test_votes_cannot_take_the_name_of_a_component(
    make_teacher: MakeTeacher, name: str
) -> None:
    nlp = make_teacher({_TEXT: _WOK})
    message = f'Text x brings votes of "{name}", which is the name of a component'
    with pytest.raises(InstaNERError, match=message):
        _read(nlp, **{name: []})
