"""Priorities, tenants, patience, waiting for company and deadlines, over many ticks."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from services.core.engine import EngineLimits
from services.core.engine.ready import IMPATIENT_EVERY
from services.core.errors import Overloaded
from tests.unit.core.engine.fake_model import Bench, bench, work

ONE_AT_A_TIME = EngineLimits(max_batch_rows=1, patience_seconds=1e9, max_backlog_seconds=1e9)


def served(made: Bench) -> list[str]:
    return [name for batch in made.model.batches for name in batch]


async def test_higher_priority_goes_first() -> None:
    made = bench(ONE_AT_A_TIME, fixed=0.1)
    for name, priority in [("low", -1), ("normal", 0), ("high", 10)]:
        made.engine.submit(work(name), priority=priority)
    await made.run()
    assert served(made) == ["high", "normal", "low"]


@pytest.mark.parametrize("priority", [-11, 11])
async def test_priorities_out_of_range_are_a_bug(priority: int) -> None:
    with pytest.raises(ValueError, match="priority"):
        bench().engine.submit(work("a"), priority=priority)


async def test_a_light_tenant_is_not_queued_behind_a_heavy_one() -> None:
    made = bench(ONE_AT_A_TIME, fixed=0.1)
    for _ in range(20):
        made.engine.submit(work("heavy"), tenant="heavy")
    for _ in range(5):
        made.engine.submit(work("light"), tenant="light")
    await made.run()
    assert Counter(served(made)[:10]) == {"heavy": 5, "light": 5}


async def test_a_tenant_that_was_idle_does_not_catch_up() -> None:
    made = bench(ONE_AT_A_TIME, fixed=0.1)
    for _ in range(40):
        made.engine.submit(work("early"), tenant="early")
    for _ in range(20):
        await made.engine.tick()
    for _ in range(20):
        made.engine.submit(work("late"), tenant="late")
    for _ in range(12):
        await made.engine.tick()
    assert 5 <= Counter(served(made)[20:])["early"] <= 7


async def test_a_low_priority_row_out_of_patience_is_served_in_bounded_turns() -> None:
    limits = EngineLimits(max_batch_rows=1, patience_seconds=1.0, max_backlog_seconds=1e9)
    made = bench(limits, fixed=0.1)
    made.engine.submit(work("low", 3), priority=-5)
    made.engine.submit(work("high"), priority=5)
    for _ in range(60):
        made.engine.submit(work("high"), priority=5)
        await made.engine.tick()
    turns = [turn for turn, name in enumerate(served(made)) if name == "low"]
    assert len(turns) == 3
    assert turns[0] <= 10 + IMPATIENT_EVERY
    assert all(b - a <= 10 + IMPATIENT_EVERY for a, b in pairwise(turns))


async def test_patience_never_turns_the_order_of_priorities_round() -> None:
    limits = EngineLimits(max_batch_rows=1, patience_seconds=0.01, max_backlog_seconds=1e9)
    made = bench(limits, fixed=0.1)
    for _ in range(50):
        made.engine.submit(work("low"), priority=-5)
    for _ in range(50):
        made.engine.submit(work("high"), priority=5)
    for _ in range(40):
        await made.engine.tick()
    assert Counter(served(made))["low"] <= 40 // IMPATIENT_EVERY


async def test_an_idle_device_starts_at_once() -> None:
    made = bench()
    made.engine.submit(work("a"))
    assert await made.engine.tick()


async def test_a_configured_wait_counts_from_the_oldest_row() -> None:
    made = bench(EngineLimits(batch_wait_seconds=0.5), known=["k"], fixed=0.1)
    made.engine.submit(work("a"))
    made.clock.now += 0.4
    made.engine.submit(work("b"))
    assert not await made.engine.tick()
    made.clock.now += 0.1
    assert await made.engine.tick()
    assert made.model.batches == [["a", "b"]]


async def test_a_full_batch_does_not_wait() -> None:
    limits = EngineLimits(batch_wait_seconds=0.5, max_batch_rows=2)
    made = bench(limits, known=["k"], fixed=0.1)
    made.engine.submit(work("a"))
    assert not await made.engine.tick()
    made.engine.submit(work("b"))
    assert await made.engine.tick()


async def test_a_deadline_that_cannot_be_met_is_refused_with_the_time_it_lacks() -> None:
    made = bench(known=["k"], fixed=0.1)
    with pytest.raises(Overloaded) as refused:
        made.engine.submit(work("a", 20), deadline=made.clock.now + 1.5)
    assert refused.value.reason == "DEADLINE_UNREACHABLE"
    assert refused.value.retry_after_seconds == pytest.approx(0.5)


async def test_a_deadline_is_refused_only_for_work_that_goes_before() -> None:
    made = bench(EngineLimits(max_batch_rows=1), known=["k", "l"], fixed=0.1)
    for _ in range(20):
        made.engine.submit(work("later"))
    made.engine.submit(work("soon", key="l"), deadline=made.clock.now + 0.25)
    made.engine.submit(work("urgent", key="l"), priority=1, deadline=made.clock.now + 0.25)
    with pytest.raises(Overloaded):
        made.engine.submit(work("low", key="l"), priority=-1, deadline=made.clock.now + 0.25)


@pytest.mark.parametrize("max_step", [0.2, 0.35, 0.45, 0.5, 0.51, 0.6])
@pytest.mark.parametrize("patience", [1.0, 2.0, 3.0])
async def test_admitted_deadlines_are_met_under_load(max_step: float, patience: float) -> None:
    """A burst at one moment: all of it is due together, and no row of it can go alone."""
    limits = EngineLimits(max_rows=500, max_step_seconds=max_step)
    made = bench(limits, known=["k"], fixed=0.05, per_cost=0.01)
    tickets = []
    for i in range(200):
        try:
            deadline = made.clock.now + patience
            tickets.append(made.engine.submit(work(str(i), 5), deadline=deadline))
        except Overloaded:
            await made.engine.tick()
    await made.run()
    for ticket in tickets:
        await ticket.result()
    assert len(tickets) > 50


async def test_position_and_eta_come_from_what_goes_before() -> None:
    made = bench(EngineLimits(max_batch_rows=1), known=["k"], fixed=0.1)
    tickets = [made.engine.submit(work(str(i), 2)) for i in range(3)]
    assert [ticket.position for ticket in tickets] == [0, 1, 2]
    assert [ticket.eta_seconds for ticket in tickets] == pytest.approx([0.2, 0.4, 0.6])
    await made.run()
    assert [ticket.position for ticket in tickets] == [0, 0, 0]
    assert [ticket.eta_seconds for ticket in tickets] == [0.0, 0.0, 0.0]


async def test_the_eta_is_what_it_then_takes() -> None:
    made = bench(known=["k"], fixed=0.1, per_cost=0.02)
    tickets = [made.engine.submit(work(str(i), 10)) for i in range(4)]
    began, eta = made.clock.now, tickets[3].eta_seconds
    await made.run()
    await asyncio.gather(*(ticket.result() for ticket in tickets))
    assert made.clock.now - began == pytest.approx(eta, rel=0.01)


async def test_rows_in_step_take_turns_and_others_do_not() -> None:
    made = bench(ONE_AT_A_TIME, fixed=0.1)
    made.engine.submit_all([work("a", 2), work("b", 2)])
    made.engine.submit_all([work("c", 3), work("d", 3), work("e", 2)], in_step=True)
    made.engine.submit(work("f", 2))
    await made.run()
    # Of the three, whoever has more to go is first; those before and after them keep their places.
    assert served(made) == list("aabbcdcdecdeff")


async def test_rows_in_step_share_batches() -> None:
    made = bench(EngineLimits(max_batch_rows=2), known=["k"], fixed=0.1)
    made.engine.submit_all([work(name, 2) for name in "abc"], in_step=True)
    await made.run()
    assert made.model.batches == [["a", "b"], ["c", "a"], ["b", "c"]]


async def test_a_row_in_step_that_is_cancelled_leaves_its_turn_to_the_others() -> None:
    made = bench(ONE_AT_A_TIME, fixed=0.1)
    _, second, _ = made.engine.submit_all([work(name, 3) for name in "abc"], in_step=True)
    for _ in range(3):
        await made.engine.tick()
    second.cancel()
    await made.run()
    assert served(made) == list("abcacac")
