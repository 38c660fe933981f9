"""The order of an answer: relevance to the query, times what outcomes say of each result.

    score = relevance · (n · r + m · r̄) / ((n + m) · r̄) · (S + m' · s̄) / ((S + F + m') · s̄)

``r`` is how often the result was chosen where it was looked at, from ``n`` equally weighted looks,
and r̄ the same of all results; ``S`` and ``F`` are its successes and failures, weighted by age, and
s̄ the share of successes among all. Both factors are the posterior mean of a rate over its prior
mean, which is the mean of all: without evidence they are 1, and the order is that of relevance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ranker.graph.bias import Attraction

PRIOR_LOOKS: Final = 20.0
PRIOR_ENDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Means:
    """Over all results: how often one that was looked at was chosen, and how often one that was
    chosen and reported on succeeded. Above 0."""

    choice: float
    success: float

    @classmethod
    def of(cls, everything: Attraction, successes: float, failures: float) -> Means:
        """One choice in ten looks and one success in two ends, until there are many more."""
        return cls(
            (everything.chosen + 1.0) / (everything.examined + 10.0),
            (successes + 1.0) / (successes + failures + 2.0),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What outcomes say of one result. ``successes`` and ``failures`` weigh less with their age;
    the numbers after them are plain counts."""

    attraction: Attraction = field(default_factory=Attraction)
    successes: float = 0.0
    failures: float = 0.0
    impressions: int = 0
    chosen: int = 0
    succeeded: int = 0
    failed: int = 0


NO_EVIDENCE: Final = Evidence()


def score(relevance: float, evidence: Evidence, means: Means) -> float:
    """Larger is better; ``relevance`` is 0 to 1."""
    found = evidence.attraction
    choice = _lift(
        (found.rate or 0.0) * found.effective, found.effective, PRIOR_LOOKS, means.choice
    )
    ends = evidence.successes + evidence.failures
    return relevance * choice * _lift(evidence.successes, ends, PRIOR_ENDS, means.success)


def _lift(good: float, all_: float, prior: float, mean: float) -> float:
    return (good + prior * mean) / ((all_ + prior) * mean)
