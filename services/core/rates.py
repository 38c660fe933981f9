"""Rates that were counted, and how far to trust them."""

from __future__ import annotations

import math


def wilson(successes: float, trials: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (Wilson, 1927), without continuity
    correction: ``z`` standard deviations to each side. Half successes are those of ties.

    0 <= ``successes`` <= ``trials``, of which there is at least a part of one.
    """
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # The ends are exact where all or none succeeded; rounding would leave 1e-17 there.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high
