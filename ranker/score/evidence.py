"""All that a score is computed from: nothing else goes in, so that it can be computed again."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date


@dataclass(frozen=True, slots=True)
class Standing:
    """One fact of use (downloads, likes), among the other models of the type that have it.

    ``below`` of the ``peers`` have less, ``equal`` as much.
    """

    name: str
    value: int
    below: int
    equal: int
    peers: int


@dataclass(frozen=True, slots=True)
class Claims:
    """What was said of a model: ``verified`` by a measurement, ``contradicted`` by one, or without
    one."""

    verified: int = 0
    contradicted: int = 0
    unmeasured: int = 0

    @property
    def judged(self) -> int:
        return self.verified + self.contradicted


@dataclass(frozen=True, slots=True)
class Measurement:
    """A rate that was counted: ``successes`` of ``trials``."""

    name: str
    successes: int
    trials: int


@dataclass(frozen=True, slots=True)
class Ecosystem:
    """What one looks for around a model of its type: seen to be there, seen to be missing, or not
    seen because what would tell was not asked or did not answer."""

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Uses that ended well or badly, each weighing less with its age; ``recorded`` counts them
    without weights."""

    successes: float = 0.0
    failures: float = 0.0
    recorded: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one model on the day ``as_of``; ``released`` is None where nobody knows."""

    model: str
    type: str
    as_of: date
    usage: tuple[Standing, ...] = ()
    claims: Claims = field(default_factory=Claims)
    measurements: tuple[Measurement, ...] = ()
    ecosystem: Ecosystem = field(default_factory=Ecosystem)
    outcomes: Outcomes = field(default_factory=Outcomes)
    released: date | None = None


def added(outcomes: Iterable[Outcomes]) -> Outcomes:
    """All of them together."""
    every = list(outcomes)
    return Outcomes(
        math.fsum(each.successes for each in every),
        math.fsum(each.failures for each in every),
        sum(each.recorded for each in every),
    )


def standing(name: str, value: int, counts: Sequence[int]) -> Standing:
    """Where ``value`` stands among ``counts``, which are in order and have it once themselves."""
    below, end = bisect_left(counts, value), bisect_right(counts, value)
    itself = int(end > below)
    return Standing(name, value, below, equal=end - below - itself, peers=len(counts) - itself)
