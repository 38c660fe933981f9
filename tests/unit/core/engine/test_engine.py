"""The engine with a fake model on a fake clock, one tick at a time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from services.core.engine import EngineLimits, Output, Progress, Stage, Ticket
from services.core.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    ModelFault,
    OutOfMemory,
    Overloaded,
)
from tests.unit.core.engine.fake_model import Bench, FakeWork, GatedDevice, bench, work

GAUGES = [
    ("easel_rows", {"state": "waiting"}),
    ("easel_rows", {"state": "active"}),
    ("easel_backlog_seconds", {}),
]


def assert_idle(made: Bench) -> None:
    report = made.engine.report()
    assert (report.rows, report.waiting, report.active, report.backlog_seconds) == (0, 0, 0, 0.0)
    assert [made.value(name, **labels) for name, labels in GAUGES] == [0.0, 0.0, 0.0]
    assert all(key.rows == 0 and key.remaining_cost == 0.0 for key in report.keys)


async def collect(ticket: Ticket[str]) -> list[Progress | Output[str]]:
    return [event async for event in ticket]


# Results.


async def test_a_row_of_one_step() -> None:
    made = bench()
    ticket = made.engine.submit(work("a"))
    assert await made.engine.tick()
    assert await ticket.result() == "a:1"
    assert not await made.engine.tick()
    assert_idle(made)


async def test_a_row_goes_through_its_stages_in_order() -> None:
    made = bench()
    stages = [Stage("encode", "e"), Stage("denoise", "d", steps=3), Stage("decode", "x")]
    ticket = made.engine.submit(FakeWork("a", stages))
    assert await made.run() == 5
    assert made.model.stages == ["encode", "denoise", "denoise", "denoise", "decode"]
    assert await ticket.result() == "a:5"


async def test_a_new_row_joins_the_batch_of_one_under_way() -> None:
    made = bench(known=["e", "d"], fixed=0.125, per_cost=0.01)
    stages = [Stage("encode", "e", cost=0.5), Stage("denoise", "d", steps=4)]
    made.engine.submit(FakeWork("a", stages))
    await made.engine.tick()
    await made.engine.tick()
    made.engine.submit(FakeWork("b", stages))
    await made.run()
    assert made.model.batches == [["a"], ["a"], ["b"], *[["a", "b"]] * 3, ["b"]]


async def test_timing_says_where_the_time_went() -> None:
    made = bench(known=["k"], fixed=0.25, per_cost=0.0625)
    first = made.engine.submit(work("a", 2))
    made.engine.submit(work("b", 2))
    made.clock.now += 3.0
    await made.run()
    await first.result()
    timing = first.timing
    assert (timing.queue_seconds, timing.steps, timing.batch_rows) == (3.0, 2, 2)
    assert timing.compute_seconds == pytest.approx(0.75)
    assert first.steps_done == 2


async def test_events_tell_progress_and_every_output() -> None:
    made = bench()
    stages = [Stage("encode", "e"), Stage("denoise", "d", steps=2)]
    ticket = made.engine.submit(FakeWork("a", stages, outputs=frozenset({2})))
    events = asyncio.create_task(collect(ticket))
    for _ in range(3):
        await asyncio.sleep(0)
        await made.engine.tick()
    assert await events == [
        Progress("encode", 1, 1),
        Progress("denoise", 1, 2),
        Output("a:2", final=False),
        Progress("denoise", 2, 2),
        Output("a:3", final=True),
    ]


async def test_progress_is_conflated_and_outputs_are_not() -> None:
    made = bench()
    ticket = made.engine.submit(work("a", 5, outputs=[1, 3]))
    await made.run()
    assert await collect(ticket) == [
        Progress("k", 5, 5),
        Output("a:1", final=False),
        Output("a:3", final=False),
        Output("a:5", final=True),
    ]


async def test_progress_adds_up_stages_of_one_name() -> None:
    made = bench()
    stages = [Stage("denoise", "low", steps=2), Stage("denoise", "high", steps=2)]
    ticket = made.engine.submit(FakeWork("a", stages))
    events = asyncio.create_task(collect(ticket))
    for _ in range(4):
        await asyncio.sleep(0)
        await made.engine.tick()
    steps = [event for event in await events if isinstance(event, Progress)]
    assert steps == [Progress("denoise", done, 4) for done in (1, 2, 3, 4)]


async def test_a_result_can_be_awaited_before_after_and_twice() -> None:
    made = bench()
    ticket = made.engine.submit(work("a"))
    waiting = [asyncio.create_task(ticket.result()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await made.run()
    assert await waiting[1] == "a:1"
    assert await ticket.result() == "a:1"


# Slow readers.


async def test_a_row_is_held_while_its_reader_is_behind() -> None:
    made = bench(EngineLimits(max_undelivered=2))
    ticket = made.engine.submit(work("slow", 9, outputs=range(1, 9)))
    other = made.engine.submit(work("other", 9))
    await made.run()
    assert await other.result() == "other:9"
    assert ticket.steps_done == 2
    reader = aiter(ticket)
    assert await anext(reader) == Progress("k", 2, 9)
    assert await anext(reader) == Output("slow:1", final=False)
    await made.run()
    assert ticket.steps_done == 3


async def test_a_slow_reader_gets_every_output() -> None:
    made = bench(EngineLimits(max_undelivered=2))
    ticket = made.engine.submit(work("slow", 6, outputs=range(1, 6)))
    reader = aiter(ticket)
    outputs: list[str] = []
    while len(outputs) < 6:
        await made.run()
        event = await anext(reader)
        if isinstance(event, Output):
            outputs.append(event.value)
    assert outputs == [f"slow:{step}" for step in range(1, 7)]
    assert_idle(made)


async def test_awaiting_only_the_result_never_holds_a_row() -> None:
    made = bench(EngineLimits(max_undelivered=1))
    ticket = made.engine.submit(work("a", 6, outputs=range(1, 6)))
    await made.run()
    assert ticket.steps_done == 1
    result = asyncio.create_task(ticket.result())
    await asyncio.sleep(0)
    await made.run()
    assert await result == "a:6"


async def test_a_held_row_can_be_cancelled() -> None:
    made = bench(EngineLimits(max_undelivered=1))
    ticket = made.engine.submit(work("a", 6, outputs=range(1, 6)))
    await made.run()
    ticket.cancel()
    assert_idle(made)


# Cancelling and deadlines.


async def test_a_waiting_row_is_cancelled_at_once() -> None:
    made = bench()
    ticket = made.engine.submit(work("a"))
    ticket.cancel()
    assert_idle(made)
    assert not await made.engine.tick()
    with pytest.raises(Cancelled):
        await ticket.result()
    assert ticket.cancelled
    assert made.value("easel_rows_finished_total", outcome="cancelled") == 1.0


async def test_a_running_row_is_released_after_its_step_and_its_neighbour_goes_on() -> None:
    device = GatedDevice()
    made = bench(known=["k"], fixed=0.25, device=device)
    gone, stays = made.engine.submit_all([work("gone", 3), work("stays", 2)])
    ticking = asyncio.create_task(made.engine.tick())
    await device.entered.wait()
    gone.cancel()
    assert gone.cancelled
    assert not gone.done
    assert made.engine.report().rows == 2
    device.gate.set()
    await ticking
    assert made.engine.report().rows == 1
    with pytest.raises(Cancelled):
        await gone.result()
    assert made.value("easel_cancel_to_release_seconds_count") == 1.0
    assert made.value("easel_cancel_to_release_seconds_sum") == 0.25
    device.gate.set()
    await made.engine.tick()
    assert await stays.result() == "stays:2"
    assert made.model.batches == [["gone", "stays"], ["stays"]]
    assert_idle(made)


async def test_cancelling_is_idempotent_and_too_late_it_is_a_no_op() -> None:
    made = bench()
    ticket = made.engine.submit(work("a"))
    await made.run()
    ticket.cancel()
    ticket.cancel()
    assert await ticket.result() == "a:1"
    assert not ticket.cancelled
    assert made.value("easel_rows_finished_total", outcome="cancelled") == 0.0


@pytest.mark.parametrize(("waited", "runs"), [(0.9, True), (1.0, False), (1.1, False)])
async def test_a_row_is_dropped_when_its_deadline_passes(waited: float, runs: bool) -> None:
    made = bench()
    ticket = made.engine.submit(work("a"), deadline=1.0)
    made.clock.now += waited
    assert await made.engine.tick() is runs
    assert made.value("easel_rows_finished_total", outcome="deadline") == float(not runs)
    if not runs:
        with pytest.raises(DeadlineExceeded):
            await ticket.result()


async def test_an_answer_after_the_deadline_is_no_answer() -> None:
    made = bench(known=[], fixed=2.0)
    late = made.engine.submit(work("late", 2), deadline=1.0)
    await made.engine.tick()
    with pytest.raises(DeadlineExceeded):
        await late.result()
    assert_idle(made)


async def test_a_deadline_already_passed_is_refused() -> None:
    made = bench()
    with pytest.raises(DeadlineExceeded):
        made.engine.submit(work("a"), deadline=0.0)


# Failing.


async def test_a_failing_step_fails_its_batch_alone_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = bench(known=["bad", "good"], fixed=0.25)
    bad = made.engine.submit_all([work("a", key="bad"), work("b", key="bad")])
    good = made.engine.submit(work("c", key="good"))
    made.model.faults.append(RuntimeError("secret detail"))
    with caplog.at_level(logging.ERROR):
        await made.run()
    assert await good.result() == "c:1"
    for ticket in bad:
        with pytest.raises(ModelFault) as fault:
            await ticket.result()
        assert isinstance(fault.value.__cause__, RuntimeError)
        assert "secret" not in fault.value.message
    assert len(caplog.records) == 1
    assert made.value("easel_rows_finished_total", outcome="failed") == 2.0
    assert_idle(made)


async def test_a_failing_row_fails_alone() -> None:
    made = bench(known=["k"], fixed=0.25)
    bad, good = made.engine.submit_all([work("bad", 3, fails_at=2), work("good", 3)])
    await made.run()
    assert await good.result() == "good:3"
    with pytest.raises(ModelFault):
        await bad.result()
    assert made.model.batches == [["bad", "good"], ["bad", "good"], ["good"]]
    assert_idle(made)


async def test_a_wrong_number_of_outputs_fails_the_batch() -> None:
    made = bench(known=["k"], fixed=0.25)
    tickets = made.engine.submit_all([work("a"), work("b")])
    made.model.missing_outputs = 1
    await made.run()
    for ticket in tickets:
        with pytest.raises(ModelFault):
            await ticket.result()
    assert_idle(made)


async def test_a_row_that_puts_nothing_out_in_the_end_fails() -> None:
    made = bench()
    silent = work("a")
    silent.steps = 7
    ticket = made.engine.submit(silent)
    await made.run()
    with pytest.raises(ModelFault):
        await ticket.result()


async def test_out_of_memory_halves_the_cap_and_loses_no_row() -> None:
    made = bench(known=["k"], fixed=0.25)
    made.model.fits = 3.0
    tickets = made.engine.submit_all([work(str(i)) for i in range(8)])
    await made.run()
    assert [await ticket.result() for ticket in tickets] == [f"{i}:1" for i in range(8)]
    assert [len(batch) for batch in made.model.batches] == [8, 4, 2, 2, 2, 2]
    assert made.engine.report().keys[0].cap_cost == 2.0


async def test_a_row_that_does_not_fit_alone_fails() -> None:
    made = bench(known=["k"], fixed=0.25)
    made.model.fits = 0.5
    tickets = made.engine.submit_all([work("a"), work("b")])
    await made.run()
    for ticket in tickets:
        with pytest.raises(OutOfMemory):
            await ticket.result()
    assert_idle(made)


# Admission.


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    made = bench(EngineLimits(max_rows=2), known=["k"], fixed=0.25)
    made.engine.submit_all([work("a", 10), work("b", 10)])
    with pytest.raises(Overloaded) as refused:
        made.engine.submit(work("c"))
    assert refused.value.reason == "QUEUE_FULL"
    assert refused.value.retry_after_seconds == pytest.approx(1.25)
    assert made.value("easel_admission_refused_total", reason="queue_full") == 1.0


async def test_submit_all_admits_all_or_none() -> None:
    made = bench(EngineLimits(max_rows=2))
    with pytest.raises(Overloaded):
        made.engine.submit_all([work("a"), work("b"), work("c")])
    assert_idle(made)
    assert len(made.engine.submit_all([work("a"), work("b")])) == 2
    assert made.engine.submit_all([]) == []


async def test_a_plan_that_raises_admits_nothing() -> None:
    made = bench()
    with pytest.raises(InvalidInput):
        made.engine.submit_all([work("a"), FakeWork("no stages", [])])
    assert_idle(made)
