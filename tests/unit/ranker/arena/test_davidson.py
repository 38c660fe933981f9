from __future__ import annotations

from typing import Any

import choix
import numpy as np
import pytest
from scipy.optimize import minimize

from ranker.arena.davidson import RIDGE, TIE_RIDGE, chances, fit, roughly
from ranker.arena.tally import LEFT, RIGHT, TIE, Floats, Tally, tally
from tests.unit.ranker.arena.simulation import simulated

STRENGTHS = np.array([1.2, 0.4, 0.0, -0.1, -0.6, -0.9])


def test_without_ties_it_is_the_fit_of_choix() -> None:
    counted = simulated(np.random.default_rng(3), STRENGTHS, 400, tie=0.0)
    for ridge in (1e-3, RIDGE, 5.0):
        # choix counts its penalty twice: alpha Σθ², not alpha/2 Σθ².
        expected = choix.opt_pairwise(6, _winner_loser(counted), alpha=ridge / 2, tol=1e-10)
        found = fit(6, counted.pairs, ridge)
        assert not found.has_ties
        assert found.strengths == pytest.approx(expected, abs=2e-6)


def test_with_ties_it_is_the_maximum_that_a_general_optimiser_finds() -> None:
    counted = simulated(np.random.default_rng(4), STRENGTHS, 300, tie=0.8)
    found = fit(6, counted.pairs)
    best = minimize(_minus_log_posterior, np.zeros(7), args=(counted,), method="BFGS", tol=1e-10)
    assert [*found.strengths, found.log_tie] == pytest.approx(best.x, abs=1e-5)


def test_information_is_the_hessian() -> None:
    counted = simulated(np.random.default_rng(5), STRENGTHS, 200, tie=0.8)
    found = fit(6, counted.pairs)
    at, step = np.append(found.strengths, found.log_tie), 1e-4
    hessian = np.zeros((7, 7))
    for i in range(7):
        for j in range(7):
            corners = (
                (a * b)
                * _minus_log_posterior(at + step * (a * np.eye(7)[i] + b * np.eye(7)[j]), counted)
                for a in (1, -1)
                for b in (1, -1)
            )
            hessian[i, j] = sum(corners) / (4 * step**2)
    assert found.information == pytest.approx(hessian, abs=1e-3)


def test_known_strengths_are_found_again() -> None:
    counted = simulated(np.random.default_rng(6), STRENGTHS, 200_000, tie=0.6)
    found = fit(6, counted.pairs)
    assert found.strengths == pytest.approx(STRENGTHS - STRENGTHS.mean(), abs=0.03)
    assert np.exp(found.log_tie) == pytest.approx(0.6, abs=0.01)


def test_who_only_won_is_held_by_the_prior() -> None:
    counted = _votes([(0, 1, LEFT)] * 50)
    weak, strong = fit(2, counted.pairs, 0.01), fit(2, counted.pairs, 10.0)
    assert np.isfinite(weak.strengths).all()
    assert weak.strengths[0] > strong.strengths[0] > 0
    assert weak.strengths.sum() == pytest.approx(0.0, abs=1e-9)


def test_only_ties_say_that_they_are_equal() -> None:
    found = fit(2, _votes([(0, 1, TIE)] * 50).pairs)
    assert found.strengths == pytest.approx([0.0, 0.0], abs=1e-9)
    assert 0 < found.log_tie < np.inf


def test_a_contender_without_votes_stays_at_the_prior() -> None:
    found = fit(3, _votes([(0, 1, LEFT), (0, 1, RIGHT), (1, 0, LEFT)], 3).pairs)
    assert found.strengths[2] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan")])
def test_a_ridge_must_be_above_0(ridge: float) -> None:
    with pytest.raises(ValueError, match="ridge"):
        fit(2, _votes([(0, 1, LEFT)]).pairs, ridge)


def test_chances_of_far_apart_strengths_do_not_overflow() -> None:
    far = chances(np.array([2000.0, -2000.0, 0.0]), 0.0)
    assert far.first.tolist() == pytest.approx([1.0, 0.0, 1 / 3])
    assert (far.first + far.second + far.tie) == pytest.approx(1.0)


def test_votes_of_extreme_imbalance_converge() -> None:
    counted = _votes([(0, 1, LEFT)] * 100_000 + [(1, 2, LEFT)] * 100_000 + [(2, 1, LEFT)])
    found = fit(3, counted.pairs, 1e-3)
    assert found.strengths[0] > found.strengths[1] > found.strengths[2]


def test_a_rough_fit_knows_who_is_ahead_and_about_how_far() -> None:
    counted = simulated(np.random.default_rng(7), STRENGTHS, 400)
    start = fit(6, counted.pairs)
    fewer = simulated(np.random.default_rng(8), STRENGTHS, 300)
    others = np.arange(1, 6)
    rough = roughly(6, fewer.pairs, start, 0, others).strengths
    exact = fit(6, fewer.pairs).strengths
    gap, near = exact[0] - exact[1:].max(), rough[0] - rough[1:].max()
    assert near == pytest.approx(gap, rel=0.2)


def _votes(rows: list[tuple[int, int, int]], contenders: int = 0) -> Tally:
    left, right, vote = np.array(rows).T
    return tally(contenders or int(max(left.max(), right.max())) + 1, left, right, vote, 0 * left)


def _winner_loser(counted: Tally) -> list[tuple[int, int]]:
    pairs, told = counted.pairs, []
    for a, b, wins, losses in zip(pairs.first, pairs.second, pairs.wins, pairs.losses, strict=True):
        told += [(int(a), int(b))] * int(wins) + [(int(b), int(a))] * int(losses)
    return told


def _minus_log_posterior(at: Floats, counted: Tally, *_: Any) -> float:
    """Davidson's likelihood as his paper writes it, with π = exp θ."""
    strength, tie = np.exp(at[:-1]), np.exp(at[-1])
    pairs = counted.pairs
    a, b = strength[pairs.first], strength[pairs.second]
    total = a + b + tie * np.sqrt(a * b)
    told = pairs.wins * np.log(a / total) + pairs.losses * np.log(b / total)
    told += pairs.ties * np.log(tie * np.sqrt(a * b) / total)
    prior = RIDGE * (at[:-1] ** 2).sum() / 2 + TIE_RIDGE * at[-1] ** 2 / 2
    return float(-told.sum() + prior)
