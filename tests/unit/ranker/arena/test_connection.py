from __future__ import annotations

import numpy as np

from ranker.arena.connection import components, separated
from ranker.arena.tally import LEFT, TIE, tally


def test_components_follow_chains_of_pairs() -> None:
    left, right = np.array([5, 4, 1]), np.array([4, 3, 0])
    pairs = tally(7, left, right, np.full(3, LEFT), np.zeros(3, dtype=np.int64)).pairs
    assert components(7, pairs).tolist() == [0, 0, 2, 3, 3, 3, 6]


def test_components_of_a_long_chain() -> None:
    order = np.random.default_rng(1).permutation(300)
    pairs = tally(
        300, order[:-1], order[1:], np.full(299, TIE), np.zeros(299, dtype=np.int64)
    ).pairs
    assert set(components(300, pairs).tolist()) == {0}


def test_who_never_lost_is_separated_and_a_tie_joins() -> None:
    # 1 and 2 beat each other, 0 beats both, 3 ties with 1.
    left, right = np.array([1, 2, 0, 0, 3]), np.array([2, 1, 1, 2, 1])
    vote = np.array([LEFT, LEFT, LEFT, LEFT, TIE])
    pairs = tally(4, left, right, vote, np.zeros(5, dtype=np.int64)).pairs
    assert separated(4, pairs, root=1).tolist() == [True, False, False, False]
    assert separated(4, pairs, root=0).tolist() == [False, True, True, True]
