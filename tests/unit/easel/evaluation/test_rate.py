from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.evaluation.rate import Rate, wilson

Z = 1.959964


def test_the_textbook_example() -> None:
    low, high = wilson(8, 10)

    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_its_ends_are_the_rates_that_z_deviations_just_reach(counts: tuple[int, int]) -> None:
    correct, total = counts
    low, high = wilson(correct, total)

    assert 0 <= low <= correct / total <= high <= 1
    for end in (low, high):
        reach = Z * Z * end * (1 - end) / total
        assert (correct / total - end) ** 2 == pytest.approx(reach, rel=1e-5, abs=1e-12)


def test_none_and_all_end_exactly() -> None:
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50)[1] == 1.0


def test_no_trials_say_nothing() -> None:
    rate = Rate(0, 0)

    assert rate.share is None
    assert rate.interval == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "total"), [(-1, 3), (4, 3), (1, 0)])
def test_what_is_no_rate(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"{correct} of {total} is no rate"):
        wilson(correct, total)
