"""Admission: every bound at, below and above, and what a forecast counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from services.core.engine.admission import (
    MIN_RETRY_SECONDS,
    Leg,
    Refusal,
    Standing,
    decide,
    forecast,
    seconds_of,
)
from services.core.engine.limits import EngineLimits

LIMITS = EngineLimits(max_rows=10, max_backlog_seconds=60.0, max_step_seconds=0.5)


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
    *,
    load: Load = SERIAL,
    steps: int = 1,
    priority: int = 0,
    tenant: str = "",
    due: float = math.inf,
    started: bool = False,
) -> Standing:
    legs = (Leg(load, 1.0, steps),)
    return Standing(priority, tenant, due, arrival, started, legs)


def test_a_row_alone_takes_its_own_time() -> None:
    row = standing(1, steps=5)
    assert forecast(row, [row]).seconds == 5.0
    assert forecast(row, [row]).position == 0


def test_rows_that_came_before_go_before() -> None:
    rows = [standing(1, steps=2), standing(2, steps=3), standing(3, steps=7)]
    assert forecast(rows[1], rows).seconds == 5.0
    assert forecast(rows[1], rows).position == 1


def test_less_slack_goes_before_arrival() -> None:
    rows = [standing(1, steps=2), standing(2, steps=3, due=9.0)]
    assert forecast(rows[1], rows).seconds == 3.0
    assert forecast(rows[0], rows).seconds == 5.0


def test_higher_priority_counts_and_lower_does_not() -> None:
    rows = [standing(1, steps=2, priority=-1), standing(2, steps=3), standing(3, priority=1)]
    assert forecast(rows[1], rows).seconds == 4.0
    assert forecast(rows[1], rows).position == 1


def test_a_started_row_takes_time_but_no_place_in_the_queue() -> None:
    rows = [standing(1, steps=4, started=True), standing(2)]
    assert forecast(rows[1], rows).position == 0
    assert forecast(rows[1], rows).seconds == 5.0


def test_another_tenants_queue_takes_no_longer_than_ones_own() -> None:
    heavy = [standing(i, steps=10, tenant="heavy") for i in range(1, 9)]
    row = standing(9, steps=3, tenant="light")
    assert forecast(row, [*heavy, row]).seconds == pytest.approx(6.0)


def test_rows_that_fit_in_one_batch_are_stepped_together() -> None:
    load = Load(cap_cost=4.0, fixed=1.0)
    long = standing(1, load=load, steps=50, started=True)
    row = standing(2, load=load, steps=10)
    # 10 steps of a batch of two, whatever the other still has to do.
    assert forecast(row, [long, row]).seconds == pytest.approx(10 * (1.0 + 2.0))


def test_rows_that_do_not_fit_in_one_batch_are_worked_off() -> None:
    load = Load(cap_cost=2.0)
    rows = [standing(i, load=load, steps=10) for i in (1, 2, 3)]
    # Two of them take 10 steps, and the third 10 more in a batch that may be full.
    assert forecast(rows[2], rows).seconds == pytest.approx(40.0)


def test_a_row_not_admitted_yet_can_be_forecast() -> None:
    assert forecast(standing(2, steps=3), [standing(1, steps=2)]).seconds == 5.0


def test_seconds_of_rows_counts_batching() -> None:
    load = Load(cap_cost=4.0, fixed=1.0)
    assert seconds_of(standing(i, load=load) for i in range(4)) == pytest.approx(4 * 1.25)


def asked(
    *,
    rows: int = 0,
    adding: int = 1,
    backlog: float = 0.0,
    own: float = 1.0,
    spare: float | None = None,
    wait: float = 0.0,
    leeway: float = math.inf,
) -> Refusal | None:
    return decide(
        rows=rows,
        adding=adding,
        backlog_seconds=backlog,
        own_seconds=own,
        company_seconds=own,
        spare_seconds=spare,
        leeway_seconds=leeway,
        wait_seconds=lambda: wait,
        limits=LIMITS,
    )


@pytest.mark.parametrize(("rows", "adding"), [(0, 10), (9, 1), (8, 2)])
def test_admits_up_to_max_rows(rows: int, adding: int) -> None:
    assert asked(rows=rows, adding=adding) is None


@pytest.mark.parametrize(("rows", "adding", "retry"), [(10, 1, 2.0), (9, 2, 20 / 9), (10, 5, 10.0)])
def test_refuses_over_max_rows_until_enough_have_left(rows: int, adding: int, retry: float) -> None:
    refusal = asked(rows=rows, adding=adding, backlog=20.0)
    assert refusal is not None
    assert refusal.reason == "QUEUE_FULL"
    assert refusal.retry_after_seconds == pytest.approx(retry)


def test_a_full_queue_of_untimed_work_is_tried_again_after_a_step() -> None:
    assert asked(rows=10) == Refusal("QUEUE_FULL", LIMITS.max_step_seconds)


@pytest.mark.parametrize(("backlog", "own"), [(59.0, 1.0), (0.1, 59.9), (0.0, 1000.0)])
def test_admits_up_to_the_backlog_and_anything_when_idle(backlog: float, own: float) -> None:
    assert asked(backlog=backlog, own=own) is None


@pytest.mark.parametrize(("backlog", "own", "retry"), [(60.0, 1.0, 1.0), (5.0, 100.0, 5.0)])
def test_refuses_over_the_backlog_until_it_fits_or_is_gone(
    backlog: float, own: float, retry: float
) -> None:
    assert asked(backlog=backlog, own=own) == Refusal("BACKLOG_FULL", retry)


def test_a_deadline_past_the_whole_backlog_is_admitted_without_a_forecast() -> None:
    assert asked(backlog=4.0, own=1.0, spare=5.0, wait=math.inf) is None


@pytest.mark.parametrize(("leeway", "admitted"), [(4.9, False), (5.0, True), (5.1, True)])
def test_what_would_keep_the_device_too_long_is_looked_at(leeway: float, admitted: bool) -> None:
    refusal = asked(backlog=4.0, own=1.0, spare=9.0, wait=2.0, leeway=leeway)
    assert refusal == (None if admitted else Refusal("DEADLINE_UNREACHABLE", 2.0))


def test_admits_what_need_not_wait() -> None:
    assert asked(backlog=4.0, own=1.0, spare=3.0, wait=0.0) is None


def test_refuses_for_as_long_as_it_should_wait() -> None:
    refusal = asked(backlog=4.0, own=1.0, spare=3.0, wait=1.5)
    assert refusal == Refusal("DEADLINE_UNREACHABLE", 1.5)


def test_nobody_is_told_to_come_back_at_once() -> None:
    refusal = asked(backlog=4.0, own=1.0, spare=3.0, wait=0.0001)
    assert refusal == Refusal("DEADLINE_UNREACHABLE", MIN_RETRY_SECONDS)
