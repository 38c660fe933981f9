"""Counts that weigh less with their age."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.graph.decay import Decayed, weight

HALF_LIFE = 100.0


@pytest.mark.parametrize(("age", "expected"), [(0, 1.0), (100, 0.5), (200, 0.25), (-5, 1.0)])
def test_half_after_each_half_life(age: float, expected: float) -> None:
    assert weight(1000.0 - age, 1000.0, HALF_LIFE) == expected


def test_the_sum_is_that_of_the_powers() -> None:
    count = Decayed.zero(2)
    for at in (0.0, 30.0, 170.0):
        count.add((2.0, 0.0), at, HALF_LIFE)
    expected = sum(2.0 * 2 ** ((at - 400.0) / HALF_LIFE) for at in (0.0, 30.0, 170.0))
    assert count.worth(400.0, HALF_LIFE) == pytest.approx([expected, 0.0], rel=1e-14)


def test_the_order_of_events_does_not_matter() -> None:
    events = [(0.0, 1.0), (50.0, 3.0), (51.0, 1.0), (500.0, 2.0)]
    found = set()
    for order in itertools.permutations(events):
        count = Decayed.zero(1)
        for at, amount in order:
            count.add((amount,), at, HALF_LIFE)
        assert count.at == 500.0
        found.add(f"{count.values[0]:.12g}")
    assert len(found) == 1


EVENTS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.1, 10)), max_size=30)


@given(EVENTS.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_any_order_of_any_events(orders: tuple[list[tuple[float, float]], ...]) -> None:
    sums: list[float] = []
    for order in orders:
        count = Decayed.zero(1)
        for at, amount in order:
            count.add((amount,), at, 1e4)
        sums += count.worth(1e6, 1e4)
    assert sums[0] == pytest.approx(sums[1], rel=1e-9, abs=1e-300)


def test_no_decay_is_counting() -> None:
    count = Decayed.zero(1)
    count.add((1.0,), 0.0, math.inf)
    count.add((1.0,), 1e9, math.inf)
    assert count.worth(2e9, math.inf) == [2.0]


def test_nothing_added_is_worth_nothing() -> None:
    assert Decayed.zero(2).worth(5.0, HALF_LIFE) == [0.0, 0.0]
