"""Scores from preferences: against choices with known strengths, and an independent maximum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from ranker.pictures.judges.preference import Matrix, bradley_terry, win_rate


def beats_of(strengths: list[float]) -> Matrix:
    gaps = np.subtract.outer(strengths, strengths)
    return 1.0 / (1.0 + np.exp(-gaps))


def test_known_strengths_come_back() -> None:
    truth = [1.5, 0.25, -0.5, -1.25]
    np.testing.assert_allclose(bradley_terry(beats_of(truth), 1e-9), truth, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_the_maximum_is_the_one_that_another_method_finds(seed: int) -> None:
    draw = np.random.default_rng(seed)
    beats = np.triu(draw.random((7, 7)), 1)
    beats = beats + np.tril(1.0 - beats.T, -1)

    def loss(strengths: np.ndarray) -> float:
        gaps = np.subtract.outer(strengths, strengths)
        likelihood = (beats * -np.log1p(np.exp(-gaps)))[~np.eye(7, dtype=bool)].sum()
        return float(0.005 * (strengths**2).sum() - likelihood)

    found = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(bradley_terry(beats), found - found.mean(), atol=1e-5)


def test_one_that_always_wins_stays_finite_and_first() -> None:
    for count in (2, 3, 64):
        order = np.arange(count)
        strengths = bradley_terry((order[:, None] < order[None, :]).astype(float))
        assert np.isfinite(strengths).all()
        assert (np.diff(strengths) < 0).all()
        assert strengths.sum() == pytest.approx(0.0, abs=1e-6)


def test_equal_ones_are_exactly_equal() -> None:
    beats = beats_of([1.0, 0.0, 0.0, -1.0])
    for found in (bradley_terry(beats), win_rate(beats)):
        assert found[1] == found[2]
    assert (bradley_terry(np.full((5, 5), 0.5)) == 0.0).all()


def test_win_rates() -> None:
    beats = np.array([[9.0, 0.75, 1.0], [0.25, 9.0, 0.5], [0.0, 0.5, 9.0]])
    np.testing.assert_allclose(win_rate(beats), [0.875, 0.375, 0.25])


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_to_compare_with(count: int) -> None:
    beats = np.full((count, count), 0.5)
    assert win_rate(beats).tolist() == [0.5] * count
    assert bradley_terry(beats).tolist() == [0.0] * count
