"""Weights that can be used, and what is said of those that cannot."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ranker.score.components import COMPONENTS
from ranker.score.weights import DEFAULT_WEIGHTS, Weights, check_half_lives, check_weights

GOOD = dict(DEFAULT_WEIGHTS["default"])


def test_the_defaults_can_be_used() -> None:
    check_weights(DEFAULT_WEIGHTS)
    weights = Weights.of(GOOD)

    assert sum(weights[name] for name in COMPONENTS) == Decimal(1)


def test_tenths_add_up_though_their_doubles_do_not() -> None:
    tenths = dict(zip(COMPONENTS, (0.1, 0.2, 0.3, 0.1, 0.3), strict=True))
    assert sum((0.1, 0.2, 0.3, 0.1)) != 0.7

    assert Weights.of(tenths)["ecosystem"] == Decimal("0.3")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"adoption": 0.25}, r"must add up to 1, and 0\.25 \+ .* = 1\.1"),
        ({"adoption": 0.1499}, r"= 0\.9999"),
        ({"adoption": 0.1501}, r"= 1\.0001"),
        ({"adoption": 0.15001}, "at most 4 digits"),
        ({"adoption": -0.1}, "adoption: a weight is 0 to 1, given -0.1"),
        ({"adoption": 1.1}, "adoption: a weight is 0 to 1, given 1.1"),
        ({"adoption": float("nan")}, "adoption: a weight is 0 to 1, given nan"),
        ({"charm": 0.0}, "there is no part 'charm'; the parts are adoption, quality"),
    ],
)
def test_weights_that_cannot_be_used(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_weights({"default": GOOD, "classifier": {**GOOD, **changed}})


def test_a_part_without_a_weight() -> None:
    with pytest.raises(ValueError, match="classifier: freshness has no weight; 0 leaves it out"):
        check_weights({"default": GOOD, "classifier": dict.fromkeys(COMPONENTS[:4], 0.25)})


def test_types_that_are_not_named_need_weights_too() -> None:
    with pytest.raises(ValueError, match="weights for 'default'"):
        check_weights({"classifier": GOOD})
    with pytest.raises(ValueError, match="half-life for 'default'"):
        check_half_lives({"classifier": 100.0})


@pytest.mark.parametrize(
    ("days", "good"), [(0.5, False), (1, True), (36_500, True), (36_501, False)]
)
def test_half_lives(days: float, good: bool) -> None:
    if good:
        check_half_lives({"default": days})
        return
    with pytest.raises(ValueError, match="default: a half-life is 1 to 36500 days"):
        check_half_lives({"default": days})
