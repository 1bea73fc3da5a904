"""What is annotated, entities in texts or categories of texts, in one form: marks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from spacy.tokens import Doc

Offsets = tuple[int, int, str]

_NEAR = 0.01
LEAST = 0.5  # from which score on a category holds where a text can have several


class Target(NamedTuple):
    """What is annotated.

    A mark is a start and an end character, and a label. Entities stand where they are
    in the text, and categories before it: those that exclude each other at character
    -1, others each at a character of its own. So marks that contradict each other
    overlap, and no others do.

    attr (Literal["ents", "cats"]): Where spaCy has it: doc.ents or doc.cats.
    labels (Tuple[str, ...]): The categories, in the order of their places.
    exclusive (bool): Whether a text has one category.
    """

    attr: Literal["ents", "cats"] = "ents"
    labels: tuple[str, ...] = ()
    exclusive: bool = False

    def get_marks(self, doc: Doc) -> list[Offsets]:
        """RETURNS (List[Offsets]): The marks of a doc, in order."""
        if self.attr == "ents":
            return [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
        return self.make_marks(choose_categories(doc.cats, exclusive=self.exclusive))

    def make_marks(self, labels: Iterable[str]) -> list[Offsets]:
        """Make the marks of categories.

        labels (Iterable[str]): The categories of a text. Unknown ones make none.
        RETURNS (List[Offsets]): Their marks.
        """
        if self.exclusive:
            return [make_mark(label) for label in labels if label in self.labels]
        places = {label: -2 - k for k, label in enumerate(self.labels)}
        found = [la for la in labels if la in places]
        return sorted((places[la], places[la] + 1, la) for la in found)

    def get_units(self, doc: Doc) -> list[int]:
        """RETURNS (List[int]): The characters at which there can be a mark: where each
        token begins, or those of the categories.
        """
        if self.attr == "ents":
            return [token.idx for token in doc]
        return [-1] if self.exclusive else [*range(-1 - len(self.labels), -1)]


ENTS = Target()


def make_mark(label: str) -> Offsets:
    """RETURNS (Offsets): The mark of a category that excludes others."""
    return -1, 0, label


def is_category(mark: Sequence[Any]) -> bool:
    """RETURNS (bool): Whether a mark is that of a category."""
    return mark[0] < 0


def choose_categories(cats: Mapping[str, float], *, exclusive: bool) -> list[str]:
    """Tell which categories scores stand for.

    cats (Mapping[str, float]): Scores by label, between 0 and 1.
    exclusive (bool): Whether a text has one: that of the highest score, unless it is 0
        or two have it.
    RETURNS (List[str]): The categories; else those with a score of at least 0.5.
    """
    if not exclusive:
        return [label for label, score in cats.items() if score >= LEAST]
    highest = max(cats.values(), default=0.0)
    best = [label for label, score in cats.items() if score == highest > 0]
    return best if len(best) == 1 else []


def mark_categories(cats: Mapping[str, float], *, exclusive: bool) -> list[Offsets]:
    """RETURNS (List[Offsets]): Marks of the categories that scores stand for, as if
    they excluded each other: for what needs no places, such as scores.
    """
    return [*map(make_mark, choose_categories(cats, exclusive=exclusive))]


def are_exclusive(texts: Iterable[Mapping[str, float]]) -> bool:
    """RETURNS (bool): Whether the scores of each text that has any above 0 sum to 1, as
    they do where categories exclude each other.
    """
    sums = (sum(cats.values()) for cats in texts)
    return all(abs(total - 1) < _NEAR for total in sums if total)
