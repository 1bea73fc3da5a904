"""From briefs to texts with the spans that their writer marked."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import srsly
from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from .asking import STORE, Answer, Failures, Model, TooManyFailures
from .errors import InstaNERError
from .files import get_field, read_jsonl, write_whole
from .pipeline import get_llms
from .tasks.generate import BRIEF, TEXTS, GenerateTask
from .tasks.grounding import Reading


@dataclass
class Summary:
    """What came of a generation.

    briefs (int): Number of briefs.
    texts (int): Number of texts.
    readings (Counter[Reading]): What became of each mark, and of each line that could
        not be read.
    failures (Failures): Answers that failed.
    bills (List[Dict[str, Any]]): What the answers took; see asking.Model.make_bill.
    """

    briefs: int = 0
    texts: int = 0
    readings: Counter[Reading] = field(default_factory=Counter)
    failures: Failures = field(default_factory=Failures)
    bills: list[dict[str, Any]] = field(default_factory=list)


def generate(
    nlp: Language,
    briefs: Path,
    output: Path,
    *,
    max_failures: float = 0.05,
    progress: bool = False,
    on_bills: Callable[[list[dict[str, Any]]], object] = lambda bills: None,
) -> Summary:
    """Have a model write texts from briefs, and take the marks out of them. Answers are
    kept in the store of the model's config, else in responses.db beside the output:
    after a crash, or an error, a second run asks only for the others.

    nlp (Language): Pipeline with an llm component whose task is instaner.Generate.v1.
    briefs (Path): JSONL with an id and what the template needs of each brief. A brief
        whose split is "test" makes texts for testing, which are not annotated.
    output (Path): JSONL with id, brief, split, text and spans of each text. Answers
        that failed are listed beside it, in NAME.failed.jsonl.
    max_failures (float): Share of the answers that may fail, between 0 and 1.
    progress (bool): Show a progress bar.
    on_bills (Callable[[List[Dict[str, Any]]], object]): Called with what the answers
        took when all are asked for, also if the run ends in an error.
    RETURNS (Summary): What came of it.
    RAISES (InstaNERError): On a broken brief, a pipeline that does not generate, when
        too many answers fail, or no text came of it.
    """
    model = make_generator(nlp, store=output.with_name(STORE))
    rows = list(_read_briefs(briefs))
    summary = Summary(len(rows))
    failed = get_failed(output)
    try:
        with write_whole(output) as part:
            try:
                with tqdm(
                    total=len(rows),
                    desc="Generating",
                    unit="brief",
                    disable=not progress,
                ) as bar:
                    model.fetch(make_brief_docs(nlp, briefs), on_answer=bar.update)
            finally:
                summary.bills = [bill] if (bill := model.make_bill()) else []
                on_bills(summary.bills)
            answers = model.read(make_brief_docs(nlp, briefs))
            srsly.write_jsonl(part, _make_texts(model.name, rows, answers, summary))
            summary.failures.check(max_failures, failed)
            summary.failures.check_some(failed)
            if not summary.texts:
                raise InstaNERError(
                    f"No text came of the {len(rows)} briefs in {briefs}. Check the "
                    "briefs and the model's answers."
                )
    except TooManyFailures:
        summary.failures.write(failed)
        raise
    if summary.failures.rows:
        summary.failures.write(failed)
    else:
        failed.unlink(missing_ok=True)
    return summary


def get_failed(output: Path) -> Path:
    """RETURNS (Path): Where the failures of a generation are listed."""
    return output.with_name(f"{output.stem}.failed.jsonl")


def make_generator(nlp: Language, *, store: Path) -> Model:
    """Find the llm component that generates.

    nlp (Language): The pipeline.
    store (Path): Store for the answers of a model that has none.
    RETURNS (Model): Its model.
    RAISES (InstaNERError): If there is not one.
    """
    llms = [pair for pair in get_llms(nlp) if isinstance(pair[1].task, GenerateTask)]
    if len(llms) != 1:
        raise InstaNERError(
            f"The generator has {len(llms)} llm components whose task is "
            "instaner.Generate.v1. It needs one."
        )
    return Model(nlp, *llms[0], store=store)


def make_brief_docs(nlp: Language, briefs: Path) -> Iterator[tuple[str, Doc]]:
    """Make the docs that stand for briefs.

    nlp (Language): The pipeline.
    briefs (Path): JSONL of briefs.
    YIELDS (Tuple[str, Doc]): Names, for messages, and docs.
    RAISES (InstaNERError): On a broken brief.
    """
    for brief in _read_briefs(briefs):
        doc = Doc(nlp.vocab)
        doc.user_data[BRIEF] = brief
        yield f"Brief {brief['id']}", doc


def _make_texts(
    voter: str,
    briefs: Iterable[dict[str, Any]],
    answers: Iterable[Answer],
    summary: Summary,
) -> Iterator[dict[str, Any]]:
    for brief, answer in zip(briefs, answers, strict=True):
        summary.failures.add(brief["id"], voter, answer.failure)
        summary.readings.update(answer.readings or [])
        if answer.failure is not None:
            continue
        for number, (text, spans) in enumerate(answer.doc.user_data[TEXTS]):
            summary.texts += 1
            yield {
                "id": f"{brief['id']}-{number:02}",
                "brief": brief["id"],
                "split": brief.get("split", "train"),
                "text": text,
                "spans": [
                    {"start": start, "end": end, "label": label}
                    for start, end, label in spans
                ],
            }


def _read_briefs(path: Path) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for number, row in read_jsonl(path):
        brief_id = get_field(row, "id", path, number)
        if brief_id in seen:
            raise InstaNERError(
                f'{path}, line {number}: the id "{brief_id}" occurs a second time. '
                "Give each brief its own."
            )
        seen.add(brief_id)
        yield row
