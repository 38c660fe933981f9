"""Quantiles of the normal distribution, and of Student's t."""

from __future__ import annotations

import math
from typing import Final

NORMAL_95: Final = 1.6448536269514722
"""Below it lies 95 % of the normal distribution."""
NORMAL_97_5: Final = 1.959963984540054
"""Below it lies 97.5 %: as far as a 95 % interval reaches to either side."""


def student(normal: float, freedom: float) -> float:
    """What Student's t with so many degrees of freedom has below it as much of as the normal
    distribution has below ``normal``.

    By the expansion of Fisher and Cornish (1960), up to its fourth term: of ``NORMAL_95`` within
    0.2 % from 3 degrees of freedom on, within 1.5 % of 2 and 15 % of 1.
    """
    z = normal
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))
