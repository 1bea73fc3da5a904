"""Which part of a prompt is the same for every text, and what form of answer it asks
for."""

from itertools import takewhile
from typing import Any, Dict, Iterable, Iterator

from ..llm.store import Prompt


def get_constant(one: str, other: str) -> str:
    """RETURNS (str): The whole lines that two prompts begin with alike."""
    pairs = zip(one.splitlines(True), other.splitlines(True), strict=False)
    return "".join(line for line, _ in takewhile(lambda p: p[0] == p[1], pairs))


def mark_constant(
    prompts: Iterable[str],
    constant: str,
    *,
    response_format: Dict[str, Any] | None = None,
) -> Iterator[str]:
    """Say which part of prompts is constant, and what form the answers are to have.

    prompts (Iterable[str]): The prompts.
    constant (str): What they begin with; of one that does not, no part is constant.
    response_format (Optional[Dict[str, Any]]): See Prompt.
    YIELDS (str): The prompts, as Prompts. One about which nothing is to be said is left
        as it is.
    """
    for prompt in prompts:
        begins = prompt.startswith(constant)
        if begins or response_format is not None:
            length = len(constant) if begins else 0
            yield Prompt(prompt, constant=length, response_format=response_format)
        else:
            yield prompt


def make_response_format(name: str, **properties: Any) -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): The response_format that holds an answer to an object
    with these properties, as chat completions have it:
    https://platform.openai.com/docs/guides/structured-outputs
    """
    schema = make_object(**properties)
    json_schema = {"name": name, "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": json_schema}


def make_object(**properties: Any) -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): The JSON schema of an object that has all of these
    properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
