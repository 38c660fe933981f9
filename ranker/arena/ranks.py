"""Ranks with their intervals, right for all contenders together.

For every two contenders the difference of their strengths has an interval, and all of these hold
together with the wanted confidence: they reach as many standard errors to both sides as the
largest standardised difference of joint normal draws does in that share of the draws. Whoever is
surely above takes a rank from above, whoever is surely below from below.

M. Mogstad, J. Romano, A. Shaikh and D. Wilhelm, "Inference for ranks with applications to mobility
across neighbourhoods and academic achievement across countries", Review of Economic Studies 91
(2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ranker.arena.tally import Bools, Floats, Ints

DRAWS: Final = 1000
SEED: Final = 20_240_101
CONFIDENCE: Final = 0.95

_BLOCK: Final = 64


@dataclass(frozen=True, slots=True)
class Ranks:
    """``low`` and ``high``, (contenders,), from 1: the best and the worst rank that may be.

    ``above`` [i, j] tells that i is surely above j; ``reach`` how many standard errors that took.
    """

    low: Ints
    high: Ints
    above: Bools
    reach: float


def ranks(
    strengths: Floats,
    covariance: Floats,
    *,
    confidence: float = CONFIDENCE,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Ranks:
    """Rank intervals that hold together with ``confidence``, from ``draws`` draws of ``seed``."""
    count = len(strengths)
    if count < 2:
        ones = np.ones(count, dtype=np.int64)
        return Ranks(ones, ones, np.zeros((count, count), dtype=bool), 0.0)
    error = _errors(covariance)
    reach = _reach(covariance, error, confidence, draws, seed)
    difference = strengths[:, None] - strengths[None, :]
    above = difference > reach * error
    np.fill_diagonal(above, val=False)
    return Ranks(1 + above.sum(axis=0), count - above.sum(axis=1), above, reach)


def _errors(covariance: Floats) -> Floats:
    """Standard errors of all differences; 0 of a contender with itself."""
    variance = np.diag(covariance)
    squared = variance[:, None] + variance[None, :] - 2 * covariance
    return np.sqrt(np.maximum(squared, 0.0))


def _reach(covariance: Floats, error: Floats, confidence: float, draws: int, seed: int) -> float:
    """The ``confidence`` quantile of the largest |difference| / standard error of a draw."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
    scale = np.zeros_like(error, dtype=np.float32)
    np.divide(1.0, error, out=scale, where=error > 1e-12, casting="same_kind")
    normal = np.random.default_rng(seed).standard_normal((draws, len(root)), dtype=np.float32)
    drawn = normal @ root.T
    largest = np.zeros(draws, dtype=np.float32)
    for begin in range(0, draws, _BLOCK):
        block = drawn[begin : begin + _BLOCK]
        best = largest[begin : begin + _BLOCK]
        for first in range(len(root) - 1):
            apart = np.abs(block[:, first : first + 1] - block[:, first + 1 :])
            apart *= scale[first, first + 1 :]
            np.maximum(best, apart.max(axis=1), out=best)
    return float(np.quantile(largest, confidence))
