"""Which part of a prompt is the same for every text."""

from itertools import takewhile
from typing import Iterable, Iterator

from ..llm.store import Prompt


def get_constant(one: str, other: str) -> str:
    """RETURNS (str): The whole lines that two prompts begin with alike."""
    pairs = zip(one.splitlines(True), other.splitlines(True), strict=False)
    return "".join(line for line, _ in takewhile(lambda p: p[0] == p[1], pairs))


def mark_constant(prompts: Iterable[str], constant: str) -> Iterator[str]:
    """Say which part of prompts is constant.

    prompts (Iterable[str]): The prompts.
    constant (str): What they begin with. One that does not is left as it is.
    YIELDS (str): The prompts, as Prompts.
    """
    for prompt in prompts:
        if prompt.startswith(constant):
            yield Prompt(prompt, constant=len(constant))
        else:
            yield prompt
