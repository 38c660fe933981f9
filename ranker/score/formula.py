"""The score: parts weighed and added without a rounding error.

A part's points are its weight times its value times 100, rounded to hundredths; the total is the
sum of those, as integers. So what is printed adds up to what is printed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from ranker.score.components import Terms, Valued, valued
from ranker.score.estimate import Interval, weighted_sum
from ranker.score.evidence import Evidence
from ranker.score.weights import Weights

FORMULA: Final = "easel-score/1"
# Points are counted in hundredths.
HUNDREDTHS: Final = 100
FULL: Final = 100 * HUNDREDTHS


@dataclass(frozen=True, slots=True)
class Rules:
    """What is configured for one type. A model of whose weight less than ``min_share`` is evidenced
    has no score."""

    weights: Weights
    terms: Terms
    min_share: Decimal


@dataclass(frozen=True, slots=True)
class Component:
    """One part. ``points`` is what it adds to the total, in hundredths of a point."""

    name: str
    weight: Decimal
    valued: Valued
    points: int

    @property
    def abstained(self) -> bool:
        return self.valued.estimate.abstained

    @property
    def most(self) -> int:
        """What it would add with the value 1, in hundredths of a point."""
        return int(self.weight * FULL)


@dataclass(frozen=True, slots=True)
class Total:
    """The parts' sum, in hundredths of a point, with its 95 % interval.

    A part that abstains adds nothing to ``points``, and to the interval all that it could be: its
    whole weight. ``evidenced`` is the weight of the others. ``abstained``: too little of the weight
    is evidenced for a score; ``points`` is then what the rest came to and no score.
    """

    points: int
    low: int
    high: int
    evidence: int
    evidenced: Decimal
    abstained: bool


@dataclass(frozen=True, slots=True)
class Score:
    """The parts in their order; their points add up to the total's."""

    total: Total
    components: tuple[Component, ...]

    @property
    def by_name(self) -> Mapping[str, Component]:
        return {component.name: component for component in self.components}


def score(evidence: Evidence, rules: Rules) -> Score:
    """A pure function: equal evidence and rules give an equal score."""
    components = tuple(
        _component(name, weight, valued(name, evidence, rules.terms))
        for name, weight in rules.weights.by_component
    )
    return Score(_total(components, rules.min_share), components)


def _component(name: str, weight: Decimal, found: Valued) -> Component:
    value = Decimal(repr(found.estimate.value))
    points = (weight * value * FULL).quantize(Decimal(1), ROUND_HALF_EVEN)
    return Component(name, weight, found, int(points))


def _total(components: tuple[Component, ...], min_share: Decimal) -> Total:
    told = [each for each in components if not each.abstained]
    points = sum(each.points for each in told)
    unknown = sum(each.most for each in components if each.abstained)
    spread = weighted_sum(
        (
            float(each.weight),
            Interval(
                each.valued.estimate.value, each.valued.estimate.low, each.valued.estimate.high
            ),
        )
        for each in told
    )
    low = math.floor(spread.low * FULL)
    high = math.ceil(spread.high * FULL) + unknown
    evidenced = sum((each.weight for each in told), Decimal(0))
    return Total(
        points=points,
        low=min(points, max(0, low)),
        high=max(points, min(FULL, high)),
        evidence=sum(each.valued.estimate.evidence for each in told),
        evidenced=evidenced,
        abstained=evidenced < min_share,
    )
