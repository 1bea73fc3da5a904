import sys
from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc
from wasabi import color

from ..errors import InstaNERError
from ..pipeline import load_pipeline, load_teacher
from ._util import CODE_HELP, Arg, Opt, import_code, msg, one_line_errors

_PROMPT = "text> "


@one_line_errors
def try_cli(
    model: str = Arg("training/student/model-best", help="Pipeline: folder or package"),
    teacher: str | None = Opt(None, help="Config of a teacher, to show beside it"),
    llm: str | None = Opt(None, help="Model to ask instead of the config's"),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Type a text and see its entities. Reads standard input, one text a line."""
    import_code(code)
    systems = {"student": load_pipeline(model)}
    if teacher is not None:
        systems["teacher"] = load_teacher(teacher, llm=llm)
    interactive = sys.stdin.isatty()
    if interactive:
        msg.text("Type a text and press Enter; an empty line ends.")
    for text in _read_texts(interactive):
        for name, nlp in systems.items():
            prefix = f"{name}: " if len(systems) > 1 else ""
            try:
                line = _render(nlp(text))
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
        mark = f"[{ent.text}]({ent.label_})"
        line += color(mark, fg="green", bold=True) if sys.stdout.isatty() else mark
        end = ent.end_char
    return line + doc.text[end:]
