from pathlib import Path
from typing import Any

from ..corpus import GENERATED
from ..decisions import REVIEWS
from ..errors import InstaNERError
from ..files import write_meta
from ..pipeline import make_blank
from ..split import split
from ._util import Arg, Opt, msg, one_line_errors, print_examples

_REVIEWED = "reviewed"
_GOLD_HELP = (
    "Gold test set: JSONL with text and spans or cats, a DocBin, or a review store. "
    f'"{_REVIEWED}": what people accepted of the annotated texts. "": there is none'
)


@one_line_errors
def split_cli(
    annotated: Path = Arg(..., help="Folder of annotated shards"),
    paths: list[str] = Arg(
        ...,
        metavar="[GOLD] OUTPUT",
        help="Gold test set, unless it is given by --gold; and the folder for "
        "train.spacy, dev.spacy and test.spacy",
    ),
    gold: str | None = Opt(None, help=_GOLD_HELP, show_default=False),
    dev: float = Opt(0.1, help="Share of the texts for dev"),
    test: float = Opt(0.1, help="Share of the texts for test, where there is no gold"),
    real: list[str] = Opt([], help="Real annotated texts: as the gold. Repeatable"),
    real_weight: float = Opt(1.0, help="Times that a real text stands in train"),
    dev_real: bool = Opt(False, "--dev-real", help="Draw dev from real texts alone"),
    drop_leaks: bool = Opt(
        False, "--drop-leaks", help="Leave out texts that are, or nearly are, gold"
    ),
    lang: str = Opt("en", help="Language whose tokenizer splits the gold"),
    seed: int = Opt(0, help="Decides which briefs go to dev and test"),
) -> None:
    """Split annotated texts by brief into train and dev, apart from the gold."""
    gold, output = _get_paths(paths, gold)
    test_set = annotated.with_name(REVIEWS) if gold == _REVIEWED else Path(gold)
    nlp = make_blank(lang)
    real = [path for path in real if path]  # a variable of project.yml can be empty
    counts = split(
        annotated,
        test_set if gold else None,
        output,
        nlp,
        dev=dev,
        test=test,
        real=[Path(path) for path in real],
        real_weight=real_weight,
        dev_real=dev_real,
        drop_leaks=drop_leaks,
        seed=seed,
    )
    settings: dict[str, Any] = {
        "share": dev,
        "test_share": None if gold else test,
        "real": real,
        "real_weight": real_weight,
        "dev_real": dev_real,
        "drop_leaks": drop_leaks,
        "seed": seed,
    }
    write_meta(output / "split", **counts._asdict(), **settings)
    msg.good(f"{counts.train} texts to train on, {counts.dev} for dev: {output}")
    if gold:
        msg.text(
            f"{counts.test} gold texts to test on; no training text is, or nearly is, "
            "one of them"
        )
        if counts.at_random is not None and counts.at_random < counts.test:
            msg.warn(
                f"{counts.at_random} of the {counts.test} test texts were drawn at "
                "random, the others because they are hard: scores on them are lower "
                "than on texts in general; on the page, choose the order 'random' for "
                "a fair test set"
            )
    else:
        msg.warn(
            f"{counts.test} texts are held out to test on. "
            f"{counts.texts['test'].get(GENERATED, 0)} of them are silver, the "
            "teacher's own annotations: scores on them say how well the student "
            "imitates the teacher, not how right it is."
        )
    if real:
        for name, by_source in counts.texts.items():
            parts = [f"{count} {source}" for source, count in by_source.items()]
            if parts:
                msg.text(f"  {name}: {', '.join(parts)}")
    for label, source in counts.unshared.items():
        msg.warn(
            f"Only {source} texts have {label}: a student learns from the others that "
            "there is none."
        )
    if counts.leaks:
        msg.warn(
            f"{len(counts.leaks)} texts were left out: they are, or nearly are, a test "
            "text"
        )
        print_examples(f"{text} is test text {test}" for text, test in counts.leaks)
    if counts.duplicates:
        msg.text(
            f"{counts.duplicates} texts were left out: they are, or nearly are, another"
        )
    units, marks = "tokens", "entities"
    if counts.attr == "cats":
        units = marks = "texts"
    if counts.disputed:
        msg.text(f"{counts.disputed} disputed {units} are not trained on")
    msg.table(sorted(counts.labels.items()), header=("label", marks), divider=True)


def _get_paths(paths: list[str], gold: str | None) -> tuple[str, Path]:
    """Get the gold and the output from the arguments and the option."""
    given = paths if gold is None else [gold, *paths]
    if len(given) != 2:
        raise InstaNERError(
            f"{len(given)} paths are given for the gold and the output. Give "
            "ANNOTATED OUTPUT --gold GOLD, or ANNOTATED GOLD OUTPUT."
        )
    return given[0], Path(given[1])
