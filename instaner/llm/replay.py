from pathlib import Path
from typing import Iterable

from ..errors import InstaNERError
from .store import Failure, Response, check_response, hash_prompt, read_recording


class Replay:
    """A model that answers from a recording, for demos, tests and repeated runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[tuple[str, int], Response] = {}
        for number, row in read_recording(path):
            key = row["prompt_sha256"], row["sample"]
            answer = Response(row["response"], row.get("finish_reason"))
            if self._answers.setdefault(key, answer) != answer:
                raise InstaNERError(
                    f"{path}, line {number}: another answer to a prompt that has one "
                    "already. Record one model, with one setting of params, for a file "
                    "(instaner responses export --model)."
                )

    def __call__(self, prompts: Iterable[Iterable[str]]) -> Iterable[Iterable[str]]:
        """Answer prompts, lazily and in order, by the first sample.

        prompts (Iterable[Iterable[str]]): Prompts of the shards of each doc.
        YIELDS (Iterable[str]): Answers to the shards of each doc.
        RAISES (InstaNERError): On a prompt that is not in the recording.
        """
        for shards in prompts:
            yield [self._find(prompt, 0).text for prompt in shards]

    def recall(self, prompt: str, sample: int) -> Response | Failure:
        """Get an answer.

        prompt (str): The prompt.
        sample (int): Which of several answers, from 0.
        RETURNS (Union[Response, Failure]): The answer, or why it cannot be used.
        RAISES (InstaNERError): On a prompt that is not in the recording.
        """
        return check_response(self._find(prompt, sample))

    def _find(self, prompt: str, sample: int) -> Response:
        key = hash_prompt(prompt)
        try:
            return self._answers[key, sample]
        except KeyError as err:
            end = " ".join(prompt.split())[-100:]
            raise InstaNERError(
                f"No answer (sample {sample}) recorded in {self.path} for the "
                f'prompt with SHA-256 {key}, ending in "{end}". A prompt changes with '
                "the text, labels, definitions and examples: undo that change, or ask "
                "a live teacher (README, 'Your own LLM')."
            ) from err


def make_replay(path: Path) -> Replay:
    """Registered as instaner.Replay.v1: a spacy-llm model over recorded answers.

    path (Path): JSONL, as `instaner responses export` writes it; of each line,
        prompt_sha256 (or messages), sample and response are read.
    RETURNS (Replay): The model.
    RAISES (InstaNERError): On a missing file or a broken line.
    """
    return Replay(Path(path))  # a config gives a string
