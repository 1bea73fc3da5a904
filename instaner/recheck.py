"""Label errors of a silver corpus, found by students that never saw the texts."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import spacy
from numpy.typing import NDArray
from spacy.ml.models import (
    MaxoutWindowEncoder,
    MultiHashEmbed,
    build_tagger_model,
    build_Tok2Vec_model,
)
from spacy.pipeline.tagger import Tagger
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.training.batchers import minibatch_by_words
from spacy.util import fix_random_seed, minibatch
from spacy.vocab import Vocab
from thinc.api import Adam
from tqdm import tqdm

from .corpus import get_brief
from .errors import InstaNERError
from .targets import ENTS, Offsets, Target

_ROUNDS = 3  # students that judge each text
# A student that is trained for longer is surer of itself, and worse at this.
_EPOCHS = 2
_MIN_STEPS = 60  # where two epochs of a small corpus are fewer
_STEP = 400  # words
_BATCH = 100  # texts that a student judges at a time

_Probs = NDArray[np.float32]  # of each label, for each token


class Suspect(NamedTuple):
    """A place where the annotation is probably wrong.

    doc (int): Number of the doc in the corpus, from 0.
    start (int): First character of the spans.
    end (int): Character after the last of the spans.
    given (Tuple[Offsets, ...]): Spans that the annotation has there, if any.
    predicted (Tuple[Offsets, ...]): Spans that the students see there, if any. Disputed
        tokens may be in them.
    score (float): Quality of the annotation, from 0, the worst, to 1.
    """

    doc: int
    start: int
    end: int
    given: tuple[Offsets, ...]
    predicted: tuple[Offsets, ...]
    score: float


def find_suspects(
    docs: Iterable[Doc],
    target: Target = ENTS,
    *,
    folds: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> list[Suspect]:
    """Find where the annotation is probably wrong. Small students are each trained on
    all folds but one and asked about that one; whole briefs are in a fold. A place
    where they disagree with the annotation is as good as its worst token: as probable
    as they find the given label there, in relation to how probable they find that
    label on average where it is given. Disputed tokens are neither learned nor judged.
    All docs, and a probability for each token and label, are held in memory.

    Method: confident learning and its thresholds for labels (Northcutt et al. 2021,
    Confident Learning: Estimating Uncertainty in Dataset Labels), and the worst token
    (Wang & Mueller 2022, Detecting Label Errors in Token Classification Data), both as
    in cleanlab.

    docs (Iterable[Doc]): Annotated docs.
    folds (int): Number of folds, 2 or more.
    seed (int): Decides on folds and students. Random numbers are set by it globally.
    progress (bool): Show a progress bar.
    RETURNS (List[Suspect]): The suspects, worst first.
    RAISES (InstaNERError): If there are too few briefs, or no entities, or cleanlab is
        not installed.
    """
    import_cleanlab()  # before the students are trained
    numbered = [(number, doc) for number, doc in enumerate(docs) if len(doc)]
    docs = [doc for _, doc in numbered]
    labels = ["", *sorted({ent.label_ for doc in docs for ent in doc.ents})]
    briefs = [get_brief(doc) for doc in docs]
    if not 2 <= folds <= len(set(briefs)):
        raise InstaNERError(
            f"{len(docs)} texts from {len(set(briefs))} briefs cannot be checked in "
            f"{folds} folds: 2 or more are needed, and a brief for each. Annotate more."
        )
    if len(labels) == 1:
        raise InstaNERError(
            f"None of the {len(docs)} texts has an entity, so there is nothing to "
            "check. Check the teacher's answers."
        )
    # Norms and shapes, which students look at, need a vocab that makes them.
    vocab = spacy.blank(docs[0].vocab.lang or "xx").vocab
    examples = [_make_example(doc, vocab) for doc in docs]
    ends = np.cumsum([len(doc) for doc in docs])
    probs: _Probs = np.zeros((ends[-1], len(labels)), np.float32)
    with tqdm(
        total=_ROUNDS * folds, desc="Checking", unit="student", disable=not progress
    ) as bar:
        for number in range(_ROUNDS):
            fold_of = _assign_folds(briefs, folds, f"{seed}:{number}")
            for fold in range(folds):
                student = _train(
                    [eg for eg, k in zip(examples, fold_of, strict=True) if k != fold],
                    labels[1:],
                    seed + number,
                )
                held_out = [i for i, k in enumerate(fold_of) if k == fold]
                for i, found in _predict(student, examples, held_out):
                    probs[ends[i] - len(found) : ends[i]] += found
                bar.update()
    probs /= probs.sum(1, keepdims=True)
    quality, seen = _rate(docs, probs, labels)
    suspects = [
        suspect
        for (number, doc), end in zip(numbered, ends, strict=True)
        for tokens in [slice(end - len(doc), end)]
        for suspect in _compare(number, doc, seen[tokens], quality[tokens])
    ]
    return sorted(suspects, key=lambda suspect: (suspect.score, *suspect[:2]))


def import_cleanlab() -> Any:
    """RETURNS (Any): The package cleanlab.

    RAISES (InstaNERError): If it is not installed.
    """
    try:
        import cleanlab.count
        import cleanlab.rank
    except ImportError as err:
        raise InstaNERError(
            'To find label errors, cleanlab is needed: pip install "instaner[recheck]"'
        ) from err
    return cleanlab


def _assign_folds(briefs: list[str], folds: int, seed: str) -> list[int]:
    """RETURNS (List[int]): The fold of each text, of much the same size."""
    sizes = Counter(briefs)
    ranked = sorted(
        sizes, key=lambda brief: hashlib.sha256(f"{seed}:{brief}".encode()).digest()
    )
    filled = [0] * folds
    fold_of: dict[str, int] = {}
    for brief in ranked:
        fold_of[brief] = filled.index(min(filled))
        filled[fold_of[brief]] += sizes[brief]
    return [fold_of[brief] for brief in briefs]


def _make_example(doc: Doc, vocab: Vocab) -> Example:
    """Make tags of the entities. An empty one, of a disputed token, is not learned."""
    tags = [
        f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" if t.ent_iob else ""
        for t in doc
    ]
    words = [token.text for token in doc]
    spaces = [bool(token.whitespace_) for token in doc]
    tagged = Doc(vocab, words=words, spaces=spaces, tags=tags)
    return Example(tagged, tagged)


def _train(examples: list[Example], labels: Iterable[str], seed: int) -> Tagger:
    """Train a student: the encoder of the CNN student, and a softmax over the tags of
    each token, which tells how sure it is. The beams of spaCy's ner tell that worse."""
    fix_random_seed(seed)
    encoder = build_Tok2Vec_model(
        MultiHashEmbed(
            width=96,
            attrs=["NORM", "PREFIX", "SUFFIX", "SHAPE"],
            rows=[5000, 1000, 2500, 2500],
            include_static_vectors=False,
        ),
        MaxoutWindowEncoder(width=96, depth=4, window_size=1, maxout_pieces=3),
    )
    student = Tagger(examples[0].x.vocab, build_tagger_model(encoder, normalize=True))
    tags = ["O", *(f"{place}-{label}" for label in labels for place in "BI")]
    student.initialize(lambda: examples[:10], labels=tags)
    optimizer = Adam(0.001, L2=0.01, L2_is_weight_decay=True)
    steps = math.ceil(sum(len(eg.x) for eg in examples) / _STEP)
    for _ in range(max(_EPOCHS, math.ceil(_MIN_STEPS / steps))):
        random.shuffle(examples)
        for batch in minibatch_by_words(examples, _STEP):
            student.update(batch, sgd=optimizer, drop=0.1)
    return student


def _predict(
    student: Tagger, examples: list[Example], numbers: list[int]
) -> Iterator[tuple[int, _Probs]]:
    """YIELDS (Tuple[int, _Probs]): Number and probabilities of each text."""
    for batch in minibatch(numbers, _BATCH):
        scores = student.model.predict([examples[i].x for i in batch])
        for i, found in zip(batch, scores, strict=True):
            tags = student.model.ops.to_numpy(found)  # of O, B-X, I-X, B-Y …
            yield i, np.hstack([tags[:, :1], tags[:, 1::2] + tags[:, 2::2]])


def _rate(
    docs: list[Doc], probs: _Probs, labels: list[str]
) -> tuple[NDArray[np.float64], list[str]]:
    """Rate the annotation of all tokens: infinity where there is nothing to blame.

    RETURNS (Tuple[NDArray[float64], List[str]]): Qualities, and the labels predicted.
    """
    cleanlab = import_cleanlab()
    tokens = [token for doc in docs for token in doc]
    given = np.array([labels.index(token.ent_type_) for token in tokens])
    # White space is no part of a name, and nobody is asked about it.
    space = np.array([token.is_space for token in tokens])
    seen = np.where(space, 0, probs.argmax(1))
    judged = np.array([token.ent_iob != 0 for token in tokens]) & ~space
    usual = cleanlab.count.get_confident_thresholds(given[judged], probs[judged])
    quality = np.full(len(tokens), np.inf)
    quality[judged] = cleanlab.rank.get_label_quality_scores(
        given[judged], probs[judged], method="self_confidence"
    )
    quality = np.minimum(quality / usual[given], 1)
    quality[~judged | (given == seen)] = np.inf
    return quality, [labels[k] for k in seen]


def _compare(
    number: int, doc: Doc, seen: Sequence[str], quality: NDArray[np.float64]
) -> Iterator[Suspect]:
    """Compare the spans given with those predicted, the ones that overlap together."""
    spans = [(0, ent) for ent in doc.ents]
    for label, run in groupby(range(len(doc)), key=seen.__getitem__):
        if label:
            first, *rest = run
            spans.append((1, Span(doc, first, first + len(rest) + 1, label)))
    places: list[list[tuple[int, Span]]] = []
    end = 0
    for side, span in sorted(spans, key=lambda pair: pair[1].start):
        if span.start >= end:
            places.append([])
        places[-1].append((side, span))
        end = max(end, span.end)
    for place in places:
        given, predicted = (
            tuple((s.start_char, s.end_char, s.label_) for k, s in place if k == side)
            for side in (0, 1)
        )
        union = doc[place[0][1].start : max(span.end for _, span in place)]
        score = float(quality[union.start : union.end].min())
        if score <= 1:
            yield Suspect(
                number, union.start_char, union.end_char, given, predicted, score
            )
