"""Neighbours change places now and then, so that it can be told what a place does.

In each answer a coin says which neighbours are pairs, 1-2, 3-4, … or 2-3, 4-5, …, and each pair is
swapped with probability ε, whatever the others do. So every result is at most one place from its
own, and how likely it was to stand where it stands is known exactly:

    P(b at b + 1) = ε / 2  where b has a neighbour below
    P(b at b − 1) = ε / 2  where b has a neighbour above
    P(b at b)     = 1 − both

The swap interventions of Joachims, Swaminathan and Schnabel, "Unbiased Learning-to-Rank with Biased
Feedback" (WSDM 2017, section 5.2), over all adjacent places at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """``base`` is the place that the ranking gave, from 1; ``propensity`` how likely a result of
    that base was to be shown where it is shown."""

    base: int
    propensity: float


def shown(count: int, epsilon: float, chance: random.Random) -> list[Place]:
    """Who stands at place 1, 2, …, ``count``. ``epsilon`` is 0 (never swapped) to 1."""
    order = list(range(1, count + 1))
    if epsilon > 0.0:
        for upper in range(chance.randrange(2), count - 1, 2):
            if chance.random() < epsilon:
                order[upper], order[upper + 1] = order[upper + 1], order[upper]
    return [
        Place(base, propensity(base, place, count, epsilon)) for place, base in enumerate(order, 1)
    ]


def propensity(base: int, place: int, count: int, epsilon: float) -> float:
    """The probability that the result of ``base`` stands at ``place``, of ``count`` places."""
    if abs(base - place) == 1:
        return epsilon / 2
    if base != place:
        return 0.0
    neighbours = (base > 1) + (base < count)
    return 1.0 - neighbours * epsilon / 2
