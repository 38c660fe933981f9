from __future__ import annotations

import numpy as np
import pytest

from ranker.arena.davidson import fit, inverted
from ranker.arena.reliability import MIN_DECIDED, Reliability, reliability
from ranker.arena.tally import LEFT, Tally, tally
from tests.unit.ranker.arena.simulation import judged, simulated

STRENGTHS = np.linspace(1.5, -1.5, 8)


def of(counted: Tally) -> Reliability:
    found = fit(counted.contenders, counted.pairs)
    return reliability(counted, found, inverted(found.information))


def by_judge(told: Reliability) -> dict[int, int]:
    return {int(judge): place for place, judge in enumerate(told.judge)}


def test_who_guesses_is_at_0_and_who_is_contrary_below() -> None:
    discernment = np.array([1.0] * 18 + [0.0, -1.0])
    told = of(judged(np.random.default_rng(1), STRENGTHS, 300, discernment=discernment))
    place = by_judge(told)
    assert told.told.all()
    assert told.low[place[19]] < 0.0 < told.high[place[19]]
    assert told.high[place[20]] < 0.0
    assert {int(judge) for judge in told.judge[told.doubtful]} == {19, 20}
    honest = [place[judge] for judge in range(1, 19)]
    # Two of twenty pull everybody's strengths together, so that the rest discern a little more.
    assert 1.1 < told.discrimination[honest].mean() < 1.4


def test_a_heavy_judge_is_measured_by_the_others_and_not_by_itself() -> None:
    rng = np.random.default_rng(2)
    left = rng.integers(8, size=4000)
    right = (left + rng.integers(1, 8, size=4000)) % 8
    guessed = tally(8, left, right, rng.integers(1, 3, size=4000), np.ones(4000, dtype=np.int64))
    others = judged(rng, STRENGTHS, 100, discernment=np.ones(10))
    both = _together(guessed, others)
    told = of(both)
    heavy = by_judge(told)[1]
    assert told.votes[heavy] == 4000
    assert abs(told.discrimination[heavy]) < 0.1


def test_intervals_hold_the_truth() -> None:
    rng, held = np.random.default_rng(3), []
    for _ in range(15):
        counted = judged(rng, STRENGTHS, 80, discernment=np.ones(40))
        told = of(counted)
        held += list((told.low <= 1.0) & (told.high >= 1.0))
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.mark.parametrize(("votes", "told"), [(MIN_DECIDED - 1, False), (MIN_DECIDED, True)])
def test_of_few_votes_nothing_is_told(votes: int, told: bool) -> None:
    rng = np.random.default_rng(4)
    own = tally(8, np.zeros(votes, dtype=np.int64), np.ones(votes, dtype=np.int64),
                np.full(votes, LEFT), np.full(votes, 1))  # fmt: skip
    found = of(_together(own, judged(rng, STRENGTHS, 100, discernment=np.ones(5))))
    assert found.told[by_judge(found)[1]] == told


def test_the_only_judge_there_is_cannot_be_measured() -> None:
    counted = simulated(np.random.default_rng(5), STRENGTHS, 500, judges=np.array([1]))
    told = of(counted)
    assert told.judge.tolist() == [1]
    assert not told.told.any()
    assert told.decided.tolist() == [0]


def test_anonymous_votes_are_no_judge() -> None:
    told = of(simulated(np.random.default_rng(6), STRENGTHS, 500))
    assert told.judge.size == 0


def _together(one: Tally, other: Tally) -> Tally:
    """The votes of both, the other's judges numbered on."""
    rows = []
    for shift, each in ((0, one), (int(one.cells.judge.max()), other)):
        cells = each.cells
        for vote, count in ((1, cells.wins), (2, cells.losses), (3, cells.ties)):
            times = count.astype(np.int64)
            rows.append(
                np.stack(
                    [
                        np.repeat(cells.first, times),
                        np.repeat(cells.second, times),
                        np.full(times.sum(), vote),
                        np.repeat(cells.judge + shift, times),
                    ]
                )
            )
    left, right, votes, judge = np.concatenate(rows, axis=1)
    return tally(one.contenders, left, right, votes, judge)
