"""Scores from comparisons: how strong each of a few is, given how likely it is to beat each other.

Not the arena's leaderboard, which has votes of many to weigh and intervals to tell: here every pair
was compared by one judge, who says a probability.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]
Strengths: TypeAlias = NDArray[np.float64]

PRIOR_PRECISION = 0.01
_MOST_STEPS = 100
_SMALL_STEP = 1e-12
_DECIMALS = 9


def bradley_terry(beats: Matrix, prior_precision: float = PRIOR_PRECISION) -> Strengths:
    """Log-strengths that add up to 0; ``exp`` of a difference is the odds of winning.

    ``beats[i, j]`` is the probability that i is better than j, in [0, 1], with
    ``beats[j, i] = 1 - beats[i, j]``; the diagonal is not read. The maximum of the Bradley-Terry
    likelihood (`Bradley and Terry, 1952 <https://doi.org/10.2307/2334029>`_) with these as
    fractional wins and a normal prior, which keeps the strength of one that always wins finite; by
    Newton's method, which a concave function of few variables needs no more than.
    """
    count = len(beats)
    wins = np.where(np.eye(count, dtype=bool), 0.0, beats).sum(axis=1)
    strengths: Strengths = np.zeros(count)
    for _ in range(_MOST_STEPS):
        expected = _expected(strengths)
        gradient = wins - expected.sum(axis=1) - prior_precision * strengths
        weights = expected * (1.0 - expected)
        np.fill_diagonal(weights, 0.0)
        hessian = np.diag(weights.sum(axis=1) + prior_precision) - weights
        step = np.linalg.solve(hessian, gradient)
        # Far from the maximum a whole step can overshoot: none is longer than one log-odd.
        step *= min(1.0, 1.0 / max(float(np.abs(step).max(initial=0.0)), 1e-300))
        strengths = strengths + step
        if np.abs(step).max(initial=0.0) < _SMALL_STEP:
            break
    # Equal ones must be told as equal, and differ in their last bits here.
    return np.round(strengths - strengths.mean(), _DECIMALS) if count else strengths


def win_rate(beats: Matrix) -> Strengths:
    """Mean probability of beating another one, 0 to 1; 0.5 for one that is alone."""
    count = len(beats)
    if count < 2:
        return np.full(count, 0.5)
    others: NDArray[Any] = np.where(np.eye(count, dtype=bool), 0.0, beats)
    return np.asarray(np.round(others.sum(axis=1) / (count - 1), _DECIMALS), np.float64)


def _expected(strengths: Strengths) -> Matrix:
    gaps = strengths[:, None] - strengths[None, :]
    expected: Matrix = 1.0 / (1.0 + np.exp(-np.clip(gaps, -500.0, 500.0)))
    np.fill_diagonal(expected, 0.0)
    return expected
