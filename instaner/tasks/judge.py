"""Judging what is said to be an entity, by the labels of a task and the text."""

import re
from functools import cached_property

from spacy_llm.tasks.builtin_task import BuiltinTaskWithLabels

from .grounding import Mention, Reading, Status, normalise

Piece = Mention | Reading

MARKS = " \t\r\n*_#`\"'“”„«»‘’‚‹›[](){}<>=.,;:："
# What stands between a surface and its label, or a remark, where there are no bars.
SIGN = re.compile(
    r"->|→|=>|⇒|(?<=\s)[-–—=](?=\s)|:(?=\s|$)|：|(?<!\])[(（\[]|"
    r"[)）\]](?=\s*(?:$|[-–—:：|.;,]))"
)

_COMMA = re.compile(r"[,;、，；]")
_QUOTES = tuple(
    tuple(pair) for pair in "\"\" '' “” „“ „” «» »« ‘’ ‚‘ ‹› 「」 『』 `` ** __".split()
)
_NOTHING = ("none", "n/a", "null", "nil", "nothing", "no entity", "none found")


class Judge:
    """Knows the labels of a task, and the text that was asked about.

    task (BuiltinTaskWithLabels): The task.
    text (str): The text, or "".
    labels (Dict[str, Optional[str]]): Labels by their folded form; None for one that
        several have.
    """

    def __init__(self, task: BuiltinTaskWithLabels, text: str) -> None:
        self.text = text
        self.labels: dict[str, str | None] = {}
        self._task = task
        for label in task.label_dict.values():
            key = self.fold(label)
            self.labels[key] = None if key in self.labels else label

    @cached_property
    def _normal(self) -> str:
        return normalise(self.text)

    @cached_property
    def _lines(self) -> set[str]:
        lines = (self.text, *self.text.splitlines())
        return {normalise(line.strip(" *_\"'“”„«»")) for line in lines}

    def fold(self, label: str) -> str:
        """RETURNS (str): A label without case, marks round it, hyphens, underscores."""
        plain = self._task.normalizer(label.strip(MARKS))
        return re.sub(r"[\s_-]+", " ", plain).strip()

    def find_label(self, said: str) -> str | None:
        """RETURNS (Optional[str]): The label that is meant, if it is one."""
        exact = self._task.label_dict.get(self._task.normalizer(said.strip()))
        return exact or self.labels.get(self.fold(said))

    def has(self, surface: str) -> bool:
        """RETURNS (bool): Whether it stands in the text."""
        return bool(self.text and surface) and (
            surface in self.text or normalise(surface) in self._normal
        )

    def is_line(self, said: str) -> bool:
        """RETURNS (bool): Whether it is a line of the text, or all of it."""
        return bool(self.text) and normalise(said.strip(" *_\"'“”„«»")) in self._lines

    def clean(self, surface: str) -> str:
        """RETURNS (str): A surface without quotes and stars that the text has not."""
        surface = surface.strip()
        for left, right in _QUOTES * 2:
            inner = surface[1:-1].strip(left + right)
            is_quoted = surface[:1] == left and surface[1:][-1:] == right
            if is_quoted and inner and not {left, right} & set(inner):
                surface = surface if self.has(surface) else surface[1:-1].strip()
        return surface

    def judge(self, surface: str, label: str, *, flag: bool | None = None) -> Piece:
        """Judge a surface with a label.

        surface (str): The surface.
        label (str): The label, as it was given.
        flag (Optional[bool]): Whether the answer calls it an entity, if it says so.
        RETURNS (Union[Mention, Reading]): What becomes of it.
        """
        surface = self.clean(surface)
        known = self.find_label(label)
        no_label = flag is None and known is None and is_no_label(label)
        no_surface = is_nothing(surface) and not self.has(surface)
        if flag is False or no_label or no_surface:
            return Reading(Status.NO_ENTITY, surface, "")
        if not surface:
            return lose(label)
        if known is None:
            return Reading(Status.UNKNOWN_LABEL, surface, label.strip())
        return Mention(surface, known)

    def judge_all(self, said: str, label: str) -> list[Piece]:
        """Judge what stands under a label: a surface; or, if the text has not the whole
        of it, one with a remark, or several.

        said (str): What stands there.
        label (str): The label, as it was given.
        RETURNS (List[Union[Mention, Reading]]): What becomes of each surface.
        """
        surfaces = [said]
        if not self.has(self.clean(said)):
            first = SIGN.split(said)[0]
            parts = [part for part in _COMMA.split(said) if part.strip()]
            if self.has(self.clean(first)):
                surfaces = [first]
            elif any(self.has(self.clean(part)) for part in parts):
                surfaces = parts
        return [self.judge(surface, label) for surface in surfaces]


def lose(said: str) -> Reading:
    """RETURNS (Reading): That something could not be read."""
    return Reading(Status.UNREADABLE, said.strip(), "")


def is_lost(piece: Piece) -> bool:
    """RETURNS (bool): Whether something could not be read."""
    return isinstance(piece, Reading) and piece.status is Status.UNREADABLE


def is_nothing(said: str) -> bool:
    """RETURNS (bool): Whether it says that there is nothing."""
    return said.strip(MARKS).lower() in _NOTHING


def is_no_label(said: str) -> bool:
    """RETURNS (bool): Whether it stands for no label, as O does in IOB."""
    return is_nothing(said) or said.strip(MARKS) == "O"
