import random

import pytest

from services.core.errors import InvalidInput
from services.core.fleet.traffic import TOLERANCE, Split, check_shares


@pytest.mark.parametrize(
    ("draw", "choice"), [(0.0, "a"), (0.4999, "a"), (0.5, "b"), (0.8999, "b"), (0.9, "c")]
)
def test_a_split_at_its_limits(draw: float, choice: str) -> None:
    assert Split([("a", 0.5), ("b", 0.4), ("c", 0.1)]).pick(draw) == choice


def test_what_rounding_leaves_over_is_the_last_ones() -> None:
    assert Split([("a", 0.5), ("b", 0.4999999)]).pick(1.0 - 2**-53) == "b"


def test_many_draws_fall_by_the_shares() -> None:
    split = Split([("stable", 0.9), ("canary", 0.1)])
    draw = random.Random(7).random
    picked = [split.pick(draw()) for _ in range(10_000)]
    assert picked.count("canary") == pytest.approx(1000, abs=100)


@pytest.mark.parametrize(
    "shares",
    [
        {"a": 1.0},
        {"a": 0.0, "b": 1.0},
        {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3},
        {"a": 0.5, "b": 0.5 + TOLERANCE / 2},
    ],
)
def test_shares_that_add_up(shares: dict[str, float]) -> None:
    check_shares(shares)


@pytest.mark.parametrize(
    ("shares", "limit"),
    [
        ({}, "1"),
        ({"a": 0.9}, "1"),
        ({"a": 0.9, "b": 0.2}, "1"),
        ({"a": 0.5, "b": 0.5 + 3 * TOLERANCE}, "1"),
        ({"a": -0.1, "b": 1.1}, "0 to 1"),
        ({"a": 1.5}, "0 to 1"),
        ({"a": float("nan")}, "0 to 1"),
    ],
)
def test_shares_that_do_not(shares: dict[str, float], limit: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_shares(shares)
    assert (caught.value.field, caught.value.limit) == ("shares", limit)
    assert caught.value.given is not None
