import sys
from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc
from wasabi import color

from ..errors import InstaNERError
from ..pipeline import find_attrs, load_pipeline, load_teacher
from ..targets import are_exclusive, choose_categories
from ._util import CODE_HELP, Arg, Opt, import_code, msg, one_line_errors

_PROMPT = "text> "
_SHOWN = 3  # categories of a text, where fewer are chosen


@one_line_errors
def try_cli(
    model: str = Arg("training/student/model-best", help="Pipeline: folder or package"),
    teacher: str | None = Opt(None, help="Config of a teacher, to show beside it"),
    llm: str | None = Opt(None, help="Model to ask instead of the config's"),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Type a text and see its entities, or categories. Reads standard input, one text
    a line."""
    import_code(code)
    systems = {"student": load_pipeline(model)}
    if teacher is not None:
        systems["teacher"] = load_teacher(teacher, llm=llm)
    with_cats = {name for name, nlp in systems.items() if "cats" in find_attrs(nlp)}
    interactive = sys.stdin.isatty()
    if interactive:
        msg.text("Type a text and press Enter; an empty line ends.")
    for text in _read_texts(interactive):
        for name, nlp in systems.items():
            prefix = f"{name}: " if len(systems) > 1 else ""
            try:
                doc = nlp(text)
                line = _render(doc)
                if name in with_cats:
                    line += f" → {_render_categories(doc)}"
            except InstaNERError as err:
                if not interactive:
                    raise
                line = color(str(err), fg="red")  # the next text may do better
            sys.stdout.write(f"{prefix}{line}\n")
        sys.stdout.flush()


def _read_texts(interactive: bool) -> Iterator[str]:
    while True:
        try:
            line = input(_PROMPT) if interactive else sys.stdin.readline()
        except EOFError:
            return
        except UnicodeDecodeError as err:
            raise InstaNERError(f"Standard input is not UTF-8 ({err}).") from err
        if not line.strip():
            if interactive or not line:
                return
            continue
        yield line.strip()


def _render(doc: Doc) -> str:
    """RETURNS (str): The text with its entities as [surface](LABEL), coloured where
    there is a terminal."""
    line = ""
    end = 0
    for ent in doc.ents:
        line += doc.text[end : ent.start_char]
        line += _mark(f"[{ent.text}]({ent.label_})")
        end = ent.end_char
    return line + doc.text[end:]


def _render_categories(doc: Doc) -> str:
    """RETURNS (str): The categories with their scores, the highest first, those that
    hold coloured; or, where no score says more, those that hold alone."""
    if not doc.cats:
        return "no category could be read"
    chosen = choose_categories(doc.cats, exclusive=are_exclusive([doc.cats]))
    if all(score in (0, 1) for score in doc.cats.values()):
        return "  ".join(map(_mark, chosen)) or "no category"
    ranked = sorted(doc.cats, key=lambda label: -doc.cats[label])
    return "  ".join(
        _mark(cell) if label in chosen else cell
        for label in ranked[: max(_SHOWN, len(chosen))]
        for cell in [f"{label} {doc.cats[label]:.2f}"]
    )


def _mark(part: str) -> str:
    return color(part, fg="green", bold=True) if sys.stdout.isatty() else part
