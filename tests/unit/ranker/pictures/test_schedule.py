"""Rounds, checkpoints and the default schedule."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.pictures.schedule import (
    DEFAULT_SCHEDULE,
    Round,
    ShareRound,
    check_rounds,
    checkpoints,
    default_rounds,
    parse_schedule,
)
from services.core.errors import InvalidInput

_PERCENT = st.integers(1, 99)


@st.composite
def _schedules(draw: st.DrawFn) -> tuple[tuple[Round, ...], int]:
    """Rounds that are valid for the number of candidates beside them."""
    candidates = draw(st.integers(2, 64))
    keeps = sorted(draw(st.sets(st.integers(1, candidates - 1), max_size=5)), reverse=True)
    shares = sorted(draw(st.sets(_PERCENT, min_size=len(keeps), max_size=len(keeps))))
    rounds = tuple(Round(at / 100, keep) for at, keep in zip(shares, keeps, strict=True))
    return rounds, candidates


def test_default_keeps_half_then_a_quarter() -> None:
    assert default_rounds(DEFAULT_SCHEDULE, 8) == (Round(0.6, 4), Round(0.8, 2))
    assert default_rounds(DEFAULT_SCHEDULE, 4) == (Round(0.6, 2), Round(0.8, 1))


@pytest.mark.parametrize(
    ("candidates", "keeps"), [(1, []), (2, [1]), (3, [2, 1]), (5, [3, 2]), (64, [32, 16])]
)
def test_default_drops_somebody_in_every_round(candidates: int, keeps: list[int]) -> None:
    assert [each.keep for each in default_rounds(DEFAULT_SCHEDULE, candidates)] == keeps


@given(st.integers(1, 1000))
def test_default_is_valid_for_every_number(candidates: int) -> None:
    check_rounds(default_rounds(DEFAULT_SCHEDULE, candidates), candidates)


def test_checkpoints_are_what_decimals_mean() -> None:
    rounds = (Round(0.55, 4), Round(0.6, 3), Round(0.61, 2))
    assert [each.step for each in checkpoints(rounds, 20)] == [11, 12, 13]


def test_rounds_on_one_step_are_one_with_the_smaller_number() -> None:
    found = checkpoints((Round(0.3, 4), Round(0.4, 2)), 3)
    assert [(each.step, each.keep) for each in found] == [(1, 4), (2, 2)]
    found = checkpoints((Round(0.4, 4), Round(0.6, 2)), 3)
    assert [(each.step, each.keep) for each in found] == [(2, 2)]


def test_no_checkpoint_at_the_last_step() -> None:
    assert checkpoints((Round(0.5, 2), Round(0.95, 1)), 2) == checkpoints((Round(0.5, 2),), 2)
    assert checkpoints((Round(0.5, 2),), 1) == ()


@given(_schedules(), st.integers(0, 200))
def test_checkpoints_rise_and_keep_falls(
    schedule: tuple[tuple[Round, ...], int], steps: int
) -> None:
    rounds, candidates = schedule
    check_rounds(rounds, candidates)
    found = checkpoints(rounds, steps)
    assert [each.step for each in found] == sorted({each.step for each in found})
    assert [each.keep for each in found] == sorted({each.keep for each in found}, reverse=True)
    exact = {math.ceil(Fraction(round(each.at * 100), 100) * steps) for each in rounds}
    assert {each.step for each in found} == {step for step in exact if step < steps}


@pytest.mark.parametrize(
    ("rounds", "field"),
    [
        ([Round(0.0, 2)], "pruning.rounds[0].at"),
        ([Round(1.0, 2)], "pruning.rounds[0].at"),
        ([Round(math.nan, 2)], "pruning.rounds[0].at"),
        ([Round(math.inf, 2)], "pruning.rounds[0].at"),
        ([Round(0.5, 0)], "pruning.rounds[0].keep"),
        ([Round(0.5, 8)], "pruning.rounds[0].keep"),
        ([Round(0.5, 4), Round(0.5, 2)], "pruning.rounds[1].at"),
        ([Round(0.5, 4), Round(0.4, 2)], "pruning.rounds[1].at"),
        ([Round(0.5, 4), Round(0.6, 4)], "pruning.rounds[1].keep"),
        ([Round(0.5, 9, 1.0)], "pruning.rounds[0].keep"),
        ([Round(0.5, 0, 1.0)], "pruning.rounds[0].keep"),
        ([Round(0.5, 8, 1.0), Round(0.6, 8)], "pruning.rounds[1].keep"),
        ([Round(0.5, 4, -0.1)], "pruning.rounds[0].margin"),
        ([Round(0.5, 4, math.nan)], "pruning.rounds[0].margin"),
        ([Round(0.5, 4, math.inf)], "pruning.rounds[0].margin"),
    ],
)
def test_bad_rounds_name_their_field(rounds: list[Round], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_rounds(rounds, 8)
    assert caught.value.field == field
    assert caught.value.limit


def test_by_its_margin_a_round_may_keep_all_that_were_left() -> None:
    check_rounds([Round(0.5, 8, 1.0), Round(0.6, 4, 0.0), Round(0.7, 4, 0.5), Round(0.8, 1)], 8)


def test_rounds_on_one_step_have_the_smaller_margin() -> None:
    one, other = Round(0.41, 4, 1.0), Round(0.42, 4, 0.5)
    for rounds in ((one, other), (other, one)):
        assert [each.margin for each in checkpoints(rounds, 10)] == [0.5]
    for rounds in ((Round(0.41, 4), one), (one, Round(0.42, 4))):
        assert [each.margin for each in checkpoints(rounds, 10)] == [1.0]


def test_shares_with_margins_for_any_number() -> None:
    shares = (ShareRound(0.4, 1.0, 2.0), ShareRound(0.6, 0.5), ShareRound(0.8, 0.5, 1.0))
    assert default_rounds(shares, 8) == (Round(0.4, 8, 2.0), Round(0.6, 4), Round(0.8, 4, 1.0))
    assert default_rounds(shares, 2) == (Round(0.4, 2, 2.0), Round(0.6, 1))
    assert default_rounds(shares, 1) == ()
    for candidates in range(1, 20):
        check_rounds(default_rounds(shares, candidates), candidates)


def test_parse() -> None:
    assert parse_schedule("0.6:0.5 0.8:0.25") == DEFAULT_SCHEDULE
    assert parse_schedule("0.5:0.5,") == (ShareRound(0.5, 0.5),)
    assert parse_schedule("  ") == ()


@pytest.mark.parametrize(
    "text", ["0.5", "x:0.5", "0.5:", "0:0.5", "1:0.5", "0.5:1", "0.5:0", "0.6:0.5 0.5:0.2",
             "0.5:0.5 0.6:0.5", "nan:0.5", "0.5:nan"],
)  # fmt: skip
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_schedule(text)
