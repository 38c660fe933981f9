"""Votes drawn from known strengths."""

from __future__ import annotations

import numpy as np

from ranker.arena.davidson import chances
from ranker.arena.tally import LEFT, RIGHT, TIE, Floats, Ints, Tally, tally

NO_JUDGE = np.zeros(1, dtype=np.int64)


def outcomes(rng: np.random.Generator, difference: Floats, log_tie: float) -> Ints:
    """One vote for each difference."""
    odds = chances(difference, log_tie)
    drawn = rng.random(difference.shape)
    votes: Ints = np.where(
        drawn < odds.first, LEFT, np.where(drawn < odds.first + odds.second, RIGHT, TIE)
    )
    return votes


def random_pairs(rng: np.random.Generator, contenders: int, votes: int) -> tuple[Ints, Ints]:
    left = rng.integers(contenders, size=votes)
    return left, (left + rng.integers(1, contenders, size=votes)) % contenders


def simulated(
    rng: np.random.Generator,
    strengths: Floats,
    votes: int,
    *,
    tie: float = 0.6,
    judges: Ints = NO_JUDGE,
) -> Tally:
    """Random pairs; ``judges`` are given to the votes in turn."""
    left, right = random_pairs(rng, len(strengths), votes)
    log_tie = float(np.log(tie)) if tie else -np.inf
    vote = outcomes(rng, strengths[left] - strengths[right], log_tie)
    return tally(len(strengths), left, right, vote, np.resize(judges, votes))


def judged(
    rng: np.random.Generator,
    strengths: Floats,
    votes_each: int,
    *,
    discernment: Floats,
    taste: float = 0.0,
    tie: float = 0.6,
) -> Tally:
    """Votes of judges 1, 2, ...: ``discernment`` of each multiplies the differences it sees, and
    ``taste`` is the standard deviation of what each likes of its own about every contender."""
    size = len(discernment)
    left, right = random_pairs(rng, len(strengths), size * votes_each)
    judge = np.repeat(np.arange(size), votes_each)
    seen = strengths + taste * rng.standard_normal((size, len(strengths)))
    difference = discernment[judge] * (seen[judge, left] - seen[judge, right])
    vote = outcomes(rng, difference, float(np.log(tie)))
    return tally(len(strengths), left, right, vote, judge + 1)
