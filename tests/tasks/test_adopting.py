from typing import Any

import pytest
import spacy
from spacy_llm.tasks.ner import make_ner_task_v3
from spacy_llm.tasks.ner.util import NERCoTExample
from spacy_llm.tasks.span import parse_responses_cot
from spacy_llm.tasks.spancat import make_spancat_task_v3
from spacy_llm.tasks.textcat import (
    make_textcat_task,
    make_textcat_task_v2,
    make_textcat_task_v3,
)

from instaner.tasks import ner, textcat
from instaner.tasks.adopting import adopt
from instaner.tasks.generate import make_generate_task

from ..conftest import LABELS

_EN = spacy.blank("en")
_MOODS = ["negative", "positive"]


def _parse(*args: Any) -> Any:
    return []


def test_ner_reads_as_ours_does() -> None:
    task = make_ner_task_v3(parse_responses_cot, NERCoTExample, labels=LABELS)
    assert adopt(task)._parse_responses is ner.parse_responses


@pytest.mark.parametrize(
    "make_task", [make_textcat_task, make_textcat_task_v2, make_textcat_task_v3]
)
def test_textcat_reads_as_ours_does(make_task: Any) -> None:
    task = adopt(make_task(labels=",".join(_MOODS), exclusive_classes=True))
    assert task._parse_responses is textcat.parse_responses
    docs = [[_EN.make_doc("Up!")], [_EN.make_doc("Down!")]]
    up, down = task.parse_responses(docs, [["Label: positive"], ["bearish"]])
    assert (up.cats, down.cats) == ({"negative": 0.0, "positive": 1.0}, {})


@pytest.mark.parametrize(
    "task",
    [
        make_ner_task_v3(_parse, NERCoTExample, labels=LABELS),
        make_textcat_task_v3(parse_responses=_parse, labels=_MOODS),
        make_spancat_task_v3(labels=LABELS),
        make_generate_task({"DISH": "Something to eat."}),
    ],
)
def test_other_tasks_and_parsers_are_left_alone(task: Any) -> None:
    before = dict(vars(task))
    adopt(task)
    assert vars(task) == before


@pytest.mark.parametrize(
    "task", [ner.make_ner_task(LABELS), textcat.make_textcat_task(_MOODS)]
)
def test_ours_is_left_as_it_is(task: Any) -> None:
    before = dict(vars(task))
    assert vars(adopt(task)) == before
