from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import InstaNERError
from ..formats import FORMATS, Losses, Record, find_format, write
from ..formats.corpora import read_corpus
from ..pipeline import make_blank
from ._util import Arg, Opt, msg, one_line_errors

FORMAT_HELP = f"{', '.join(FORMATS)}. Without, the suffix says it, if it can"
SKIP_HELP = "Leave out texts that cannot be held, rather than end with an error"
LANG_HELP = "Language whose tokenizer is used, where tokens are written"


@one_line_errors
def export_cli(
    corpus: Path = Arg(
        ..., help="Folder of annotated shards, a DocBin, gold JSONL, or a review store"
    ),
    file: Path = Arg(..., help="File to write"),
    format: str = Opt("", "--format", "-f", help=FORMAT_HELP),
    disputed: bool = Opt(
        False, "--disputed", help="Only texts in which a mark is disputed"
    ),
    attr: str | None = Opt(None, help="Of a review store that has both: ents or cats"),
    lang: str = Opt("en", help=LANG_HELP),
    skip: bool = Opt(False, "--skip", help=SKIP_HELP),
) -> None:
    """Write annotated texts, and what people decided about them, for another tool."""
    if attr not in (None, "ents", "cats"):
        raise InstaNERError(f'--attr is "{attr}". Give ents or cats.')
    found = find_format(format, file)
    losses = Losses()
    count = Count()
    records = read_corpus(corpus, losses, attr=attr, disputed=disputed)
    write(count.follow(records), file, found, losses, make_blank(lang), skip=skip)
    msg.good(f"{count.records} annotations of texts written: {file}")
    print_losses(losses)


class Count:
    """How many records went by."""

    records = 0

    def follow(self, records: Iterable[Record]) -> Iterator[Record]:
        """YIELDS (Record): The records."""
        for record in records:
            self.records += 1
            yield record


def print_losses(losses: Losses) -> None:
    """Print what was left out, a line for each kind."""
    for line in losses.describe():
        msg.warn(line)
