"""Counts whose events weigh less with their age.

An event of time t weighs 2^((t − now) / half-life) now: after one half-life a half, after two a
quarter. A sum is kept with the time it is valued at, and is worth

    S(now) = Σ 2^((t_i − now) / H) = S(at) · 2^((at − now) / H)

at any later time. An event is added at the later of its own time and the sum's, so that events may
come in any order and give the same sum: the sum of powers does not know of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Decayed:
    """Sums that are valued at the same time: what they were worth at ``at`` (seconds since 1970,
    -inf while nothing was added)."""

    values: tuple[float, ...]
    at: float = -math.inf

    @classmethod
    def zero(cls, count: int) -> Self:
        return cls((0.0,) * count)

    def added(self, amounts: tuple[float, ...], at: float, half_life: float) -> Self:
        """With ``amounts``, one a sum, that happened at ``at``; ``half_life`` in seconds, inf for
        no decay."""
        latest = max(self.at, at)
        share = weight(at, latest, half_life)
        kept = self.worth(latest, half_life)
        values = (old + new * share for old, new in zip(kept, amounts, strict=True))
        return type(self)(tuple(values), latest)

    def worth(self, now: float, half_life: float) -> tuple[float, ...]:
        """What they are worth at ``now``; what lies ahead of it counts as if it were now."""
        if self.at == -math.inf:
            return self.values
        share = weight(self.at, now, half_life)
        return tuple(value * share for value in self.values)


def weight(then: float, now: float, half_life: float) -> float:
    """2^(−age / half-life), 1 for what has no age."""
    return math.exp2(-max(now - then, 0.0) / half_life)
