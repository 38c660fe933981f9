from __future__ import annotations

import numpy as np
import pytest

from ranker.arena.ranks import ranks


def test_far_apart_ones_have_one_rank_each() -> None:
    found = ranks(np.array([0.0, 5.0, -5.0]), np.eye(3) * 0.01)
    assert found.low.tolist() == found.high.tolist() == [2, 1, 3]
    assert found.above[1].tolist() == [True, False, True]


def test_equal_ones_may_have_any_rank() -> None:
    found = ranks(np.zeros(5), np.eye(5))
    assert found.low.tolist() == [1] * 5
    assert found.high.tolist() == [5] * 5


def test_the_reach_is_that_of_a_studentised_range() -> None:
    # Of 5 independent means: the 95 % point of the studentised range with known variance is 3.858,
    # and differences have √2 standard errors.
    found = ranks(np.zeros(5), np.eye(5), draws=200_000)
    assert found.reach == pytest.approx(3.858 / np.sqrt(2), abs=0.02)


def test_of_two_it_is_an_interval_as_any() -> None:
    assert ranks(np.zeros(2), np.eye(2), draws=200_000).reach == pytest.approx(1.96, abs=0.02)


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_and_one_alone(count: int) -> None:
    found = ranks(np.zeros(count), np.zeros((count, count)))
    assert found.low.tolist() == found.high.tolist() == [1] * count


def test_the_same_seed_gives_the_same_ranks() -> None:
    strengths, spread = np.linspace(-1, 1, 6), np.eye(6) * 0.1
    assert ranks(strengths, spread).reach == ranks(strengths, spread).reach
    assert ranks(strengths, spread).reach != ranks(strengths, spread, seed=1).reach


def test_all_true_ranks_lie_in_their_intervals_as_often_as_they_should() -> None:
    rng = np.random.default_rng(9)
    true = np.array([0.9, 0.5, 0.45, 0.0, -0.3, -0.35, -0.9])
    root = rng.standard_normal((7, 7)) * 0.2
    spread = root @ root.T + np.eye(7) * 0.05
    order = np.argsort(np.argsort(-true)) + 1
    held = 0
    for _ in range(400):
        drawn = true + np.linalg.cholesky(spread) @ rng.standard_normal(7)
        found = ranks(drawn, spread)
        held += bool(np.all((found.low <= order) & (order <= found.high)))
    assert held / 400 >= 0.93
