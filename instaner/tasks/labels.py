"""Labels that prompts and answers can carry."""

import re
import unicodedata
from collections.abc import Mapping
from itertools import combinations

from rapidfuzz import fuzz

from ..errors import InstaNERError

_LONGEST = 60  # characters
# Letters, marks and digits of any script, and what does not part a label from what
# stands beside it in a prompt or an answer: [text](LABEL), text | True | LABEL, A, B.
# The two characters that join letters are of Indic scripts and Persian.
_LABEL = re.compile(r"[\w'’&/.+ \u200c\u200d-]+")
_NEAR = 85  # similarity from which two labels may be one


def check_labels(labels: Mapping[str, str]) -> list[str]:
    """Check labels before anything is asked about them.

    labels (Mapping[str, str]): Definition of each label, or "".
    RETURNS (List[str]): What may be wrong with them, in a line each: labels that are
        nearly the same, and those without a definition.
    RAISES (InstaNERError): If there are none, one has characters that a prompt cannot
        carry, or two differ in case, spaces, hyphens or underscores alone: answers are
        read without these.
    """
    if not labels:
        raise InstaNERError(
            "There are no labels. Give each label and its definition: "
            '--label NAME="definition", or a line in labels.yml.'
        )
    folded: dict[str, str] = {}
    for label, definition in labels.items():
        if not isinstance(label, str) or not isinstance(definition, str):
            raise InstaNERError(
                f"Label {label!r}: {definition!r}: both have to be text. In YAML, put "
                "them in quotes."
            )
        # A vowel sign, or an accent that stands by itself, is no letter to Python.
        letters = "".join(c for c in label if not unicodedata.category(c)[0] == "M")
        if not _LABEL.fullmatch(letters) or label != label.strip() or "\n" in label:
            raise InstaNERError(
                f'Label "{label}" has characters that a prompt cannot carry. Take '
                "letters, digits, spaces and any of _ - ' & / . +"
            )
        if len(label) > _LONGEST:
            raise InstaNERError(
                f'Label "{label[:_LONGEST]}…" is longer than {_LONGEST} characters. '
                "Take a short name, and put the rest into its definition."
            )
        key = unicodedata.normalize("NFC", label.casefold())
        key = re.sub(r"[\s_-]+", " ", key).strip()
        if key in folded:
            raise InstaNERError(
                f'Labels "{folded[key]}" and "{label}" are one and the same where '
                "answers are read. Rename one, or merge them."
            )
        folded[key] = label
    warnings = [
        f'Labels "{folded[one]}" and "{folded[other]}" are nearly the same: are they '
        "two kinds of thing?"
        for one, other in combinations(folded, 2)
        if fuzz.ratio(one, other) >= _NEAR
    ]
    warnings += [
        f'Label "{label}" has no definition: the teacher has to guess what it means.'
        for label, definition in labels.items()
        if not definition.strip()
    ]
    return warnings
