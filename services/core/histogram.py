"""A histogram of plain numbers, for what is counted many times a call."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """Values counted by upper ``bounds`` (ascending), to be changed on the event loop alone.

    Any thread may read it. It costs a tenth of ``prometheus_client``'s own, whose locks and checks
    would be a good part of what a call costs at all.
    """

    __slots__ = ("_bounds", "_labels", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._labels = (*(str(float(bound)) for bound in bounds), "+Inf")
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as ``prometheus_client``'s ``HistogramMetricFamily`` takes them."""
        return list(zip(self._labels, accumulate(self.counts), strict=True))
