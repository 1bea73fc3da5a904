"""Examples in prompts: the nearest of what people reviewed, and a file's own."""

import io
import json
import logging
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Literal, Mapping, Sequence

import numpy as np
import srsly
from spacy.util import minibatch

from ..decisions import Answer, Decision, Decisions, is_store
from ..encoders import find_encoder
from ..errors import InstaNERError
from ..files import check_file, read_jsonl, write_whole
from ..targets import Offsets, Target
from ..vote import Standing, settle
from .categories import NONE

logger = logging.getLogger(__name__)

POS, NEG = "POS", "NEG"  # the answers where there is one label

# A word; or, where nothing parts words, a character (Thai to Burmese, Khmer, Chinese,
# Japanese); or a sign.
_UNPARTED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = rf"[^\W{_UNPARTED}]+|\S"
_DIGITS = 6  # that similarities are compared by: beyond, the order of sums decides
_BATCH = 32  # texts that are encoded at a time
_LONGEST = 512  # tokens of a text that are encoded


@dataclass(frozen=True)
class KNNExamples:
    """What make_knn_examples was given: to each text, a task that knows it gives
    examples of its own. To be called, as other examples are, it is not."""

    path: Path
    k: int
    max_tokens: int
    encoder: str | None

    @property
    def is_store(self) -> bool:
        """Whether the examples are what people reviewed."""
        return is_store(self.path)

    def read(
        self, attr: Literal["ents", "cats"], labels: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Read the examples there are, those of a review store as _read_reviews does.

        attr (Literal["ents", "cats"]): What the task annotates.
        labels (Sequence[str]): The task's labels.
        RETURNS (List[Dict[str, Any]]): Examples as the task takes them, in the order of
            their texts. Of those that differ in case and spaces alone, there is one.
        RAISES (InstaNERError): On a file that cannot be read.
        """
        if self.is_store:
            found = list(_read_reviews(self.path, attr, labels))
        else:
            found = _read_rows(self.path)
        by_text = {row["text"]: row for row in found if row["text"].strip()}
        return list({fold(text): by_text[text] for text in sorted(by_text)}.values())

    def __call__(self) -> Iterable[Dict[str, Any]]:
        raise InstaNERError(
            "instaner.KNNExamples.v1 chooses examples for each text, which spacy-llm's "
            "own tasks cannot. Take instaner.NER.v1 or instaner.TextCat.v1."
        )


def make_knn_examples(
    path: Path, k: int = 4, max_tokens: int = 1000, encoder: str | None = None
) -> KNNExamples:
    """Registered as instaner.KNNExamples.v1: examples for a task's prompts, chosen for
    each text: those most similar to it, the most similar last, nearest to the text (Liu
    et al. 2022, What Makes Good In-Context Examples for GPT-3?). A text is never its
    own example. The file is read when the first prompt is made, and not again.

    path (Path): Review store (see decisions.Decisions), which need not be there yet: of
        it, texts that people accepted. Or a file of examples, as spacy.FewShotReader.v1
        takes it.
    k (int): Number of examples in a prompt.
    max_tokens (int): What they may come to, estimated. Those that do not fit are left
        out.
    encoder (Optional[str]): Pretrained encoder, as encoders.find_encoder takes it: the
        means of texts' tokens are compared (cosine). None: TF-IDF of words and pairs of
        words.
    RETURNS (KNNExamples): What instaner.NER.v1 and instaner.TextCat.v1 take.
    RAISES (InstaNERError): If k or max_tokens is below 1.
    """
    for name, value in (("k", k), ("max_tokens", max_tokens)):
        if value < 1:
            raise InstaNERError(
                f"instaner.KNNExamples.v1: {name} = {value}. It has to be 1 or more."
            )
    return KNNExamples(Path(path), k, max_tokens, encoder)


class Pool:
    """Examples of which the nearest to a text are chosen.

    examples (Sequence[Any]): Examples with a text, in the order in which those of the
        same similarity are chosen.
    costs (Sequence[int]): About how many tokens each adds to a prompt.
    settings (KNNExamples): How many are chosen, and how texts are compared.
    """

    def __init__(
        self, examples: Sequence[Any], costs: Sequence[int], settings: KNNExamples
    ) -> None:
        self.examples = examples
        self._costs = costs
        self._settings = settings
        texts = [example.text for example in examples]
        self._keys = [fold(text) for text in texts]
        self._index: _Words | _Encoded | None = None
        if texts and settings.encoder is None:
            self._index = _Words(texts)
        elif texts and settings.encoder is not None:
            self._index = _Encoded(texts, settings.encoder)

    def choose(self, text: str) -> list[Any]:
        """RETURNS (List[Any]): The examples nearest to a text, the nearest last."""
        if self._index is None:
            return []
        key = fold(text)
        similarities = np.round(self._index.compare(text), _DIGITS)
        order = np.argsort(-similarities, kind="stable").tolist()
        others = (i for i in order if self._keys[i] != key)
        chosen = []
        left = self._settings.max_tokens
        for i in islice(others, self._settings.k):
            if self._costs[i] <= left:
                chosen.append(self.examples[i])
                left -= self._costs[i]
        return chosen[::-1]


class _Words:
    """Compares texts by their words."""

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
        except ImportError as err:
            raise InstaNERError(
                "To choose examples by words, scikit-learn is needed: pip install "
                '"instaner[examples]"'
            ) from err
        self._vectorizer = TfidfVectorizer(
            token_pattern=_WORD, ngram_range=(1, 2), sublinear_tf=True
        )
        # Turned round, a text's few words find the texts that have them.
        self._texts = self._vectorizer.fit_transform(texts).T.tocsr()

    def compare(self, text: str) -> np.ndarray:
        """RETURNS (ndarray): The cosine of a text with each."""
        return (self._vectorizer.transform([text]) @ self._texts).toarray()[0]


class _Encoded:
    """Compares texts by the mean of what an encoder makes of their tokens."""

    def __init__(self, texts: Sequence[str], encoder: str) -> None:
        path = find_encoder(encoder)
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._model = AutoModel.from_pretrained(path).eval()
        self._texts = self._encode(texts)

    def compare(self, text: str) -> np.ndarray:
        """RETURNS (ndarray): The cosine of a text with each."""
        return self._texts @ self._encode([text])[0]

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        rows = []
        for batch in minibatch(texts, _BATCH):
            inputs = self._tokenizer(
                batch,
                padding=True,
                truncation=True,
                max_length=min(self._tokenizer.model_max_length, _LONGEST),
                return_tensors="pt",
            )
            with torch.no_grad():
                states = self._model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            rows.append(torch.nn.functional.normalize(means).numpy())
        return np.concatenate(rows)


def fold(text: str) -> str:
    """RETURNS (str): What texts have in common that differ in case and spaces alone."""
    return " ".join(text.casefold().split())


def _read_reviews(
    path: Path, attr: Literal["ents", "cats"], labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Examples from the texts that people accept, as vote.settle makes one opinion of
    theirs. Where that leaves a dispute, the text is no example."""
    reviews = Decisions(path)
    found = list(reviews.read(attr))
    target = reviews.get_target(attr) or Target(attr, tuple(labels))
    reviews.close()
    if not found:
        logger.warning("No reviewed texts in %s yet: prompts have no examples", path)
    for decisions in found:
        candidates = settle(decisions, target)
        if candidates is None:
            continue
        if any(c.standing is Standing.DISPUTED for c in candidates):
            continue
        accepted = [d for d in decisions if d.answer is Answer.ACCEPT]
        right = [c for c in candidates if c.standing is Standing.TRUSTED]
        decision = accepted[0]._replace(
            marks=tuple((c.start, c.end, c.label) for c in right),
            proposed=tuple(chain.from_iterable(d.proposed for d in accepted)),
        )
        yield make_example(decision, labels)


def make_example(
    decision: Decision,
    labels: Sequence[str],
    reasons: Mapping[Offsets, str] | None = None,
) -> dict[str, Any]:
    """Make a prompt example from what a person decided about a text. What was proposed,
    and the person took away, is shown as no entity, unless an entity overlaps it.

    decision (Decision): The decision, which accepts the text.
    labels (Sequence[str]): The task's labels.
    reasons (Optional[Mapping[Offsets, str]]): Why, by mark; of one that has none, that
        it fits the label's definition.
    RETURNS (Dict[str, Any]): For entities, text and spans as spacy.NER.v3 has them; for
        categories, text, answer and reason as instaner.TextCat.v1 has them.
    """
    reasons = {mark: said for mark, said in (reasons or {}).items() if said.strip()}
    if decision.attr == "cats":
        marked = {label: mark for mark in decision.marks if (label := mark[2])}
        names = sorted(marked, key=[*labels, *marked].index)
        answer = ", ".join(names) or NONE
        if len(labels) == 1 and answer in (NONE, *labels):
            answer = POS if names else NEG
        said = [reasons[mark] for name in names if (mark := marked[name]) in reasons]
        reason = "; ".join(said) or _make_reason(names)
        return {"text": decision.text, "answer": answer, "reason": reason}
    wrong = {
        (start, end, NONE): reasons.get((start, end, label), "")
        for start, end, label in decision.proposed
        if not any(s < end and start < e for s, e, _ in decision.marks)
    }
    return {
        "text": decision.text,
        "spans": [
            {
                "text": decision.text[start:end],
                "is_entity": label != NONE,
                "label": label,
                "reason": reasons.get((start, end, label))
                or wrong.get((start, end, label))
                or _make_reason([label] if label != NONE else []),
            }
            for start, end, label in sorted({*decision.marks, *wrong})
        ],
    }


def _make_reason(labels: Sequence[str]) -> str:
    return f"fits the definition of {' and '.join(labels) or 'no label'}"


def add_example(path: Path, example: dict[str, Any]) -> None:
    """Add an example to a file of them, in place of one of the same text. The others
    stay as they are, with their comments.

    path (Path): YAML, JSON (.json) or JSONL (.jsonl) file, as spacy.FewShotReader.v1
        takes it. It is made if it is not there.
    example (Dict[str, Any]): The example, as make_example makes it.
    RAISES (InstaNERError): If the file is broken, or the example has no text.
    """
    if not isinstance(example.get("text"), str):
        raise InstaNERError(
            f'An example needs a text: "{str(example)[:100]}". Mend it.'
        )
    rows = _read_rows(path) if path.exists() else []
    places = [i for i, row in enumerate(rows) if row["text"] == example["text"]]
    if places and rows[places[0]] == example:
        return
    _write_rows(path, rows, places[0] if places else len(rows), [example])


def remove_example(path: Path, text: str) -> bool:
    """Remove the example of a text from a file; see add_example.

    path (Path): The file.
    text (str): The example's text.
    RETURNS (bool): Whether there was one.
    RAISES (InstaNERError): If the file is broken.
    """
    rows = _read_rows(path) if path.exists() else []
    places = [i for i, row in enumerate(rows) if row["text"] == text]
    for place in reversed(places):
        _write_rows(path, rows, place, [])
        del rows[place]
    return bool(places)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    check_file(path, "Examples")
    if path.suffix == ".jsonl":
        rows: Any = [row for _, row in read_jsonl(path)]
    else:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        try:
            text = _read_text(path)
            rows = json.loads(text) if kind == "JSON" else srsly.yaml_loads(text)
        except (srsly.ruamel_yaml.error.YAMLError, RecursionError, ValueError) as err:
            raise InstaNERError(
                f"{path} is no {kind}: {' '.join(str(err).split())}. Mend it."
            ) from err
        rows = [] if rows is None else rows
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("text"), str) for row in rows
    ):
        raise InstaNERError(
            f"{path} has to be a list of examples, each with its text. Mend it."
        )
    return rows


def _read_text(path: Path) -> str:
    return path.read_bytes().decode("utf-8-sig")


def _write_rows(
    path: Path, rows: list[dict[str, Any]], place: int, new: list[dict[str, Any]]
) -> None:
    """Write rows with new ones in place of one, or after the last."""
    wanted = [*rows[:place], *new, *rows[place + 1 :]]
    text = _read_text(path) if path.exists() else ""
    if path.suffix == ".json":
        text = f"{srsly.json_dumps(wanted, indent=2)}\n"
    elif path.suffix == ".jsonl":
        starts = [number - 1 for number, _ in read_jsonl(path)] if text else []
        block = "".join(f"{srsly.json_dumps(row)}\n" for row in new)
        text = _splice(_split(text), starts, place, block)
    else:
        text = _edit_yaml(text, place, new, wanted)
    with write_whole(path) as part:
        part.write_bytes(text.encode("utf8"))


def _edit_yaml(
    text: str, place: int, new: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> str:
    """Change the lines of one row alone. Where rows have no lines of their own, all are
    written anew, which keeps comments too, but not how things are laid out."""
    yaml = srsly.ruamel_yaml.YAML()
    yaml.preserve_quotes = True
    yaml.width = 2**31
    yaml.indent(mapping=2, sequence=4, offset=2)
    rows: Any = yaml.load(text) or []
    lines = _split(text)
    if not rows:
        lines = [line for line in lines if line.strip() != "[]"]
    starts = [_find_dash(lines, rows.lc.item(i)[0]) for i in range(len(rows))]
    indent = " " * (_get_column(lines[starts[0]]) if starts else 0)
    dumped = io.StringIO()
    yaml.dump(new, dumped)
    # It is indented by two, as the lists in it are.
    block = [indent + line[2:] for line in _split(dumped.getvalue())] if new else []
    spliced = _splice(lines, starts, place, "".join(block))
    if not wanted:
        spliced += "[]\n"
    try:
        if srsly.yaml_loads(spliced) == wanted:
            return spliced
    except (srsly.ruamel_yaml.error.YAMLError, ValueError):
        pass  # e.g. of a list in brackets
    if place < len(rows):
        del rows[place]
    for row in new:
        rows.insert(place, row)
    dumped = io.StringIO()
    yaml.dump(rows, dumped)
    return dumped.getvalue()


def _splice(lines: list[str], starts: list[int], place: int, block: str) -> str:
    """Put a block in place of the row whose lines begin at one of the starts, or after
    the last."""
    if place == len(starts):
        text = "".join(lines)
        return text + "\n" * (not text.endswith("\n") and bool(text)) + block
    start, end = starts[place], [*starts, len(lines)][place + 1]
    while end > start + 1 and _is_between(lines[end - 1], _get_column(lines[start])):
        end -= 1  # what is said before the next row stays
    return "".join([*lines[:start], block, *lines[end:]])


def _split(text: str) -> list[str]:
    return io.StringIO(text, newline="\n").readlines()


def _get_column(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _find_dash(lines: list[str], number: int) -> int:
    number = min(number, len(lines) - 1)
    while number and not lines[number].lstrip(" ").startswith("-"):
        number -= 1
    return number


def _is_between(line: str, column: int) -> bool:
    """Whether a line after a row is a comment of its own, or empty."""
    is_comment = line.lstrip(" ").startswith("#") and _get_column(line) <= column
    return is_comment or not line.strip()
