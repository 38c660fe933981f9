"""A comparison as numbers: all that its sentences, tables and charts may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ranker.comparison.better import (
    NOTHING,
    Basis,
    Better,
    OnIntent,
    Verdict,
    by_outcomes,
    decide,
    on_intent,
)
from ranker.comparison.side import Fact, Side, compared
from ranker.score.estimate import abstained
from ranker.score.evidence import Outcomes


@dataclass(frozen=True, slots=True)
class Row:
    """A feature side by side; "" where a side does not have it. ``source`` says where it is from;
    both sides' where they differ."""

    feature: str
    a: str
    b: str
    source: str


@dataclass(frozen=True, slots=True)
class Report:
    """``intent`` is the one asked for, "" for all that the two share.

    ``outcomes`` and ``votes`` are what each says by itself; ``better`` is the one that ``basis``
    names, and the verdict's.
    """

    a: Side
    b: Side
    intent: str
    shared_intents: tuple[str, ...]
    intents: tuple[OnIntent, ...]
    outcomes: Better
    votes: Better
    verdict: Verdict
    basis: Basis
    min_evidence: int

    @property
    def better(self) -> Better:
        if self.basis is Basis.NONE:
            count = self.outcomes.estimate.evidence + self.votes.estimate.evidence
            return Better(abstained(count), 0, 0)
        return self.votes if self.basis is Basis.VOTES else self.outcomes

    @property
    def features(self) -> tuple[Row, ...]:
        return tuple(_rows(self.a, self.b))

    @property
    def mirrored(self) -> Report:
        """The report of b and a."""
        return Report(
            self.b,
            self.a,
            self.intent,
            self.shared_intents,
            tuple(each.mirrored for each in self.intents),
            self.outcomes.mirrored,
            self.votes.mirrored,
            self.verdict.mirrored,
            self.basis,
            self.min_evidence,
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """``outcomes`` by model and intent (as it is compared); ``votes`` of the first model given
    against the second."""

    outcomes: Mapping[tuple[str, str], Outcomes]
    votes: Better = NOTHING


def shared_intents(a: Side, b: Side, intent: str = "") -> tuple[str, ...]:
    """What both serve, sorted: of all intents, or of the one that is asked for."""
    common = a.intents.keys() & b.intents.keys()
    if intent:
        common &= {compared(intent)}
    return tuple(sorted(common))


def compare(a: Side, b: Side, evidence: Evidence, *, intent: str = "", min_evidence: int) -> Report:
    """Always computed in the order of the models' ids, so that b against a is the exact mirror of
    a against b. Raises ``ValueError`` for a model and itself."""
    if a.id == b.id:
        raise ValueError(f"{a.id!r} is both models")
    if a.id > b.id:
        turned = Evidence(evidence.outcomes, evidence.votes.mirrored)
        return compare(b, a, turned, intent=intent, min_evidence=min_evidence).mirrored
    shared = shared_intents(a, b, intent)
    found = tuple(
        on_intent(
            each,
            evidence.outcomes.get((a.id, each), Outcomes()),
            evidence.outcomes.get((b.id, each), Outcomes()),
            min_evidence,
        )
        for each in shared
    )
    if not shared:
        return Report(
            a, b, intent, (), (), NOTHING, NOTHING, Verdict.NOT_COMPARABLE, Basis.NONE, min_evidence
        )
    outcomes, votes = by_outcomes(found), evidence.votes
    verdict, basis = decide(outcomes, votes)
    return Report(a, b, intent, shared, found, outcomes, votes, verdict, basis, min_evidence)


def _rows(a: Side, b: Side) -> Sequence[Row]:
    mine, others = _by_name(a), _by_name(b)
    places = [dict(zip(each, range(len(each)), strict=True)) for each in (mine, others)]

    def place(name: str) -> tuple[bool, int, str]:
        """What both have comes first; the order must not depend on who is a."""
        return (
            not (name in mine and name in others),
            min(own[name] for own in places if name in own),
            name,
        )

    order = sorted(mine.keys() | others.keys(), key=place)
    return [_row(name, mine.get(name), others.get(name)) for name in order]


def _row(name: str, mine: Fact | None, other: Fact | None) -> Row:
    sources = dict.fromkeys(fact.source for fact in (mine, other) if fact is not None)
    return Row(
        name,
        "" if mine is None else mine.value,
        "" if other is None else other.value,
        "; ".join(sorted(sources)),
    )


def _by_name(side: Side) -> Mapping[str, Fact]:
    return {fact.name: fact for fact in side.facts}
