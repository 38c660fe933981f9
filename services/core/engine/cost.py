"""What a step costs: ``seconds = fixed + per_cost * cost``, learned per key.

Recursive least squares with exponential forgetting (Haykin, Adaptive Filter Theory, ch. 10), kept
as its five sums: two unknowns need no matrix, and steps that all cost the same, as they do under
steady load, cannot wind up a covariance that is not there.

The squares are of relative errors (weighted least squares, Aitken 1935), since a step's time
scatters by a share of itself: neighbours and the clock rate slow down all of it. Unweighted, the
scatter of a few large batches outweighs all that small ones tell of the fixed part. At times it is
found to be nothing, and then batches of single rows leave little to learn it from.
"""

from __future__ import annotations

import math
from typing import NamedTuple

FORGETTING = 0.98
"""Weight of the past at each new sample: the last 50 or so steps count."""

OUTLIER = 4.0
"""A step counts as at most so many times its prediction: pauses are not the model's cost."""

MIN_SPREAD = 0.01
"""Relative variance of the costs seen below which a line would be fitted to noise."""

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

    __slots__ = ("_fit", "_line", "_u", "_uu", "_uy", "_weight", "_y", "largest", "samples")

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
            if self.samples == 1 and self._y > OUTLIER * seconds * max(self._u, 1.0 / cost):
                # The first step of a key pays for compilation; it counts only until the second.
                self._forget()
            elif predicted > 0.0 and self.samples > 1:
                seconds = min(seconds, OUTLIER * predicted)
        self._add(cost, seconds)

    def _forget(self) -> None:
        self._weight = self._u = self._uu = self._y = self._uy = 0.0

    def _add(self, cost: float, seconds: float) -> None:
        # Divided by its cost a step is per_cost + fixed * u, with as much scatter at every cost.
        u, y = 1.0 / cost, seconds / cost
        self._weight = self._weight * FORGETTING + 1.0
        self._u = self._u * FORGETTING + u
        self._uu = self._uu * FORGETTING + u * u
        self._y = self._y * FORGETTING + y
        self._uy = self._uy * FORGETTING + u * y
        self.samples += 1
        self.largest = max(self.largest, cost)
        self._fit = None

    def _solve(self) -> Fit:
        u, y = self._u / self._weight, self._y / self._weight
        variance = self._uu / self._weight - u * u
        if variance > MIN_SPREAD * u * u:
            fixed = (self._uy / self._weight - u * y) / variance
            self._line = self._bounded(fixed, u, y)
            return self._line
        return self._scaled(u, y)

    def _bounded(self, fixed: float, u: float, y: float) -> Fit:
        if fixed <= 0.0:
            return Fit(0.0, y, known=True)
        per_cost = y - fixed * u
        if per_cost < 0.0:
            return Fit(self._uy / self._uu, 0.0, known=True)
        return Fit(fixed, per_cost, known=True)

    def _scaled(self, u: float, y: float) -> Fit:
        line = self._line
        if line is None or line.fixed * u + line.per_cost == 0.0:
            return Fit(0.0, y, known=False)
        scale = y / (line.fixed * u + line.per_cost)
        # Now and then the line counts as unknown, so that a batch may grow and test it.
        return Fit(line.fixed * scale, line.per_cost * scale, self.samples % DOUBT_EVERY != 0)
