"""Position bias: told apart from what results are worth."""

from __future__ import annotations

import random

import pytest

from ranker.graph import bias
from ranker.graph.bias import Attraction, Shown, Swaps, attraction, contributions, examination
from ranker.graph.exploration import shown


def harvested(
    worth: list[float], looked: list[float], answers: int, epsilon: float, seed: int = 0
) -> dict[int, Swaps]:
    """The swaps of ``answers`` answers with the results always in the same order of the ranking."""
    chance = random.Random(seed)
    sums: dict[int, list[float]] = {}
    for _ in range(answers):
        for place, result in enumerate(shown(len(worth), epsilon, chance), 1):
            if chance.random() < looked[place - 1] * worth[result.base - 1]:
                told = contributions(result.base, place, len(worth), result.propensity)
                for upper, swaps in told.items():
                    kept = sums.setdefault(upper, [0.0, 0.0])
                    kept[0] += swaps.upper
                    kept[1] += swaps.lower
    return {upper: Swaps(*kept) for upper, kept in sums.items()}


def test_examination_is_found_though_the_best_stand_first() -> None:
    looked = [1.0, 0.5, 1 / 3, 0.25]
    swaps = harvested([0.9, 0.7, 0.5, 0.3], looked, 60_000, epsilon=0.3)
    assert examination(swaps, 4) == pytest.approx(looked, rel=0.08)


def test_examination_is_found_where_places_do_not_matter() -> None:
    swaps = harvested([0.9, 0.5, 0.2], [1.0, 1.0, 1.0], 60_000, epsilon=0.3)
    assert examination(swaps, 3) == pytest.approx([1.0, 1.0, 1.0], rel=0.08)


def test_without_choices_the_prior_stands_in() -> None:
    assert examination({}, 4) == pytest.approx([1.0, 1 / 2, 1 / 3, 1 / 4])
    assert examination({}, 1) == (1.0,)


def test_examination_has_a_floor() -> None:
    assert examination({1: Swaps(upper=1e9)}, 2)[1] == bias.MIN_EXAMINATION


def test_what_was_never_swapped_tells_nothing_of_places() -> None:
    assert contributions(1, 1, 3, 1.0) == {}


def test_the_last_place_has_no_pair_below() -> None:
    assert contributions(3, 3, 3, 0.9) == {2: Swaps(lower=1 / 0.9)}
    assert contributions(1, 1, 3, 0.9) == {1: Swaps(upper=1 / 0.9)}
    assert contributions(2, 3, 3, 0.1) == {2: Swaps(lower=10.0)}
    assert contributions(2, 1, 3, 0.1) == {1: Swaps(upper=10.0)}


def test_unclipped_is_the_importance_sampling_estimate() -> None:
    alphas = (1.0, 0.5, 0.25)
    seen = [Shown(1, 10, 4), Shown(2, 20, 3), Shown(3, 40, 2)]
    expected = (4 / 1.0 + 3 / 0.5 + 2 / 0.25) / 70
    found = attraction(seen, alphas)
    assert found.rate == pytest.approx(expected)
    assert found.effective == pytest.approx(70)


def test_clipping_costs_no_consistency() -> None:
    alphas = (1.0, 0.5, 0.05)  # the last weight is clipped from 20 to 10
    worth = 0.4
    seen = [Shown(k, n, n * worth * alphas[k - 1]) for k, n in ((1, 10), (2, 20), (3, 4000))]
    found = attraction(seen, alphas)
    assert found.rate == pytest.approx(worth)
    assert found.effective == pytest.approx((30 + 2000) ** 2 / (30 + 4000 * 0.25))


def test_nothing_seen_says_nothing() -> None:
    assert attraction([], ()) == Attraction()
    assert Attraction().rate is None
