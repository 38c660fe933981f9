"""Swaps of neighbours, and how likely each place was."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from ranker.graph.exploration import Place, propensity, shown


class Scripted(random.Random):
    """Answers the coin, then each swap, as it is told."""

    def __init__(self, offset: int, swaps: Iterator[bool]) -> None:
        super().__init__(0)
        self._offset, self._swaps = offset, swaps

    def randrange(self, *_: object) -> int:
        return self._offset

    def random(self) -> float:
        return 0.0 if next(self._swaps) else 1.0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_propensities_are_exact(count: int, epsilon: float) -> None:
    """Every course that chance can take, with its probability."""
    found: dict[tuple[int, int], float] = defaultdict(float)
    for offset in (0, 1):
        pairs = len(range(offset, count - 1, 2))
        for swaps in itertools.product((False, True), repeat=pairs):
            share = 0.5
            for swapped in swaps:
                share *= epsilon if swapped else 1.0 - epsilon
            order = shown(count, epsilon, Scripted(offset, iter(swaps)))
            assert sorted(place.base for place in order) == list(range(1, count + 1))
            for place, result in enumerate(order, 1):
                found[result.base, place] += share
                assert result.propensity == propensity(result.base, place, count, epsilon)
    for base, place in itertools.product(range(1, count + 1), repeat=2):
        assert propensity(base, place, count, epsilon) == pytest.approx(found[base, place])


def test_without_exploration_the_order_stands() -> None:
    chance = random.Random(1)
    state = chance.getstate()
    assert shown(3, 0.0, chance) == [Place(1, 1.0), Place(2, 1.0), Place(3, 1.0)]
    assert chance.getstate() == state


@pytest.mark.parametrize("count", [0, 1])
def test_there_is_nothing_to_swap(count: int) -> None:
    assert shown(count, 0.5, random.Random(1)) == [Place(1, 1.0)] * count
