"""Texts and shards in and out, gold, and the split that keeps them apart."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from .errors import InstaNERError
from .files import check_exists, get_field, read_jsonl, write_whole
from .vote import Offsets

# Under this key of doc.user_data stands where a doc comes from: id, brief, votes …
PROVENANCE = "instaner"

GENERATOR = "generator"  # the voter that stands for the marks of a text's writer

SHARD_SIZE = 1000  # docs
_SHINGLE = 5  # characters
_NEAR = 0.6  # Jaccard index of shingles from which a text is nearly another


class Text(NamedTuple):
    """A text to annotate.

    id (str): Its name, unique in its file.
    text (str): The text.
    brief (str): The brief that it was written from, or the id: texts of one brief are
        never split.
    split (str): "test" for texts that are kept for testing, else "train".
    votes (Dict[str, List[Offsets]]): Spans that it comes with, by who marked them:
        GENERATOR for its writer, "human" for people.
    """

    id: str
    text: str
    brief: str
    split: str
    votes: dict[str, list[Offsets]]


class SplitCounts(NamedTuple):
    """Numbers of texts after a split.

    train (int): Training texts.
    dev (int): Development texts.
    test (int): Gold texts.
    duplicates (int): Texts left out as they are, but for case and punctuation, another.
    leaks (List[Tuple[str, str]]): Ids of texts left out because they are, or nearly
        are, a gold text, each with the id of that one.
    disputed (int): Tokens of train and dev without annotation.
    labels (Counter[str]): Entities of train and dev by label.
    """

    train: int
    dev: int
    test: int
    duplicates: int
    leaks: list[tuple[str, str]]
    disputed: int
    labels: Counter[str]


def read_texts(path: Path) -> Iterator[Text]:
    """Read texts to annotate.

    path (Path): JSONL with text and, where there are any, id, brief, split, spans (its
        writer's marks) and votes (spans by the name of who marked them).
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
                f'{path}, line {number}: "votes" has to be an object: spans by the '
                "name of their voter."
            )
        if "spans" in row:
            votes = {GENERATOR: row["spans"], **votes}
        yield Text(
            text_id,
            get_field(row, "text", path, number),
            get_field(row, "brief", path, number),
            get_field(row, "split", path, number),
            {voter: _get_spans(row, votes[voter], path, number) for voter in votes},
        )


def read_train_texts(path: Path) -> Iterator[Text]:
    """YIELDS (Text): What read_texts yields, but for the texts kept for testing."""
    return (text for text in read_texts(path) if text.split != "test")


def read_gold(path: Path, nlp: Language) -> Iterator[Doc]:
    """Read annotated texts.

    path (Path): JSONL with text and spans (start and end character and label), or a
        DocBin.
    nlp (Language): Pipeline whose tokenizer is used.
    YIELDS (Doc): Docs with entities.
    RAISES (InstaNERError): On a broken line, or a span that is not on token boundaries
        or overlaps another.
    """
    if path.suffix == ".spacy":
        yield from read_docs(path, nlp.vocab)
        return
    for number, row in read_jsonl(path):
        doc = nlp.make_doc(get_field(row, "text", path, number))
        ents = []
        for start, end, label in _get_spans(row, row.get("spans"), path, number):
            span = doc.char_span(start, end, label=label)
            if span is None:
                raise InstaNERError(
                    f"{path}, line {number}: the span {start}:{end} "
                    f'("{doc.text[start:end]}") does not begin and end with a token. '
                    "Mend the offsets."
                )
            ents.append(span)
        try:
            doc.set_ents(ents)
        except ValueError as err:
            raise InstaNERError(
                f"{path}, line {number}: two spans overlap. Keep one of them."
            ) from err
        text_id = str(row.get("id", f"{path.stem}-{number}"))
        doc.user_data[PROVENANCE] = {"id": text_id}
        yield doc


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


def split(
    annotated: Path,
    gold: Path,
    output: Path,
    nlp: Language,
    *,
    dev: float = 0.1,
    seed: int = 0,
) -> SplitCounts:
    """Split annotated shards into train.spacy and dev.spacy, with whole briefs on
    either side, and write the gold as test.spacy. Texts that repeat another, or a gold
    text, are left out.

    annotated (Path): Folder of shards.
    gold (Path): Gold test set, JSONL or DocBin.
    output (Path): Folder for the three files.
    nlp (Language): Pipeline whose tokenizer is used.
    dev (float): Share of the texts for dev, between 0 and 1.
    seed (int): Decides which briefs go to dev.
    RETURNS (SplitCounts): What was written.
    RAISES (InstaNERError): On an empty corpus, or too few briefs.
    """
    if not 0 < dev < 1:
        raise InstaNERError(f"The share for dev is {dev}. Give one between 0 and 1.")
    test_docs = list(read_gold(gold, nlp))
    if not test_docs:
        raise InstaNERError(f"{gold} has no texts. A student is tested on gold.")
    sizes: Counter[str] = Counter()
    kept: set[str] = set()
    find_leak = LeakFinder((_get_id(doc), doc.text) for doc in test_docs)
    duplicates = 0
    leaks: list[tuple[str, str]] = []
    for doc in read_docs(annotated, nlp.vocab):
        leak = find_leak(doc.text)
        if leak is not None:
            leaks.append((_get_id(doc), leak))
            continue
        key = _normalise(doc.text)
        if key in kept:
            duplicates += 1
            continue
        kept.add(key)
        sizes[get_brief(doc)] += 1
    briefs = _draw(sizes, dev, seed)
    if not briefs or len(briefs) == len(sizes):
        raise InstaNERError(
            f"{annotated} has {sum(sizes.values())} texts from {len(sizes)} briefs: "
            "too few to split into train and dev. Annotate more."
        )
    bins = {"train": DocBin(store_user_data=True), "dev": DocBin(store_user_data=True)}
    labels: Counter[str] = Counter()
    disputed = 0
    for doc in read_docs(annotated, nlp.vocab):
        key = _normalise(doc.text)
        if key in kept:
            kept.remove(key)  # its duplicates are left out
            bins["dev" if get_brief(doc) in briefs else "train"].add(doc)
            labels.update(ent.label_ for ent in doc.ents)
            disputed += sum(token.ent_iob == 0 for token in doc)
    if not labels:
        raise InstaNERError(
            f"{annotated} has no entities in {sum(sizes.values())} texts. There is "
            "nothing to train on: check the teacher's answers."
        )
    bins["test"] = DocBin(docs=test_docs, store_user_data=True)
    for name, doc_bin in bins.items():
        with write_whole(output / f"{name}.spacy") as part:
            doc_bin.to_disk(part)
    return SplitCounts(
        len(bins["train"]),
        len(bins["dev"]),
        len(test_docs),
        duplicates,
        leaks,
        disputed,
        labels,
    )


class LeakFinder:
    """Finds the test text that a text is, or nearly is: the Jaccard index of their
    sets of 5-character shingles, punctuation and case aside, is 0.6 or more
    (Broder 1997, On the resemblance and containment of documents).

    texts (Iterable[Tuple[str, str]]): Id and text of each test text.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self._ids: list[str] = []
        self._sizes: list[int] = []
        self._index: dict[str, list[int]] = defaultdict(list)
        for number, (text_id, text) in enumerate(texts):
            shingles = _shingle(text)
            self._ids.append(text_id)
            self._sizes.append(len(shingles))
            for shingle in shingles:
                self._index[shingle].append(number)

    def __call__(self, text: str) -> str | None:
        """RETURNS (Optional[str]): Id of the test text that is nearest, if near."""
        shingles = _shingle(text)
        shared: Counter[int] = Counter()
        for shingle in shingles:
            shared.update(self._index.get(shingle, ()))
        best = max(
            (
                (count / (len(shingles) + self._sizes[number] - count), number)
                for number, count in shared.items()
            ),
            default=(0.0, 0),
        )
        return self._ids[best[1]] if best[0] >= _NEAR else None


def _draw(sizes: Counter[str], share: float, seed: int) -> set[str]:
    # By hash, so that new briefs leave the others where they are.
    ranked = sorted(
        sizes, key=lambda brief: hashlib.sha256(f"{seed}:{brief}".encode()).digest()
    )
    wanted = share * sum(sizes.values())
    drawn: set[str] = set()
    count = 0
    for brief in ranked:
        if count >= wanted:
            break
        drawn.add(brief)
        count += sizes[brief]
    return drawn


def _get_id(doc: Doc) -> str:
    return str(doc.user_data.get(PROVENANCE, {}).get("id", ""))


def get_brief(doc: Doc) -> str:
    """RETURNS (str): The brief that a doc was written from, or what stands for it."""
    provenance = doc.user_data.get(PROVENANCE, {})
    return str(provenance.get("brief", provenance.get("id", doc.text)))


def _normalise(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def _shingle(text: str) -> set[str]:
    normal = _normalise(text)
    last = max(1, len(normal) - _SHINGLE + 1)
    return {normal[i : i + _SHINGLE] for i in range(last)}


def _get_spans(
    row: dict[str, Any], spans: Any, path: Path, number: int
) -> list[Offsets]:
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
            "end (characters of the text) and label."
        )
    return offsets
