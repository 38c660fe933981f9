"""Whether one more deadline can be accepted: at, below and above what the device can do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from services.core.engine.admission import Leg, Standing
from services.core.engine.promises import wait_seconds


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """A key whose steps take ``fixed + cost`` seconds, in batches of up to ``cap_cost``."""

    cap_cost: float = 1.0
    fixed: float = 0.0

    def seconds(self, remaining: float, width: float, rows: int) -> float:
        batch = max(width / rows, min(width, self.cap_cost))
        return remaining * (self.fixed / batch + 1.0)


SERIAL = Load()


def standing(
    arrival: int,
    deadline: float = math.inf,
    *,
    load: Load = SERIAL,
    steps: int = 2,
    priority: int = 0,
    tenant: str = "",
    opening: Load | None = None,
) -> Standing:
    openings = () if opening is None else (Leg(opening, 1.0, 1),)
    legs = (*openings, Leg(load, 1.0, steps))
    return Standing(priority, tenant, deadline - steps, arrival, False, legs, deadline)


def wait(asking: Standing, *admitted: Standing, rows: int = 64) -> float:
    return wait_seconds([asking], admitted, 0.0, rows)


@pytest.mark.parametrize(("deadline", "seconds"), [(1.9, 0.1), (2.0, 0.0), (2.1, 0.0)])
def test_alone_it_needs_its_own_time(deadline: float, seconds: float) -> None:
    assert wait(standing(1, deadline)) == pytest.approx(seconds)


@pytest.mark.parametrize(("deadline", "seconds"), [(4.9, 0.1), (5.0, 0.0), (5.1, 0.0)])
def test_it_waits_behind_less_slack_and_for_the_step_under_way(
    deadline: float, seconds: float
) -> None:
    assert wait(standing(2, deadline), standing(1, 3.0)) == pytest.approx(seconds)


@pytest.mark.parametrize(("deadline", "refused"), [(4.9, True), (5.0, False), (5.1, False)])
def test_it_must_leave_those_it_goes_before_in_time(deadline: float, refused: bool) -> None:
    assert (wait(standing(2, 3.5), standing(1, deadline)) > 0.0) == refused


def test_it_may_ask_again_when_it_would_go_after_and_be_in_time() -> None:
    # Behind 3 s of work, a step that may be under way and its own, 5 s that begin 2.1 s later.
    asking = standing(2, 2.9, steps=1)
    assert wait(asking, standing(1, 4.95, steps=3)) == pytest.approx(2.1)


def test_it_may_ask_again_when_nothing_is_left_to_do() -> None:
    assert wait(standing(2, 3.0), standing(1, 4.0)) == pytest.approx(2.0)


def test_a_row_that_is_late_anyway_protects_nobody() -> None:
    assert wait(standing(2, 10.0), standing(1, 1.0)) == 0.0


def test_rows_without_deadlines_go_after_but_for_one_batch_in_four() -> None:
    others = [standing(i, steps=100) for i in range(1, 9)]
    assert wait(standing(9, 3.0), *others) == 0.0
    assert wait(standing(9, 2.9), *others) == pytest.approx(0.1)
    assert wait(standing(9, 12.0, steps=9), *others) == 0.0
    assert wait(standing(9, 11.9, steps=9), *others) == pytest.approx(0.1)


@pytest.mark.parametrize("tenant", ["", "other"])
def test_promises_are_kept_across_tenants(tenant: str) -> None:
    assert wait(standing(2, 3.5), standing(1, 4.9, tenant=tenant)) > 0.0


def test_a_higher_priority_goes_before_with_or_without_a_deadline() -> None:
    assert wait(standing(2, 5.0), standing(1, priority=1)) == 0.0
    assert wait(standing(2, 4.9), standing(1, priority=1)) == pytest.approx(0.1)


def test_a_lower_priority_is_no_hindrance() -> None:
    assert wait(standing(2, 3.0, priority=1), standing(1, 3.0)) == 0.0


def test_rows_that_fit_in_one_batch_take_the_longest_ones_time() -> None:
    load = Load(cap_cost=8.0, fixed=1.0)
    admitted = [standing(i, 100.0, load=load, steps=4) for i in (1, 2)]
    # Steps of 4 s for three rows, four of them, and one that may be under way.
    assert wait(standing(3, 20.0, load=load, steps=4), *admitted) == 0.0
    assert wait(standing(3, 19.9, load=load, steps=4), *admitted) > 0.0


def test_more_rows_than_a_batch_may_have_are_worked_off() -> None:
    load = Load(cap_cost=8.0)
    admitted = [standing(i, 15.5, load=load, steps=4) for i in (1, 2)]
    assert wait(standing(3, 16.0, load=load, steps=4), *admitted) == 0.0
    assert wait(standing(3, 16.0, load=load, steps=4), *admitted, rows=2) > 0.0


def test_an_opening_step_goes_before_everybody() -> None:
    opening = Load()
    assert wait(standing(2, 9.0, opening=opening), standing(1, 4.0)) == 0.0
    # It comes after the other row, but its opening does not.
    assert wait(standing(2, 9.0, opening=opening), standing(1, 3.5)) > 0.0


def test_a_single_step_to_come_is_not_shared() -> None:
    last, first = Load(cap_cost=8.0, fixed=1.0), Load(cap_cost=8.0)
    legs = (Leg(first, 1.0, 2), Leg(last, 1.0, 1))
    rows = [Standing(0, "", 5.0, i, False, legs, 100.0) for i in (1, 2)]
    asking = Standing(0, "", 5.5, 3, False, legs, 16.0)
    # Two steps of 3 s, three of 2 s, and one that may be under way, of up to 4 s.
    assert wait(asking, *rows) == 0.0
    assert wait(asking._replace(deadline=15.9), *rows) == pytest.approx(0.1)
