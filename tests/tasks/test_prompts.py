from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import srsly
from spacy.tokens import Doc
from spacy.vocab import Vocab
from spacy_llm.tasks.ner import make_ner_task_v3
from spacy_llm.tasks.ner.util import NERCoTExample
from spacy_llm.tasks.span import parse_responses_cot

from instaner.llm.store import hash_prompt, make_messages
from instaner.pipeline import get_llms, load_teacher
from instaner.tasks.adopting import adopt
from instaner.tasks.generate import BRIEF, make_generate_task
from instaner.tasks.ner import make_ner_task
from instaner.tasks.prompts import get_constant, mark_constant

from ..conftest import LABELS, ROOT

_VOCAB = Vocab()
_BRIEF = {"id": "b", "author": "a cook", "topic": "soup", "form": "a forum"}


def _make_doc(text: str) -> Doc:
    return Doc(_VOCAB, words=text.split(" "))


def _make_brief_doc(**more: str) -> Doc:
    doc = Doc(_VOCAB)
    doc.user_data[BRIEF] = {**_BRIEF, **more}
    return doc


def _ask(task: Any, docs: Iterable[Doc]) -> list[list[tuple[str, str]]]:
    """RETURNS (List[List[Tuple[str, str]]]): Role and content of each prompt."""
    prompts = (prompt for found, _ in task.generate_prompts(docs) for prompt in found)
    return [
        [(message["role"], message["content"]) for message in make_messages(prompt)]
        for prompt in prompts
    ]


@pytest.mark.parametrize(
    ("one", "other", "constant"),
    [
        ("a\nb\none\n", "a\nb\ntwo\n", "a\nb\n"),
        ("a\none b\n", "a\none c\n", "a\n"),
        ("one\na\n", "two\na\n", ""),
        ("a\n", "a\n", "a\n"),
        ("a", "a\n", ""),
        ("", "", ""),
        ("a\n", "a\nb\n", "a\n"),
    ],
)
def test_constant_is_the_lines_that_are_alike(
    one: str, other: str, constant: str
) -> None:
    assert get_constant(one, other) == constant
    assert get_constant(other, one) == constant


def test_prompts_are_marked_and_stay_what_they_are() -> None:
    prompts = ["a\nb", "c\nb"]
    marked = list(mark_constant(prompts, "a\n"))
    assert marked == prompts
    assert [getattr(prompt, "constant", None) for prompt in marked] == [2, None]


@pytest.mark.parametrize("kind", ["ours", "adopted"])
def test_system_message_is_the_same_for_every_text(kind: str) -> None:
    settings: dict[str, Any] = {"label_definitions": {"DISH": "Something to eat."}}
    if kind == "ours":
        task = make_ner_task(LABELS, **settings)
    else:
        theirs = make_ner_task_v3(
            parse_responses_cot, NERCoTExample, labels=LABELS, **settings
        )
        task = adopt(theirs)
    texts = ["My wok is full .", "one", "two", "on"]
    messages = _ask(task, map(_make_doc, texts))
    assert {system for (_, system), _ in messages} == {messages[0][0][1]}
    assert "DISH: Something to eat." in messages[0][0][1]
    assert [user for _, user in messages] == [
        ("user", f"Paragraph: {_make_doc(text).text}\nAnswer:") for text in texts
    ]


@pytest.mark.parametrize(
    "text", ["", "\n", "Paragraph: one\nAnswer:\n", "You are an expert\n", "{{ text }}"]
)
def test_odd_text_is_in_the_user_message(text: str) -> None:
    doc = Doc(_VOCAB, words=[text] if text else [], spaces=[False] if text else [])
    ((system, user),) = _ask(make_ner_task(LABELS), [doc])
    assert system[0] == "system"
    assert user == ("user", f"Paragraph: {text}\nAnswer:")


def test_brief_is_in_the_user_message() -> None:
    docs = [_make_brief_doc(), _make_brief_doc(topic="bread", author="a\nbaker")]
    messages = _ask(make_generate_task({"DISH": "Something to eat."}), docs)
    assert {system for (_, system), _ in messages} == {messages[0][0][1]}
    assert "- DISH: Something to eat.\n" in messages[0][0][1]
    parts = ["- what about: soup", "a\nbaker"]
    for (_, (_, user)), part in zip(messages, parts, strict=True):
        assert part in user
        assert user.endswith("One text per line, numbered from 1, and nothing else.")


@pytest.mark.parametrize("template", ["{{ text }}\nWhat is in it?", "{{ text }}"])
def test_template_that_puts_the_text_first_makes_one_message(template: str) -> None:
    (messages,) = _ask(make_ner_task(LABELS, template=template), [_make_doc("A wok")])
    assert messages == [("user", template.replace("{{ text }}", "A wok "))]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ brief.topic }}: write {{ n }} texts.", "soup: write 12 texts."),
        ("{% if brief.topic > 3 %}{% endif %}Write.", None),
    ],
)
def test_template_that_puts_the_brief_first_makes_one_message(
    tmp_path: Path, template: str, message: str | None
) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(template, "utf8")
    task = make_generate_task({"DISH": "Something to eat."}, template=path)
    if message is not None:
        assert _ask(task, [_make_brief_doc()]) == [[("user", message)]]


def test_template_that_reads_into_the_brief_still_works(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("Write {{ n }}.\n{{ brief.tags | join('+') }}", "utf8")
    task = make_generate_task({"DISH": "Something to eat."}, template=path)
    doc = Doc(_VOCAB)
    doc.user_data[BRIEF] = {"tags": ["a", "b"]}
    (messages,) = _ask(task, [doc])
    assert "".join(content for _, content in messages) == "Write 12.\na+b"


def test_prompt_without_a_variable_part_is_a_user_message(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("Write {{ n }} texts.", "utf8")
    task = make_generate_task({"DISH": "Something to eat."}, template=path)
    assert _ask(task, [_make_brief_doc()]) == [[("user", "Write 12 texts.")]]


def test_no_system_message_is_one_message() -> None:
    ((prompts, _),) = make_ner_task(LABELS).generate_prompts([_make_doc("A wok")])
    (prompt,) = prompts
    assert make_messages(prompt, system=False) == [{"role": "user", "content": prompt}]


@pytest.mark.parametrize("name", ["teacher", "generator"])
def test_messages_are_the_prompt_that_was_recorded(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(ROOT)
    nlp = load_teacher(f"configs/{name}.cfg")
    ((_, llm),) = get_llms(nlp)
    recording = "annotate" if name == "teacher" else "generate"
    rows = list(srsly.read_jsonl(f"assets/recordings/{recording}.jsonl"))
    recorded = {row["prompt_sha256"] for row in rows}
    if name == "teacher":
        gold = list(srsly.read_jsonl("assets/gold.jsonl"))
        docs = [nlp.make_doc(row["text"]) for row in gold[:20]]
    else:
        briefs = srsly.read_jsonl("assets/briefs.jsonl")
        docs = [_make_brief_doc(**brief) for brief in briefs]
    messages = _ask(llm.task, docs)
    assert len({system for (_, system), _ in messages}) == 1
    hashes = {hash_prompt("".join(content for _, content in pair)) for pair in messages}
    assert len(hashes) == len(docs)
    assert hashes <= recorded
