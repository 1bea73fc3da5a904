from pathlib import Path

from ..files import get_field, read_jsonl, write_meta
from ..pipeline import find_config
from ..swap import Contract, swap
from ._util import CODE_HELP, Arg, Opt, import_code, msg, one_line_errors

_MOST_TEXTS = 100  # enough to see a difference, and quick with any pipeline


@one_line_errors
def swap_cli(
    pipeline: str = Arg(
        ..., help="Pipeline with an llm component: config, folder or package"
    ),
    student: str = Opt(..., help="Trained pipeline: folder or package"),
    output: Path = Opt(..., help="Folder for the pipeline to write"),
    keep_name: bool = Opt(
        False, "--keep-name", help="Give the student the llm component's name"
    ),
    texts: Path | None = Opt(
        None,
        help="JSONL of texts to compare the other components on; else spaCy's examples",
    ),
    code: Path | None = Opt(None, "--code", "-c", help=CODE_HELP),
) -> None:
    """Put a trained component in the place of an llm component."""
    import_code(code)
    contract = swap(
        pipeline,
        student,
        output,
        keep_name=keep_name,
        texts=None if texts is None else _read_samples(texts),
    )
    write_meta(
        output,
        config=find_config(pipeline),
        pipeline=pipeline,
        student=student,
        contract=contract._asdict(),
    )
    _print_contract(contract, output)


def _read_samples(path: Path) -> list[str]:
    samples = []
    for number, row in read_jsonl(path):
        samples.append(get_field(row, "text", path, number))
        if len(samples) == _MOST_TEXTS:
            break
    return samples


def _print_contract(contract: Contract, output: Path) -> None:
    if contract.missing or contract.extra:
        if contract.missing:
            msg.warn(f"labels the student does not know: {', '.join(contract.missing)}")
        if contract.extra:
            msg.warn(f"labels only the student sets: {', '.join(contract.extra)}")
    else:
        msg.good("labels: the same")
    if contract.same_tokenizer:
        msg.good("tokenizer: the same")
    else:
        msg.warn(
            "tokenizer: the pipeline splits texts otherwise than the student was "
            "trained on; score the result on gold"
        )
    msg.good(f"order: {' → '.join(contract.pipeline)}")
    if not contract.texts:
        msg.warn("no texts to compare the other components on: give --texts")
    elif contract.compared:
        msg.good(
            f"other components ({', '.join(contract.compared)}): the same output on "
            f"{contract.texts} texts"
        )
    what = "categories" if contract.attr == "cats" else "entities"
    if contract.set_before:
        msg.warn(
            f"{', '.join(contract.set_before)} set {what} before: the student keeps "
            "them, the llm component overwrote them"
        )
    elif contract.same_output < contract.texts:
        msg.warn(
            f"the student finds other {what} than on its own in "
            f"{contract.texts - contract.same_output} of {contract.texts} texts"
        )
    msg.good(
        f"{contract.name} stands where {contract.replaced} stood: {output} loads with "
        "spacy.load, without spacy-llm and without a key"
    )
