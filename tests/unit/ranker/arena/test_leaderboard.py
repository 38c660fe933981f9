from __future__ import annotations

import numpy as np
import pytest

from ranker.arena.leaderboard import MIN_VOTES, Leaderboard, Standing, Unranked, leaderboard
from ranker.arena.tally import LEFT, RIGHT, TIE, tally
from tests.unit.ranker.arena.simulation import judged, outcomes, random_pairs, simulated

STRENGTHS = np.array([-0.5, 1.0, 0.2, -0.7])


def of(board: Leaderboard, contender: int) -> Standing:
    return next(each for each in board.standings if each.contender == contender)


def test_best_first_with_everything_said() -> None:
    counted = simulated(np.random.default_rng(1), STRENGTHS, 3000)
    board = leaderboard(counted)
    assert [each.contender for each in board.standings] == [1, 2, 0, 3]
    first = board.standings[0]
    assert first.strength is not None
    assert first.strength.low < 1.0 < first.strength.high
    assert (first.rank_low, first.rank_high, first.unranked) == (1, 1, Unranked.NO)
    wins, losses, ties = counted.records
    assert (first.wins, first.losses, first.ties) == (wins[1], losses[1], ties[1])
    assert board.votes == 3000
    assert board.components == 1
    assert board.tie is not None
    assert board.tie.low < 0.6 < board.tie.high
    assert board.hold is not None
    assert not board.by_judge or board.effective_judges == 3000


def test_strengths_are_against_the_mean_of_the_ranked() -> None:
    board = leaderboard(simulated(np.random.default_rng(2), STRENGTHS, 2000))
    told = [each.strength.value for each in board.standings if each.strength]
    assert sum(told) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("votes", "ranked"), [(MIN_VOTES - 1, False), (MIN_VOTES, True)])
def test_a_contender_with_few_votes_has_no_rank(votes: int, ranked: bool) -> None:
    rng = np.random.default_rng(3)
    left, right = random_pairs(rng, 3, 600)
    left, right = np.append(left, np.full(votes, 3)), np.append(right, rng.integers(3, size=votes))
    vote = outcomes(rng, STRENGTHS[left] - STRENGTHS[right], -0.5)
    board = leaderboard(tally(4, left, right, vote, 0 * left))
    thin = of(board, 3)
    assert (thin.strength is not None) == ranked
    assert thin.wins + thin.losses + thin.ties == votes
    assert thin.unranked is (Unranked.NO if ranked else Unranked.FEW_VOTES)
    if not ranked:
        assert (thin.rank_low, thin.rank_high) == (0, 0)
        assert board.standings[-1] is thin
        assert max(each.rank_high for each in board.standings) == 3


def test_what_no_chain_of_votes_links_is_not_compared() -> None:
    rng = np.random.default_rng(4)
    one, other = random_pairs(rng, 3, 500)
    left, right = np.append(one, np.full(100, 3)), np.append(other, np.full(100, 4))
    vote = np.append(outcomes(rng, STRENGTHS[one] - STRENGTHS[other], -0.5), np.full(100, LEFT))
    board = leaderboard(tally(6, left, right, vote, 0 * left))
    assert board.components == 2
    assert of(board, 3).unranked is Unranked.NOT_CONNECTED
    assert of(board, 3).strength is None
    assert of(board, 3).wins == 100
    assert of(board, 5).unranked is Unranked.FEW_VOTES
    assert all(of(board, each).strength for each in range(3))


def test_who_never_lost_has_a_wide_interval() -> None:
    rng = np.random.default_rng(5)
    left, right = random_pairs(rng, 3, 300)
    left, right = np.append(left, np.full(60, 3)), np.append(right, rng.integers(3, size=60))
    vote = np.append(rng.integers(LEFT, TIE, size=300), np.full(60, LEFT))
    board = leaderboard(tally(4, left, right, vote, 0 * left))
    best = board.standings[0]
    assert best.contender == 3
    assert best.strength is not None
    assert best.strength.high - best.strength.low > 4.0
    assert (best.rank_low, best.rank_high) == (1, 1)


def test_without_votes_or_with_too_few_nothing_is_told() -> None:
    none = np.zeros(0, dtype=np.int64)
    board = leaderboard(tally(3, none, none, none, none))
    assert [each.unranked for each in board.standings] == [Unranked.FEW_VOTES] * 3
    assert (board.votes, board.components, board.hold, board.tie) == (0, 0, None, None)
    some = np.array([0, 1])
    board = leaderboard(tally(3, some, some + 1, np.array([LEFT, RIGHT]), 0 * some))
    assert all(each.strength is None for each in board.standings)
    assert board.votes == 2
    assert leaderboard(tally(0, none, none, none, none)).standings == ()


def test_judges_are_told_and_their_votes_taken_together() -> None:
    counted = judged(np.random.default_rng(6), STRENGTHS, 40, discernment=np.ones(60))
    board = leaderboard(counted)
    assert board.by_judge
    assert board.effective_judges == pytest.approx(60)
    assert board.judges is not None
    assert board.judges.judge.size == 60


def test_the_order_of_votes_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    left, right = random_pairs(rng, 4, 500)
    vote, judge = outcomes(rng, STRENGTHS[left] - STRENGTHS[right], -0.5), rng.integers(4, size=500)
    mixed = rng.permutation(500)
    one = leaderboard(tally(4, left, right, vote, judge))
    other = leaderboard(tally(4, left[mixed], right[mixed], vote[mixed], judge[mixed]))
    assert one.standings == other.standings
