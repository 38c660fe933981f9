"""The leaderboard of one intent: strengths, ranks, judges, and what cannot be said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from ranker.arena import davidson, influence
from ranker.arena.connection import components, separated
from ranker.arena.covariance import Covariance, centred, sandwich, widened
from ranker.arena.davidson import RIDGE, Fit
from ranker.arena.ranks import DRAWS, SEED, Ranks, ranks
from ranker.arena.reliability import Reliability, reliability
from ranker.arena.tally import Bools, Floats, Ints, Tally
from ranker.quantiles import NORMAL_97_5

MIN_VOTES: Final = 30
"""Votes of a contender below which its strength is not told."""


class Unranked(Enum):
    """Why a contender has no rank."""

    NO = "it has one"
    FEW_VOTES = "too few votes"
    NOT_CONNECTED = "no chain of votes links it to the leader's"


@dataclass(frozen=True, slots=True)
class Interval:
    """``value`` with its 95 % interval from ``low`` to ``high``."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Standing:
    """One contender. ``strength`` is natural log-odds against the mean of the ranked ones, None
    where it has no rank; ``rank_low`` to ``rank_high`` are from 1, and 0 then."""

    contender: int
    strength: Interval | None
    rank_low: int
    rank_high: int
    wins: int
    losses: int
    ties: int
    unranked: Unranked


@dataclass(frozen=True, slots=True)
class Preference:
    """How often one contender is preferred to another, ties as half, with its 95 % interval.

    ``certainty`` is the probability, given the votes, that it is the stronger one.
    """

    share: Interval
    certainty: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Without ``votes`` votes contender ``rival`` leads."""

    votes: int
    rival: int


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Ranked contenders best first, then the others by their number.

    ``spread`` is the covariance of the ranked ones' strengths, in their order. ``tie`` is ν, None
    without any tie. ``hold`` is None where no number of votes was found that would change the
    leader. ``by_judge`` and ``effective_judges`` are those of ``Covariance``.
    """

    standings: tuple[Standing, ...]
    votes: int
    tie: Interval | None
    hold: Hold | None
    judges: Reliability | None
    by_judge: bool
    effective_judges: float
    components: int
    spread: Floats
    draws: int = DRAWS
    seed: int = SEED

    def preference(self, one: int, other: int) -> Preference | None:
        """Of contender ``one`` to ``other``; None where either has no rank."""
        ranked = [each for each in self.standings if each.strength is not None]
        place = {each.contender: at for at, each in enumerate(ranked)}
        if one == other or one not in place or other not in place:
            return None
        a, b = place[one], place[other]
        first, second = ranked[a].strength, ranked[b].strength
        assert first is not None  # the ranked ones have one
        assert second is not None
        squared = self.spread[a, a] + self.spread[b, b] - 2 * self.spread[a, b]
        error = float(np.sqrt(max(squared, 0.0)))
        gap = _interval(first.value - second.value, error)
        log_tie = float(np.log(self.tie.value)) if self.tie else -np.inf
        at = davidson.chances(np.array([gap.value, gap.low, gap.high]), log_tie)
        share = Interval(*(0.5 + at.mean).tolist())
        sure = 0.5 * (1 + math.erf(gap.value / (error * math.sqrt(2)))) if error else 0.5
        return Preference(share, sure)


@dataclass(frozen=True, slots=True)
class _Solved:
    """Of the contenders that are connected."""

    tally: Tally
    fit: Fit
    inverse: Floats
    covariance: Covariance
    strengths: Floats
    spread: Floats
    ranked: Bools


def leaderboard(
    tally: Tally, *, min_votes: int = MIN_VOTES, ridge: float = RIDGE, robust: bool = True
) -> Leaderboard:
    """Everything that the votes say; ``robust`` False leaves ``hold`` and ``judges`` out.

    Only contenders that a chain of votes links are compared: those of the component with the most
    votes. Of these, the ones with fewer than ``min_votes`` votes help to place the others and have
    no rank themselves.
    """
    connected, parts = _connected(tally)
    solved = _solved(tally.among(connected), min_votes, ridge) if tally.votes else None
    judges = None
    if solved is not None and robust:
        judges = reliability(solved.tally, solved.fit, solved.inverse)
    if solved is None or not solved.ranked.any():
        return _silent(tally, connected, parts, judges)
    chosen = np.flatnonzero(solved.ranked)
    found = ranks(solved.strengths[chosen], solved.spread[np.ix_(chosen, chosen)])
    told = np.flatnonzero(connected)[chosen]
    order = np.argsort(-solved.strengths[chosen], kind="stable")
    rows = _ranked_rows(tally, told, solved, chosen, found, order)
    rows += _unranked_rows(tally, np.setdiff1d(np.arange(tally.contenders), told), connected)
    return Leaderboard(
        tuple(rows),
        tally.votes,
        _tie(solved),
        _hold(solved, np.flatnonzero(connected)) if robust else None,
        judges,
        solved.covariance.by_judge,
        solved.covariance.judges,
        parts,
        solved.spread[np.ix_(chosen[order], chosen[order])],
    )


def _connected(tally: Tally) -> tuple[Bools, int]:
    """Who is in the component with the most votes, and the number of components with any."""
    label = components(tally.contenders, tally.pairs)
    votes = np.bincount(label, tally.votes_of, tally.contenders)
    if not votes.size:
        return np.zeros(0, dtype=bool), 0
    return label == int(np.argmax(votes)), int((votes > 0).sum())


def _solved(tally: Tally, min_votes: int, ridge: float) -> _Solved:
    fit = davidson.fit(tally.contenders, tally.pairs, ridge)
    inverse = davidson.inverted(fit.information)
    covariance = sandwich(tally, fit, inverse)
    ranked = tally.votes_of >= min_votes
    among = ranked if ranked.any() else np.ones_like(ranked)
    apart = separated(tally.contenders, tally.pairs, root=int(np.argmax(tally.votes_of)))
    spread = centred(widened(covariance.strengths, inverse, apart), among)
    strengths = fit.strengths - fit.strengths[among].mean()
    return _Solved(tally, fit, inverse, covariance, strengths, spread, ranked)


def _ranked_rows(
    tally: Tally, told: Ints, solved: _Solved, chosen: Ints, found: Ranks, order: Ints
) -> list[Standing]:
    wins, losses, ties = tally.records
    error = np.sqrt(np.maximum(np.diag(solved.spread), 0.0))[chosen]
    strength = solved.strengths[chosen]
    return [
        Standing(
            int(told[at]),
            _interval(float(strength[at]), float(error[at])),
            int(found.low[at]),
            int(found.high[at]),
            int(wins[told[at]]),
            int(losses[told[at]]),
            int(ties[told[at]]),
            Unranked.NO,
        )
        for at in order
    ]


def _unranked_rows(tally: Tally, others: Ints, connected: Bools) -> list[Standing]:
    wins, losses, ties = tally.records
    has_votes = tally.votes_of > 0
    return [
        Standing(
            int(at),
            None,
            0,
            0,
            int(wins[at]),
            int(losses[at]),
            int(ties[at]),
            Unranked.FEW_VOTES if connected[at] or not has_votes[at] else Unranked.NOT_CONNECTED,
        )
        for at in others
    ]


def _silent(tally: Tally, connected: Bools, parts: int, judges: Reliability | None) -> Leaderboard:
    rows = _unranked_rows(tally, np.arange(tally.contenders), connected)
    return Leaderboard(
        tuple(rows), tally.votes, None, None, judges, False, 0.0, parts, np.zeros((0, 0))
    )


def _hold(solved: _Solved, numbers: Ints) -> Hold | None:
    variance = np.diag(solved.spread)
    squared = variance[:, None] + variance[None, :] - 2 * solved.spread
    errors = np.sqrt(np.maximum(squared, 1e-30))
    found = influence.to_change_leader(
        solved.tally.contenders,
        solved.tally.pairs,
        solved.fit,
        solved.inverse,
        errors,
        solved.ranked,
    )
    if found is None:
        return None
    return Hold(found.votes, int(numbers[found.rival]))


def _tie(solved: _Solved) -> Interval | None:
    if not solved.fit.has_ties:
        return None
    log = _interval(solved.fit.log_tie, float(np.sqrt(solved.covariance.log_tie)))
    return Interval(float(np.exp(log.value)), float(np.exp(log.low)), float(np.exp(log.high)))


def _interval(value: float, error: float) -> Interval:
    return Interval(value, value - NORMAL_97_5 * error, value + NORMAL_97_5 * error)
