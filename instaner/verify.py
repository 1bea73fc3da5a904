"""Asking the teacher again about what is disputed, and what its answers decide."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from spacy.tokens import Doc

from .asking import Model
from .llm.store import Failure, Reason, Response, hash_prompt
from .recheck import Suspect
from .targets import ENTS, Target, is_category
from .tasks.verify import Case, Span, make_prompt, read_verdict
from .vote import Candidate, Standing

AGAIN = "again"  # of the voter that stands for a teacher's second thoughts


class Verdict(NamedTuple):
    """What became of a case.

    spans (Optional[Tuple[Span, ...]]): The spans at its place; None if nothing has more
        than half of the answers.
    voters (Tuple[str, ...]): Who decided so.
    prompts (Dict[str, List[str]]): SHA-256 of the prompt, by voter.
    failures (Dict[str, Optional[Failure]]): Why a voter's answer cannot be used, if so.
    """

    spans: tuple[Span, ...] | None
    voters: tuple[str, ...]
    prompts: dict[str, list[str]]
    failures: dict[str, Failure | None]


def find_cases(
    text: str,
    candidates: Iterable[Candidate],
    ballots: Mapping[str, Iterable[Span]],
    target: Target = ENTS,
) -> list[Case]:
    """Find the places in a text where spans are disputed, and what voters read there.

    text (str): The text.
    candidates (Iterable[Candidate]): Candidates with their standing.
    ballots (Mapping[str, Iterable[Span]]): What each voter named.
    target (Target): What is annotated.
    RETURNS (List[Case]): A case for each group of overlapping candidates of which one
        is disputed; its readings are those of the voters, the most frequent first,
        and none, unless a text has to have a category.
    """
    groups: list[list[Candidate]] = []
    for candidate in sorted(candidates):
        if not groups or candidate.start >= max(c.end for c in groups[-1]):
            groups.append([])
        groups[-1].append(candidate)
    cases = []
    for group in groups:
        if all(candidate.standing is not Standing.DISPUTED for candidate in group):
            continue
        start, end = group[0].start, max(candidate.end for candidate in group)
        readings = Counter(
            tuple(sorted(s for s in set(spans) if start <= s[0] < end))
            for spans in ballots.values()
        )
        ordered = [reading for reading, _ in readings.most_common() if reading]
        none = [] if target.exclusive else [()]
        cases.append(Case(text, start, end, (*ordered, *none)))
    return cases


def make_case(text: str, suspect: Suspect) -> Case:
    """RETURNS (Case): What to ask about a suspected label error: is it as it stands, as
    the student sees it, or, unless both see a category, nothing?
    """
    readings = dict.fromkeys((suspect.given, suspect.predicted, ()))
    if is_category(suspect[1:]) and suspect.given and suspect.predicted:
        del readings[()]
    return Case(text, suspect.start, suspect.end, tuple(readings))


def fetch_verdicts(
    models: Iterable[Model],
    cases: Callable[[], Iterable[Case]],
) -> None:
    """Ask every model about cases, unless its answer is stored.

    models (Iterable[Model]): The teacher's models.
    cases (Callable[[], Iterable[Case]]): Gives the cases, once for each model.
    RAISES (InstaNERError): If nothing more can be asked.
    """
    for model in models:
        model.fetch_prompts(make_prompt(model.llm.task, case) for case in cases())


def get_verdict(
    models: Iterable[Model], doc: Doc, candidates: Iterable[Candidate], case: Case
) -> Verdict:
    """Read what the models answered about a case.

    models (Iterable[Model]): The teacher's models.
    doc (Doc): Doc of the case's text.
    candidates (Iterable[Candidate]): Its candidates. An answer that contradicts one
        that is trusted, outside of the place, cannot be used.
    case (Case): The case.
    RETURNS (Verdict): What is decided.
    RAISES (InstaNERError): If an answer was not fetched.
    """
    trusted = [
        c
        for c in candidates
        if c.standing is Standing.TRUSTED
        and not (c.start < case.end and case.start < c.end)
    ]
    votes: dict[tuple[Span, ...], list[str]] = {}
    prompts: dict[str, list[str]] = {}
    failures: dict[str, Failure | None] = {}
    for model in models:
        voter = f"{model.name}/{AGAIN}"
        prompt = make_prompt(model.llm.task, case)
        prompts[voter] = [hash_prompt(prompt)]
        outcome = model.source.recall(prompt, 0)
        if isinstance(outcome, Response):
            spans = read_verdict(model.llm.task, case, outcome.text)
            if spans is not None and all(
                (is_category(span) or doc.char_span(*span) is not None)
                and not any(c.start < span[1] and span[0] < c.end for c in trusted)
                for span in spans
            ):
                votes.setdefault(spans, []).append(voter)
                failures[voter] = None
                continue
            outcome = Failure(Reason.UNREADABLE, outcome.text[:100])
        failures[voter] = outcome
    for spans, voters in votes.items():
        if 2 * len(voters) > sum(map(len, votes.values())):
            return Verdict(spans, tuple(voters), prompts, failures)
    return Verdict(None, (), prompts, failures)


def settle(
    candidates: Iterable[Candidate], case: Case, verdict: Verdict
) -> list[Candidate]:
    """Let a verdict decide what is at its place.

    candidates (Iterable[Candidate]): A text's candidates.
    case (Case): The case.
    verdict (Verdict): The verdict on it.
    RETURNS (List[Candidate]): Candidates in the order of the text: at the place those
        of the verdict are trusted, and all others dropped.
    """
    if verdict.spans is None:
        return list(candidates)
    settled = {}
    for candidate in candidates:
        span = candidate[:3]
        at_place = candidate.start < case.end and case.start < candidate.end
        overlaps = any(
            start < candidate.end and candidate.start < end
            for start, end, _ in verdict.spans
        )
        if span in verdict.spans:
            candidate = candidate._replace(
                voters=(*candidate.voters, *verdict.voters),
                standing=Standing.TRUSTED,
                score=1.0 if is_category(span) else candidate.score,
            )
        elif at_place or overlaps:
            candidate = candidate._replace(
                standing=Standing.DROPPED,
                score=0.0 if is_category(span) else candidate.score,
            )
        settled[span] = candidate
    for span in verdict.spans:
        if span not in settled:
            settled[span] = Candidate(*span, verdict.voters, Standing.TRUSTED)
    return sorted(settled.values(), key=lambda candidate: candidate[:3])
