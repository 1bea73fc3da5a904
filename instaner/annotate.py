"""Texts × voters → annotated shards."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from .agreement import Agreement
from .asking import STORE, Failures, TooManyFailures
from .corpus import PROVENANCE, Text, read_texts, read_train_texts, write_shards
from .decisions import HUMAN, REVIEWS, Decision, Decisions, get_ballots, is_rejected
from .errors import InstaNERError
from .files import write_whole
from .llm.store import Failure
from .recheck import find_suspects, import_cleanlab
from .targets import ENTS, Target, is_category
from .tasks.grounding import Reading
from .tasks.verify import Case
from .verify import Verdict, fetch_verdicts, find_cases, get_verdict, make_case, settle
from .vote import (
    Candidate,
    Dispute,
    Offsets,
    Policy,
    Reliability,
    Remedy,
    Rule,
    Standing,
    get_component,
    read_policy,
    set_marks,
    vote,
)
from .voters import Opinions, Teacher, find_reasons

FAILED = "failed.jsonl"


@dataclass
class Summary:
    """What came of an annotation.

    voters (List[str]): All that could vote.
    target (Target): What they annotate.
    left_out (List[str]): Components that annotate something else, and were not asked.
    vote (Dict[str, Any]): The policy for votes.
    texts (int): Texts annotated.
    held_out (int): Texts left out because they are kept for testing.
    reviewed (int): Other texts that people decided about on the review page.
    rejected (List[str]): Ids of those of them that were left out, because more people
        reject than accept them.
    unanswered (List[str]): Ids of texts left out because no teacher's answer about them
        can be used.
    disputed (List[str]): Ids of texts left out because a span in them is disputed.
    failures (Failures): Answers that failed.
    bills (List[Dict[str, Any]]): What the answers took; see asking.Model.make_bill.
    readings (Counter[Tuple[str, str, str]]): Mentions and lines by voter, status and
        label.
    unread (List[Dict[str, str]]): Each mention and line that made no span: the text's
        id, voter, status, surface or line, and label.
    standings (Counter[Tuple[str, str]]): Spans by label and standing.
    disputes (Counter[str]): Disputed spans by what is disputed.
    agreement (Agreement): How far the voters agree.
    asked_again (Counter[str]): Places that were asked about again, by what came of it.
    rechecked (List[Dict[str, Any]]): Each place that looked like a label error: the
        text's id, its score, the words, and the spans before, as the student sees it,
        and after.
    unaccounted (Set[str]): Voters whose task keeps no account of what it cannot read.
    """

    voters: list[str] = field(default_factory=list)
    target: Target = ENTS
    left_out: list[str] = field(default_factory=list)
    vote: dict[str, Any] = field(default_factory=dict)
    texts: int = 0
    held_out: int = 0
    reviewed: int = 0
    rejected: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    disputed: list[str] = field(default_factory=list)
    failures: Failures = field(default_factory=Failures)
    bills: list[dict[str, Any]] = field(default_factory=list)
    readings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unread: list[dict[str, str]] = field(default_factory=list)
    standings: Counter[tuple[str, str]] = field(default_factory=Counter)
    disputes: Counter[str] = field(default_factory=Counter)
    agreement: Agreement = field(default_factory=Agreement)
    asked_again: Counter[str] = field(default_factory=Counter)
    rechecked: list[dict[str, Any]] = field(default_factory=list)
    unaccounted: set[str] = field(default_factory=set)

    def add_readings(
        self, text_id: str, voter: str, readings: list[Reading] | None
    ) -> None:
        """Count what became of an answer."""
        if readings is None:
            self.unaccounted.add(voter)
        for reading in readings or []:
            status = reading.status.value
            self.readings[voter, status, reading.label] += 1
            if reading.status.is_loss:
                row = {"id": text_id, "voter": voter, "status": status}
                row.update(text=reading.text, label=reading.label)
                self.unread.append(row)

    def add_answers(
        self,
        text_id: str,
        readings: Mapping[str, list[Reading] | None],
        failures: Mapping[str, Failure | None],
    ) -> None:
        """Count what became of the answers about a text, by voter."""
        for voter, read in readings.items():
            self.add_readings(text_id, voter, read)
        for voter, failure in failures.items():
            self.failures.add(text_id, voter, failure)

    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Count the spans of a text that is kept."""
        for candidate in candidates:
            self.standings[candidate.label, candidate.standing.value] += 1
            if candidate.standing is Standing.DISPUTED and candidate.dispute:
                self.disputes[candidate.dispute.value] += 1

    @property
    def disputed_share(self) -> float:
        """Share of the spans named that stay disputed."""
        named = sum(self.standings.values())
        disputed = sum(
            count
            for (_, standing), count in self.standings.items()
            if standing == Standing.DISPUTED.value
        )
        return disputed / named if named else 0.0

    def to_json(self) -> dict[str, Any]:
        """RETURNS (Dict[str, Any]): The summary as JSON values."""
        keys = ("voter", "status", "label", "count")
        return {
            **vars(self),
            "target": self.target._asdict(),
            "failures": dict(self.failures.count()),
            "readings": [
                dict(zip(keys, (*key, count), strict=True))
                for key, count in sorted(self.readings.items())
            ],
            "standings": [
                {"label": label, "standing": standing, "count": count}
                for (label, standing), count in sorted(self.standings.items())
            ],
            "disputed_share": round(self.disputed_share, 4),
            "agreement": self.agreement.to_json(),
            "unaccounted": sorted(self.unaccounted),
        }


def annotate(
    nlp: Language,
    texts: Path,
    output: Path,
    *,
    samples: int = 1,
    policy: Policy | None = None,
    recheck: int = 0,
    max_failures: float = 0.05,
    progress: bool = False,
    on_bills: Callable[[list[dict[str, Any]]], object] = lambda bills: None,
) -> Summary:
    """Have a teacher annotate texts, let all who name spans vote, and write the docs to
    shards: trusted spans are entities, disputed ones missing annotation, unless the
    policy says otherwise. Each voter's spans are in doc.spans, and how each span came
    about is in user_data["instaner"]. Categories are voted on likewise, and are in
    doc.cats. What people decided is read from reviews.db beside the output, if it is
    there (see decisions.Decisions): they are voters, human/NAME, and texts that they
    reject are left out. Answers are kept in the store of the teacher's config, else in
    responses.db beside the output: after a crash, or an error, a second run asks only
    for the others.

    nlp (Language): Pipeline with one or more llm components that set entities, or
        categories. Its other components that do, such as an entity_ruler or an older
        student, vote too.
    texts (Path): JSONL of texts; see corpus.read_texts.
    output (Path): Folder for the shards, and for failed.jsonl, if an answer failed.
    samples (int): Number of answers to ask each llm component for.
    policy (Optional[Policy]): How votes are counted. None: as section [vote] of the
        pipeline's config says.
    recheck (int): At how many places at most to ask again where a student, trained on
        the rest, disagrees with what came out (see recheck.find_suspects).
    max_failures (float): Share of the answers that may fail, between 0 and 1.
    progress (bool): Show progress bars.
    on_bills (Callable[[List[Dict[str, Any]]], object]): Called with what the answers
        took when all are asked for, also if the run ends in an error.
    RETURNS (Summary): What came of it.
    RAISES (InstaNERError): When the teacher cannot answer, too many answers fail, no
        text is annotated, or [vote] is wrong.
    """
    if recheck:
        import_cleanlab()  # before anything is paid for
    teacher = Teacher(nlp, samples=samples, store=output.with_name(STORE))
    if policy is None:
        policy = read_policy(nlp.config.get("vote", {}), teacher.target)
    run = _Run(teacher, policy, texts, output.with_name(REVIEWS), progress)
    summary = run.summary
    try:
        with write_whole(output, holds=["*.spacy", FAILED]) as part:
            try:
                run.fetch()
                docs = run.decide()
                if recheck:
                    held = list(docs)
                    run.check(max_failures, output)  # before more is paid for
                    docs = run.recheck(held, recheck)
                write_shards(docs, part)
            finally:
                summary.bills = [model.make_bill() for model in teacher.models]
                on_bills(summary.bills)
            run.check(max_failures, output)
            if summary.failures.rows:
                summary.failures.write(part / FAILED)
    except TooManyFailures:
        summary.failures.write(output / FAILED)
        raise
    return summary


class _Run:
    """One annotation: the answers are fetched, then read as often as it takes."""

    def __init__(
        self,
        teacher: Teacher,
        policy: Policy,
        texts: Path,
        reviews: Path,
        progress: bool,
    ) -> None:
        self.teacher = teacher
        self.policy = policy
        self.texts = texts
        self.target = teacher.target
        self.summary = Summary(
            list(teacher.voters),
            target=self.target,
            left_out=teacher.left_out,
            vote=asdict(policy),
            agreement=Agreement(self.target),
        )
        # Read once: a person may go on while texts are annotated.
        decisions = Decisions(reviews)
        self._decisions = {ds[0].text: ds for ds in decisions.read(self.target.attr)}
        decisions.close()
        self.count = 0
        for text in read_texts(texts):
            if text.split == "test":
                self.summary.held_out += 1
                continue
            decided = self._get_decisions(text)
            self.summary.reviewed += bool(decided)
            if is_rejected(decided):
                self.summary.rejected.append(text.id)
                continue
            self.count += 1
            names = [*text.votes, *get_ballots(decided)]
            self.summary.voters += [n for n in names if n not in self.summary.voters]
        self._progress = progress
        self._reliability = (
            Reliability(self.target) if policy.rule is Rule.ESTIMATED else None
        )
        _check_voters(policy, self.summary.voters)

    def fetch(self) -> None:
        """Ask all models about all texts."""
        for model in self.teacher.models:
            total = self.count * self.teacher.samples
            with self._bar(total, f"Asking {model.name}", "answer") as bar:
                docs = self.teacher.make_docs(self._read_texts())
                model.fetch(docs, samples=self.teacher.samples, on_answer=bar.update)

    def decide(self) -> Iterator[Doc]:
        """YIELDS (Doc): Annotated docs, in the order of the texts."""
        if self._reliability is not None:
            for opinions in self._read_opinions("Weighing"):
                self._reliability.add(opinions.doc, opinions.ballots)
            self._reliability.fit()
        if self.policy.disputed is Remedy.ASK:
            fetch_verdicts(
                self.teacher.models,
                lambda: (
                    case
                    for opinions in self._read_opinions("Asking again")
                    if not self._is_decided(opinions.ballots)
                    for case in self._vote(opinions)[1]
                ),
            )
        for opinions in self._read_opinions("Reading"):
            text, doc = opinions.text, opinions.doc
            self.summary.add_answers(text.id, opinions.readings, opinions.failures)
            self.summary.agreement.add(doc, opinions.ballots)
            if not _has_answer(opinions, self.policy):
                self.summary.unanswered.append(text.id)
                continue
            candidates, cases = self._vote(opinions)
            if self.policy.disputed is Remedy.TEXT and cases:
                self.summary.disputed.append(text.id)
                continue
            self._set_opinions(opinions)
            reasons = find_reasons(opinions, self.target)
            self._set_candidates(doc, candidates, opinions.ballots, reasons)
            is_decided = self._is_decided(opinions.ballots)
            if self.policy.disputed is Remedy.ASK and not is_decided:
                for case in cases:
                    self._settle(doc, case)
            self.summary.texts += 1
            self.summary.add_candidates(_get_candidates(doc)[0])
            yield doc

    def check(self, max_failures: float, output: Path) -> None:
        """Check that enough came of it.

        max_failures (float): Share of the answers that may fail.
        output (Path): The folder in which failures are listed, for the message.
        RAISES (InstaNERError): If too many answers failed, or no text is annotated.
        """
        summary = self.summary
        summary.failures.check(max_failures, output / FAILED)
        summary.failures.check_some(output / FAILED)
        if not summary.texts:
            count = self.count + summary.held_out + len(summary.rejected)
            raise InstaNERError(
                f"None of the {count} texts in {self.texts} was annotated "
                f"({summary.held_out} are kept for testing, {len(summary.rejected)} "
                f"were rejected, to {len(summary.unanswered)} no answer could be read, "
                f"{len(summary.disputed)} are disputed). Give texts, and check "
                "the teacher's answers."
            )

    def recheck(self, docs: list[Doc], number: int) -> Iterator[Doc]:
        """Ask again where a student that was trained on the other texts disagrees.

        docs (List[Doc]): Annotated docs.
        number (int): At how many places at most, the worst first.
        YIELDS (Doc): The docs, as the answers changed them.
        """
        suspects = [
            suspect
            for suspect in find_suspects(docs, self.target, progress=self._progress)
            if not self._is_decided(docs[suspect.doc].user_data[PROVENANCE]["voters"])
        ][:number]
        cases = [make_case(docs[s.doc].text, s) for s in suspects]
        fetch_verdicts(
            self.teacher.models,
            lambda: tqdm(
                cases, desc="Asking again", unit="place", disable=not self._progress
            ),
        )
        for suspect, case in zip(suspects, cases, strict=True):
            doc = docs[suspect.doc]
            verdict = self._settle(doc, case)
            after = None if verdict.spans is None else _show(doc, verdict.spans)
            self.summary.rechecked.append(
                {
                    "id": doc.user_data[PROVENANCE]["id"],
                    "score": round(suspect.score, 4),
                    "text": _get_surface(doc, suspect[1:3]),
                    "before": _show(doc, suspect.given),
                    "predicted": _show(doc, suspect.predicted),
                    "after": after,
                }
            )
        self.summary.standings.clear()
        self.summary.disputes.clear()
        for doc in docs:
            self.summary.add_candidates(_get_candidates(doc)[0])
            yield doc

    def _get_decisions(self, text: Text) -> list[Decision]:
        return self._decisions.get(text.text, [])

    def _read_texts(self) -> Iterator[Text]:
        """The texts to annotate, with what people marked in them."""
        for text in read_train_texts(self.texts):
            decided = self._get_decisions(text)
            if not is_rejected(decided):
                yield text._replace(votes={**text.votes, **get_ballots(decided)})

    def _is_decided(self, voters: Iterable[str]) -> bool:
        """Whether one of those who have the last word has an opinion. What they leave
        open, no teacher is asked about."""
        return any(map(self.policy.is_decisive, voters))

    def _read_opinions(self, description: str) -> Iterator[Opinions]:
        with self._bar(self.count, description, "text") as bar:
            for opinions in self.teacher.read(self._read_texts()):
                yield opinions
                bar.update()

    def _vote(self, opinions: Opinions) -> tuple[list[Candidate], list[Case]]:
        ballots = opinions.ballots
        candidates = vote(ballots, self.policy, self._reliability)
        cases = find_cases(opinions.text.text, candidates, ballots, self.target)
        return candidates, cases

    def _settle(self, doc: Doc, case: Case) -> Verdict:
        """Let the answers to a second question decide, and say so in the doc."""
        candidates, ballots = _get_candidates(doc)
        reasons = {
            (row["start"], row["end"], row["label"]): row["reasons"]
            for row in doc.user_data[PROVENANCE]["spans"]
        }
        verdict = get_verdict(self.teacher.models, doc, candidates, case)
        settled = settle(candidates, case, verdict)
        self._set_candidates(doc, settled, ballots, reasons)
        provenance = doc.user_data[PROVENANCE]
        for voter, prompts in verdict.prompts.items():
            provenance["prompts"].setdefault(voter, []).extend(prompts)
        provenance.setdefault("again", []).append(
            {
                "start": case.start,
                "end": case.end,
                "voters": verdict.voters,
                "spans": verdict.spans,
            }
        )
        self.summary.add_answers(provenance["id"], {}, verdict.failures)
        what = "category" if self.target.attr == "cats" else "entity"
        outcome = what if verdict.spans else f"no {what}"
        self.summary.asked_again["undecided" if verdict.spans is None else outcome] += 1
        return verdict

    def _set_opinions(self, opinions: Opinions) -> None:
        doc = opinions.doc
        for voter, ballot in opinions.ballots.items():
            if self.target.attr == "cats":
                continue  # they stand nowhere in the text
            spans = [doc.char_span(*span) for span in ballot]
            doc.spans[voter] = [span for span in spans if span is not None]
        doc.user_data[PROVENANCE] = {
            "id": opinions.text.id,
            "brief": opinions.text.brief,
            "voters": list(opinions.ballots),
            "prompts": opinions.prompts,
        }

    def _set_candidates(
        self,
        doc: Doc,
        candidates: list[Candidate],
        ballots: Mapping[str, Mapping[Offsets, str]],
        reasons: Mapping[Offsets, Mapping[str, str]],
    ) -> None:
        """Annotate, and say of each mark who voted for it, how it was found, and why
        they did, as far as they say so."""
        is_soft = self.policy.rule is Rule.SOFT
        set_marks(doc, candidates, self.target, soft=is_soft)
        doc.user_data[PROVENANCE]["spans"] = [
            {
                "start": c.start,
                "end": c.end,
                "label": c.label,
                "votes": {v: ballots.get(v, {}).get(c[:3], "") for v in c.voters},
                "reasons": {
                    voter: reason
                    for voter, reason in reasons.get(c[:3], {}).items()
                    if voter in c.voters
                },
                "standing": c.standing.value,
                "score": c.score,
                "dispute": c.dispute.value if c.dispute else None,
            }
            for c in candidates
        ]

    def _bar(self, total: int, description: str, unit: str) -> Any:
        return tqdm(
            total=total, desc=description, unit=unit, disable=not self._progress
        )


def _check_voters(policy: Policy, voters: Iterable[str]) -> None:
    known = {name for voter in voters for name in (voter, get_component(voter))}
    for name in (*policy.weights, *policy.decisive):
        if name not in known and name != HUMAN:  # people need not have marked anything
            raise InstaNERError(
                f'[vote] there is no voter "{name}". The voters are '
                f"{', '.join(sorted(known))}."
            )


def _has_answer(opinions: Opinions, policy: Policy) -> bool:
    # A text that only its writer, or a ruler, has an opinion on was not annotated.
    return any(v in opinions.prompts or policy.is_decisive(v) for v in opinions.ballots)


def _get_candidates(
    doc: Doc,
) -> tuple[list[Candidate], dict[str, dict[Offsets, str]]]:
    """What _set_candidates has set."""
    candidates = []
    ballots: dict[str, dict[Offsets, str]] = {}
    for row in doc.user_data[PROVENANCE]["spans"]:
        span = (row["start"], row["end"], row["label"])
        for voter, status in row["votes"].items():
            ballots.setdefault(voter, {})[span] = status
        candidates.append(
            Candidate(
                *span,
                voters=tuple(row["votes"]),
                standing=Standing(row["standing"]),
                score=row["score"],
                dispute=Dispute(row["dispute"]) if row["dispute"] else None,
            )
        )
    return candidates, ballots


def _show(doc: Doc, spans: Iterable[Offsets]) -> list[dict[str, str]]:
    return [{"text": _get_surface(doc, span), "label": span[2]} for span in spans]


def _get_surface(doc: Doc, place: Sequence[Any]) -> str:
    return doc.text if is_category(place) else doc.text[place[0] : place[1]]
