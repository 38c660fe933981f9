"""What is known of the mean of several success rates, each with its Beta posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ranker.graph.beta import HIGH, LOW, Posterior
from ranker.score.estimate import Interval

Masses = npt.NDArray[np.float64]
# Cells of the grid to one standard deviation, and how many deviations to each side are kept. The
# tail of Beta(1, n) falls exponentially: what is left out is less than exp(-40).
_CELLS: Final = 64
_DEVIATIONS: Final = 40
_MIN_CELLS: Final = 256
_MAX_CELLS: Final = 2**40
_NEGLIGIBLE: Final = 1e-15


class MeanOfRates:
    """The mean of independent rates, each with its Beta posterior.

    Its distribution is computed on a grid: the masses of the rates, convolved. Quantiles are within
    some ten-thousandths of its standard deviation.
    """

    def __init__(self, rates: Sequence[Posterior]) -> None:
        """Raises ``ValueError`` for none, and for one that is not Beta(a, b) with a and b at least
        1 and finite: with the uniform prior, no counts below 0 are known."""
        if not rates:
            raise ValueError("the mean of no rates")
        for rate in rates:
            if not (1 <= rate.a < math.inf and 1 <= rate.b < math.inf):
                raise ValueError(f"Beta({rate.a}, {rate.b}) is no posterior of counts")
        self.value = math.fsum(rate.mean for rate in rates) / len(rates)
        deviation = math.sqrt(math.fsum(_variance(rate) for rate in rates))
        cells = min(_MAX_CELLS, max(_MIN_CELLS, math.ceil(_CELLS / deviation)))
        masses, first = np.ones(1), 0
        for rate in rates:
            more, start = _masses(rate, cells)
            masses, skipped = _trimmed(_convolved(masses, more))
            first += start + skipped
        # A sum of n cells' centres stands n halves of a cell after the sum of their numbers.
        middles = first + np.arange(len(masses)) + len(rates) / 2
        edges = np.append(middles - 0.5, middles[-1] + 0.5) / (cells * len(rates))
        masses /= math.fsum(masses)
        # A rate that is known to less than a cell stands at the middle of one; its mean is known.
        shift = self.value - math.fsum(masses * middles) / (cells * len(rates))
        self._edges = edges + shift
        self._below = np.append(0.0, np.cumsum(masses))

    def quantile(self, share: float) -> float:
        """0 to 1; below it lies ``share`` of the probability."""
        return float(np.clip(np.interp(share, self._below, self._edges), 0.0, 1.0))

    def above(self, rate: float) -> float:
        """The probability that the mean is larger than ``rate``."""
        return 1.0 - float(np.interp(rate, self._edges, self._below, left=0.0, right=1.0))

    def interval(self) -> Interval:
        """The mean of the posterior between its 2.5 % and 97.5 % quantiles."""
        low, high = self.quantile(LOW), self.quantile(HIGH)
        return Interval(self.value, min(low, self.value), max(high, self.value))


def complement(rate: Posterior) -> Posterior:
    """Of 1 minus the rate."""
    return Posterior(rate.b, rate.a)


def _variance(rate: Posterior) -> float:
    total = rate.a + rate.b
    return rate.a * rate.b / (total * total * (total + 1))


def _masses(rate: Posterior, cells: int) -> tuple[Masses, int]:
    """The rate's probability in each cell of 1/``cells``, and the number of the first."""
    reach = _DEVIATIONS * math.sqrt(_variance(rate)) * cells + 2
    first = max(0, math.floor(rate.mean * cells - reach))
    last = min(cells, math.ceil(rate.mean * cells + reach))
    middles = (np.arange(first, last) + 0.5) / cells
    logs = (rate.a - 1) * np.log(middles) + (rate.b - 1) * np.log1p(-middles)
    found = np.exp(logs - logs.max())
    masses, skipped = _trimmed(found / found.sum())
    return masses, first + skipped


def _convolved(one: Masses, other: Masses) -> Masses:
    size = len(one) + len(other) - 1
    if min(len(one), len(other)) < 64:
        return np.convolve(one, other)
    padded = 1 << (size - 1).bit_length()
    product = np.fft.rfft(one, padded) * np.fft.rfft(other, padded)
    return np.maximum(np.fft.irfft(product, padded)[:size], 0.0)


def _trimmed(masses: Masses) -> tuple[Masses, int]:
    """Without cells at both ends that together have no probability to speak of."""
    kept = np.flatnonzero(masses > _NEGLIGIBLE * masses.max())
    return masses[kept[0] : kept[-1] + 1], int(kept[0])
