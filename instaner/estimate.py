"""What a run will take, before it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc

from .asking import Model
from .corpus import read_train_texts
from .generate import make_brief_docs, make_generator
from .llm.chat import Chat
from .llm.cost import BYTES_PER_TOKEN, Footprint, estimate_footprint
from .llm.replay import Replay
from .llm.store import Request
from .pipeline import get_llms
from .tasks.generate import GenerateTask
from .voters import Teacher


@dataclass
class Estimate:
    """What an llm component will take. None: not known.

    component (str): Its name.
    model (str): Name of its model.
    docs (int): Texts or briefs.
    requests (int): Answers that are wanted: a request for each shard and sample.
    stored (int): How many of them are stored already, or recorded.
    repeated (int): How many of them ask the same as another.
    basis (int): Answers in the store that the estimate rests on: of the same model,
        parameters and constant part of the prompt.
    prompt_tokens (int): Of the requests that are not stored.
    completion_tokens (Optional[int]): Of their answers.
    cost (Optional[float]): US dollars.
    seconds (Optional[float]): At the limits that the config sets.
    footprint (Optional[Footprint]): Energy and greenhouse gases.
    """

    component: str
    model: str
    docs: int = 0
    requests: int = 0
    stored: int = 0
    repeated: int = 0
    basis: int = 0
    prompt_tokens: int = 0
    completion_tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None
    footprint: Footprint | None = None


def estimate(
    nlp: Language, texts: Path, *, store: Path, samples: int = 1, pilot: int = 0
) -> list[Estimate]:
    """Estimate what it takes to annotate texts, or to generate from briefs. The prompts
    are made as for the run; how long answers are is known from those in the store.

    nlp (Language): Teacher or generator.
    texts (Path): JSONL of texts, or of briefs for a generator.
    store (Path): Store for the answers of models that have none.
    samples (int): Number of answers to ask each llm component for.
    pilot (int): Number of texts, evenly from all of them, to ask about first. Their
        answers are stored, so nothing is paid twice.
    RETURNS (List[Estimate]): One for each llm component.
    RAISES (InstaNERError): On broken texts, or if the pilot cannot be asked.
    """
    if any(isinstance(llm.task, GenerateTask) for _, llm in get_llms(nlp)):
        models = [make_generator(nlp, store=store)]

        def make_docs() -> Iterator[tuple[str, Doc]]:
            return make_brief_docs(nlp, texts)
    else:
        teacher = Teacher(nlp, store=store)
        models = teacher.models

        def make_docs() -> Iterator[tuple[str, Doc]]:
            return teacher.make_docs(read_train_texts(texts))

    total = sum(1 for _ in make_docs()) if pilot else 0
    chosen = {number * total // pilot for number in range(pilot)}
    estimates = []
    seen: set[str] = set()
    for model in models:
        if total:
            docs = (doc for number, doc in enumerate(make_docs()) if number in chosen)
            model.fetch(docs)
        estimates.append(_estimate(model, make_docs(), samples, seen))
    return estimates


def _estimate(
    model: Model, docs: Iterator[tuple[str, Doc]], samples: int, seen: set[str]
) -> Estimate:
    source = model.source
    result = Estimate(model.name, "a recording")
    request: Request | None = None
    asked = n_bytes = 0
    if not isinstance(source, Replay):
        result.model = source.name
    for question in model.make_questions(docs):
        result.docs += 1
        result.requests += len(question.prompts) * samples
        for prompt in question.prompts:
            for sample in range(samples):
                if isinstance(source, Replay):
                    source.recall(prompt, sample)
                    result.stored += 1
                    continue
                request = source.make_request(prompt, sample)
                key = request.key
                if source.store is not None and source.store.get(key) is not None:
                    result.stored += 1
                    continue
                if key in seen:
                    result.repeated += 1
                    continue
                seen.add(key)
                asked += 1
                n_bytes += len(request.prompt.encode("utf8"))
    if isinstance(source, Chat) and request is not None:
        _add_costs(result, source, request, asked, n_bytes)
    else:
        result.prompt_tokens = round(n_bytes / BYTES_PER_TOKEN)
    return result


def _add_costs(
    result: Estimate, chat: Chat, request: Request, asked: int, n_bytes: int
) -> None:
    average = chat.store.average(request) if chat.store is not None else None
    per_byte = average["prompt_tokens_per_byte"] if average else 1 / BYTES_PER_TOKEN
    result.prompt_tokens = round(n_bytes * per_byte)
    if average is None or not asked:
        return
    settings = chat.settings
    result.basis = int(average["answers"])
    answer, seconds = average["completion_tokens"], average["seconds"]
    result.completion_tokens = round(answer * asked)
    price = settings.make_price()
    if price is not None:
        prompt = round(result.prompt_tokens / asked)
        result.cost = price(prompt, 0, max(1, round(answer))) * asked
    tokens = result.prompt_tokens + result.completion_tokens
    result.seconds = max(
        seconds * asked / settings.max_concurrency,
        seconds,
        60 * asked / (settings.requests_per_minute or float("inf")),
        60 * tokens / (settings.tokens_per_minute or float("inf")),
    )
    url = settings.find_url()
    result.footprint = estimate_footprint(settings.name, url, asked, answer, seconds)
