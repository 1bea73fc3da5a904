import hashlib
from pathlib import Path
from typing import Iterable

from ..errors import InstaNERError
from ..files import get_field, read_jsonl


def hash_prompt(prompt: str) -> str:
    """RETURNS (str): SHA-256 of the prompt's UTF-8 bytes, as hex: its key."""
    return hashlib.sha256(prompt.encode("utf8")).hexdigest()


class Replay:
    """A model that answers from a recording, for demos, tests and repeated runs.

    sample (int): Which of several answers to the same prompt is given, from 0.
    """

    def __init__(self, path: Path, *, sample: int = 0) -> None:
        self.path = path
        self.sample = sample
        self._answers: dict[tuple[str, int], str] = {}
        for number, row in read_jsonl(path):
            key = get_field(row, "prompt_sha256", path, number)
            answer = get_field(row, "response", path, number)
            which = row.get("sample", 0)
            if not isinstance(which, int):
                raise InstaNERError(
                    f'{path}, line {number}: "sample" has to be a whole number, '
                    f"found {which!r}."
                )
            self._answers[key, which] = answer

    def __call__(self, prompts: Iterable[Iterable[str]]) -> Iterable[Iterable[str]]:
        """Answer prompts, lazily and in order.

        prompts (Iterable[Iterable[str]]): Prompts of the shards of each doc.
        YIELDS (Iterable[str]): Answers to the shards of each doc.
        RAISES (InstaNERError): On a prompt that is not in the recording.
        """
        for shards in prompts:
            yield [self._answer(prompt) for prompt in shards]

    def _answer(self, prompt: str) -> str:
        key = hash_prompt(prompt)
        try:
            return self._answers[key, self.sample]
        except KeyError as err:
            end = " ".join(prompt.split())[-100:]
            raise InstaNERError(
                f"No answer (sample {self.sample}) recorded in {self.path} for the "
                f'prompt with SHA-256 {key}, ending in "{end}". A prompt changes with '
                "the text, labels, definitions and examples: undo that change, or ask "
                "a live teacher (README, 'Your own LLM')."
            ) from err


def make_replay(path: Path) -> Replay:
    """Registered as instaner.Replay.v1: a spacy-llm model over recorded answers.

    path (Path): JSONL with prompt_sha256 (hash of the rendered prompt), response and,
        where there are several answers to a prompt, sample (from 0).
    RETURNS (Replay): The model.
    RAISES (InstaNERError): On a missing file or a broken line.
    """
    return Replay(Path(path))  # a config gives a string
