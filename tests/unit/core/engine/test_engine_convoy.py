"""What rows share is computed once, charged once and learned from once, whoever is given up."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from services.core.engine import EngineLimits, Progress, Stage, Ticket
from services.core.engine.backlog import QUICK_AFTER
from services.core.engine.engine import KeyReport
from services.core.engine.row import Row
from services.core.errors import Cancelled, ModelFault, Overloaded
from tests.unit.core.engine.fake_model import (
    Bench,
    Common,
    FakeWork,
    GatedDevice,
    bench,
    work,
)

FIXED = 0.1
PER_COST = 1.0


def crowd(
    count: int,
    name: str = "p",
    *,
    tiles: int = 1,
    steps: int = 2,
    fails_at: Sequence[int | None] = (),
) -> list[FakeWork]:
    """As many works as pictures of one request: read once, in so many steps, then their own."""
    plan = [Stage("read", "read", 1.0, tiles, shared=name), Stage("paint", "paint", 0.1, steps)]
    common = Common(tiles)
    fails = (*fails_at, *[None] * count)
    return [
        FakeWork(f"{name}{index}", plan, fails_at=fails[index], common=common)
        for index in range(count)
    ]


def of(made: Bench, key: str) -> KeyReport:
    (found,) = [report for report in made.engine.report().keys if report.key == key]
    return found


def made_bench(limits: EngineLimits | None = None) -> Bench:
    return bench(limits, fixed=FIXED, per_cost=PER_COST, known=["read", "paint"])


async def test_one_row_takes_the_shared_steps_for_all() -> None:
    made = made_bench()
    tickets = made.engine.submit_all(crowd(3, tiles=2))
    await made.run()
    assert made.model.batches[:2] == [["p0"], ["p0"]]
    assert [set(batch) for batch in made.model.batches[2:]] == [{"p0", "p1", "p2"}] * 2
    assert [await ticket.result() for ticket in tickets] == ["p0:4", "p1:4", "p2:4"]
    assert [(ticket.timing.steps, ticket.timing.batch_rows) for ticket in tickets] == [(4, 3)] * 3
    seconds = [ticket.timing.compute_seconds for ticket in tickets]
    assert seconds == [pytest.approx(2 * 1.1 + 2 * 0.4)] * 3


async def test_shared_steps_that_are_longer_than_any_batch_should_be_teach_what_they_cost() -> None:
    """One row is a batch by itself here: its neighbours' steps would be of nothing."""
    made = made_bench(EngineLimits(max_step_seconds=0.5, max_rows=1024, max_backlog_seconds=1e9))
    for number in range(QUICK_AFTER):
        tickets = made.engine.submit_all(crowd(16, f"{number}."))
        await made.run()
        assert all(ticket.done for ticket in tickets)
    assert made.model.stages.count("read") == QUICK_AFTER
    read = of(made, "read")
    assert read.fixed_seconds == pytest.approx(FIXED)
    assert read.seconds_per_cost == pytest.approx(PER_COST)


async def test_shared_work_is_charged_once() -> None:
    made = made_bench()
    made.engine.submit_all(crowd(16))
    assert (of(made, "read").rows, of(made, "read").remaining_cost) == (1, 1.0)
    # Read once, and painted in two steps of four batches of four.
    assert made.engine.backlog_seconds == pytest.approx(1.1 + 2 * 4 * 0.5)


async def test_a_deadline_counts_shared_work_once() -> None:
    """16 readings would take 17.6 s; one takes 1.1 s, and all the painting 4 s."""
    made = made_bench()
    plans = [work.stages for work in crowd(16)]
    assert made.engine.in_time(plans, deadline=made.clock.now + 7.0)
    tickets = made.engine.submit_all(crowd(16), deadline=made.clock.now + 7.0)
    await made.run()
    assert [await ticket.result() for ticket in tickets] == [f"p{index}:3" for index in range(16)]
    with pytest.raises(Overloaded):
        made.engine.submit_all(crowd(16), deadline=made.clock.now + 1.0)


async def test_another_row_takes_the_place_of_one_that_was_cancelled() -> None:
    made = made_bench()
    first, second, third = made.engine.submit_all(crowd(3, tiles=3))
    await made.engine.tick()
    first.cancel()
    assert of(made, "read").remaining_cost == pytest.approx(2.0)
    await made.engine.tick()
    second.cancel()
    await made.run()
    assert made.model.batches == [["p0"], ["p1"], ["p2"], ["p2"], ["p2"]]
    assert await third.result() == "p2:5"
    for given_up in (first, second):
        with pytest.raises(Cancelled):
            await given_up.result()
    assert_idle(made)


async def test_a_row_cancelled_before_its_first_step_leaves_it_to_another() -> None:
    made = made_bench()
    first, second = made.engine.submit_all(crowd(2))
    first.cancel()
    await made.run()
    assert made.model.batches == [["p1"]] * 3
    assert await second.result() == "p1:3"
    assert_idle(made)


async def test_followers_are_cancelled_at_once_and_not_missed() -> None:
    made = made_bench()
    first, second, third = made.engine.submit_all(crowd(3, tiles=2))
    second.cancel()
    assert second.done
    await made.engine.tick()
    third.cancel()
    assert third.done
    await made.run()
    assert made.model.batches == [["p0"]] * 4
    assert await first.result() == "p0:4"
    assert_idle(made)


@pytest.mark.parametrize("tiles", [1, 2])
async def test_a_row_cancelled_within_the_shared_step_has_taken_it(tiles: int) -> None:
    device = GatedDevice()
    made = bench(fixed=FIXED, known=["read", "paint"], device=device)
    first, second = made.engine.submit_all(crowd(2, tiles=tiles))
    tick = asyncio.create_task(made.engine.tick())
    await device.entered.wait()
    first.cancel()
    device.gate.set()
    await tick
    assert first.cancelled
    assert first.done
    assert second.steps_done == 1
    for _ in range(tiles + 1):
        device.gate.set()
        await made.engine.tick()
    assert made.model.batches == [["p0"], *[["p1"]] * (tiles + 1)]
    assert await second.result() == f"p1:{tiles + 2}"
    assert_idle(made)


async def test_another_row_tries_what_one_has_failed_in() -> None:
    made = made_bench()
    first, second = made.engine.submit_all(crowd(2, fails_at=[1]))
    await made.run()
    assert made.model.batches == [["p0"], *[["p1"]] * 3]
    with pytest.raises(ModelFault):
        await first.result()
    assert await second.result() == "p1:3"
    assert_idle(made)


async def test_each_row_fails_by_itself_in_what_cannot_be_done() -> None:
    made = made_bench()
    made.model.fits = 0.5
    tickets = made.engine.submit_all(crowd(3))
    await made.run()
    assert made.model.batches == [["p0"], ["p1"], ["p2"]]
    for ticket in tickets:
        with pytest.raises(ModelFault):
            await ticket.result()
    assert_idle(made)


async def test_crowds_share_the_batches_of_what_each_shares() -> None:
    made = made_bench(EngineLimits(max_step_seconds=60.0, overhead_share=0.01))
    made.engine.submit_all(crowd(4, "a"))
    made.engine.submit_all(crowd(4, "b"))
    await made.run()
    assert made.model.batches[0] == ["a0", "b0"]
    assert made.value("easel_row_steps_total", stage="read") == 2.0


async def test_waiting_rows_have_begun_with_the_one_that_goes_ahead() -> None:
    made = made_bench()
    tickets = made.engine.submit_all(crowd(3))
    assert made.engine.report().waiting == 3
    made.clock.now += 2.0
    await made.engine.tick()
    assert made.engine.report().waiting == 0
    assert [ticket.timing.queue_seconds for ticket in tickets] == [2.0] * 3
    assert [ticket.position for ticket in tickets] == [0] * 3
    await made.run()


async def test_progress_is_told_of_steps_that_others_took() -> None:
    made = made_bench()
    _, ticket = made.engine.submit_all(crowd(2))
    events = asyncio.create_task(progress(ticket))
    for _ in range(3):
        await asyncio.sleep(0)
        await made.engine.tick()
    assert await events == [
        Progress("read", 1, 1),
        Progress("paint", 1, 2),
        Progress("paint", 2, 2),
    ]


async def test_a_drain_ends_rows_that_wait_for_another() -> None:
    made = made_bench()
    tickets = made.engine.submit_all(crowd(3))
    await made.engine.drain(0.0)
    for ticket in tickets:
        with pytest.raises(Cancelled):
            await ticket.result()
    assert_idle(made)


async def test_rows_that_share_all_but_nothing_of_their_own_end_by_themselves() -> None:
    """The last stage is a row's own, whatever its plan says: somebody waits for what it makes."""
    made = bench()
    plan = [Stage("k", "k", shared="all")]
    tickets = made.engine.submit_all([FakeWork("a", plan), FakeWork("b", plan)])
    await made.run()
    assert [await ticket.result() for ticket in tickets] == ["a:1", "b:1"]


@pytest.mark.parametrize("row_failed", [False, True])
async def test_steps_that_failed_teach_nothing(*, row_failed: bool) -> None:
    """They may have taken no time at all, and are no reason to step on the event loop."""
    made = made_bench()
    before = of(made, "read")
    made.model.fixed = made.model.per_cost = 0.0
    for _ in range(2 * QUICK_AFTER):
        if not row_failed:
            made.model.faults.append(RuntimeError("at once"))
        made.engine.submit(work("a", key="read", fails_at=1))
        await made.run()
    assert of(made, "read") == before


def assert_idle(made: Bench) -> None:
    report = made.engine.report()
    assert (report.rows, report.waiting, report.backlog_seconds) == (0, 0, 0.0)
    assert all(key.rows == 0 and key.remaining_cost == 0.0 for key in report.keys)


async def progress(ticket: Ticket[str]) -> list[Progress]:
    return [event async for event in ticket if isinstance(event, Progress)]


def rows_there() -> list[object]:
    """All in this process, those that other tests hold on to among them."""
    return [each for each in gc.get_objects() if type(each) is Row]


async def test_no_row_waits_for_the_collector() -> None:
    """Neither those that were served, alone and together, nor those that were only asked about."""
    made = made_bench(EngineLimits(max_rows=4))
    gc.collect()
    others = rows_there()
    gc.disable()
    try:
        tickets = made.engine.submit_all([*crowd(2), work("alone", steps=3)])
        await made.run()
        assert [await ticket.result() for ticket in tickets] == ["p0:3", "p1:3", "alone:3"]
        del tickets
        plans = [each.stages for each in crowd(3)]
        assert made.engine.in_time(plans, deadline=made.clock.now + 7.0)
        assert not made.engine.in_time(plans, deadline=made.clock.now)
        with pytest.raises(Overloaded):
            made.engine.submit_all(crowd(5))
        assert [row for row in rows_there() if row not in others] == []
    finally:
        gc.enable()
