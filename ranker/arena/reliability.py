"""Which judges see what the others see: the discrimination of each.

Of a judge's decided votes the log-odds for the first of a pair are γ d, where d is the difference
of the strengths that *the other* judges' votes give. γ is 1 for one who judges as they do together,
larger for one who is surer, 0 for one who guesses, below 0 for one who prefers what they reject.
Given that a vote is decided the tie parameter cancels, so a judge's habit of ties does not matter.

Judge-specific discrimination is that of arXiv 2601.21817; there it weighs the votes. Here it is
shown and nothing more: weighing by agreement would let a majority silence everyone of another
taste, and make the strengths depend on themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ranker.arena import davidson
from ranker.arena.connection import components
from ranker.arena.covariance import Scores
from ranker.arena.davidson import Fit
from ranker.arena.tally import ANONYMOUS, Bools, Counts, Floats, Ints, Tally, summed
from ranker.quantiles import NORMAL_97_5

MIN_DECIDED: Final = 30
"""Decided votes on pairs that others judged too, below which nothing is said of a judge."""
MAX_JUDGES: Final = 1000
"""Those with the most votes are looked at."""
DOUBTFUL_BELOW: Final = 0.5

_PRIOR_MEAN: Final = 1.0
_PRIOR_PRECISION: Final = 0.25
_HEAVY: Final = 0.1
"""Share of the votes above which the others' strengths are fitted anew, not by one step."""
_STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class Reliability:
    """Judges with a name, most votes first; all arrays have their shape.

    ``discrimination`` with the ``low`` and ``high`` end of its 95 % interval, where ``told``;
    elsewhere there is too little to say so. ``decided`` are the votes that it rests on.
    """

    judge: Ints
    votes: Ints
    decided: Ints
    discrimination: Floats
    low: Floats
    high: Floats
    told: Bools

    @property
    def doubtful(self) -> Bools:
        """Surely less than half as discerning as the others together."""
        doubtful: Bools = self.told & (self.high < DOUBTFUL_BELOW)
        return doubtful


def reliability(tally: Tally, fit: Fit, inverse: Floats) -> Reliability:
    """``inverse`` is that of ``fit.information``; ``fit`` is that of ``tally``."""
    judges, votes = _most_active(tally.cells)
    cells = tally.cells.where(np.isin(tally.cells.judge, judges))
    order = np.argsort(judges)
    row = order[np.searchsorted(judges, cells.judge, sorter=order)]
    difference = _by_others(tally, cells, row, judges.size, fit, inverse)
    heavy = np.flatnonzero(votes > _HEAVY * tally.votes)
    for place in heavy:
        own = row == place
        difference[own] = _refitted(tally, cells.where(own), int(judges[place]), fit)
    known = np.isfinite(difference)
    decided = summed(row[known], (cells.wins + cells.losses)[known], judges.size)
    slope, error = _discrimination(cells.where(known), row[known], difference[known], judges.size)
    return Reliability(
        judges,
        votes,
        np.rint(decided).astype(np.int64),
        slope,
        slope - NORMAL_97_5 * error,
        slope + NORMAL_97_5 * error,
        decided >= MIN_DECIDED,
    )


def _most_active(cells: Counts) -> tuple[Ints, Ints]:
    """The named judges with the most votes, and how many these are."""
    votes = np.rint(summed(cells.judge, cells.totals, 1)).astype(np.int64)
    votes[ANONYMOUS] = 0
    order = np.lexsort((np.arange(votes.size), -votes))[:MAX_JUDGES]
    order = order[votes[order] > 0]
    return order, votes[order]


def _by_others(
    tally: Tally, cells: Counts, row: Ints, judges: int, fit: Fit, inverse: Floats
) -> Floats:
    """Differences as the votes of the other judges give them, by one Newton step from ``fit``."""
    size = tally.contenders
    scores = Scores.of(size, cells, fit)
    first_row = np.zeros(int(cells.judge.max(initial=0)) + 1, dtype=np.int64)
    first_row[cells.judge] = row
    dense = np.zeros((judges, size + 1))
    dense[first_row[scores.judge], scores.parameter] = scores.value
    moved = dense[:, : len(inverse)] @ inverse[:, :size]
    own = fit.strengths[cells.first] - fit.strengths[cells.second]
    less: Floats = own - (moved[row, cells.first] - moved[row, cells.second])
    return less


def _refitted(tally: Tally, own: Counts, judge: int, fit: Fit) -> Floats:
    """The same by a fit without the judge; NaN where no chain of others' votes links the two."""
    others = Tally(tally.contenders, tally.cells.where(tally.cells.judge != judge))
    again = davidson.fit(tally.contenders, others.pairs, fit.ridge, start=fit)
    component = components(tally.contenders, others.pairs)
    linked = component[own.first] == component[own.second]
    return np.where(linked, again.strengths[own.first] - again.strengths[own.second], np.nan)


def _discrimination(
    cells: Counts, row: Ints, difference: Floats, judges: int
) -> tuple[Floats, Floats]:
    """The slope of each judge's log-odds over ``difference`` and its standard error.

    A logistic regression without intercept, a normal prior around 1, all judges at once.
    """
    decided = cells.wins + cells.losses
    slope = np.full(judges, _PRIOR_MEAN)
    for _ in range(_STEPS):
        odds = 1 / (1 + np.exp(-np.clip(slope[row] * difference, -500, 500)))
        gradient = summed(row, (cells.wins - decided * odds) * difference, judges)
        gradient -= _PRIOR_PRECISION * (slope - _PRIOR_MEAN)
        known = summed(row, decided * odds * (1 - odds) * difference**2, judges)
        known += _PRIOR_PRECISION
        step = np.clip(gradient / known, -1.0, 1.0)
        slope += step
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return slope, 1 / np.sqrt(known)
