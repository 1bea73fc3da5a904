"""Texts to annotate, and docs in shards, in and out."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from .errors import InstaNERError
from .files import check_exists, get_field, read_jsonl
from .scores import NOTHING
from .targets import Offsets, are_exclusive, make_mark, mark_categories

# Under this key of doc.user_data stands where a doc comes from: id, brief, votes …
PROVENANCE = "instaner"

# Under "source" of that stands which of these it is, or decisions.HUMAN.
REAL = "real"
GENERATED = "generated"

GENERATOR = "generator"  # the voter that stands for the marks of a text's writer

SHARD_SIZE = 1000  # docs
_SHOWN = 80  # characters of a text in a message


class Text(NamedTuple):
    """A text to annotate.

    id (str): Its name, unique in its file.
    text (str): The text.
    brief (str): The brief that it was written from, or the id: texts of one brief are
        never split.
    split (str): "test" for texts that are kept for testing, else "train".
    votes (Dict[str, List[Offsets]]): Marks that it comes with (see targets.Target), by
        who made them: GENERATOR for its writer, "human" for people.
    """

    id: str
    text: str
    brief: str
    split: str
    votes: dict[str, list[Offsets]]


def read_texts(path: Path) -> Iterator[Text]:
    """Read texts to annotate.

    path (Path): JSONL with text and, where there are any, id, brief, split, spans or
        cats (its writer's), and votes (spans, or cats, by the name of who marked them).
        For cats see gold.read_gold.
    YIELDS (Text): The texts.
    RAISES (InstaNERError): On a broken line, a wrong type, or a repeated id.
    """
    seen: set[str] = set()
    for number, row in read_jsonl(path):
        row.setdefault("id", f"{path.stem}-{number}")
        text_id = get_field(row, "id", path, number)
        if text_id in seen:
            raise InstaNERError(
                f'{path}, line {number}: the id "{text_id}" occurs a second time. '
                "Give each text its own."
            )
        seen.add(text_id)
        row.setdefault("brief", text_id)
        row.setdefault("split", "train")
        votes = row.get("votes", {})
        if not isinstance(votes, dict):
            raise InstaNERError(
                f'{path}, line {number}: "votes" has to be an object: spans, or cats, '
                "by the name of their voter."
            )
        own: list[Offsets] = []
        if "spans" in row:
            own += get_spans(row, row["spans"], path, number)
        if "cats" in row:
            own += _make_marks(get_cats(row["cats"], path, number))
        marks = {GENERATOR: own} if "spans" in row or "cats" in row else {}
        marks.update((v, _get_marks(row, votes[v], path, number)) for v in votes)
        yield Text(
            text_id,
            get_field(row, "text", path, number),
            get_field(row, "brief", path, number),
            get_field(row, "split", path, number),
            marks,
        )


def read_train_texts(path: Path) -> Iterator[Text]:
    """YIELDS (Text): What read_texts yields, but for the texts kept for testing."""
    return (text for text in read_texts(path) if text.split != "test")


def write_docs(docs: Iterable[Doc], path: Path) -> None:
    """Write docs, with their user data, to one DocBin.

    docs (Iterable[Doc]): The docs.
    path (Path): The file.
    """
    DocBin(docs=docs, store_user_data=True).to_disk(path)


def write_shards(docs: Iterable[Doc], folder: Path) -> None:
    """Write docs to DocBin shards of SHARD_SIZE docs, 00000.spacy and so on.

    docs (Iterable[Doc]): The docs, of which one shard at a time is held.
    folder (Path): The folder, which is made.
    """
    folder.mkdir(parents=True)
    shard: list[Doc] = []
    count = 0
    for doc in docs:
        shard.append(doc)
        if len(shard) == SHARD_SIZE:
            write_docs(shard, folder / f"{count:05}.spacy")
            shard.clear()
            count += 1
    if shard:
        write_docs(shard, folder / f"{count:05}.spacy")


def read_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """Read docs from a DocBin, or from the DocBins of a folder in the order of names.

    path (Path): File or folder.
    vocab (Vocab): Vocabulary of the docs.
    YIELDS (Doc): The docs.
    RAISES (InstaNERError): If there is no such file, or it is no DocBin.
    """
    check_exists(path, "Corpus")
    for file_ in sorted(path.glob("*.spacy")) if path.is_dir() else [path]:
        try:
            doc_bin = DocBin().from_disk(file_)
        except Exception as err:  # zlib, msgpack and spaCy each raise their own
            raise InstaNERError(f"{file_} is no DocBin ({err}). Make it anew.") from err
        yield from doc_bin.get_docs(vocab)


def get_brief(doc: Doc) -> str:
    """RETURNS (str): The brief that a doc was written from, or what stands for it."""
    provenance = doc.user_data.get(PROVENANCE, {})
    return str(provenance.get("brief", provenance.get("id", doc.text)))


def shorten(text: str) -> str:
    """RETURNS (str): The text, or its beginning, for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def get_cats(cats: Any, path: Path, number: int) -> dict[str, float]:
    """RETURNS (Dict[str, float]): Scores by label; of a list, or a label, 1 each."""
    if isinstance(cats, str):
        cats = [cats]
    if isinstance(cats, list) and all(isinstance(label, str) for label in cats):
        cats = dict.fromkeys(cats, 1)
    if not isinstance(cats, dict) or not all(
        label.strip() and isinstance(score, int | float) and 0 <= score <= 1
        for label, score in cats.items()
    ):
        raise InstaNERError(
            f"{path}, line {number}: cats have to be a label, a list of labels, or an "
            "object with a score for each label, between 0 and 1."
        )
    return {label: float(score) for label, score in cats.items()}


def _make_marks(cats: dict[str, float]) -> list[Offsets]:
    found = mark_categories(cats, exclusive=are_exclusive([cats]))
    return found or [make_mark(NOTHING)]


def _get_marks(
    row: dict[str, Any], marks: Any, path: Path, number: int
) -> list[Offsets]:
    """Read spans, or cats."""
    first = marks[0] if isinstance(marks, list) and marks else marks
    if isinstance(first, str) or (isinstance(marks, dict) and marks):
        return _make_marks(get_cats(marks, path, number))
    return get_spans(row, marks, path, number)


def find_spans(row: dict[str, Any]) -> Any:
    """RETURNS (Any): A row's spans; a text with categories need not have any."""
    return row.get("spans", [] if "cats" in row else None)


def get_spans(
    row: dict[str, Any], spans: Any, path: Path, number: int
) -> list[Offsets]:
    """RETURNS (List[Offsets]): Spans of a row's text, in the order given."""
    length = len(get_field(row, "text", path, number))
    try:
        offsets = [(s["start"], s["end"], s["label"]) for s in spans or []]
        valid = isinstance(spans, list) and all(
            isinstance(label, str)
            and label.strip()
            and isinstance(start, int)
            and isinstance(end, int)
            and 0 <= start < end <= length
            for start, end, label in offsets
        )
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise InstaNERError(
            f"{path}, line {number}: spans have to be a list of objects with start, "
            "end (characters of the text) and label (or cats be given, for categories)."
        )
    return offsets
