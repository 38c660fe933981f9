from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ranker.arena import davidson
from ranker.arena.influence import MAX_SHARE, Removal, to_change_leader
from ranker.arena.tally import LEFT, Counts, Tally, tally
from tests.unit.ranker.arena.simulation import simulated


def found_for(counted: Tally) -> Removal | None:
    fit = davidson.fit(counted.contenders, counted.pairs)
    inverse = davidson.inverted(fit.information)
    size = counted.contenders
    variance = np.diag(inverse)[:size]
    errors = np.sqrt(np.maximum(variance[:, None] + variance - 2 * inverse[:size, :size], 1e-30))
    ranked = np.ones(size, dtype=bool)
    return to_change_leader(size, counted.pairs, fit, inverse, errors, ranked)


def leader(contenders: int, pairs: Counts) -> int:
    return int(np.argmax(davidson.fit(contenders, pairs).strengths))


@pytest.mark.parametrize("seed", range(12))
def test_without_that_many_votes_another_leads(seed: int) -> None:
    strengths = np.array([0.5, 0.35, 0.0, -0.3])
    counted = simulated(np.random.default_rng(seed), strengths, 400)
    removal = found_for(counted)
    assert removal is not None
    assert counted.votes - removal.without.totals.sum() == removal.votes
    assert removal.rival == leader(4, removal.without) != leader(4, counted.pairs)


@pytest.mark.parametrize("seed", range(8))
def test_of_few_votes_it_is_what_trying_every_removal_finds(seed: int) -> None:
    counted = simulated(np.random.default_rng(seed), np.array([0.9, 0.2, -0.4]), 24)
    removal = found_for(counted)
    fewest = _fewest_by_trying(counted, most=4)
    if fewest is None:
        assert removal is None or removal.votes > 4
    else:
        assert removal is not None
        assert fewest <= removal.votes <= fewest + 1


def test_a_clear_leader_takes_more_votes_than_a_close_one() -> None:
    rng = np.random.default_rng(5)
    close = found_for(simulated(rng, np.array([0.1, 0.0, -1.0]), 3000))
    clear = found_for(simulated(rng, np.array([1.0, 0.0, -1.0]), 3000))
    assert close is not None
    assert clear is not None
    assert close.votes * 3 < clear.votes


def test_a_number_that_needs_most_of_the_votes_is_not_told() -> None:
    counted = tally(2, np.zeros(50, dtype=np.int64), np.ones(50, dtype=np.int64),
                    np.full(50, LEFT), np.zeros(50, dtype=np.int64))  # fmt: skip
    assert MAX_SHARE < 1.0
    assert found_for(counted) is None


def test_one_alone_has_no_rival() -> None:
    counted = simulated(np.random.default_rng(6), np.array([0.5, 0.0]), 50)
    fit = davidson.fit(2, counted.pairs)
    inverse = davidson.inverted(fit.information)
    only = np.array([True, False])
    assert to_change_leader(2, counted.pairs, fit, inverse, np.ones((2, 2)), only) is None


def _fewest_by_trying(counted: Tally, most: int) -> int | None:
    """The smallest removal of at most ``most`` votes that changes the leader, of all there are."""
    pairs = counted.pairs
    first = leader(counted.contenders, pairs)
    counts = np.concatenate([pairs.wins, pairs.losses, pairs.ties]).astype(int)
    size = pairs.first.size
    removals = (
        r for r in product(*(range(min(c, most) + 1) for c in counts)) if 0 < sum(r) <= most
    )
    for removed in sorted(removals, key=sum):
        left = counts - removed
        wins, losses, ties = (left[at : at + size].astype(float) for at in (0, size, 2 * size))
        without = Counts(pairs.first, pairs.second, pairs.judge, wins, losses, ties)
        if leader(counted.contenders, without) != first:
            return sum(removed)
    return None
