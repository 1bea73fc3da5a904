"""Texts and shards in and out, gold, and the split that keeps them apart."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from .decisions import (
    HUMAN,
    RANDOM,
    Answer,
    Decision,
    Decisions,
    is_store,
)
from .errors import InstaNERError
from .files import check_exists, get_field, read_jsonl, write_whole
from .near import NearFinder
from .scores import NOTHING, GoldText
from .targets import (
    ENTS,
    Offsets,
    Target,
    are_exclusive,
    choose_categories,
    make_mark,
    mark_categories,
)
from .vote import Candidate, Standing, is_majority, set_marks, settle

# Under this key of doc.user_data stands where a doc comes from: id, brief, votes …
PROVENANCE = "instaner"

GENERATOR = "generator"  # the voter that stands for the marks of a text's writer

SHARD_SIZE = 1000  # docs
_SHOWN = 80  # characters of a text in a message

_UNKNOWN = make_mark(NOTHING)[:2]  # where nobody knows the category
_Cats = tuple[str, dict[str, float] | None, bool]  # text, scores, whether it is silver

# Under "source" of a doc's provenance stands which of these it is.
REAL = "real"
GENERATED = "generated"


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


class SplitCounts(NamedTuple):
    """Numbers of texts after a split.

    train (int): Training texts.
    dev (int): Development texts.
    test (int): Gold texts or, without any, texts of the held out briefs.
    duplicates (int): Texts left out because they are, or nearly are, another.
    leaks (List[Tuple[str, str]]): Ids of texts left out because they are, or nearly
        are, a gold text, each with the id of that one.
    disputed (int): Tokens of train and dev without annotation; of categories: texts
        left out for that.
    labels (Counter[str]): Entities, or texts of a category, of train and dev by label,
        a real text's once.
    texts (Dict[str, Dict[str, int]]): For train, dev and test, texts by source; gold
        is none.
    unshared (Dict[str, str]): Labels that only one source has, with that source.
    attr (str): What the texts are annotated with: "ents" or "cats".
    at_random (Optional[int]): Gold texts that a person was shown in random order; None
        if the gold is no review store.
    """

    train: int
    dev: int
    test: int
    duplicates: int
    leaks: list[tuple[str, str]]
    disputed: int
    labels: Counter[str]
    texts: dict[str, dict[str, int]]
    unshared: dict[str, str]
    attr: str
    at_random: int | None = None


def read_texts(path: Path) -> Iterator[Text]:
    """Read texts to annotate.

    path (Path): JSONL with text and, where there are any, id, brief, split, spans or
        cats (its writer's), and votes (spans, or cats, by the name of who marked them).
        For cats see read_gold.
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
            own += _get_spans(row, row["spans"], path, number)
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


def read_gold(path: Path, nlp: Language) -> Iterator[Doc]:
    """Read annotated texts.

    path (Path): JSONL with text, spans (start and end character and label) or cats (a
        label, a list of them, or a score for each, between 0 and 1) and, where there
        are any, id and brief; or a DocBin; or a review store (.db): of that, the texts
        that people accept, with entities, or, if there are none, categories. What no
        majority of them marked alike is missing annotation; a text whose categories
        they disagree on is left out.
    nlp (Language): Pipeline whose tokenizer is used.
    YIELDS (Doc): Docs with entities, or categories: of those, all of the file.
    RAISES (InstaNERError): On a broken line, or a span that is not on token boundaries
        or overlaps another.
    """
    if path.suffix == ".spacy":
        yield from read_docs(path, nlp.vocab)
        return
    if is_store(path):
        yield from _read_reviewed_docs(path, nlp)
        return
    labels = {
        label: 0.0
        for number, row in read_jsonl(path)
        if "cats" in row
        for label in get_cats(row["cats"], path, number)
    }
    for number, row in read_jsonl(path):
        doc = nlp.make_doc(get_field(row, "text", path, number))
        if "cats" in row:
            doc.cats = {**labels, **get_cats(row["cats"], path, number)}
        ents = []
        for start, end, label in _get_spans(row, _find_spans(row), path, number):
            span = doc.char_span(start, end, label=label)
            if span is None:
                raise InstaNERError(
                    f"{path}, line {number}: the span {start}:{end} "
                    f'("{doc.text[start:end]}") does not begin and end with a token. '
                    "Mend the offsets."
                )
            ents.append(span)
        try:
            if "spans" in row or "cats" not in row:
                doc.set_ents(ents)
        except ValueError as err:
            raise InstaNERError(
                f"{path}, line {number}: two spans overlap. Keep one of them."
            ) from err
        text_id = str(row.get("id", f"{path.stem}-{number}"))
        doc.user_data[PROVENANCE] = {"id": text_id}
        if "brief" in row:
            doc.user_data[PROVENANCE]["brief"] = str(row["brief"])
        yield doc


def read_gold_texts(path: Path, attr: str | None = None) -> list[GoldText]:
    """Read annotated texts by characters alone, so that pipelines with any tokenizer
    can be scored on them.

    path (Path): JSONL with text and spans, or cats, or a DocBin, or a review store (see
        read_gold).
    attr (Optional[str]): What to read, "ents" or "cats" (see targets.Target). None:
        entities, or, if there are none, categories.
    RETURNS (List[GoldText]): The texts, in order.
    RAISES (InstaNERError): On a broken line, overlapping spans, or if there is no
        annotated text.
    """
    read_ents, read_cats = _read_rows, _read_rows_cats
    if path.suffix == ".spacy":
        read_ents, read_cats = _read_docs_gold, _read_docs_cats
    elif is_store(path):
        read_ents, read_cats = _read_reviewed_gold, _read_reviewed_cats
    golds: list[GoldText] = []
    if attr != "cats":
        golds = [*read_ents(path)]
    if attr == "cats" or (attr is None and not any(gold.spans for gold in golds)):
        rows = read_cats(path)
        if attr == "cats" or any(cats for _, cats, _ in rows):
            golds = _make_golds_cats(rows)
    if not golds:
        raise InstaNERError(f"{path} has no texts to evaluate on.")
    if all(gold.unknown in ([(0, len(gold.text))], [_UNKNOWN]) for gold in golds):
        raise InstaNERError(
            f"{path} has no annotated text: nothing says what is "
            f"{'of which category' if attr == 'cats' else 'an entity'} there. Give "
            "texts with entities set, also those without any (doc.set_ents), or with "
            "categories (doc.cats)."
        )
    return golds


def _read_docs_cats(path: Path) -> list[_Cats]:
    docs = read_docs(path, Vocab())
    return [(doc.text, doc.cats or None, _is_silver(doc)) for doc in docs]


def _read_rows_cats(path: Path) -> list[_Cats]:
    silver = path.with_suffix(".meta.json").exists()
    return [
        (
            get_field(row, "text", path, number),
            get_cats(row["cats"], path, number) if "cats" in row else None,
            silver,
        )
        for number, row in read_jsonl(path)
    ]


def _make_golds_cats(rows: list[_Cats]) -> list[GoldText]:
    exclusive = are_exclusive(cats for _, cats, _ in rows if cats is not None)
    return [
        GoldText(
            text,
            mark_categories(cats or {}, exclusive=exclusive),
            [_UNKNOWN] if cats is None else [],
            silver,
        )
        for text, cats, silver in rows
    ]


def _is_silver(doc: Doc) -> bool:
    provenance = doc.user_data.get(PROVENANCE, {})
    return provenance.get("source") == GENERATED or bool(provenance.get("prompts"))


def _read_docs_gold(path: Path) -> Iterator[GoldText]:
    for doc in read_docs(path, Vocab()):
        unknown: list[tuple[int, int]] = []
        for token in doc:
            start, end = token.idx, token.idx + len(token)
            if token.ent_iob:
                continue
            if unknown and token.nbor(-1).ent_iob == 0:
                start = unknown.pop()[0]
            unknown.append((start, end))
        if all(token.ent_iob == 0 for token in doc) and doc.text:
            unknown = [(0, len(doc.text))]
        yield GoldText(doc.text, ENTS.get_marks(doc), unknown, _is_silver(doc))


def _read_rows(path: Path) -> Iterator[GoldText]:
    # `instaner generate` says beside its texts how they came about.
    silver = path.with_suffix(".meta.json").exists()
    for number, row in read_jsonl(path):
        spans = sorted(_get_spans(row, _find_spans(row), path, number))
        unknown = [] if "spans" in row else [(0, len(row["text"]))]
        for one, other in pairwise(spans):
            if other[0] < one[1]:
                raise InstaNERError(
                    f"{path}, line {number}: the spans {one[0]}:{one[1]} and "
                    f"{other[0]}:{other[1]} overlap. Keep one of them."
                )
        yield GoldText(row["text"], spans, unknown, silver)


class _Reviewed(NamedTuple):
    """A text that people accept.

    text (str): The text.
    decisions (List[Decision]): Those of who accept it.
    candidates (List[Candidate]): What they marked.
    target (Target): What that is.
    """

    text: str
    decisions: list[Decision]
    candidates: list[Candidate]
    target: Target


def _read_reviewed(path: Path, attr: str) -> Iterator[_Reviewed]:
    if not path.exists():
        raise InstaNERError(
            f"Nothing was reviewed: {path} is not there. Run `instaner review`, which "
            "makes it."
        )
    decisions = Decisions(path)
    target = ENTS if attr == "ents" else decisions.get_target(attr)
    texts = list(decisions.read(attr))
    decisions.close()
    if target is None:
        if not texts:
            return
        raise InstaNERError(
            f"{path} does not say which categories there are. Run `instaner review` "
            "once more."
        )
    for decided in texts:
        candidates = settle(decided, target)
        if candidates is None:
            continue
        if attr == "cats" and not _is_settled(candidates, target):
            continue
        agreed = [c for c in candidates if is_majority(c.score)]
        for one, other in pairwise(agreed) if attr == "ents" else ():
            if other.start < one.end:
                raise InstaNERError(
                    f"{path}: the spans {one.start}:{one.end} and "
                    f'{other.start}:{other.end} of the text "'
                    f'{_shorten(decided[0].text)}" overlap. Review the text again, '
                    "and keep one of them."
                )
        accepted = [d for d in decided if d.answer is Answer.ACCEPT]
        yield _Reviewed(decided[0].text, accepted, candidates, target)


def _is_settled(candidates: Iterable[Candidate], target: Target) -> bool:
    standings = [candidate.standing for candidate in candidates]
    has_one = Standing.TRUSTED in standings or not target.exclusive
    return has_one and Standing.DISPUTED not in standings


def _read_reviewed_docs(path: Path, nlp: Language) -> Iterator[Doc]:
    texts = list(_read_reviewed(path, "ents"))
    if not any(reviewed.candidates for reviewed in texts):
        texts = list(_read_reviewed(path, "cats")) or texts
    for number, (text, decisions, candidates, target) in enumerate(texts, 1):
        doc = nlp.make_doc(text)
        for start, end, *_ in candidates if target.attr == "ents" else ():
            if doc.char_span(start, end) is None:
                raise InstaNERError(
                    f'{path}: the span {start}:{end} ("{text[start:end]}") of the text '
                    f'"{_shorten(text)}" does not begin and end with a token. Review '
                    "the text again, or give the language whose tokenizer was used."
                )
        set_marks(doc, candidates, target)
        doc.user_data[PROVENANCE] = {
            "id": decisions[0].text_id or f"{path.stem}-{number}",
            "source": HUMAN,
            "reviewers": [decision.reviewer for decision in decisions],
            "queues": [decision.queue for decision in decisions],
        }
        yield doc


def _read_reviewed_cats(path: Path) -> list[_Cats]:
    rows: list[_Cats] = []
    for text, _, candidates, target in _read_reviewed(path, "cats"):
        doc = Doc(Vocab())
        set_marks(doc, candidates, target)
        rows.append((text, doc.cats, False))
    return rows


def _read_reviewed_gold(path: Path) -> Iterator[GoldText]:
    for text, _, candidates, _ in _read_reviewed(path, "ents"):
        trusted = [c[:3] for c in candidates if c.standing is Standing.TRUSTED]
        covered = {i for start, end, _ in trusted for i in range(start, end)}
        unknown: list[tuple[int, int]] = []
        for i in sorted(
            i
            for candidate in candidates
            if candidate.standing is Standing.DISPUTED
            for i in {*range(candidate.start, candidate.end)} - covered
        ):
            start = unknown.pop()[0] if unknown and unknown[-1][1] >= i else i
            unknown.append((start, i + 1))
        yield GoldText(text, trusted, unknown, silver=False)


def read_bare(path: Path) -> Iterator[str]:
    """Read texts alone, annotated or not.

    path (Path): JSONL with text, or a DocBin, or a review store.
    YIELDS (str): The texts.
    RAISES (InstaNERError): On a broken line.
    """
    if path.suffix == ".spacy":
        yield from (doc.text for doc in read_docs(path, Vocab()))
    elif is_store(path):
        texts = (*_read_reviewed(path, "ents"), *_read_reviewed(path, "cats"))
        yield from dict.fromkeys(reviewed.text for reviewed in texts)
    else:
        for number, row in read_jsonl(path):
            yield get_field(row, "text", path, number)


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
    gold: Path | None,
    output: Path,
    nlp: Language,
    *,
    dev: float = 0.1,
    test: float = 0.1,
    real: Sequence[Path] = (),
    real_weight: float = 1.0,
    dev_real: bool = False,
    drop_leaks: bool = False,
    seed: int = 0,
) -> SplitCounts:
    """Split annotated shards, and real texts, into train.spacy and dev.spacy, with
    whole briefs on either side and each source drawn apart, and write the gold as
    test.spacy. Texts that are, or nearly are, another are left out: of a real and a
    generated one, the generated.

    annotated (Path): Folder of shards.
    gold (Optional[Path]): Gold test set, JSONL or DocBin, or a review store: its texts,
        which are among those annotated, and what nearly is one of them, are left out of
        train and dev. None: other briefs are held out as test.spacy.
    output (Path): Folder for the three files.
    nlp (Language): Pipeline whose tokenizer is used.
    dev (float): Share of the texts for dev, between 0 and 1.
    test (float): Share of the texts for test.spacy, where there is no gold.
    real (Sequence[Path]): Real annotated texts, JSONL or DocBin.
    real_weight (float): How many times a real text stands in train.spacy. Of a
        fraction, as many texts are drawn.
    dev_real (bool): Draw dev from the real texts alone.
    drop_leaks (bool): Leave texts out that are, or nearly are, a gold text that is not
        of a review store.
    seed (int): Decides which briefs go to dev and test.
    RETURNS (SplitCounts): What was written.
    RAISES (InstaNERError): On a gold text among the others, an empty corpus, or too
        few briefs.
    """
    if not 0 < dev < 1:
        raise InstaNERError(f"The share for dev is {dev}. Give one between 0 and 1.")
    if not gold and not 0 < test < 1 - dev:
        raise InstaNERError(
            f"The share for test is {test}. Give one above 0 that leaves texts to "
            f"train on beside {dev} for dev."
        )
    if not 0 < real_weight < math.inf:
        raise InstaNERError(
            f"The weight of real texts is {real_weight}. Give a number above 0."
        )
    if dev_real and not real:
        raise InstaNERError(
            "Dev is to be drawn from the real texts, but there are none. Give --real "
            "FILE, or leave out --dev-real."
        )
    test_docs = list(read_gold(gold, nlp)) if gold else []
    is_reviewed = gold is not None and is_store(gold)
    if gold and not test_docs:
        more = ": run `instaner review`, and accept some" if is_reviewed else ""
        raise InstaNERError(f"{gold} has no texts. A student is tested on gold{more}.")
    kept, sizes, duplicates, leaks, has_cats = _sift(
        _read_sources(annotated, real, nlp),
        test_docs,
        drop_leaks=drop_leaks,
        is_reviewed=is_reviewed,
    )
    places: dict[tuple[str, str], str] = {}  # of a source's brief, if not train
    for source in [REAL, GENERATED] if real else [GENERATED]:
        in_dev = 0 if dev_real and source == GENERATED else dev
        shares = {"dev": in_dev, "test": 0 if gold else test}
        drawn = _draw(sizes[source], shares, seed)
        if not set(sizes[source]) - set(drawn) or any(
            share and name not in drawn.values() for name, share in shares.items()
        ):
            where = annotated if source == GENERATED else ", ".join(map(str, real))
            raise InstaNERError(
                f"{where} has {sum(sizes[source].values())} texts from "
                f"{len(sizes[source])} briefs: too few to split into train and "
                f"{' and '.join(name for name in shares if shares[name])}. Annotate "
                "more."
            )
        places.update(((source, brief), name) for brief, name in drawn.items())
    bins = {name: DocBin(store_user_data=True) for name in ("train", "dev", "test")}
    for doc in test_docs:
        bins["test"].add(doc)
    texts: dict[str, Counter[str]] = {name: Counter() for name in bins}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    disputed = 0
    for number, doc in enumerate(_read_sources(annotated, real, nlp)):
        if number not in kept:
            continue
        if has_cats and not doc.cats:
            disputed += 1  # one category or none is all that could be trained on
            continue
        source = doc.user_data[PROVENANCE]["source"]
        name = places.get((source, get_brief(doc)), "train")
        times = 1
        if source == REAL and name == "train":
            times = int(real_weight + _hash(f"{seed}:{doc.text}") / 2**64)
        for _ in range(times):
            bins[name].add(doc)
        texts[name][source] += times
        if times and name != "test":
            if has_cats:
                exclusive = are_exclusive([doc.cats])
                found[source].update(choose_categories(doc.cats, exclusive=exclusive))
            else:
                found[source].update(ent.label_ for ent in doc.ents)
                disputed += sum(token.ent_iob == 0 for token in doc)
    labels = sum(found.values(), Counter())
    if not labels:
        raise InstaNERError(
            f"{annotated} has no entities or categories in {len(kept)} texts. There is "
            "nothing to train on: check the teacher's answers."
        )
    for name, doc_bin in bins.items():
        with write_whole(output / f"{name}.spacy") as part:
            doc_bin.to_disk(part)
    return SplitCounts(
        len(bins["train"]),
        len(bins["dev"]),
        len(bins["test"]),
        duplicates,
        leaks,
        disputed,
        labels,
        {name: dict(by_source) for name, by_source in texts.items()},
        {
            label: source
            for source in found
            for label in sorted(found[source])
            if real and found[source][label] == labels[label]
        },
        "cats" if has_cats else "ents",
        sum(RANDOM in doc.user_data[PROVENANCE]["queues"] for doc in test_docs)
        if is_reviewed
        else None,
    )


def _read_sources(
    annotated: Path, real: Sequence[Path], nlp: Language
) -> Iterator[Doc]:
    # The real ones first: of two that are alike, the first is kept.
    for path in real:
        doc = None
        for doc in read_gold(path, nlp):
            doc.user_data.setdefault(PROVENANCE, {})["source"] = REAL
            yield doc
        if doc is None:
            raise InstaNERError(f"{path} has no texts. Leave out --real, or add some.")
    for doc in read_docs(annotated, nlp.vocab):
        doc.user_data.setdefault(PROVENANCE, {})["source"] = GENERATED
        yield doc


def _sift(
    docs: Iterable[Doc], test_docs: list[Doc], *, drop_leaks: bool, is_reviewed: bool
) -> tuple[set[int], dict[str, Counter[str]], int, list[tuple[str, str]], bool]:
    """RETURNS (Tuple): Numbers of the docs to keep, sizes of their briefs by source,
    how many are duplicates, the leaks, and whether there are categories.
    """
    test_texts, texts = NearFinder(), NearFinder()
    for number, doc in enumerate(test_docs):
        test_texts.add(str(number), doc.text)
    reviewed = {doc.text for doc in test_docs} if is_reviewed else set()
    kept: set[int] = set()
    sizes: dict[str, Counter[str]] = {REAL: Counter(), GENERATED: Counter()}
    duplicates = 0
    kinds: dict[str, set[str]] = defaultdict(set)  # of each source
    for doc in test_docs:
        kinds["gold"].update(_get_attrs(doc))
    leaks: list[tuple[str, str]] = []
    first = ""
    for number, doc in enumerate(docs):
        kinds[doc.user_data[PROVENANCE]["source"]].update(_get_attrs(doc))
        if doc.text in reviewed:
            continue  # that a text is tested on is no news about it
        if (leak := test_texts.find(doc.text)) is not None:
            test_doc = test_docs[int(leak)]
            leaks.append((_get_id(doc), _get_id(test_doc)))
            first = first or f"{_show(doc)} is the test text {_show(test_doc)}"
        elif texts.find(doc.text) is not None:
            duplicates += 1
        else:
            texts.add(str(number), doc.text)
            kept.add(number)
            sizes[doc.user_data[PROVENANCE]["source"]][get_brief(doc)] += 1
    if leaks and not (drop_leaks or is_reviewed):
        more = f", and so are {len(leaks) - 1} more" if len(leaks) > 1 else ""
        raise InstaNERError(
            f"{first}, or nearly{more}. A student must not be tested on what it was "
            "trained on: remove such texts and annotate again, or leave them out with "
            "--drop-leaks."
        )
    # Docs without annotation are entities' that are all disputed.
    attr = "cats" if kinds[GENERATED] == {"cats"} else "ents"
    for name, attrs in kinds.items():
        if attrs and attr not in attrs:
            what = {"cats": "categories", "ents": "entities"}
            raise InstaNERError(
                f"The annotated texts have {what[attr]}, but the {name} ones only "
                f"{what[attrs.pop()]}. Give {name} texts of the same kind."
            )
    return kept, sizes, duplicates, leaks, attr == "cats"


def _get_attrs(doc: Doc) -> list[str]:
    ents = ["ents"] if doc.has_annotation("ENT_IOB") else []
    return [*ents, "cats"] if doc.cats else ents


def _draw(sizes: Counter[str], shares: dict[str, float], seed: int) -> dict[str, str]:
    # By hash, so that new briefs leave the others where they are.
    ranked = sorted(sizes, key=lambda brief: _hash(f"{seed}:{brief}"))
    total = sum(sizes.values())
    drawn: dict[str, str] = {}
    for name, share in shares.items():
        count = 0
        while count < share * total and len(drawn) < len(ranked):
            brief = ranked[len(drawn)]
            drawn[brief] = name
            count += sizes[brief]
    return drawn


def _hash(text: str) -> int:
    """RETURNS (int): The first 64 bits of a text's SHA-256."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _show(doc: Doc) -> str:
    return f'{_get_id(doc)} "{_shorten(doc.text)}"'.strip()


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _get_id(doc: Doc) -> str:
    return str(doc.user_data.get(PROVENANCE, {}).get("id", ""))


def get_brief(doc: Doc) -> str:
    """RETURNS (str): The brief that a doc was written from, or what stands for it."""
    provenance = doc.user_data.get(PROVENANCE, {})
    return str(provenance.get("brief", provenance.get("id", doc.text)))


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
    return _get_spans(row, marks, path, number)


def _find_spans(row: dict[str, Any]) -> Any:
    # A text that has categories need not have entities.
    return row.get("spans", [] if "cats" in row else None)


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
            "end (characters of the text) and label (or cats be given, for categories)."
        )
    return offsets
