"""Adopting spacy-llm's own tasks, whose parsers drop silently what they cannot read."""

from typing import Any

from spacy_llm.tasks.ner import NERTask
from spacy_llm.tasks.span import parse_responses_cot
from spacy_llm.tasks.textcat import TextCatTask
from spacy_llm.tasks.textcat.parser import parse_responses_v1_v2_v3

from . import ner, textcat


def adopt(task: Any) -> Any:
    """Have spacy-llm's NER v3 and TextCat tasks ask and read as instaner.NER.v1 and
    instaner.TextCat.v1 do. Their prompts are the same.

    task (Any): Task of an llm component. One with a parser of its own is left alone.
    RETURNS (Any): The task.
    """
    parser = getattr(task, "_parse_responses", None)
    if isinstance(task, NERTask) and parser is parse_responses_cot:
        ner.take_over(task)
    if isinstance(task, TextCatTask) and parser is parse_responses_v1_v2_v3:
        textcat.take_over(task)
    return task
