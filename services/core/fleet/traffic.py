"""How the requests that name no version are split between the versions of a name."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final, Generic, TypeVar

from services.core.errors import InvalidInput

T = TypeVar("T")

TOLERANCE: Final = 1e-6
"""How far from 1 the sum of shares may be: they are written with few digits."""


class Split(Generic[T]):
    """Picks one of several things, each with its share; the shares (> 0) add up to 1."""

    def __init__(self, shares: Iterable[tuple[T, float]]) -> None:
        pairs = list(shares)
        self._choices = [choice for choice, _ in pairs]
        self._ends = list(accumulate(share for _, share in pairs))
        self._ends[-1] = math.inf  # what rounding left over is the last one's

    def pick(self, draw: float) -> T:
        """The choice for ``draw``, which is uniform from 0 to 1, exclusive."""
        return self._choices[bisect_right(self._ends, draw)]


def check_shares(shares: Mapping[str, float]) -> None:
    """Raises ``InvalidInput`` unless each is 0 to 1 and all together are 1."""
    for version, share in shares.items():
        # Written so that NaN fails it too.
        if not 0.0 <= share <= 1.0:
            raise InvalidInput(
                "shares",
                f"The share of version {version[:100]!r} is out of range.",
                "0 to 1",
                share,
            )
    total = math.fsum(shares.values())
    if abs(total - 1.0) > TOLERANCE:
        raise InvalidInput("shares", "The shares do not add up to 1.", 1, f"{total:g}")
