"""Counts whose events weigh less with their age.

An event of time t weighs 2^((t − now) / half-life) now: after one half-life a half, after two a
quarter. A sum is kept with the time it is valued at, and is worth

    S(now) = Σ 2^((t_i − now) / H) = S(at) · 2^((at − now) / H)

at any later time. An event is added at the later of its own time and the sum's, so that events may
come in any order and give the same sum: the sum of powers does not know of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(slots=True)
class Decayed:
    """Sums that are valued at the same time: what they were worth at ``at`` (seconds since 1970,
    -inf while nothing was added)."""

    values: list[float]
    at: float = -math.inf

    @classmethod
    def zero(cls, count: int) -> Self:
        return cls([0.0] * count)

    def add(self, amounts: Sequence[float], at: float, half_life: float) -> None:
        """``amounts``, one a sum, happened at ``at``; ``half_life`` in seconds, inf for none."""
        if self.at == -math.inf:
            self.values, self.at = [float(amount) for amount in amounts], at
            return
        if at > self.at:
            kept = weight(self.at, at, half_life)
            self.values = [old * kept for old in self.values]
            self.at = at
            new = 1.0
        else:
            new = weight(at, self.at, half_life)
        for place, amount in enumerate(amounts):
            if amount:
                self.values[place] += amount * new

    def worth(self, now: float, half_life: float) -> list[float]:
        """What they are worth at ``now``; what lies ahead of it counts as if it were now."""
        if self.at == -math.inf:
            return list(self.values)
        share = weight(self.at, now, half_life)
        return [value * share for value in self.values]


def weight(then: float, now: float, half_life: float) -> float:
    """2^(−age / half-life), 1 for what has no age."""
    return math.exp2((then - now) / half_life) if then < now else 1.0
