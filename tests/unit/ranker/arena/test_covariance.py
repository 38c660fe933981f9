from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ranker.arena import covariance
from ranker.arena.covariance import (
    MIN_CLUSTERS,
    centred,
    effective_judges,
    sandwich,
    widened,
)
from ranker.arena.davidson import Fit, fit, inverted
from ranker.arena.tally import Floats, Tally
from tests.unit.ranker.arena.simulation import judged, simulated

STRENGTHS = np.array([0.8, 0.3, 0.0, -0.3, -0.8])


def test_of_independent_votes_it_is_the_sandwich_vote_by_vote() -> None:
    counted = simulated(np.random.default_rng(1), STRENGTHS, 300)
    found = fit(5, counted.pairs)
    inverse = inverted(found.information)
    told = sandwich(counted, found, inverse)
    scores = _scores(counted, found)
    meat = scores.T @ scores * 300 / (300 - 6)
    expected = inverse @ meat @ inverse
    assert told.strengths == pytest.approx(expected[:5, :5], rel=1e-9)
    assert told.log_tie == pytest.approx(expected[5, 5], rel=1e-9)
    assert told.judges == pytest.approx(300)


@pytest.mark.parametrize("few", [1, 3, 100])
def test_of_judges_it_sums_a_judges_scores_first(few: int) -> None:
    counted = judged(np.random.default_rng(2), STRENGTHS, 7, discernment=np.ones(60), taste=0.5)
    found = fit(5, counted.pairs)
    inverse = inverted(found.information)
    told = sandwich(counted, found, inverse)
    scores, judge = _scores(counted, found), _judges(counted)
    sums = np.array([scores[judge == each].sum(axis=0) for each in np.unique(judge)])
    reach = stats.t.ppf(0.975, 59) / stats.norm.ppf(0.975)
    expected = inverse @ (sums.T @ sums * 60 / 59 * reach**2) @ inverse
    assert told.by_judge
    assert told.strengths == pytest.approx(expected[:5, :5], rel=1e-6)
    dense = covariance.clustered(5, counted.cells, found, few=few)
    assert dense == pytest.approx(sums.T @ sums, rel=1e-9, abs=1e-12)


def test_few_judges_are_not_taken_for_a_sample_of_judges() -> None:
    rng = np.random.default_rng(3)
    for size in (MIN_CLUSTERS - 1, MIN_CLUSTERS):
        counted = judged(rng, STRENGTHS, 10, discernment=np.ones(size))
        found = fit(5, counted.pairs)
        told = sandwich(counted, found, inverted(found.information))
        assert told.by_judge is (size == MIN_CLUSTERS)
        assert told.judges == pytest.approx(size)


def test_one_judge_with_nearly_all_votes_counts_as_little_more_than_one() -> None:
    judges = np.concatenate([np.ones(900, dtype=np.int64), np.arange(2, 102)])
    counted = simulated(np.random.default_rng(4), STRENGTHS, 1000, judges=judges)
    assert effective_judges(counted.cells) == pytest.approx(1000**2 / (900**2 + 100))


def test_anonymous_votes_are_a_judge_each() -> None:
    counted = simulated(np.random.default_rng(5), STRENGTHS, 120)
    found = fit(5, counted.pairs)
    told = sandwich(counted, found, inverted(found.information))
    scores = _scores(counted, found)
    inverse = inverted(found.information)
    assert told.judges == pytest.approx(120)
    assert told.strengths == pytest.approx(
        (inverse @ scores.T @ scores @ inverse)[:5, :5] * 120 / (120 - 6), rel=1e-9
    )


def test_separated_ones_get_at_least_the_posteriors_variance() -> None:
    inverse = np.diag([2.0, 3.0, 0.1])
    wide = widened(np.diag([0.5, 0.5, 0.5]), inverse, np.array([True, False, True]))
    assert np.diag(wide).tolist() == [2.0, 0.5, 0.5]


def test_centred_on_some_the_mean_of_those_is_certain() -> None:
    rng = np.random.default_rng(6)
    root = rng.standard_normal((4, 4))
    spread = centred(root @ root.T, np.array([True, True, False, False]))
    assert spread[:2, :2].sum() == pytest.approx(0.0, abs=1e-9)
    expected = (root @ root.T)[0, 0] + (root @ root.T)[1, 1] - 2 * (root @ root.T)[0, 1]
    assert spread[0, 0] + spread[1, 1] - 2 * spread[0, 1] == pytest.approx(expected)


def _rows(counted: Tally) -> list[tuple[int, int, int, int]]:
    """(first, second, judge, outcome) of every vote: 0 first, 1 second, 2 tie."""
    cells, rows = counted.cells, []
    for at in range(cells.first.size):
        for outcome, count in enumerate((cells.wins, cells.losses, cells.ties)):
            one = (int(cells.first[at]), int(cells.second[at]), int(cells.judge[at]), outcome)
            rows += [one] * int(count[at])
    return rows


def _judges(counted: Tally) -> Floats:
    return np.array([row[2] for row in _rows(counted)], dtype=np.float64)


def _scores(counted: Tally, found: Fit) -> Floats:
    """The gradient of each vote's log-likelihood, by its definition."""
    rows = _rows(counted)
    scores = np.zeros((len(rows), counted.contenders + 1))
    for place, (a, b, _, outcome) in enumerate(rows):
        half = (found.strengths[a] - found.strengths[b]) / 2
        weights = np.exp([half, -half, found.log_tie])
        chance = weights / weights.sum()
        value = (0.5, -0.5, 0.0)[outcome] - (chance[0] - chance[1]) / 2
        scores[place, a], scores[place, b] = value, -value
        scores[place, -1] = (outcome == 2) - chance[2]
    return scores
