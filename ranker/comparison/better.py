"""The probability that one model does better than another, from outcomes and from votes.

Better means: of one use of each for the same intent, its use ends better. Uses that end alike count
half for each. With success rates p and q that is p (1 - q) + (p q + (1 - p) (1 - q)) / 2, which is
1/2 + (p - q) / 2; a pairwise vote asks the same of two pictures, and ties count half there too.
Over several intents it is the mean, each weighing the same: pooled counts would let the easier
intent's share decide (Simpson, 1951).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from ranker.graph.beta import Posterior
from ranker.score.components import success
from ranker.score.estimate import UNIT, Estimate, abstained
from ranker.score.evidence import Outcomes
from ranker.score.posterior import MeanOfRates, complement

EVEN: Final = 0.5


class Basis(Enum):
    """What a probability rests on."""

    NONE = ""
    OUTCOMES = "outcomes"
    VOTES = "votes"


class Verdict(Enum):
    A_BETTER = "a is better"
    B_BETTER = "b is better"
    NOT_SEPARABLE = "not separable"
    NOT_COMPARABLE = "not comparable"

    @property
    def mirrored(self) -> Verdict:
        return {Verdict.A_BETTER: Verdict.B_BETTER, Verdict.B_BETTER: Verdict.A_BETTER}.get(
            self, self
        )


@dataclass(frozen=True, slots=True)
class OnIntent:
    """Outcomes of both for one intent; ``counted`` where each has enough of them."""

    intent: str
    a: Outcomes
    b: Outcomes
    a_success: Estimate
    b_success: Estimate
    counted: bool

    @property
    def mirrored(self) -> OnIntent:
        return OnIntent(self.intent, self.b, self.a, self.b_success, self.a_success, self.counted)


@dataclass(frozen=True, slots=True)
class Better:
    """The probability that a does better, and how much evidence there is of each.

    ``certainty`` is the probability, given the evidence, that a does better more often than b at
    all, 0.0001 to 0.9999; None where the estimate abstains, or its source does not tell.
    """

    estimate: Estimate
    a_evidence: int
    b_evidence: int
    certainty: float | None = None

    @property
    def mirrored(self) -> Better:
        """The same of b."""
        certainty = None if self.certainty is None else _complement(self.certainty)
        return Better(mirrored(self.estimate), self.b_evidence, self.a_evidence, certainty)

    @property
    def side(self) -> Verdict:
        """Which side all of the interval is on, if on one."""
        if self.estimate.abstained:
            return Verdict.NOT_SEPARABLE
        if self.estimate.low > EVEN:
            return Verdict.A_BETTER
        return Verdict.B_BETTER if self.estimate.high < EVEN else Verdict.NOT_SEPARABLE


NOTHING: Final = Better(abstained(), 0, 0)


def mirrored(estimate: Estimate) -> Estimate:
    """Of 1 minus the value."""
    if estimate.abstained:
        return estimate
    return replace(
        estimate,
        value=_complement(estimate.value),
        low=_complement(estimate.high),
        high=_complement(estimate.low),
    )


def on_intent(intent: str, a: Outcomes, b: Outcomes, min_evidence: int) -> OnIntent:
    """``min_evidence`` outcomes must be recorded, and weigh as much, for each of the two."""
    enough = [_enough(each, min_evidence) for each in (a, b)]
    return OnIntent(
        intent, a, b, _success(a, enough[0]), _success(b, enough[1]), counted=all(enough)
    )


def by_outcomes(intents: Sequence[OnIntent]) -> Better:
    """From the intents that count; abstains where there is none.

    The mean over k intents of 1/2 + (p - q) / 2 is the mean of the 2 k rates p and 1 - q.
    """
    a_evidence = sum(each.a.recorded for each in intents)
    b_evidence = sum(each.b.recorded for each in intents)
    counted = [each for each in intents if each.counted]
    if not counted:
        return Better(abstained(a_evidence + b_evidence), a_evidence, b_evidence)
    rates = [
        rate
        for each in counted
        for rate in (
            Posterior.of(each.a.successes, each.a.failures),
            complement(Posterior.of(each.b.successes, each.b.failures)),
        )
    ]
    posterior = MeanOfRates(rates)
    evidence = sum(each.a.recorded + each.b.recorded for each in counted)
    return Better(
        posterior.interval().told(evidence),
        a_evidence,
        b_evidence,
        certainty(posterior.above(EVEN)),
    )


def decide(outcomes: Better, votes: Better) -> tuple[Verdict, Basis]:
    """Outcomes of use go before votes on pictures. Where both separate the two, and not alike, they
    contradict each other and nothing is decided."""
    if outcomes.estimate.abstained and votes.estimate.abstained:
        return Verdict.NOT_SEPARABLE, Basis.NONE
    if outcomes.estimate.abstained:
        return votes.side, Basis.VOTES
    if contradict(outcomes, votes):
        return Verdict.NOT_SEPARABLE, Basis.OUTCOMES
    return outcomes.side, Basis.OUTCOMES


def contradict(outcomes: Better, votes: Better) -> bool:
    return {outcomes.side, votes.side} == {Verdict.A_BETTER, Verdict.B_BETTER}


def certainty(probability: float) -> float:
    """In ten-thousandths; evidence is never so much that nothing is left of the other way."""
    return min(max(round(probability * UNIT), 1), UNIT - 1) / UNIT


def _enough(outcomes: Outcomes, least: int) -> bool:
    weight = outcomes.successes + outcomes.failures
    return min(outcomes.recorded, weight) >= least


def _success(outcomes: Outcomes, enough: bool) -> Estimate:
    if not enough:
        return abstained(outcomes.recorded)
    return success(outcomes).told(outcomes.recorded)


def _complement(value: float) -> float:
    """1 minus a multiple of 1/10000, exactly."""
    return (UNIT - round(value * UNIT)) / UNIT
