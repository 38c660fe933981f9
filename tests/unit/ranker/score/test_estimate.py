"""Intervals of rates, sums and means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.score.estimate import Interval, mean, weighted_sum, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson(successes, trials)

    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_what_is_no_rate(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        wilson(successes, trials)


def test_what_the_interval_of_a_sum_covers() -> None:
    chance = np.random.default_rng(3)
    truth = 0.6 * 0.3 + 0.4 * 0.8
    inside = 0
    for _ in range(4000):
        one, other = wilson(chance.binomial(40, 0.3), 40), wilson(chance.binomial(60, 0.8), 60)
        found = weighted_sum([(0.6, one), (0.4, other)])
        inside += found.low <= truth <= found.high

    assert 0.94 <= inside / 4000 <= 0.97


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_what_is_told_is_rounded_outwards(one: float, two: float, three: float) -> None:
    low, value, high = sorted((one, two, three))
    found = Interval(value, low, high).told(3)

    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low <= low + 1e-12
    assert found.high >= high - 1e-12
    assert abs(found.value - value) <= 0.5e-4 + 1e-12


def test_the_same_evidence_twice_is_no_more_evidence() -> None:
    one = wilson(3, 10)

    found = mean([one, one])

    assert (found.low, found.value, found.high) == pytest.approx((one.low, one.value, one.high))
