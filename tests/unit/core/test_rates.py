from __future__ import annotations

from functools import partial

import pytest

from services.core import rates

wilson = partial(rates.wilson, z=1.96)


def test_the_interval_of_a_rate() -> None:
    # Wilson (1927) for 81 of 263, in Newcombe (1998), table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@pytest.mark.parametrize("trials", [1, 10, 48, 1000])
def test_the_interval_stays_within_a_rate_s_bounds(trials: int) -> None:
    assert wilson(0, trials)[0] == 0.0
    assert wilson(trials, trials)[1] == 1.0
    assert wilson(trials, trials)[0] < 1.0
