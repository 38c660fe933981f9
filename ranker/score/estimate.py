"""Numbers with what they rest on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ranker.quantiles import NORMAL_97_5
from services.core import rates

# Values are told in ten-thousandths, and are what is told: nothing is computed from hidden digits.
UNIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value of 0 to 1 with its 95 % interval, all multiples of 1/10000.

    ``evidence`` counts what it rests on. Where it ``abstained`` there is too little of that: the
    interval is then all of 0 to 1, and the value is 0 and says nothing.
    """

    value: float
    low: float
    high: float
    evidence: int
    abstained: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """An unrounded value and its interval; ``low`` <= ``value`` <= ``high``."""

    value: float
    low: float
    high: float

    def told(self, evidence: int) -> Estimate:
        """In ten-thousandths; the interval is rounded outwards."""
        value = round(self.value * UNIT)
        low = min(value, max(0, math.floor(self.low * UNIT)))
        high = max(value, min(UNIT, math.ceil(self.high * UNIT)))
        return Estimate(value / UNIT, low / UNIT, high / UNIT, evidence)


def abstained(evidence: int = 0) -> Estimate:
    return Estimate(0.0, 0.0, 1.0, evidence, abstained=True)


def wilson(successes: float, trials: float, z: float = NORMAL_97_5) -> Interval:
    """Wilson's score interval, as of ``services.core.rates``, around the rate.

    Raises ``ValueError`` unless 0 <= ``successes`` <= ``trials`` and ``trials`` > 0.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is no rate")
    share = successes / trials
    low, high = rates.wilson(successes, trials, z)
    return Interval(share, min(low, share), max(high, share))


def weighted_sum(parts: Iterable[tuple[float, Interval]]) -> Interval:
    """The sum of weight times value, of parts that were estimated from separate evidence.

    Its limits are those of the method of variance estimates recovery (Zou and Donner, 2008): the
    parts' distances to their limits add up in squares. Weights must not be negative.
    """
    parts = list(parts)
    value = math.fsum(weight * part.value for weight, part in parts)
    below = math.sqrt(math.fsum((weight * (part.value - part.low)) ** 2 for weight, part in parts))
    above = math.sqrt(math.fsum((weight * (part.high - part.value)) ** 2 for weight, part in parts))
    return Interval(value, value - below, value + above)


def mean(intervals: Iterable[Interval]) -> Interval:
    """The mean of values that were estimated from the same evidence: limits are averaged too."""
    found = list(intervals)
    return Interval(
        math.fsum(each.value for each in found) / len(found),
        math.fsum(each.low for each in found) / len(found),
        math.fsum(each.high for each in found) / len(found),
    )
