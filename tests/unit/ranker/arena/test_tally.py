from __future__ import annotations

import numpy as np
import pytest

from ranker.arena.tally import LEFT, RIGHT, TIE, Ints, tally


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


def test_a_pair_counts_the_same_whichever_side_it_was_shown_on() -> None:
    counted = tally(
        3, ints(0, 2, 2, 0), ints(2, 0, 0, 2), ints(LEFT, LEFT, RIGHT, TIE), ints(0, 0, 0, 0)
    )
    cells = counted.cells
    assert (cells.first.tolist(), cells.second.tolist()) == ([0], [2])
    assert (cells.wins[0], cells.losses[0], cells.ties[0]) == (2, 1, 1)
    assert counted.votes == 4


def test_cells_are_by_judge_and_pairs_are_not() -> None:
    counted = tally(2, ints(0, 0, 0), ints(1, 1, 1), ints(LEFT, LEFT, RIGHT), ints(1, 2, 2))
    assert counted.cells.judge.tolist() == [1, 2]
    assert counted.cells.wins.tolist() == [1, 1]
    assert counted.pairs.wins.tolist() == [2]
    assert counted.pairs.losses.tolist() == [1]


def test_records_and_votes_of_each_contender() -> None:
    counted = tally(3, ints(0, 1, 1), ints(1, 0, 2), ints(LEFT, TIE, RIGHT), ints(0, 0, 0))
    wins, losses, ties = counted.records
    assert wins.tolist() == [1, 0, 1]
    assert losses.tolist() == [0, 2, 0]
    assert ties.tolist() == [1, 1, 0]
    assert counted.votes_of.tolist() == [2, 3, 1]


def test_votes_among_some_are_numbered_anew() -> None:
    counted = tally(4, ints(0, 3, 3), ints(1, 1, 2), ints(LEFT, LEFT, LEFT), ints(0, 0, 0))
    chosen = counted.among(np.array([False, True, True, True]))
    assert chosen.contenders == 3
    assert list(zip(chosen.pairs.first, chosen.pairs.second, strict=True)) == [(0, 2), (1, 2)]
    assert chosen.pairs.losses.tolist() == [1, 1]


def test_no_votes_at_all() -> None:
    counted = tally(2, ints(), ints(), ints(), ints())
    assert counted.votes == 0
    assert counted.votes_of.tolist() == [0, 0]
    assert counted.pairs.first.size == 0


def test_a_contender_against_itself_and_an_unknown_vote_are_refused() -> None:
    with pytest.raises(ValueError, match="itself"):
        tally(2, ints(1), ints(1), ints(LEFT), ints(0))
    for vote in (0, 4):
        with pytest.raises(ValueError, match="none of left, right and tie"):
            tally(2, ints(0), ints(1), ints(vote), ints(0))
