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
    """``value`` is what the sum was worth at ``at`` (seconds since 1970)."""

    value: float = 0.0
    at: float = -math.inf

    def added(self, amount: float, at: float, half_life: float) -> Self:
        """With ``amount`` that happened at ``at``; ``half_life`` in seconds, inf for no decay."""
        if amount == 0.0:
            return self
        latest = max(self.at, at)
        kept = self.worth(latest, half_life)
        return type(self)(kept + amount * weight(at, latest, half_life), latest)

    def worth(self, now: float, half_life: float) -> float:
        """What it is worth at ``now``; what lies ahead of it counts as if it were now."""
        return self.value * weight(self.at, now, half_life) if self.value else 0.0


def weight(then: float, now: float, half_life: float) -> float:
    """2^(−age / half-life), 1 for what has no age."""
    return math.exp2(-max(now - then, 0.0) / half_life)
