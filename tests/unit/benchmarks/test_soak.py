"""What the soak makes of its readings."""

from __future__ import annotations

import random

import pytest

from benchmarks.soak import SETTLING_SECONDS, lengths, memory_chart, slope, slopes


def readings(per_second: float, noise: float = 0.0) -> list[tuple[float, float]]:
    chance = random.Random(0)
    return [(at, 1000.0 + per_second * at + chance.gauss(0.0, noise)) for at in range(600)]


def wandering(seed: int) -> list[tuple[float, float]]:
    """Each reading like the last one, less so by a fortieth a second."""
    chance, mib, seen = random.Random(seed), 0.0, []
    for at in range(600):
        mib = mib * (1 - 1 / 40) + chance.gauss(0.0, 1.0)
        seen.append((float(at), 1000.0 + mib))
    return seen


def test_a_line_has_its_slope_an_hour() -> None:
    middle, low, high = slope(readings(0.01), block=10)
    assert (middle, low, high) == pytest.approx((36.0, 36.0, 36.0))


def test_what_only_scatters_cannot_be_told_from_zero() -> None:
    _, low, high = slope(readings(0.0, noise=5.0), block=10)
    assert low < 0.0 < high


@pytest.mark.parametrize("block", [10, 60])
def test_a_leak_is_told_from_what_scatters(block: int) -> None:
    _, low, high = slope(readings(0.01, noise=1.0), block)
    assert 0.0 < low < 36.0 < high


def test_what_wanders_for_a_minute_is_rarely_taken_for_a_leak() -> None:
    def told(block: int) -> int:
        intervals = [slope(wandering(seed), block)[1:] for seed in range(40)]
        return sum(not low <= 0.0 <= high for low, high in intervals)

    assert told(60) <= 8 < 14 <= told(10)


def test_the_chart_begins_with_the_first_request_and_names_when_counting_does() -> None:
    chart = memory_chart([1000.0, 1001.0, 999.0], block=10)
    (line,) = chart.lines
    assert line.x == pytest.approx((5 / 60, 15 / 60, 25 / 60))
    assert line.y == (1000.0, 1001.0, 999.0)
    assert f"{SETTLING_SECONDS / 60:g}" in chart.x


def test_half_an_hour_tells_of_its_first_ten_minutes_too() -> None:
    assert lengths(0.5) == [0.5]
    assert lengths(10.0) == [10.0]
    assert lengths(30.0) == [10.0, 30.0]


def test_what_grows_after_ten_minutes_is_told_by_half_an_hour_alone() -> None:
    flat_at_first = [(float(at), 1000.0 + max(0.0, at - 600) * 0.01) for at in range(1800)]
    ten, half = (slopes(flat_at_first, minutes, 60) for minutes in (10.0, 30.0))
    assert [entry.value for entry in ten] == [0.0, 0.0, 0.0]
    assert half[0].value == pytest.approx(36.0, rel=0.2)
    assert [entry.bound and entry.bound.holds(entry.value) for entry in (ten[1], half[1])] == [
        True,
        False,
    ]


def test_half_a_minute_is_held_to_nothing() -> None:
    assert [entry.bound for entry in slopes(readings(0.01), 0.5, 1)] == [None] * 3
