from pathlib import Path

import spacy

from ..corpus import split
from ..errors import InstaNERError
from ..files import write_meta
from ._util import Arg, Opt, msg, one_line_errors, print_examples


@one_line_errors
def split_cli(
    annotated: Path = Arg(..., help="Folder of annotated shards"),
    gold: Path = Arg(..., help="Gold test set: JSONL with text and spans, or a DocBin"),
    output: Path = Arg(..., help="Folder for train.spacy, dev.spacy and test.spacy"),
    dev: float = Opt(0.1, help="Share of the texts for dev"),
    lang: str = Opt("en", help="Language whose tokenizer splits the gold"),
    seed: int = Opt(0, help="Decides which briefs go to dev"),
) -> None:
    """Split annotated texts by brief into train and dev, apart from the gold."""
    try:
        nlp = spacy.blank(lang)
    except ImportError as err:
        raise InstaNERError(
            f'Language "{lang}" cannot be used: {" ".join(str(err).split())}'
        ) from err
    counts = split(annotated, gold, output, nlp, dev=dev, seed=seed)
    write_meta(output / "split", **counts._asdict(), share=dev, seed=seed)
    msg.good(f"{counts.train} texts to train on, {counts.dev} for dev: {output}")
    msg.text(
        f"{counts.test} gold texts to test on; no training text is, or nearly is, "
        "one of them"
    )
    if counts.leaks:
        msg.warn(
            f"{len(counts.leaks)} texts were left out: they are, or nearly are, a test "
            "text"
        )
        print_examples(f"{text} is test text {test}" for text, test in counts.leaks)
    if counts.duplicates:
        msg.text(f"{counts.duplicates} texts were left out: they repeat another")
    if counts.disputed:
        msg.text(f"{counts.disputed} disputed tokens are not trained on")
    msg.table(sorted(counts.labels.items()), header=("label", "entities"), divider=True)
