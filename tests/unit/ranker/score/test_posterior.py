"""Beta posteriors and their means, against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from ranker.graph.beta import Posterior
from ranker.score.posterior import MeanOfRates, complement

COUNTS = [
    (0, 0),
    (0, 5),
    (5, 0),
    (3, 7),
    (0.4, 0.3),
    (120, 80),
    (0, 2000),
    (9_000, 1_000),
    (4e7, 6e7),
]


@pytest.mark.parametrize(("successes", "failures"), COUNTS)
def test_one_rate_is_its_beta(successes: float, failures: float) -> None:
    found = MeanOfRates([Posterior.of(successes, failures)])
    known = stats.beta(successes + 1, failures + 1)

    assert found.value == pytest.approx(known.mean())
    for share in (0.025, 0.25, 0.5, 0.975):
        assert found.quantile(share) == pytest.approx(known.ppf(share), abs=3e-3 * known.std())
    for rate in (known.ppf(0.1), known.ppf(0.7)):
        assert found.above(rate) == pytest.approx(known.sf(rate), abs=1e-3)


@pytest.mark.parametrize(
    ("one", "other"),
    [((3, 7), (6, 4)), ((0, 0), (0, 0)), ((50, 50), (1, 0)), ((900, 100), (880, 120))],
)
def test_two_rates_are_compared_as_by_integration(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    a, b = stats.beta(one[0] + 1, one[1] + 1), stats.beta(other[0] + 1, other[1] + 1)
    known, _ = integrate.quad(lambda rate: a.pdf(rate) * b.cdf(rate), 0, 1, limit=200)

    found = MeanOfRates([Posterior.of(*one), complement(Posterior.of(*other))])

    assert found.above(0.5) == pytest.approx(known, abs=1e-4)


def test_the_mean_of_many_is_that_of_draws() -> None:
    chance = np.random.default_rng(5)
    counts = [(int(chance.integers(0, 40)), int(chance.integers(0, 40))) for _ in range(12)]
    drawn = np.mean([chance.beta(s + 1, f + 1, 400_000) for s, f in counts], axis=0)

    found = MeanOfRates([Posterior.of(*each) for each in counts])

    assert found.value == pytest.approx(drawn.mean(), abs=1e-4)
    for share in (0.025, 0.5, 0.975):
        assert found.quantile(share) == pytest.approx(np.quantile(drawn, share), abs=3e-4)


def test_rates_known_unequally_well() -> None:
    known = stats.beta(3, 5)

    found = MeanOfRates([Posterior.of(2, 4), Posterior.of(6e8, 4e8)])

    for share in (0.025, 0.5, 0.975):
        assert found.quantile(share) == pytest.approx((known.ppf(share) + 0.6) / 2, abs=3e-4)


def test_what_the_intervals_cover() -> None:
    """Rates drawn from the prior lie in 95 % of their intervals."""
    chance = np.random.default_rng(7)
    rates, other = chance.random(600), chance.random(600)
    inside = 0
    for p, q in zip(rates, other, strict=True):
        s, t = chance.binomial(30, p), chance.binomial(20, q)
        found = MeanOfRates([Posterior.of(s, 30 - s), Posterior.of(t, 20 - t)]).interval()
        inside += found.low <= (p + q) / 2 <= found.high

    assert 0.925 <= inside / 600 <= 0.975


@pytest.mark.parametrize("counts", [(-1, 0), (0, -0.1), (math.inf, 1), (math.nan, 1)])
def test_what_is_no_count(counts: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="is no posterior of counts"):
        MeanOfRates([Posterior.of(*counts)])


def test_of_no_rates() -> None:
    with pytest.raises(ValueError, match="no rates"):
        MeanOfRates([])
