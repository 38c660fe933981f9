"""What the soak makes of its readings."""

from __future__ import annotations

import random

import pytest

from benchmarks.soak import SETTLING_SECONDS, memory_chart, slope


def readings(per_second: float, noise: float = 0.0) -> list[tuple[float, float]]:
    chance = random.Random(0)
    return [(at, 1000.0 + per_second * at + chance.gauss(0.0, noise)) for at in range(600)]


def test_a_line_has_its_slope_an_hour() -> None:
    middle, low, high = slope(readings(0.01), block=10)
    assert (middle, low, high) == pytest.approx((36.0, 36.0, 36.0))


def test_what_only_scatters_cannot_be_told_from_zero() -> None:
    _, low, high = slope(readings(0.0, noise=5.0), block=10)
    assert low < 0.0 < high


def test_a_leak_is_told_from_what_scatters() -> None:
    _, low, high = slope(readings(0.01, noise=1.0), block=10)
    assert 0.0 < low < 36.0 < high


def test_the_chart_begins_with_the_first_request_and_names_when_counting_does() -> None:
    chart = memory_chart([1000.0, 1001.0, 999.0], block=10)
    (line,) = chart.lines
    assert line.x == pytest.approx((5 / 60, 15 / 60, 25 / 60))
    assert line.y == (1000.0, 1001.0, 999.0)
    assert f"{SETTLING_SECONDS / 60:g}" in chart.x
