"""Formats of other annotation tools, in and out: one small module for each."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from spacy.language import Language

from ..errors import InstaNERError
from ..files import write_whole
from . import argilla, conll, docbin, doccano, jsonl, label_studio, prodigy, sheet
from .base import Losses, Mark, Read, Record, Write

__all__ = ["FORMATS", "Losses", "Mark", "Record", "find_format", "read", "write"]


class Format(NamedTuple):
    """A format.

    read (Read): Reads the records of a file.
    write (Write): Writes records to a file.
    suffixes (Tuple[str, ...]): Suffixes that are of no other format.
    """

    read: Read
    write: Write
    suffixes: tuple[str, ...] = ()


FORMATS = {
    "prodigy": Format(prodigy.read, prodigy.write),
    "label-studio": Format(label_studio.read, label_studio.write),
    "argilla": Format(argilla.read, argilla.write),
    "doccano": Format(doccano.read, doccano.write),
    "conll": Format(conll.read, conll.write, (".conll", ".conllu", ".bio", ".iob")),
    "docbin": Format(docbin.read, docbin.write, (".spacy",)),
    "csv": Format(sheet.read, sheet.write, (".csv",)),
    "jsonl": Format(jsonl.read, jsonl.write),
}


def find_format(name: str, path: Path) -> Format:
    """Find a format.

    name (str): Its name. "": by the file's suffix.
    path (Path): The file.
    RETURNS (Format): The format.
    RAISES (InstaNERError): If there is none, or several have the suffix.
    """
    if name in FORMATS:
        return FORMATS[name]
    for found in FORMATS.values():
        if not name and path.suffix.lower() in found.suffixes:
            return found
    what = (
        f'There is no format "{name}"' if name else f"{path} can be of several formats"
    )
    raise InstaNERError(f"{what}. Give --format, one of {', '.join(FORMATS)}.")


def read(path: Path, format_: Format, losses: Losses) -> Iterator[Record]:
    """Read the records of a file.

    path (Path): The file.
    format_ (Format): Its format.
    losses (Losses): What is left out.
    YIELDS (Record): The records.
    RAISES (InstaNERError): On what is not of the format, or if there is no text.
    """
    record = None
    for record in format_.read(path, losses):
        yield record
    if record is None and not losses.describe():
        raise InstaNERError(f"{path} has no texts. Check the path and the format.")


def write(
    records: Iterable[Record],
    path: Path,
    format_: Format,
    losses: Losses,
    nlp: Language,
    *,
    skip: bool = False,
) -> None:
    """Write records to a file.

    records (Iterable[Record]): The records: of each text in sequence.
    path (Path): The file.
    format_ (Format): The format.
    losses (Losses): What is left out.
    nlp (Language): Pipeline whose tokenizer is used, where tokens are.
    skip (bool): Leave texts out that the format cannot hold.
    RAISES (InstaNERError): If there are such, and skip is False.
    """
    with write_whole(path) as part:
        format_.write(records, part, losses, nlp)
        if not skip:
            losses.check()
