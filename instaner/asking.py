"""Asking an llm component about docs: what is not stored is asked for, many requests at
a time; then the answers are read, in order. So nothing waits for a slow answer, and a
run that was killed goes on where it stopped.
"""

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import srsly
from spacy.language import Language
from spacy.tokens import Doc
from spacy_llm.pipeline.llm import LLMWrapper
from spacy_llm.ty import ModelWithContextLength, supports_sharding

from .errors import InstaNERError
from .files import write_whole
from .llm.chat import Chat
from .llm.cost import estimate_footprint
from .llm.replay import Replay
from .llm.store import Failure, Reason, Request, Response, Store, check_response
from .pipeline import one_line
from .tasks.grounding import Reading, Status, load_readings

_MOST_FAILURES = 10  # in a row, of a model that is asked one by one
_SECRET = re.compile(
    r"api_?key|secret|password|authorization|credential", re.IGNORECASE
)

STORE = "responses.db"  # beside a step's output, unless a config names a store


class Question(NamedTuple):
    """What an llm component asks about a doc.

    name (str): What the doc is, for messages, e.g. "Text 3".
    prompts (List[str]): The prompt for each of the doc's shards.
    shards (List[Doc]): The shards.
    """

    name: str
    prompts: list[str]
    shards: list[Doc]


class Answer(NamedTuple):
    """What a model said about a doc.

    doc (Doc): The doc, with what the task read from the answer.
    prompts (List[str]): The prompt for each of the doc's shards.
    readings (Optional[List[Reading]]): What became of each mention and line, or None
        if the task keeps no account of it.
    failure (Optional[Failure]): Why there is no answer that can be used, if so.
    """

    doc: Doc
    prompts: list[str]
    readings: list[Reading] | None
    failure: Failure | None


@dataclass
class Failures:
    """Answers that a step had to do without.

    asked (int): Number of answers that it wanted.
    rows (List[Dict[str, str]]): id, voter, reason and detail of each that it has not.
    """

    asked: int = 0
    rows: list[dict[str, str]] = field(default_factory=list)

    def add(self, id_: str, voter: str, failure: Failure | None) -> None:
        """Count an answer, and keep why it cannot be used."""
        self.asked += 1
        if failure is not None:
            row = {"id": id_, "voter": voter, "reason": failure.reason.value}
            self.rows.append({**row, "detail": failure.detail})

    def count(self) -> Counter[str]:
        """RETURNS (Counter[str]): Number of failures by reason."""
        return Counter(row["reason"] for row in self.rows)

    def check(self, at_most: float, path: Path) -> None:
        """Check that there are not too many.

        at_most (float): Share of the answers that may fail.
        path (Path): Where they are listed, for the message.
        RAISES (TooManyFailures): If there are more.
        """
        if len(self.rows) > at_most * self.asked:
            reasons = ", ".join(f"{r}: {n}" for r, n in self.count().most_common())
            raise TooManyFailures(
                f"{len(self.rows)} of {self.asked} answers failed ({reasons}): more "
                f"than --max-failures {at_most:g}. They are listed in {path}; the "
                "other answers are stored. Mend the cause, allow more, or have cut and "
                "empty ones asked anew (instaner responses prune --failed)."
            )

    def check_some(self, path: Path) -> None:
        """Check that it is not failures that left nothing.

        path (Path): Where they are listed, for the message.
        RAISES (TooManyFailures): If all answers failed.
        """
        if self.rows and len(self.rows) == self.asked:
            raise TooManyFailures(
                f"All {self.asked} answers failed. They are listed in {path}."
            )

    def write(self, path: Path) -> None:
        """Write the failures as JSONL."""
        with write_whole(path) as part:
            srsly.write_jsonl(part, self.rows)


class TooManyFailures(InstaNERError):
    """Raised when a step had to do without too many answers."""


class Model:
    """A model of an llm component, whatever it is: its answers are fetched first, and
    recalled then.

    nlp (Language): The pipeline.
    name (str): Name of the llm component.
    llm (LLMWrapper): The component.
    store (Path): Store for the answers of a model that has none.
    source (Union[Chat, Replay, Foreign]): What answers.
    """

    def __init__(
        self, nlp: Language, name: str, llm: LLMWrapper, *, store: Path
    ) -> None:
        self.name = name
        self.llm = llm
        self.source: Chat | Replay | Foreign
        if isinstance(llm._model, Chat):
            self.source = llm._model
            if self.source.store is None:
                self.source.store = Store(store)
        elif isinstance(llm._model, Replay):
            self.source = llm._model
        else:
            config = nlp.get_pipe_config(name).get("model", {})
            self.source = Foreign(llm._model, config, Store(store))

    def make_questions(self, docs: Iterable[tuple[str, Doc]]) -> Iterator[Question]:
        """Make the prompts for docs.

        docs (Iterable[Tuple[str, Doc]]): Names and docs.
        YIELDS (Question): One for each doc, in order.
        RAISES (InstaNERError): If a prompt cannot be made.
        """
        names: deque[str] = deque()
        own: deque[Doc] = deque()

        def take() -> Iterator[Doc]:
            for name, doc in docs:
                names.append(name)
                own.append(doc)
                yield doc

        task, model = self.llm.task, self.llm._model
        sharding = supports_sharding(task)
        length = (
            model.context_length if isinstance(model, ModelWithContextLength) else None
        )
        try:
            for prompted in (
                task.generate_prompts(take(), length)
                if sharding
                else task.generate_prompts(take())
            ):
                name, doc = names.popleft(), own.popleft()
                if sharding:
                    prompts, shards = prompted
                    yield Question(name, list(prompts), list(shards))
                else:
                    yield Question(name, [prompted], [doc])
        except ValueError as err:  # of InstaNER's errors, and spacy-llm's about shards
            name = names[0] if names else self.name
            raise InstaNERError(f"{name}: {one_line(err)}") from err

    def fetch(
        self,
        docs: Iterable[tuple[str, Doc]],
        *,
        samples: int = 1,
        on_answer: Callable[[], object] = lambda: None,
    ) -> None:
        """Ask about docs, unless the answer is stored.

        docs (Iterable[Tuple[str, Doc]]): Names and docs.
        samples (int): How many answers to each prompt.
        on_answer (Callable[[], object]): Called for each answer, a shard's too.
        RAISES (InstaNERError): If nothing more can be asked.
        """
        prompts = (p for q in self.make_questions(docs) for p in q.prompts)
        self.fetch_prompts(prompts, samples=samples, on_answer=on_answer)

    def fetch_prompts(
        self,
        prompts: Iterable[str],
        *,
        samples: int = 1,
        on_answer: Callable[[], object] = lambda: None,
    ) -> None:
        """Ask prompts that need not be the task's, unless the answer is stored.

        prompts (Iterable[str]): The prompts.
        samples (int): How many answers to each.
        on_answer (Callable[[], object]): Called for each answer.
        RAISES (InstaNERError): If nothing more can be asked.
        """
        requests = ((prompt, k) for prompt in prompts for k in range(samples))
        self.fetch_requests(requests, on_answer=on_answer)

    def fetch_requests(
        self,
        requests: Iterable[tuple[str, int]],
        *,
        on_answer: Callable[[], object] = lambda: None,
    ) -> None:
        """Ask for certain samples, unless the answer is stored.

        requests (Iterable[Tuple[str, int]]): Prompts, each with the number of a sample.
        on_answer (Callable[[], object]): Called for each answer.
        RAISES (InstaNERError): If nothing more can be asked.
        """
        if not isinstance(self.source, Replay):
            self.source.fetch(requests, on_answer=on_answer)

    def read(
        self, docs: Iterable[tuple[str, Doc]], *, sample: int = 0
    ) -> Iterator[Answer]:
        """Read the answers about docs that were fetched.

        docs (Iterable[Tuple[str, Doc]]): Names and docs; what the task sets on the docs
            is overwritten.
        sample (int): Which of several answers, from 0.
        YIELDS (Answer): Answers in the order of the docs.
        RAISES (InstaNERError): If an answer is not there.
        """
        task = self.llm.task
        sharding = supports_sharding(task)
        for question in self.make_questions(docs):
            outcomes = []
            for prompt in question.prompts:
                try:
                    outcomes.append(self.source.recall(prompt, sample))
                except InstaNERError as err:
                    raise InstaNERError(f"{question.name}: {err}") from err
            prompts = [str(prompt) for prompt in question.prompts]
            failures = [o for o in outcomes if isinstance(o, Failure)]
            if failures:
                yield Answer(question.shards[0], prompts, [], failures[0])
                continue
            texts = [o.text for o in outcomes if isinstance(o, Response)]
            shards: Any = question.shards
            inputs = [shards] if sharding else shards
            (doc,) = task.parse_responses(inputs, [texts])
            readings = load_readings(doc)
            yield Answer(doc, prompts, readings, _check_readings(readings))

    def make_bill(self) -> dict[str, Any]:
        """Sum up what the answers took that were asked for.

        RETURNS (Dict[str, Any]): model (None for a recording), stored (answers that
            were not asked for anew), and, of the others: answers, prompt_tokens,
            completion_tokens (estimated for a recording), cost (US dollars; None if not
            known), kwh and kg_co2e (ranges; None if not known).
        """
        model = self.source
        if isinstance(model, Replay):
            return {"component": self.name, "model": None, **model.make_bill()}
        asked, stored = model.asked, model.recalled["answers"]
        names = ("answers", "prompt_tokens", "completion_tokens")
        bill = {"component": self.name, "stored": stored}
        bill.update({name: asked[name] for name in names})
        if isinstance(model, Foreign):
            return {**bill, "model": model.name, "cost": None}
        number = asked["answers"]
        settings = model.settings
        footprint = number and estimate_footprint(
            settings.name,
            settings.find_url(),
            number,
            asked["completion_tokens"] / number,
            asked["seconds"] / number,
        )
        return {
            **bill,
            "model": settings.name,
            "cost": None if asked["unpriced"] else round(asked["cost"], 6),
            "kwh": footprint.kwh if footprint else None,
            "kg_co2e": footprint.kg_co2e if footprint else None,
        }


class Foreign:
    """Any other spacy-llm model: it is asked one prompt after the other, but what it
    answered is stored, too.

    model (Callable): The model.
    config (Dict[str, Any]): Its config, which decides its answers.
    store (Store): Where they are put.
    """

    def __init__(self, model: Any, config: dict[str, Any], store: Store) -> None:
        function = config.get("@llm_models", type(model).__name__)
        self.name = "/".join(filter(None, (function, str(config.get("name") or ""))))
        self.asked: Counter[str] = Counter()
        self.recalled: Counter[str] = Counter()
        self.store = store
        self._call = model
        self._config = _hide_secrets(config)
        self._failures: dict[str, Failure] = {}

    def fetch(
        self, requests: Iterable[tuple[str, int]], *, on_answer: Callable[[], object]
    ) -> None:
        """Ask for what is not stored; see Chat.fetch."""
        stale = set(self._failures)  # asked for anew, if asked for
        failed_in_a_row = 0
        for prompt, sample in requests:
            request = self.make_request(prompt, sample)
            if request.key in stale:
                stale.remove(request.key)
                self._failures.pop(request.key, None)
            if self.store.get(request.key) is not None:
                self.recalled["answers"] += 1
            elif request.key not in self._failures:
                outcome = self._ask(prompt)
                if isinstance(outcome, Response):
                    self.store.put(request, outcome)
                    self.asked["answers"] += 1
                    failed_in_a_row = 0
                else:
                    failed_in_a_row += 1
                    worked = self.asked["answers"] or self.store.has_like(request)
                    if not worked or failed_in_a_row >= _MOST_FAILURES:
                        raise InstaNERError(outcome.detail)
                    self._failures[request.key] = outcome
            on_answer()

    def recall(self, prompt: str, sample: int) -> Response | Failure:
        """Get an answer that was fetched; see Chat.recall."""
        key = self.make_request(prompt, sample).key
        if key in self._failures:
            return self._failures[key]
        response = self.store.get(key)
        if response is None:
            raise InstaNERError(
                f"No answer (sample {sample}) of {self.name} is stored."
            )
        return check_response(response)

    def _ask(self, prompt: str) -> Response | Failure:
        start = time.perf_counter()
        try:
            ((answer,),) = self._call([[prompt]])
        except Exception as err:  # whatever another library raises
            detail = f"{self.name} did not answer: {one_line(err)}"
            return Failure(Reason.SERVER, detail)
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        seconds = round(time.perf_counter() - start, 3)
        return Response(str(answer), seconds=seconds, created=now)

    def make_request(self, prompt: str, sample: int) -> Request:
        """RETURNS (Request): What the answer is stored under."""
        messages = [{"role": "user", "content": str(prompt)}]
        return Request(self.name, messages, self._config, sample)


def _hide_secrets(value: Any) -> Any:
    """What decides an answer is stored; the keys in a config do not decide it."""
    if isinstance(value, dict):
        return {k: _hide_secrets(v) for k, v in value.items() if not _SECRET.search(k)}
    return value


def _check_readings(readings: list[Reading] | None) -> Failure | None:
    # An answer of which no line could be read says nothing, not even "no entities".
    if not readings or any(r.status is not Status.UNREADABLE for r in readings):
        return None
    return Failure(Reason.UNREADABLE, readings[0].text[:100])
