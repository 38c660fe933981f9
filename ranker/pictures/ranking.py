"""Places: who is before whom, and who shares a place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FINISHED = 1 << 30


@dataclass(frozen=True, slots=True)
class Entry:
    """One to be ranked.

    ``score``: larger is better; None when it failed. ``tier``: how far it came, ``FINISHED`` or
    the number of rounds it survived; a larger tier is before every smaller one, for scores of an
    unfinished picture and of a finished one do not compare.
    """

    index: int
    score: float | None
    tier: int = FINISHED


@dataclass(frozen=True, slots=True)
class Place:
    """``rank`` from 1, 0 for one that failed; ``tied`` when it shares its rank."""

    index: int
    rank: int
    tied: bool = False


def rank(entries: Iterable[Entry]) -> list[Place]:
    """Best first, failed ones last. Competition ranking: equal ones share the better rank (1224).

    Equal means exactly equal, in tier and score. Those that share a rank, and those that failed,
    stand in order of their index. Scores must not be NaN.
    """
    entries = list(entries)
    order = sorted(
        (-entry.tier, -entry.score, entry.index) for entry in entries if entry.score is not None
    )
    shared: dict[tuple[int, float], list[int]] = {}
    for position, (tier, score, _) in enumerate(order, start=1):
        shared.setdefault((tier, score), []).append(position)
    places = [
        Place(index, group[0], tied=len(group) > 1)
        for tier, score, index in order
        for group in (shared[tier, score],)
    ]
    failed = sorted(entry.index for entry in entries if entry.score is None)
    return places + [Place(index, 0) for index in failed]
