"""Student's t, against SciPy."""

from __future__ import annotations

import pytest
from scipy import stats

from ranker.quantiles import NORMAL_95, NORMAL_97_5, student


@pytest.mark.parametrize(("normal", "share"), [(NORMAL_95, 0.95), (NORMAL_97_5, 0.975)])
def test_the_quantiles_of_the_normal_distribution(normal: float, share: float) -> None:
    assert normal == pytest.approx(stats.norm.ppf(share), abs=1e-14)


@pytest.mark.parametrize("freedom", [3, 5, 10, 39, 200])
def test_the_quantile_of_t(freedom: int) -> None:
    assert student(NORMAL_95, freedom) == pytest.approx(stats.t.ppf(0.95, freedom), rel=0.002)


@pytest.mark.parametrize("freedom", [49, 100, 10_000])
def test_an_interval_of_many_is_exact(freedom: int) -> None:
    assert student(NORMAL_97_5, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)
