"""The split into texts to train on, for dev, and to test on, that keeps them apart."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from spacy.language import Language
from spacy.tokens import Doc, DocBin

from .corpus import GENERATED, PROVENANCE, REAL, get_brief, read_docs, shorten
from .decisions import RANDOM, is_store
from .errors import InstaNERError
from .files import write_whole
from .gold import read_gold
from .near import NearFinder
from .targets import are_exclusive, choose_categories


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
    return f'{_get_id(doc)} "{shorten(doc.text)}"'.strip()


def _get_id(doc: Doc) -> str:
    return str(doc.user_data.get(PROVENANCE, {}).get("id", ""))
