"""From several opinions about a text to spans, or categories, with a standing."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, NamedTuple

import numpy
from spacy.tokens import Doc

from .decisions import HUMAN, Decision, get_ballots, is_rejected
from .errors import InstaNERError
from .targets import ENTS, Offsets, Target

_NONE = ""  # the label of what a voter did not name
_EPSILON = 1e-9  # shares are sums of floats
_ROUNDS = 100
_CONVERGED = 1e-6
_SMOOTHING = 0.1  # pseudo-counts of each pair of labels


class Standing(str, Enum):
    """What a span's votes are worth."""

    TRUSTED = "trusted"
    DISPUTED = "disputed"
    DROPPED = "dropped"


class Dispute(str, Enum):
    """What voters disagree on about a span that is not trusted."""

    BOUNDARY = "boundary"  # another candidate overlaps it
    LABEL = "label"  # another candidate has its boundaries
    EXISTENCE = "existence"


class Rule(str, Enum):
    """Which spans are trusted."""

    SOFT = "soft"  # of categories: named more often than any other, but none is certain
    MAJORITY = "majority"  # named by more than half of the votes
    UNANIMOUS = "unanimous"  # by all
    THRESHOLD = "threshold"  # by the share `trust`
    ESTIMATED = "estimated"  # right with the probability `trust`


class Remedy(str, Enum):
    """What becomes of disputed spans."""

    MISSING = "missing"  # their tokens are missing annotation
    TEXT = "text"  # their text is left out
    MAJORITY = "majority"  # more than half of the votes, or of the probability, decides
    ASK = "ask"  # the teacher is asked about them


@dataclass(frozen=True)
class Policy:
    """How votes become standings: section [vote] of a teacher's config.

    rule (Rule): Which spans are trusted.
    trust (float): From which share of the votes (threshold) or which probability
        (estimated) on, between 0 and 1.
    drop (float): Up to which share, or probability, a span is dropped: its tokens are
        no entity. Below `trust`.
    disputed (Remedy): What becomes of the spans between.
    weights (Dict[str, float]): Weight of a voter's vote, by its name or its
        component's, where it is not 1. Not for `estimated`, which finds its own.
    decisive (List[str]): Voters, by their names or their components', whose spans,
        where they gave any opinion on a text, are taken as they are, e.g. people.
    """

    rule: Rule = Rule.UNANIMOUS
    trust: float = 0.9
    drop: float = 0.0
    disputed: Remedy = Remedy.MISSING
    weights: dict[str, float] = field(default_factory=dict)
    decisive: list[str] = field(default_factory=lambda: [HUMAN])

    def trusts(self, score: float) -> bool:
        """RETURNS (bool): Whether a share, or probability, makes a span trusted."""
        if self.rule in (Rule.MAJORITY, Rule.SOFT):
            return is_majority(score)
        return score >= (1 if self.rule is Rule.UNANIMOUS else self.trust) - _EPSILON

    def is_decisive(self, voter: str) -> bool:
        """RETURNS (bool): Whether a voter has the last word."""
        return voter in self.decisive or get_component(voter) in self.decisive


class Candidate(NamedTuple):
    """A mark that at least one voter named.

    start (int): First character.
    end (int): Character after the last.
    label (str): Label.
    voters (Tuple[str, ...]): Who named it, in the order of the ballots.
    standing (Standing): What the votes are worth.
    score (float): Share of the votes, or estimated probability.
    dispute (Optional[Dispute]): What the votes dispute about it, if they do.
    """

    start: int
    end: int
    label: str
    voters: tuple[str, ...]
    standing: Standing
    score: float = 1.0
    dispute: Dispute | None = None


def read_policy(section: Mapping[str, Any], target: Target = ENTS) -> Policy:
    """Read section [vote] of a config.

    section (Mapping[str, Any]): The section.
    target (Target): What is annotated, which decides the rule if there is none: that of
        categories is soft.
    RETURNS (Policy): The policy.
    RAISES (InstaNERError): On a name or a value that it cannot have.
    """
    names = [f.name for f in fields(Policy)]
    for name in section:
        if name not in names:
            raise InstaNERError(
                f'[vote] has no setting "{name}". It has {", ".join(names)}.'
            )
    values = dict(section)
    if target.attr == "cats":
        values.setdefault("rule", Rule.SOFT.value)
    for name, kind in (("rule", Rule), ("disputed", Remedy)):
        if name in values:
            try:
                values[name] = kind(values[name])
            except ValueError as err:
                options = ", ".join(option.value for option in kind)
                raise InstaNERError(
                    f'[vote] {name} = "{values[name]}": it has to be one of {options}.'
                ) from err
    if target.attr == "ents" and values.get("rule") is Rule.SOFT:
        raise InstaNERError(
            '[vote] rule = "soft" is for categories: the labels of entities cannot be '
            'shares. Take "majority".'
        )
    if "drop" in values and values.get("rule") is Rule.SOFT:
        raise InstaNERError('[vote] drop has no meaning where rule = "soft".')
    if "trust" in values and values.get("rule") not in (Rule.THRESHOLD, Rule.ESTIMATED):
        raise InstaNERError(
            '[vote] trust needs rule = "threshold" or "estimated"; the others have '
            "their own."
        )
    for name in ("trust", "drop"):
        value = values.get(name, 0)
        if not _is_number(value) or not 0 <= value <= 1:
            raise InstaNERError(f"[vote] {name} = {value!r}: it has to be 0 to 1.")
    weights = values.get("weights", {})
    if not isinstance(weights, dict) or not all(
        _is_number(weight) and 0 < weight < math.inf for weight in weights.values()
    ):
        raise InstaNERError(
            f"[vote] weights = {weights!r}: it has to give a voter's name a number "
            "above 0."
        )
    decisive = values.get("decisive", [])
    if not isinstance(decisive, list) or not all(isinstance(v, str) for v in decisive):
        raise InstaNERError(
            f"[vote] decisive = {decisive!r}: it has to be a list of voters' names."
        )
    policy = Policy(**values)
    if policy.trusts(policy.drop):
        raise InstaNERError(
            f"[vote] drop = {policy.drop:g}: what has that share of the votes is "
            "trusted. Give a lower one."
        )
    if weights and policy.rule is Rule.ESTIMATED:
        raise InstaNERError(
            '[vote] weights cannot be set where rule = "estimated" finds them.'
        )
    return policy


def vote(
    ballots: Mapping[str, Iterable[Offsets]],
    policy: Policy = Policy(),
    reliability: "Reliability | None" = None,
) -> list[Candidate]:
    """Give each mark that a voter named a standing. Trusted marks never overlap.

    ballots (Mapping[str, Iterable[Offsets]]): Marks that each voter named. A voter that
        has no opinion has no ballot.
    policy (Policy): How.
    reliability (Optional[Reliability]): That of the voters, for the rule "estimated".
    RETURNS (List[Candidate]): Every mark named, in the order of the text.
    RAISES (ValueError): If the rule is "estimated", and reliability is None.
    """
    if policy.rule is Rule.ESTIMATED and reliability is None:
        raise ValueError('The rule "estimated" needs the reliability of the voters.')
    decisive = {v: spans for v, spans in ballots.items() if policy.is_decisive(v)}
    voters: dict[Offsets, list[str]] = defaultdict(list)
    for voter, spans in ballots.items():
        for span in set(spans):
            voters[span].append(voter)
    scores = _score(
        voters, decisive or ballots, policy, None if decisive else reliability
    )
    leads: dict[Offsets, float] = {}
    if policy.rule is Rule.SOFT:
        leads = _compare(scores)
        trusted = {span for span in scores if leads[span] > _EPSILON}
    else:
        trusted = _choose(scores, is_majority if decisive else policy.trusts)
    standings = dict.fromkeys(trusted, Standing.TRUSTED)
    covered = {i for start, end, _ in trusted for i in range(start, end)}
    rest = [span for span in voters if span not in standings]
    for span in rest:
        lost = covered.issuperset(range(*span[:2]))
        dropped = lost or scores[span] <= policy.drop + _EPSILON
        dropped |= leads.get(span, 0) < -_EPSILON
        standings[span] = Standing.DROPPED if dropped else Standing.DISPUTED
    if policy.disputed is Remedy.MAJORITY:
        open_ = [s for s in rest if standings[s] is Standing.DISPUTED]
        free = {s: scores[s] for s in open_ if covered.isdisjoint(range(s[0], s[1]))}
        standings.update(dict.fromkeys(open_, Standing.DROPPED))
        chosen = _choose(free, is_majority)
        standings.update(dict.fromkeys(chosen, Standing.TRUSTED))
    disputes = _find_disputes(voters)
    return [
        Candidate(
            *span,
            voters=tuple(voters[span]),
            standing=standings[span],
            score=round(scores[span], 4),
            dispute=None if standings[span] is Standing.TRUSTED else disputes[span],
        )
        for span in sorted(voters)
    ]


def settle(decisions: Iterable[Decision], target: Target) -> list[Candidate] | None:
    """Make one opinion of what several people decided about a text: what more than half
    of those who accept it marked is trusted.

    decisions (Iterable[Decision]): What each decided.
    target (Target): What is annotated. Labels that it lacks are taken too.
    RETURNS (Optional[List[Candidate]]): Every mark, in the order of the text; None if
        nobody accepts the text, or more people reject it.
    """
    decisions = [*decisions]
    ballots = get_ballots(decisions)
    if is_rejected(decisions) or not ballots:
        return None
    if target.attr == "cats":
        marked = sorted(label for marks in ballots.values() for *_, label in marks)
        labels = dict.fromkeys((*target.labels, *filter(None, marked)))
        target = target._replace(labels=tuple(labels))
        ballots = {
            voter: target.make_marks(label for *_, label in marks)
            for voter, marks in ballots.items()
        }
    return vote(ballots, Policy(Rule.MAJORITY))


def set_marks(
    doc: Doc,
    candidates: Iterable[Candidate],
    target: Target = ENTS,
    *,
    soft: bool = False,
) -> None:
    """Make trusted spans the doc's entities, and the tokens of disputed ones missing
    annotation, which spaCy neither trains on nor scores; or trusted categories the
    doc's, without those that are disputed.

    doc (Doc): The doc.
    candidates (Iterable[Candidate]): Candidates, on token boundaries.
    target (Target): What is annotated.
    soft (bool): Give categories their shares of the votes, not 1 or 0.
    RAISES (ValueError): If a candidate is not on token boundaries.
    """
    if target.attr == "cats":
        doc.cats = _make_cats(candidates, target, soft=soft)
        return
    trusted = []
    disputed: set[int] = set()
    for candidate in candidates:
        span = doc.char_span(candidate.start, candidate.end, label=candidate.label)
        if span is None:
            raise ValueError(f"{candidate} is not on token boundaries of '{doc.text}'")
        if candidate.standing is Standing.TRUSTED:
            trusted.append(span)
        elif candidate.standing is Standing.DISPUTED:
            disputed.update(range(span.start, span.end))
    for span in trusted:
        disputed.difference_update(range(span.start, span.end))
    missing = [doc[i : i + 1] for i in sorted(disputed)]
    doc.set_ents(trusted, missing=missing, default="outside")


def _make_cats(
    candidates: Iterable[Candidate], target: Target, *, soft: bool
) -> dict[str, float]:
    cats = dict.fromkeys(target.labels, 0.0)
    is_known = not target.exclusive
    for candidate in candidates:
        is_trusted = candidate.standing is Standing.TRUSTED
        is_known = is_known or is_trusted
        cats[candidate.label] = candidate.score if soft else float(is_trusted)
        if candidate.standing is Standing.DISPUTED and not target.exclusive:
            del cats[candidate.label]
    return cats if is_known else {}


def get_component(voter: str) -> str:
    """RETURNS (str): The component whose sample a voter is, e.g. llm of llm/0."""
    return voter.rpartition("/")[0] or voter


class Reliability:
    """How reliable voters are, found from their agreement alone: the model of Dawid
    and Skene (1979, Maximum Likelihood Estimation of Observer Error-Rates Using the EM
    Algorithm), in which a voter has a probability of each answer given the truth. An
    item is a pair of boundaries that at least one voter named; the truth, and an
    answer, is a label or none. The samples of one component answer alike, so they have
    one set of probabilities. Each token that no voter named is an item, too, and each
    category of those that do not exclude each other: without them, to name nothing
    would look like a mistake. It takes three components or more that err apart: the
    samples of one make the same mistakes, which no agreement shows.

    Memory and time grow with the number of different sets of answers, not of texts.

    target (Target): What is annotated.
    """

    def __init__(self, target: Target = ENTS) -> None:
        self._target = target
        self._counts: Counter[frozenset[tuple[tuple[str, str], int]]] = Counter()
        self._probabilities: dict[
            frozenset[tuple[tuple[str, str], int]], dict[str, float]
        ] = {}

    def add(self, doc: Doc, ballots: Mapping[str, Iterable[Offsets]]) -> None:
        """Take the ballots about a text into account."""
        named: set[int] = set()
        for (start, end), answers in _get_items(ballots):
            self._counts[answers] += 1
            named.update(range(start, end))
        nothing = Counter((get_component(voter), _NONE) for voter in ballots)
        unnamed = sum(unit not in named for unit in self._target.get_units(doc))
        if nothing and unnamed:
            self._counts[frozenset(nothing.items())] += unnamed

    def fit(self) -> None:
        """Find the probabilities by EM, which starts from the shares of the votes."""
        patterns = list(self._counts)
        if not patterns:
            return
        names = {answer for pattern in patterns for answer, _ in pattern}
        components = sorted({component for component, _ in names})
        labels = sorted({label for _, label in names} | {_NONE})
        answers = numpy.zeros((len(patterns), len(components), len(labels)))
        for i, pattern in enumerate(patterns):
            for (component, label), count in pattern:
                answers[i, components.index(component), labels.index(label)] = count
        times = numpy.array([self._counts[pattern] for pattern in patterns], "d")
        truth = answers.sum(1) / answers.sum((1, 2))[:, None]
        for _ in range(_ROUNDS):
            weighted = truth * times[:, None]
            prior = weighted.sum(0) + _SMOOTHING
            # axes: component, truth, answer
            errors = numpy.einsum("pt,pca->cta", weighted, answers) + _SMOOTHING
            errors /= errors.sum(2, keepdims=True)
            logs = numpy.log(prior / prior.sum()) + numpy.einsum(
                "pca,cta->pt", answers, numpy.log(errors)
            )
            before = truth
            truth = numpy.exp(logs - logs.max(1, keepdims=True))
            truth /= truth.sum(1, keepdims=True)
            if numpy.abs(truth - before).max() < _CONVERGED:
                break
        self._probabilities = {
            pattern: dict(zip(labels, row.tolist(), strict=True))
            for pattern, row in zip(patterns, truth, strict=True)
        }

    def score(self, ballots: Mapping[str, Iterable[Offsets]]) -> dict[Offsets, float]:
        """RETURNS (Dict[Offsets, float]): Probability of each span that was named."""
        return {
            (*bounds, label): self._probabilities[answers][label]
            for bounds, answers in _get_items(ballots)
            for label in {label for (_, label), _ in answers} - {_NONE}
        }


def _get_items(
    ballots: Mapping[str, Iterable[Offsets]],
) -> Iterator[tuple[tuple[int, int], frozenset[tuple[tuple[str, str], int]]]]:
    labels = {
        voter: {(start, end): label for start, end, label in spans}
        for voter, spans in ballots.items()
    }
    for bounds in sorted({bounds for named in labels.values() for bounds in named}):
        answers = Counter(
            (get_component(voter), named.get(bounds, _NONE))
            for voter, named in labels.items()
        )
        yield bounds, frozenset(answers.items())


def _score(
    voters: Mapping[Offsets, list[str]],
    ballots: Mapping[str, Iterable[Offsets]],
    policy: Policy,
    reliability: Reliability | None,
) -> dict[Offsets, float]:
    if reliability is not None:
        return reliability.score(ballots)
    weights = {
        voter: policy.weights.get(voter, policy.weights.get(get_component(voter), 1.0))
        for voter in ballots
    }
    total = sum(weights.values())
    return {
        span: sum(weights.get(v, 0.0) for v in named_by) / total if total else 0.0
        for span, named_by in voters.items()
    }


def _choose(
    scores: Mapping[Offsets, float], trusts: Callable[[float], bool]
) -> set[Offsets]:
    """The spans with enough votes; of those that overlap the best, then the longest."""
    chosen: set[Offsets] = set()
    taken: set[int] = set()
    for span in sorted(scores, key=lambda s: (-scores[s], s[0] - s[1], s)):
        characters = range(span[0], span[1])
        if trusts(scores[span]) and taken.isdisjoint(characters):
            chosen.add(span)
            taken.update(characters)
    return chosen


def _compare(scores: Mapping[Offsets, float]) -> dict[Offsets, float]:
    """By how much each mark is ahead of its strongest rival, or of none."""
    leads = {}
    for span, score in scores.items():
        rivals = [
            other
            for mark, other in scores.items()
            if mark != span and mark[0] < span[1] and span[0] < mark[1]
        ]
        leads[span] = score - max([1 - score - sum(rivals), *rivals])
    return leads


def is_majority(share: float) -> bool:
    """RETURNS (bool): Whether a share is more than half."""
    return share > 0.5 + _EPSILON


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _find_disputes(spans: Iterable[Offsets]) -> dict[Offsets, Dispute]:
    disputes = {}
    ordered = sorted(spans)
    for span in ordered:
        start, end, _ = span
        others = [s for s in ordered if s != span and s[0] < end and start < s[1]]
        if any(other[:2] == span[:2] for other in others):
            disputes[span] = Dispute.LABEL
        elif others:
            disputes[span] = Dispute.BOUNDARY
        else:
            disputes[span] = Dispute.EXISTENCE
    return disputes
