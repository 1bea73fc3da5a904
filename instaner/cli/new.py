import shlex
import sys
from pathlib import Path
from typing import Literal

import typer

from ..errors import InstaNERError
from ..new import Settings, make_project
from ..tasks.labels import check_labels
from ._util import Arg, Opt, msg, one_line_errors

Task = Literal["ner", "textcat"]


@one_line_errors
def new_cli(
    folder: Path = Arg(..., help="Folder of the project, which has to be new"),
    label: list[str] | None = Opt(
        None, help='NAME="definition"; repeatable. Without any, you are asked'
    ),
    task: Task | None = Opt(
        None, help="Label entities, or whole texts  [default: ner]"
    ),
    several: bool = Opt(False, "--several", help="Texts can have several labels"),
    lang: str | None = Opt(None, help="Language code of the texts  [default: en]"),
    domain: str | None = Opt(None, help="What the texts are, in a sentence"),
    examples: Path | None = Opt(
        None, help="Texts of the wanted kind: lines with [surface](LABEL), or JSONL"
    ),
    texts: Path | None = Opt(
        None, help="Texts to annotate, instead of having some written: lines, or JSONL"
    ),
    gold: Path | None = Opt(None, help="Gold test set: JSONL, or a DocBin"),
    llm: str | None = Opt(None, help="Model to ask  [default: gpt-4o-mini]"),
    base_url: str | None = Opt(None, help="Address of its server, if not OpenAI's"),
    encoder: str | None = Opt(None, help="Of the student, if not the language's own"),
    cnn: bool = Opt(False, "--cnn", help="Train the small CNN student alone"),
    n: int = Opt(1000, help="Texts to have written"),
    per_label: int = Opt(0, help="Entities (or texts) of a label to ask for at least"),
) -> None:
    """Make a project of your own, to run with `weasel run all`."""
    labels = _parse_labels(label or [])
    if not labels:
        if not sys.stdin.isatty():
            raise InstaNERError(
                'There are no labels. Give each with --label NAME="definition".'
            )
        labels, task, several = _ask_labels(task, several)
        domain = domain or typer.prompt("What are the texts, in a sentence?", "")
        lang = lang or typer.prompt("Language code", "en")
        llm = llm or typer.prompt("Model to ask", "gpt-4o-mini")
        base_url = base_url or typer.prompt("Address of its server (OpenAI's)", "")
    settings = Settings(
        labels,
        task=task or "ner",
        is_several=several,
        lang=lang or "en",
        domain=domain or "",
        examples=examples,
        texts=texts,
        gold=gold,
        llm=llm or None,
        base_url=base_url or None,
        encoder=encoder,
        is_cnn=cnn,
        n=n,
        per_label=per_label,
    )
    for warning in make_project(folder, settings):
        msg.warn(warning)
    msg.good(f"A project: {folder}")
    if gold is None:
        msg.text(
            "It has no gold test set: the student is scored on answers of the teacher. "
            "Some 100 texts that you annotate yourself (--gold) tell more"
        )
    server = "" if base_url else " (or OPENAI_BASE_URL, for another server)"
    there = shlex.quote(str(folder))
    msg.text(f"Set OPENAI_API_KEY{server}, then: cd {there} && weasel run all")


def _parse_labels(given: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in given:
        name, _, definition = pair.partition("=")
        name = name.strip()
        if name in labels:
            raise InstaNERError(f'Label "{name}" is given twice. Give it once.')
        labels[name] = definition.strip().strip("\"'")
    return labels


def _ask_labels(task: Task | None, several: bool) -> tuple[dict[str, str], Task, bool]:
    if task is None:
        is_cats = typer.confirm("Label whole texts, not entities in them?")
        task = "textcat" if is_cats else "ner"
    labels: dict[str, str] = {}
    while True:
        name = typer.prompt("Label (or nothing, to go on)", "", show_default=False)
        name = name.strip()
        if not name:
            if task == "textcat" and len(labels) > 1 and not several:
                several = typer.confirm("Can a text have several of them?")
            return labels, task, several
        if name in labels:
            msg.warn(f'Label "{name}" is there already')
            continue
        try:
            check_labels({**labels, name: ""})
        except InstaNERError as err:
            msg.warn(str(err))
            continue
        labels[name] = typer.prompt(
            f"What is {name}? Its definition", "", show_default=False
        )
