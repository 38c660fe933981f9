"""What a step costs: ``seconds = fixed + per_cost * cost``, learned per key.

Recursive least squares with exponential forgetting (Haykin, Adaptive Filter Theory, ch. 10), kept
as its five weighted sums: two unknowns need no matrix, and steps that all cost the same, as they
do under steady load, cannot wind up a covariance that is not there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

FORGETTING = 0.98
"""Weight of the past at each new sample: the last 50 or so steps count."""

OUTLIER = 4.0
"""A step counts as at most so many times its prediction: pauses are not the model's cost."""

MIN_SPREAD = 0.01
"""Relative variance of the costs seen below which their slope would be fitted to noise."""

GROWTH = 2.0
"""A batch costs at most so many times the largest ever timed, so no fit is trusted far beyond its
samples, and a key never timed starts with one row."""

DOUBT_EVERY = 64
"""While all costs are alike, every so many samples the last known slope is doubted."""


class Fit(NamedTuple):
    """``fixed`` seconds a step and ``per_cost`` seconds a unit of cost, both >= 0.

    ``known`` is false while all samples cost alike and the two parts cannot be told apart: all of
    the time is on ``per_cost`` then, which never promises too much.
    """

    fixed: float
    per_cost: float
    known: bool

    def seconds(self, cost: float) -> float:
        """Predicted seconds of one step of a batch of this cost."""
        return self.fixed + self.per_cost * cost

    def drain_seconds(self, total: float, batch: float) -> float:
        """Predicted seconds to work off ``total`` cost in batches of cost ``batch`` (> 0)."""
        return total * (self.fixed / batch + self.per_cost)

    def cost_within(self, seconds: float) -> float:
        """Largest cost predicted to take at most ``seconds``; inf if cost takes no time."""
        spare = seconds - self.fixed
        if spare < 0.0:
            return 0.0
        return spare / self.per_cost if self.per_cost > 0.0 else math.inf

    def cost_for_share(self, share: float) -> float:
        """Smallest cost at which the fixed part is at most ``share`` (0..1) of a step."""
        if self.fixed == 0.0:
            return 0.0
        if self.per_cost == 0.0:
            return math.inf
        return self.fixed * (1.0 - share) / (share * self.per_cost)


class StepCost:
    """The running fit of one key."""

    __slots__ = ("_c", "_cc", "_ct", "_fit", "_line", "_t", "_weight", "largest", "samples")

    def __init__(self) -> None:
        self.samples = 0
        self.largest = 0.0
        self._fit: Fit | None = None
        self._line: Fit | None = None
        self._forget()

    @property
    def fit(self) -> Fit | None:
        """The present fit; None before the first sample."""
        if self._fit is None and self.samples:
            self._fit = self._solve()
        return self._fit

    def observe(self, cost: float, seconds: float) -> None:
        """Takes a step of a batch of ``cost`` (> 0) that took ``seconds`` (>= 0)."""
        fit = self.fit
        if fit is not None:
            predicted = fit.seconds(cost)
            if self.samples == 1 and self._t > OUTLIER * seconds * max(1.0, self._c / cost):
                # The first step of a key pays for compilation; it counts only until the second.
                self._forget()
            elif predicted > 0.0 and self.samples > 1:
                seconds = min(seconds, OUTLIER * predicted)
        self._add(cost, seconds)

    def _forget(self) -> None:
        self._weight = self._c = self._cc = self._t = self._ct = 0.0

    def _add(self, cost: float, seconds: float) -> None:
        self._weight = self._weight * FORGETTING + 1.0
        self._c = self._c * FORGETTING + cost
        self._cc = self._cc * FORGETTING + cost * cost
        self._t = self._t * FORGETTING + seconds
        self._ct = self._ct * FORGETTING + cost * seconds
        self.samples += 1
        self.largest = max(self.largest, cost)
        self._fit = None

    def _solve(self) -> Fit:
        cost, seconds = self._c / self._weight, self._t / self._weight
        variance = self._cc / self._weight - cost * cost
        if variance > MIN_SPREAD * cost * cost:
            slope = (self._ct / self._weight - cost * seconds) / variance
            self._line = self._bounded(slope, cost, seconds)
            return self._line
        return self._scaled(cost, seconds)

    def _bounded(self, slope: float, cost: float, seconds: float) -> Fit:
        if slope <= 0.0:
            return Fit(seconds, 0.0, known=True)
        fixed = seconds - slope * cost
        if fixed < 0.0:
            return Fit(0.0, self._ct / self._cc, known=True)
        return Fit(fixed, slope, known=True)

    def _scaled(self, cost: float, seconds: float) -> Fit:
        line = self._line
        if line is None or line.seconds(cost) == 0.0:
            return Fit(0.0, seconds / cost, known=False)
        scale = seconds / line.seconds(cost)
        # Now and then the line counts as unknown, so that a batch may grow and test it.
        return Fit(line.fixed * scale, line.per_cost * scale, self.samples % DOUBT_EVERY != 0)
