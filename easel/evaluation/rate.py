"""A rate that was counted, and how far to trust it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_Z_95: Final = 1.959963984540054  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True, slots=True)
class Rate:
    """``correct`` of ``total`` independent trials; 0 <= ``correct`` <= ``total``."""

    correct: int
    total: int

    @property
    def share(self) -> float | None:
        """0 to 1; None of no trials."""
        return self.correct / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval; all of 0 to 1 of no trials."""
        return wilson(self.correct, self.total)


def wilson(correct: int, total: int, z: float = _Z_95) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (Wilson, 1927), without continuity
    correction; ``z`` standard deviations to each side, 1.96 for 95 %.

    Raises ``ValueError`` unless 0 <= ``correct`` <= ``total``.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} of {total} is no rate")
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # The ends are exact where all or none are correct; rounding would leave 1e-17 there.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == total else (centre + spread) / scale
    return low, high
