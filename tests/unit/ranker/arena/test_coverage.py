"""95 % intervals hold the truth in 93 to 97 % of simulations; `tests/parity` has the long version.

So many repetitions that the share itself is known to about half a percent.
"""

from __future__ import annotations

import numpy as np

from ranker.arena.leaderboard import leaderboard
from ranker.arena.tally import Floats, Tally
from tests.unit.ranker.arena.simulation import simulated

STRENGTHS = np.array([1.1, 0.6, 0.2, 0.0, -0.1, -0.5, -0.5, -0.8])


def held(counted: Tally, true: Floats) -> tuple[list[bool], bool]:
    """Whether each interval holds the true strength, and whether all ranks hold together."""
    board = leaderboard(counted, robust=False)
    # Equal strengths may take any of the ranks that they share.
    best = 1 + (true[:, None] > true[None, :]).sum(axis=0)
    worst = len(true) - (true[:, None] < true[None, :]).sum(axis=0)
    inside, ranked = [], True
    for each in board.standings:
        assert each.strength is not None
        at = each.contender
        inside.append(bool(each.strength.low <= true[at] <= each.strength.high))
        ranked = ranked and each.rank_low <= worst[at] and each.rank_high >= best[at]
    return inside, ranked


def test_strengths_and_ranks() -> None:
    rng, inside, ranked = np.random.default_rng(11), [], []
    true = STRENGTHS - STRENGTHS.mean()
    for _ in range(400):
        told, together = held(simulated(rng, true, 1000), true)
        inside += told
        ranked.append(together)
    assert 0.93 <= np.mean(inside) <= 0.97
    assert np.mean(ranked) >= 0.95
