"""Strengths from votes with ties: Davidson's extension of Bradley and Terry, with a ridge prior.

With strengths θ (natural log-odds) and d = θ_a − θ_b the chances of a vote are

    a : b : tie  =  exp(d / 2) : exp(−d / 2) : ν

so that the odds of a over b among decided votes are exp(d), as Bradley and Terry have them, and
a tie between equals has the chance ν / (2 + ν).

R. R. Davidson, "On extending the Bradley–Terry model to accommodate ties in paired comparison
experiments", JASA 65 (1970). The prior on each strength is normal around 0 with precision
``ridge``, that on log ν normal around 0 with ``TIE_RIDGE``; the maximum of the posterior (MAP) is
found by Newton's method, and is unique, since the logarithm of the posterior is strictly concave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ranker.arena.tally import Counts, Floats, Ints, summed

RIDGE: Final = 0.1
"""Precision of the prior on a strength: a standard deviation of 3.2, odds of 24 to 1."""
TIE_RIDGE: Final = 0.04
"""Precision of the prior on log ν, a standard deviation of 5: it matters if all votes are ties."""

_ENOUGH: Final = 1e-9
_MAX_STEPS: Final = 200


@dataclass(frozen=True, slots=True)
class Chances:
    """Of each pair: the chance that the first wins, the second wins, or neither."""

    first: Floats
    second: Floats
    tie: Floats

    @property
    def mean(self) -> Floats:
        """Expected value of a vote that counts ½ for the first, −½ for the second, 0 for a tie."""
        return (self.first - self.second) / 2

    @property
    def variance(self) -> Floats:
        """Of that value: what one vote tells about the difference (Fisher information)."""
        return (self.first + self.second) / 4 - self.mean**2


@dataclass(frozen=True, slots=True)
class Fit:
    """The posterior's maximum.

    ``strengths`` (contenders,) sum to 0. ``log_tie`` is log ν; −inf without any tie among the
    votes, which is its maximum likelihood, and Bradley and Terry's model. ``information`` is the
    negative Hessian of the log-posterior there, of the strengths and, where it was fitted, log ν.
    """

    strengths: Floats
    log_tie: float
    information: Floats
    ridge: float

    @property
    def has_ties(self) -> bool:
        return self.log_tie > -np.inf

    def chances(self, pairs: Counts) -> Chances:
        return chances(self.strengths[pairs.first] - self.strengths[pairs.second], self.log_tie)


def chances(difference: Floats, log_tie: float) -> Chances:
    """The three chances, for strengths that differ by ``difference``."""
    top = np.maximum(np.abs(difference) / 2, log_tie)
    first, second = np.exp(difference / 2 - top), np.exp(-difference / 2 - top)
    tie = np.exp(log_tie - top)
    total = first + second + tie
    return Chances(first / total, second / total, tie / total)


def fit(contenders: int, pairs: Counts, ridge: float = RIDGE, start: Fit | None = None) -> Fit:
    """The MAP of ``contenders`` strengths and, where a vote is a tie, of log ν.

    ``ridge`` must be above 0. ``start`` is where to begin, for votes that are nearly those of
    another fit. Raises ArithmeticError if it does not converge.
    """
    if not ridge > 0.0:
        raise ValueError(f"ridge must be above 0, not {ridge}")
    problem = _Problem(contenders, pairs, ridge)
    at = problem.start(start)
    value = problem.value(at)
    for _ in range(_MAX_STEPS):
        gradient, information = problem.slope(at)
        step = _solved(information, gradient)
        gain = float(gradient @ step)
        if gain < _ENOUGH**2 * max(1.0, abs(value)) or np.abs(step).max() < _ENOUGH:
            return problem.fit(at + step)
        at, value = _climbed(problem, at, value, step, gain)
    raise ArithmeticError(f"no convergence after {_MAX_STEPS} steps")


def roughly(contenders: int, pairs: Counts, start: Fit, leader: int, others: Ints) -> Fit:
    """The fit to ``pairs``, exact enough to say by how much ``leader`` is ahead of the best of
    ``others``: right in sign, and to a fifth in size. ``start`` must be near it."""
    problem = _Problem(contenders, pairs, start.ridge)
    at = problem.start(start)
    before = np.inf
    while True:
        gradient, information = problem.slope(at)
        step = _solved(information, gradient)
        at = at + step
        size = float(np.abs(step).max())
        # Each step is less than half of the one before: what is left to go is less than this one.
        if size > before / 2:
            return fit(contenders, pairs, start.ridge)
        if size < max(_ENOUGH, abs(float(at[leader] - at[others].max())) / 10):
            return Fit(at[:contenders], problem.log_tie(at), information, start.ridge)
        before = size


def inverted(information: Floats) -> Floats:
    """The posterior's covariance, by its curvature at the maximum."""
    return np.linalg.inv(information).astype(np.float64, copy=False)


def _solved(information: Floats, gradient: Floats) -> Floats:
    return np.linalg.solve(information, gradient).astype(np.float64, copy=False)


def _climbed(
    problem: _Problem, at: Floats, value: float, step: Floats, gain: float
) -> tuple[Floats, float]:
    """Along ``step``, halved until it climbs enough, as far as rounding lets that be seen."""
    rounding = 1e-13 * (1.0 + abs(value))
    share = 1.0
    while True:
        there = at + share * step
        reached = problem.value(there)
        if reached >= value + 1e-4 * share * gain - rounding:
            return there, reached
        share /= 2


class _Problem:
    """The log-posterior, its gradient and its negative Hessian; the last parameter is log ν."""

    def __init__(self, contenders: int, pairs: Counts, ridge: float) -> None:
        self._size = contenders
        self._pairs = pairs
        self._totals = pairs.totals
        self._has_ties = bool(pairs.ties.sum())
        self._ridges = np.full(contenders + self._has_ties, ridge)
        self._ridge = ridge
        if self._has_ties:
            self._ridges[-1] = TIE_RIDGE

    def start(self, given: Fit | None) -> Floats:
        at = np.zeros(len(self._ridges))
        if given is not None:
            at[: self._size] = given.strengths
        if self._has_ties:
            decided = float((self._pairs.wins + self._pairs.losses).sum())
            ties = float(self._pairs.ties.sum())
            fresh = np.log(2 * ties / max(decided, 0.5))
            at[-1] = given.log_tie if given is not None and given.has_ties else fresh
        return at

    def value(self, at: Floats) -> float:
        pairs, difference, log_tie = self._pairs, self._difference(at), self.log_tie(at)
        top = np.maximum(np.abs(difference) / 2, log_tie)
        total = np.exp(difference / 2 - top) + np.exp(-difference / 2 - top) + np.exp(log_tie - top)
        told = (pairs.wins - pairs.losses) * difference / 2 - self._totals * (top + np.log(total))
        tied = float(pairs.ties.sum()) * log_tie if self._has_ties else 0.0
        return float(told.sum()) + tied - float(self._ridges @ at**2) / 2

    def slope(self, at: Floats) -> tuple[Floats, Floats]:
        odds = chances(self._difference(at), self.log_tie(at))
        return self.gradient(at, odds), self._information(odds)

    def gradient(self, at: Floats, odds: Chances | None = None) -> Floats:
        pairs, size = self._pairs, self._size
        odds = odds or chances(self._difference(at), self.log_tie(at))
        surprise = (pairs.wins - pairs.losses) / 2 - self._totals * odds.mean
        gradient = -self._ridges * at
        gradient[:size] += summed(pairs.first, surprise, size)
        gradient[:size] -= summed(pairs.second, surprise, size)
        if self._has_ties:
            gradient[-1] += float((pairs.ties - self._totals * odds.tie).sum())
        return gradient

    def fit(self, at: Floats) -> Fit:
        # They sum to 0 but for rounding: the likelihood does not change along their common shift.
        strengths = at[: self._size] - at[: self._size].sum() / max(self._size, 1)
        odds = chances(self._difference(at), self.log_tie(at))
        return Fit(strengths, self.log_tie(at), self._information(odds), self._ridge)

    def _information(self, odds: Chances) -> Floats:
        weight = self._totals * odds.variance
        with_tie = -self._totals * odds.mean * odds.tie
        of_tie = float((self._totals * odds.tie * (1 - odds.tie)).sum())
        laid = quadratic(self._size, self._pairs, weight, with_tie, of_tie)
        laid = laid if self._has_ties else laid[:-1, :-1]
        laid[np.diag_indices_from(laid)] += self._ridges
        return laid

    def _difference(self, at: Floats) -> Floats:
        difference: Floats = at[self._pairs.first] - at[self._pairs.second]
        return difference

    def log_tie(self, at: Floats) -> float:
        return float(at[-1]) if self._has_ties else -np.inf


def quadratic(
    contenders: int, pairs: Counts, weight: Floats, with_tie: Floats, of_tie: float
) -> Floats:
    """The sum over pairs of outer products of (e_first − e_second, e_tie), given the weights of
    the first part with itself, of both parts, and, summed, of the last with itself.

    ``pairs`` may hold a pair once only.
    """
    laid = np.zeros((contenders + 1, contenders + 1))
    laid[pairs.first, pairs.second] = -weight
    laid[pairs.second, pairs.first] = -weight
    inner = np.arange(contenders)
    laid[inner, inner] = summed(pairs.first, weight, contenders)
    laid[inner, inner] += summed(pairs.second, weight, contenders)
    edge = summed(pairs.first, with_tie, contenders)
    edge -= summed(pairs.second, with_tie, contenders)
    laid[:-1, -1] = laid[-1, :-1] = edge
    laid[-1, -1] = of_tie
    return laid
