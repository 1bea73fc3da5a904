"""From briefs to texts with the spans that their writer marked."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import srsly
from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from .errors import InstaNERError
from .files import get_field, read_jsonl, write_whole
from .pipeline import get_llms
from .tasks.generate import BRIEF, TEXTS, GenerateTask
from .tasks.grounding import Reading, load_readings


def generate(
    nlp: Language, briefs: Path, output: Path, *, progress: bool = False
) -> tuple[int, int, Counter[Reading]]:
    """Have a model write texts from briefs, and take the marks out of them.

    nlp (Language): Pipeline with an llm component whose task is instaner.Generate.v1.
    briefs (Path): JSONL with an id and what the template needs of each brief. A brief
        whose split is "test" makes texts for testing, which are not annotated.
    output (Path): JSONL with id, brief, split, text and spans of each text.
    progress (bool): Show a progress bar.
    RETURNS (Tuple[int, int, Counter[Reading]]): Numbers of briefs and texts, and what
        became of each mark, and of each line that could not be read.
    RAISES (InstaNERError): On a broken brief, a pipeline that does not generate, or
        when no text came of it.
    """
    llms = [llm for _, llm in get_llms(nlp) if isinstance(llm.task, GenerateTask)]
    if len(llms) != 1:
        raise InstaNERError(
            f"The generator has {len(llms)} llm components whose task is "
            "instaner.Generate.v1. It needs one."
        )
    rows = list(_read_briefs(briefs))
    readings: Counter[Reading] = Counter()
    count = 0

    def write_texts() -> Iterator[dict[str, Any]]:
        nonlocal count
        bar = tqdm(rows, desc="Generating", unit="brief", disable=not progress)
        for brief in bar:
            doc = Doc(nlp.vocab)
            doc.user_data[BRIEF] = brief
            try:
                doc = llms[0](doc)
            except InstaNERError as err:
                raise InstaNERError(f"Brief {brief['id']}: {err}") from err
            readings.update(load_readings(doc) or [])
            for number, (text, spans) in enumerate(doc.user_data[TEXTS]):
                count += 1
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

    with write_whole(output) as part:
        srsly.write_jsonl(part, write_texts())
        if not count:
            raise InstaNERError(
                f"No text came of the {len(rows)} briefs in {briefs}. Check the "
                "briefs and the model's answers."
            )
    return len(rows), count, readings


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
