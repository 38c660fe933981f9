"""Beta posteriors of rates: mean and 95 % interval.

The incomplete beta function is the continued fraction of DLMF 8.17.22, evaluated by the modified
method of Lentz; quantiles are found by Newton's method within a bracket that only shrinks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

LOW: Final = 0.025
HIGH: Final = 0.975
_TINY: Final = 1e-300
_CLOSE: Final = 1e-14
_MAX_TERMS: Final = 20_000
_MAX_ROUNDS: Final = 200


@dataclass(frozen=True, slots=True)
class Posterior:
    """Beta(``a``, ``b``), both above 0."""

    a: float
    b: float

    @classmethod
    def of(cls, successes: float, failures: float) -> Posterior:
        """After so many, with every rate as likely as another before: Beta(1, 1)."""
        return cls(successes + 1.0, failures + 1.0)

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)

    def interval(self) -> tuple[float, float]:
        """The 2.5 % and the 97.5 % quantile."""
        return self.quantile(LOW), self.quantile(HIGH)

    def quantile(self, share: float) -> float:
        """0 to 1; below it lies ``share`` (0 to 1) of the probability."""
        low, high = 0.0, 1.0
        value = self.mean
        for _ in range(_MAX_ROUNDS):
            excess = cumulative(self.a, self.b, value) - share
            low, high = (low, value) if excess > 0 else (value, high)
            density = self._density(value)
            step = excess / density if density > 0 else math.inf
            following = value - step
            if not low < following < high:
                following = (low + high) / 2
            if abs(following - value) <= _CLOSE * max(value, _CLOSE):
                return following
            value = following
        return value

    def _density(self, value: float) -> float:
        if not 0.0 < value < 1.0:
            return 0.0
        logs = (self.a - 1) * math.log(value) + (self.b - 1) * math.log1p(-value)
        exponent = logs - _log_beta(self.a, self.b)
        return math.exp(exponent) if exponent < 700 else math.inf


def cumulative(a: float, b: float, value: float) -> float:
    """The regularised incomplete beta function I_value(a, b): what lies below ``value``."""
    if value <= 0.0:
        return 0.0
    if value >= 1.0:
        return 1.0
    logs = a * math.log(value) + b * math.log1p(-value) - _log_beta(a, b)
    if value < (a + 1) / (a + b + 2):
        return math.exp(logs) * _fraction(a, b, value) / a
    return 1.0 - math.exp(logs) * _fraction(b, a, 1.0 - value) / b


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 + term * d
            c = 1.0 + term / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1.0) < _CLOSE:
            break
    return value
