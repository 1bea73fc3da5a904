from pathlib import Path
from typing import Any, Iterable

from ..errors import InstaNERError
from .cost import BYTES_PER_TOKEN
from .store import Failure, Response, check_response, hash_prompt, read_recording


class Replay:
    """A model that answers from a recording, for demos, tests and repeated runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[tuple[str, int], Response] = {}
        self._bytes: dict[tuple[str, int], tuple[int, int]] = {}  # of what was asked
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
            yield [self.find(prompt, 0).text for prompt in shards]

    def recall(self, prompt: str, sample: int) -> Response | Failure:
        """Get an answer.

        prompt (str): The prompt.
        sample (int): Which of several answers, from 0.
        RETURNS (Union[Response, Failure]): The answer, or why it cannot be used.
        RAISES (InstaNERError): On a prompt that is not in the recording.
        """
        return check_response(self.find(prompt, sample))

    def make_bill(self) -> dict[str, Any]:
        """Sum up what the answers would take that were given, each once.

        RETURNS (Dict[str, Any]): stored (0), answers, prompt_tokens and
            completion_tokens (estimated: UTF-8 bytes over BYTES_PER_TOKEN), and cost
            (None).
        """
        prompts, answers = (
            round(sum(sizes[side] for sizes in self._bytes.values()) / BYTES_PER_TOKEN)
            for side in (0, 1)
        )
        return {
            "stored": 0,
            "answers": len(self._bytes),
            "prompt_tokens": prompts,
            "completion_tokens": answers,
            "cost": None,
        }

    def find(self, prompt: str, sample: int) -> Response:
        """RETURNS (Response): What recall gives, whether it can be used or not."""
        key = hash_prompt(prompt)
        try:
            answer = self._answers[key, sample]
        except KeyError as err:
            end = " ".join(prompt.split())[-100:]
            raise InstaNERError(
                f"No answer (sample {sample}) recorded in {self.path} for the "
                f'prompt with SHA-256 {key}, ending in "{end}". A prompt changes with '
                "the text, labels, definitions and examples: undo that change, or ask "
                "a live teacher (README, 'Your own LLM')."
            ) from err
        sizes = len(prompt.encode("utf8")), len(answer.text.encode("utf8"))
        self._bytes[key, sample] = sizes
        return answer


def make_replay(path: Path) -> Replay:
    """Registered as instaner.Replay.v1: a spacy-llm model over recorded answers.

    path (Path): JSONL, as `instaner responses export` writes it; of each line,
        prompt_sha256 (or messages), sample and response are read.
    RETURNS (Replay): The model.
    RAISES (InstaNERError): On a missing file or a broken line.
    """
    return Replay(Path(path))  # a config gives a string
