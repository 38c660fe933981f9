"""Votes as counts: how often, by whom, each of a pair was preferred."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEFT: Final = 1
RIGHT: Final = 2
TIE: Final = 3
ANONYMOUS: Final = 0
"""The judge of votes that name none: each of them is by somebody else."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of outcomes, one row a cell; all arrays have its shape.

    ``first`` < ``second`` are contenders from 0; ``judge`` is ``ANONYMOUS`` or a number from 1.
    ``wins`` are those of the first, ``losses`` those of the second.
    """

    first: Ints
    second: Ints
    judge: Ints
    wins: Floats
    losses: Floats
    ties: Floats

    @property
    def totals(self) -> Floats:
        return self.wins + self.losses + self.ties

    def where(self, chosen: Bools) -> Counts:
        """The cells for which ``chosen`` is true."""
        return Counts(
            self.first[chosen],
            self.second[chosen],
            self.judge[chosen],
            self.wins[chosen],
            self.losses[chosen],
            self.ties[chosen],
        )


@dataclass(frozen=True)
class Tally:
    """All votes of one intent over ``contenders`` contenders: a cell for each pair and judge."""

    contenders: int
    cells: Counts

    @cached_property
    def pairs(self) -> Counts:
        """A cell for each pair, whoever judged it."""
        return _grouped(self.cells, by_judge=False)

    @property
    def votes(self) -> int:
        return round(float(self.cells.totals.sum()))

    @cached_property
    def votes_of(self) -> Floats:
        """Votes that each contender took part in."""
        pairs, size = self.pairs, self.contenders
        return summed(pairs.first, pairs.totals, size) + summed(pairs.second, pairs.totals, size)

    @cached_property
    def records(self) -> tuple[Ints, Ints, Ints]:
        """Wins, losses and ties of each contender."""
        pairs, size = self.pairs, self.contenders

        def both(of_first: Floats, of_second: Floats) -> Ints:
            told = summed(pairs.first, of_first, size) + summed(pairs.second, of_second, size)
            return np.rint(told).astype(np.int64)

        return (
            both(pairs.wins, pairs.losses),
            both(pairs.losses, pairs.wins),
            both(pairs.ties, pairs.ties),
        )

    def among(self, chosen: Bools) -> Tally:
        """The votes between contenders for which ``chosen`` is true, numbered anew in order."""
        place = np.cumsum(chosen) - 1
        kept = self.cells.where(chosen[self.cells.first] & chosen[self.cells.second])
        moved = Counts(
            place[kept.first], place[kept.second], kept.judge, kept.wins, kept.losses, kept.ties
        )
        return Tally(int(chosen.sum()), moved)


def tally(contenders: int, left: Ints, right: Ints, vote: Ints, judge: Ints) -> Tally:
    """Counts of votes given one a row: contenders from 0, ``vote`` as ``LEFT``, ``RIGHT``, ``TIE``.

    Raises ValueError for a pair of a contender with itself, or a vote that is none of the three.
    """
    if np.any(left == right):
        raise ValueError("a contender was compared with itself")
    if not np.all((vote >= LEFT) & (vote <= TIE)):
        raise ValueError("a vote is none of left, right and tie")
    swapped = left > right
    won = np.where(vote == TIE, TIE, np.where((vote == LEFT) != swapped, LEFT, RIGHT))
    single = Counts(
        np.minimum(left, right).astype(np.int64),
        np.maximum(left, right).astype(np.int64),
        judge.astype(np.int64),
        (won == LEFT).astype(np.float64),
        (won == RIGHT).astype(np.float64),
        (won == TIE).astype(np.float64),
    )
    return Tally(contenders, _grouped(single, by_judge=True))


def summed(place: Ints, value: Floats, size: int) -> Floats:
    """(size,): the sum of the values at each place."""
    # Of nothing at all numpy returns integers.
    return np.bincount(place, value, size).astype(np.float64, copy=False)


def _grouped(counts: Counts, *, by_judge: bool) -> Counts:
    """Equal pairs (and judges) as one cell, in their order."""
    if not counts.first.size:
        return counts
    judge = counts.judge if by_judge else np.zeros_like(counts.judge)
    width, judges = int(counts.second.max()) + 1, int(judge.max()) + 1
    key = (counts.first * width + counts.second) * judges + judge
    unique, cell = np.unique(key, return_inverse=True)
    pair, size = unique // judges, unique.size
    return Counts(
        pair // width,
        pair % width,
        unique % judges,
        summed(cell, counts.wins, size),
        summed(cell, counts.losses, size),
        summed(cell, counts.ties, size),
    )
