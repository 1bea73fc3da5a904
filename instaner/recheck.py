"""Label errors of a silver corpus, found by students that never saw the texts."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import spacy
from numpy.typing import NDArray
from spacy.ml.models import (
    MaxoutWindowEncoder,
    MultiHashEmbed,
    build_bow_text_classifier_v3,
    build_tagger_model,
    build_Tok2Vec_model,
)
from spacy.pipeline import TrainablePipe
from spacy.pipeline.tagger import Tagger
from spacy.pipeline.textcat import TextCategorizer
from spacy.pipeline.textcat_multilabel import MultiLabel_TextCategorizer
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.training.batchers import minibatch_by_words
from spacy.util import fix_random_seed, minibatch
from spacy.vocab import Vocab
from thinc.api import Adam, Model
from thinc.types import Floats2d
from tqdm import tqdm

from .corpus import get_brief
from .errors import InstaNERError
from .targets import ENTS, Offsets, Target

_ROUNDS = 3  # students that judge each text
_MIN_STEPS = 60  # where the epochs of a small corpus are fewer
_STEP = 400  # words
_BATCH = 100  # texts that a student judges at a time

_Probs = NDArray[np.float32]  # of each value, for each item
_Values = NDArray[np.int64]  # of each item the number of one
_Qualities = NDArray[np.float64]


class Suspect(NamedTuple):
    """A place where the annotation is probably wrong.

    doc (int): Number of the doc in the corpus, from 0.
    start (int): First character of the spans, or of a category's mark.
    end (int): Character after the last of them.
    given (Tuple[Offsets, ...]): Marks that the annotation has there, if any.
    predicted (Tuple[Offsets, ...]): Marks that the students see there, if any. Disputed
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
    So are categories: the one of a text as a token's label is, and of several each by
    itself; shares of votes count as the categories that they stand for, and texts
    without any are left out. All docs, and a probability for each token and label, are
    held in memory.

    Method: confident learning and its thresholds for labels (Northcutt et al. 2021,
    Confident Learning: Estimating Uncertainty in Dataset Labels), and the worst token
    (Wang & Mueller 2022, Detecting Label Errors in Token Classification Data), both as
    in cleanlab.

    docs (Iterable[Doc]): Annotated docs.
    target (Target): What is annotated.
    folds (int): Number of folds, 2 or more.
    seed (int): Decides on folds and students. Random numbers are set by it globally.
    progress (bool): Show a progress bar.
    RETURNS (List[Suspect]): The suspects, worst first.
    RAISES (InstaNERError): If there are too few briefs, or no entities or categories,
        or cleanlab is not installed.
    """
    import_cleanlab()  # before the students are trained
    docs = list(docs)
    judge = _Texts(target) if target.attr == "cats" else _Tokens(docs)
    numbered = [
        (number, doc, given)
        for number, doc in enumerate(docs)
        if len(doc) and (given := judge.get_given(doc))
    ]
    if docs and not any(target.get_marks(doc) for doc in docs):
        raise InstaNERError(
            f"None of the {len(docs)} texts has {judge.noun}, so there is nothing to "
            "check. Check the teacher's answers."
        )
    briefs = [get_brief(doc) for _, doc, _ in numbered]
    if not 2 <= folds <= len(set(briefs)):
        raise InstaNERError(
            f"{len(briefs)} texts from {len(set(briefs))} briefs cannot be checked in "
            f"{folds} folds: 2 or more are needed, and a brief for each. Annotate more."
        )
    # Norms and shapes, which students look at, need a vocab that makes them.
    vocab = spacy.blank(docs[0].vocab.lang or "xx").vocab
    examples = [judge.make_example(doc, vocab) for _, doc, _ in numbered]
    ends = np.cumsum([len(given) for *_, given in numbered])
    probs: _Probs = np.zeros((ends[-1], len(judge.values)), np.float32)
    with tqdm(
        total=_ROUNDS * folds, desc="Checking", unit="student", disable=not progress
    ) as bar:
        for number in range(_ROUNDS):
            fold_of = _assign_folds(briefs, folds, f"{seed}:{number}")
            for fold in range(folds):
                learned = zip(examples, fold_of, strict=True)
                student = _train(
                    judge, [eg for eg, k in learned if k != fold], seed + number
                )
                held_out = [i for i, k in enumerate(fold_of) if k == fold]
                for i, found in _predict(judge, student, examples, held_out):
                    probs[ends[i] - len(found) : ends[i]] += found
                bar.update()
    probs /= probs.sum(1, keepdims=True)
    values = np.array([k for *_, ks in numbered for k in ks])
    quality, seen = _rate(values, probs, judge.questions)
    suspects = [
        suspect
        for (number, doc, ks), end in zip(numbered, ends, strict=True)
        for items in [slice(end - len(ks), end)]
        for suspect in judge.compare(number, doc, seen[items], quality[items])
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


class _Tokens:
    """Entities are judged token by token.

    docs (Iterable[Doc]): The docs.
    noun (str): What a text may have, for messages.
    values (List[str]): Between which the students decide: the labels, and none.
    questions (int): How many such decisions there are, in turn.
    epochs (int): For how long a student is trained.
    """

    noun = "an entity"
    questions = 1
    epochs = 2  # A student of more is surer of itself, and worse at this.

    def __init__(self, docs: Iterable[Doc]) -> None:
        self.values = ["", *sorted({ent.label_ for doc in docs for ent in doc.ents})]

    def get_given(self, doc: Doc) -> list[int]:
        """RETURNS (List[int]): For each token the number of the value given, or -1
        where nothing is to be judged: it is disputed, or white space, which is no part
        of a name, and nobody is asked about it.
        """
        return [
            -1 if t.is_space or t.ent_iob == 0 else self.values.index(t.ent_type_)
            for t in doc
        ]

    def make_example(self, doc: Doc, vocab: Vocab) -> Example:
        """Make tags of the entities. An empty one, of a disputed token, is not
        learned."""
        tags = [
            f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" if t.ent_iob else ""
            for t in doc
        ]
        tagged = _copy(doc, vocab, tags=tags)
        return Example(tagged, tagged)

    def make_student(self, vocab: Vocab) -> tuple[Tagger, list[str]]:
        """Make a softmax over the tags of each token, which tells how sure it is. The
        beams of spaCy's ner tell that worse."""
        model = build_tagger_model(_build_encoder(), normalize=True)
        tags = [f"{place}-{label}" for label in self.values[1:] for place in "BI"]
        return Tagger(vocab, model), ["O", *tags]

    def read_scores(self, scores: _Probs) -> _Probs:
        """RETURNS (_Probs): Probabilities from those of O, B-X, I-X, B-Y …"""
        return np.hstack([scores[:, :1], scores[:, 1::2] + scores[:, 2::2]])

    def compare(
        self, number: int, doc: Doc, seen: _Values, quality: _Qualities
    ) -> Iterator[Suspect]:
        """Compare the spans given with those predicted, the ones that overlap
        together."""
        labels = [
            "" if token.is_space else self.values[k]
            for token, k in zip(doc, seen, strict=True)
        ]
        spans = [(0, ent) for ent in doc.ents]
        for label, run in groupby(range(len(doc)), key=labels.__getitem__):
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
                tuple(
                    (s.start_char, s.end_char, s.label_) for k, s in place if k == side
                )
                for side in (0, 1)
            )
            union = doc[place[0][1].start : max(span.end for _, span in place)]
            score = float(quality[union.start : union.end].min())
            if score <= 1:
                yield Suspect(
                    number, union.start_char, union.end_char, given, predicted, score
                )


class _Texts:
    """Categories are judged text by text: which one is it, or, if there can be several,
    is it this one?

    target (Target): What is annotated.
    noun, values, questions, epochs: See _Tokens.
    """

    noun = "a category"
    epochs = 10  # A linear student of two has hardly begun.

    def __init__(self, target: Target) -> None:
        self._target = target
        self.values = list(target.labels) if target.exclusive else ["", "yes"]
        self.questions = 1 if target.exclusive else len(target.labels)

    def get_given(self, doc: Doc) -> list[int]:
        """RETURNS (List[int]): For each question the number of the value given, or -1
        where nothing is to be judged; none at all for a text without categories.
        """
        given = [label for *_, label in self._target.get_marks(doc)]
        if self._target.exclusive:
            return [self.values.index(label) for label in given]
        labels = self._target.labels if doc.cats else ()
        return [int(la in given) if la in doc.cats else -1 for la in labels]

    def make_example(self, doc: Doc, vocab: Vocab) -> Example:
        """Make certain categories of scores, which are all that spaCy takes."""
        given = [label for *_, label in self._target.get_marks(doc)]
        text = _copy(doc, vocab)
        known = self._target.labels if self._target.exclusive else doc.cats
        text.cats = {label: float(label in given) for label in known}
        return Example(text, text)

    def make_student(self, vocab: Vocab) -> tuple[TextCategorizer, tuple[str, ...]]:
        """Make a linear classifier of the words that a text has. It takes a fraction of
        the time that the encoder would."""
        exclusive = self._target.exclusive
        model = build_bow_text_classifier_v3(
            exclusive, ngram_size=1, no_output_layer=False, length=2**16
        )
        kind = TextCategorizer if exclusive else MultiLabel_TextCategorizer
        return kind(vocab, model, threshold=0.5), self._target.labels

    def read_scores(self, scores: _Probs) -> _Probs:
        """RETURNS (_Probs): Probabilities of the values, for each question."""
        if self._target.exclusive:
            return scores[None]
        return np.stack([1 - scores, scores], axis=1)

    def compare(
        self, number: int, doc: Doc, seen: _Values, quality: _Qualities
    ) -> Iterator[Suspect]:
        """Compare the categories given with those predicted."""
        given = self._target.get_marks(doc)
        if self._target.exclusive:
            marks = [(given, self._target.make_marks([self.values[seen[0]]]))]
        else:
            labels = [self._target.make_marks([la]) for la in self._target.labels]
            marks = [(m, []) if m[0] in given else ([], m) for m in labels]
        for (mine, theirs), score in zip(marks, quality, strict=True):
            if score <= 1:
                start, end, _ = (mine or theirs)[0]
                yield Suspect(
                    number, start, end, tuple(mine), tuple(theirs), float(score)
                )


def _copy(doc: Doc, vocab: Vocab, tags: list[str] | None = None) -> Doc:
    words = [token.text for token in doc]
    spaces = [bool(token.whitespace_) for token in doc]
    return Doc(vocab, words=words, spaces=spaces, tags=tags)


def _build_encoder() -> Model[list[Doc], list[Floats2d]]:
    """RETURNS (Model): The encoder of the CNN student."""
    return build_Tok2Vec_model(
        MultiHashEmbed(
            width=96,
            attrs=["NORM", "PREFIX", "SUFFIX", "SHAPE"],
            rows=[5000, 1000, 2500, 2500],
            include_static_vectors=False,
        ),
        MaxoutWindowEncoder(width=96, depth=4, window_size=1, maxout_pieces=3),
    )


def _train(
    judge: _Tokens | _Texts, examples: list[Example], seed: int
) -> TrainablePipe:
    """RETURNS (TrainablePipe): A student."""
    fix_random_seed(seed)
    student, labels = judge.make_student(examples[0].x.vocab)
    student.initialize(lambda: examples[:10], labels=labels)
    optimizer = Adam(0.001, L2=0.01, L2_is_weight_decay=True)
    steps = math.ceil(sum(len(eg.x) for eg in examples) / _STEP)
    for _ in range(max(judge.epochs, math.ceil(_MIN_STEPS / steps))):
        random.shuffle(examples)
        for batch in minibatch_by_words(examples, _STEP):
            student.update(batch, sgd=optimizer, drop=0.1)
    return student


def _predict(
    judge: _Tokens | _Texts,
    student: TrainablePipe,
    examples: list[Example],
    numbers: list[int],
) -> Iterator[tuple[int, _Probs]]:
    """YIELDS (Tuple[int, _Probs]): Number and probabilities of each text."""
    for batch in minibatch(numbers, _BATCH):
        found = student.model.predict([examples[i].x for i in batch])
        for i, scores in zip(batch, found, strict=True):
            yield i, judge.read_scores(student.model.ops.to_numpy(scores))


def _rate(given: _Values, probs: _Probs, questions: int) -> tuple[_Qualities, _Values]:
    """Rate what is given: infinity where there is nothing to blame.

    given (_Values): Values given, or -1.
    probs (_Probs): Probability of each value.
    questions (int): Number of decisions, of which each is rated by itself.
    RETURNS (Tuple[_Qualities, _Values]): Qualities, and the values predicted.
    """
    cleanlab = import_cleanlab()
    seen = probs.argmax(1)
    quality = np.full(len(given), np.inf)
    for first in range(questions):
        items = np.arange(first, len(given), questions)
        items = items[given[items] >= 0]
        if not len(items):
            continue
        ours = given[items]
        usual = cleanlab.count.get_confident_thresholds(ours, probs[items])
        scores = cleanlab.rank.get_label_quality_scores(
            ours, probs[items], method="self_confidence"
        )
        quality[items] = np.minimum(scores / usual[ours], 1)
    quality[given == seen] = np.inf
    return quality, seen
