"""Posteriors against SciPy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from ranker.graph.beta import Posterior, cumulative

SHAPES = st.floats(0.5, 1e5)


@given(SHAPES, SHAPES, st.floats(0.0, 1.0))
def test_the_incomplete_beta_function(a: float, b: float, value: float) -> None:
    assert cumulative(a, b, value) == pytest.approx(
        special.betainc(a, b, value), rel=1e-7, abs=1e-9
    )


@given(st.floats(1.0, 1e5), st.floats(1.0, 1e5), st.sampled_from([0.025, 0.5, 0.975]))
def test_quantiles(a: float, b: float, share: float) -> None:
    found = Posterior(a, b).quantile(share)
    assert found == pytest.approx(special.betaincinv(a, b, share), rel=1e-6, abs=1e-12)


def test_without_outcomes_every_rate_is_as_likely() -> None:
    posterior = Posterior.of(0, 0)
    assert posterior.mean == 0.5
    assert posterior.interval() == pytest.approx((0.025, 0.975))


def test_all_successes_have_the_rule_of_succession() -> None:
    posterior = Posterior.of(98, 0)
    low, high = posterior.interval()
    assert posterior.mean == 0.99
    assert low == pytest.approx(0.025 ** (1 / 99))
    assert high == pytest.approx(0.975 ** (1 / 99))


def test_a_million_outcomes_have_a_narrow_interval() -> None:
    low, high = Posterior.of(850_000, 150_000).interval()
    assert (low + high) / 2 == pytest.approx(0.85, abs=1e-5)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.85 * 0.15 / 1e6), rel=1e-3)
