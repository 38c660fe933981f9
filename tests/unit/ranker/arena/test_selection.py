from __future__ import annotations

import numpy as np
import pytest

from ranker.arena.selection import (
    Entrant,
    belief,
    common_prompts,
    draw,
    possible,
    possible_for,
    weights,
)
from ranker.arena.tally import Ints, Tally, tally
from tests.unit.ranker.arena.simulation import simulated

MAKES = Entrant(0, "makes", generates=True, prompts=frozenset())
ALSO = Entrant(1, "also", generates=True, prompts=frozenset({1}))
GIVEN = Entrant(2, "given", generates=False, prompts=frozenset({1, 2}))
OTHER = Entrant(3, "other", generates=False, prompts=frozenset({3}))
EMPTY = Entrant(4, "empty", generates=False, prompts=frozenset())
ALL = (MAKES, ALSO, GIVEN, OTHER, EMPTY)


def pairs(found: tuple[Ints, Ints]) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in zip(*found, strict=True)}


def test_who_can_show_the_same_prompt() -> None:
    together = {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)}
    assert pairs(possible(ALL, standing=True)) == together
    assert pairs(possible((MAKES, EMPTY), standing=True)) == set()
    assert pairs(possible((GIVEN, GIVEN), standing=True)) == {(0, 1)}


def test_without_prompts_those_that_generate_cannot_meet() -> None:
    assert pairs(possible((MAKES, MAKES), standing=False)) == set()


def test_for_one_prompt() -> None:
    assert pairs(possible_for(ALL, 1)) == {(0, 1), (0, 2), (1, 2)}
    assert pairs(possible_for(ALL, None)) == {(0, 1)}


def test_the_prompts_two_can_show() -> None:
    standing = frozenset({1, 2, 3, 9})
    assert common_prompts(MAKES, ALSO, standing) == [1, 2, 3, 9]
    assert common_prompts(MAKES, OTHER, standing) == [3]
    assert common_prompts(GIVEN, MAKES, standing) == [1, 2]
    assert common_prompts(GIVEN, OTHER, standing) == []


def test_before_any_vote_all_pairs_are_alike() -> None:
    none = np.zeros(0, dtype=np.int64)
    before = belief(tally(4, none, none, none, none))
    first, second = np.nonzero(np.triu(np.ones((4, 4)), k=1))
    assert weights(before, first, second, 0.1) == pytest.approx(np.full(6, 1 / 6))


def test_a_pair_that_is_unsure_and_even_goes_first() -> None:
    counted = simulated(np.random.default_rng(1), np.array([0.2, 0.0, -3.0]), 2000)
    known = belief(Tally(4, counted.cells))
    first, second = np.array([0, 0, 0]), np.array([1, 2, 3])
    sure_even, sure_uneven, unsure = weights(known, first, second, 0.0)
    assert unsure > 10 * sure_even
    assert sure_even > sure_uneven


def test_the_gain_is_that_of_the_information() -> None:
    counted = simulated(np.random.default_rng(2), np.array([0.5, 0.0, -0.5]), 100, tie=0.0)
    known = belief(counted)
    chance = weights(known, np.array([0, 0, 1]), np.array([1, 2, 2]), 0.0)
    gains = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        x = np.zeros(3)
        x[a], x[b] = 1.0, -1.0
        p = 1 / (1 + np.exp(known.fit.strengths[b] - known.fit.strengths[a]))
        more = known.fit.information + p * (1 - p) * np.outer(x, x)
        gains.append(np.linalg.slogdet(more)[1] - np.linalg.slogdet(known.fit.information)[1])
    assert chance == pytest.approx(np.array(gains) / sum(gains))


def test_exploration_leaves_every_pair_a_known_chance() -> None:
    counted = simulated(np.random.default_rng(3), np.array([3.0, 0.0, -3.0]), 1000)
    first, second = np.array([0, 0, 1]), np.array([1, 2, 2])
    known = belief(counted)
    assert weights(known, first, second, 1.0) == pytest.approx(np.full(3, 1 / 3))
    chance = weights(known, first, second, 0.3)
    assert chance.sum() == pytest.approx(1.0)
    assert chance.min() >= 0.1


def test_pairs_come_as_often_as_they_say_and_on_both_sides() -> None:
    rng = np.random.default_rng(4)
    first, second, chance = np.array([0, 0]), np.array([1, 2]), np.array([0.8, 0.2])
    drawn = [draw(rng, first, second, chance) for _ in range(4000)]
    often = [each for each in drawn if {each.left, each.right} == {0, 1}]
    assert len(often) / 4000 == pytest.approx(0.8, abs=0.03)
    assert {each.propensity for each in often} == {0.8}
    assert sum(each.left == 0 for each in drawn) / 4000 == pytest.approx(0.5, abs=0.03)


def test_votes_chosen_so_tell_more_than_random_ones() -> None:
    """Of as many votes, the standard errors are smaller than those of pairs at random."""
    rng = np.random.default_rng(5)
    true = np.array([2.0, 1.9, 0.3, 0.0, -0.2, -2.0, -2.1])
    first, second = np.nonzero(np.triu(np.ones((7, 7)), k=1))
    volumes = []
    for exploration in (0.1, 1.0):
        left: list[int] = []
        right: list[int] = []
        vote: list[int] = []
        for _ in range(40):
            counted = tally(
                7, *(np.array(v, dtype=np.int64) for v in (left, right, vote, [0] * len(left)))
            )
            chance = weights(belief(counted), first, second, exploration)
            for _ in range(10):
                drawn = draw(rng, first, second, chance)
                left.append(drawn.left)
                right.append(drawn.right)
                odds = 1 / (1 + np.exp(true[drawn.right] - true[drawn.left]))
                vote.append(1 if rng.random() < odds else 2)
        counted = tally(
            7, *(np.array(v, dtype=np.int64) for v in (left, right, vote, [0] * len(left)))
        )
        volumes.append(float(np.linalg.slogdet(belief(counted).fit.information)[1]))
    assert volumes[0] > volumes[1]
