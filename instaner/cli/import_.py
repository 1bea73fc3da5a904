from pathlib import Path

from ..decisions import check_reviewer
from ..errors import InstaNERError
from ..formats import FORMATS, Losses, find_format, read, write
from ..formats.corpora import add_decisions, is_store, read_answers
from ..pipeline import make_blank
from ._util import Arg, Opt, msg, one_line_errors
from .export import FORMAT_HELP, LANG_HELP, SKIP_HELP, Count, print_losses

_OUTPUTS = {".jsonl": "jsonl", ".spacy": "docbin"}


@one_line_errors
def import_cli(
    file: Path = Arg(..., help="File of another tool"),
    output: Path = Arg(
        ..., help="Gold JSONL (.jsonl), a DocBin (.spacy) or a review store (.db)"
    ),
    format: str = Opt("", "--format", "-f", help=FORMAT_HELP),
    reviewer: str = Opt("", help="Who annotated it, where the file does not say"),
    lang: str = Opt("en", help=LANG_HELP),
    skip: bool = Opt(False, "--skip", help=SKIP_HELP),
) -> None:
    """Read what people annotated in another tool."""
    if reviewer:
        check_reviewer(reviewer)
    found = find_format(format, file)
    if not is_store(output) and output.suffix not in _OUTPUTS:
        raise InstaNERError(
            f"{output} is no output. Give a .jsonl, a .spacy or a review store (.db)."
        )
    losses = Losses()
    count = Count()
    records = count.follow(read_answers(read(file, found, losses), losses))
    if is_store(output):
        held = [*records]
        if not skip:
            losses.check()
        added, known = add_decisions(held, output, losses, reviewer=reviewer)
        msg.good(f"{added} decisions added, {known} were there already: {output}")
    else:
        format_ = FORMATS[_OUTPUTS[output.suffix]]
        write(records, output, format_, losses, make_blank(lang), skip=skip)
        msg.good(f"{count.records} annotations read: {output}")
    print_losses(losses)
