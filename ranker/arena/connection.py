"""What the votes connect: without a chain of comparisons two contenders cannot be told apart."""

from __future__ import annotations

import numpy as np

from ranker.arena.tally import Bools, Counts, Ints


def components(contenders: int, pairs: Counts) -> Ints:
    """The number of each contender's component: the smallest contender in it.

    Two are in one when a chain of pairs with votes leads from one to the other.
    """
    label = np.arange(contenders)
    while True:
        before = label.copy()
        least = np.minimum(label[pairs.first], label[pairs.second])
        np.minimum.at(label, pairs.first, least)
        np.minimum.at(label, pairs.second, least)
        label = label[label]
        if np.array_equal(label, before):
            return label


def separated(contenders: int, pairs: Counts, root: int) -> Bools:
    """Whom the votes separate from ``root``: no chain of wins and ties leads both there and back.

    The likelihood of such a strength has no maximum, it grows for ever (Ford, "Solution of a
    ranking problem from binary comparisons", 1957); what holds it is the prior alone.
    """
    beat = np.zeros((contenders, contenders), dtype=bool)
    beat[pairs.first, pairs.second] = (pairs.wins > 0) | (pairs.ties > 0)
    beat[pairs.second, pairs.first] = (pairs.losses > 0) | (pairs.ties > 0)
    return ~(_reached(beat, root) & _reached(beat.T, root))


def _reached(edges: Bools, root: int) -> Bools:
    reached = np.zeros(len(edges), dtype=bool)
    reached[root] = True
    frontier = np.array([root])
    while frontier.size:
        new = edges[frontier].any(axis=0) & ~reached
        reached |= new
        frontier = np.flatnonzero(new)
    return reached
