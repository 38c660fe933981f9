"""Rows of so short a step that they are stepped as they are submitted."""

from __future__ import annotations

import asyncio

import pytest

from services.core.engine import EngineLimits, Output
from services.core.engine.backlog import INSTANT_SECONDS, QUICK_AFTER
from services.core.errors import DeadlineExceeded, Draining, InvalidInput, ModelFault
from tests.unit.core.engine.fake_model import Bench, FakeWork, bench, work


async def taught(step_seconds: float) -> Bench:
    """A started engine that has seen many steps of ``step_seconds``."""
    found = bench(fixed=step_seconds)
    await found.engine.start()
    for index in range(QUICK_AFTER + 2):
        await found.engine.submit(work(f"t{index}")).result()
    return found


async def test_a_row_is_done_when_its_ticket_is_there() -> None:
    found = await taught(INSTANT_SECONDS / 2)
    ticket = found.engine.submit(work("a"), tenant="me")
    assert ticket.done
    assert ticket.tenant == "me"
    assert await ticket.result() == "a:1"
    assert await ticket.then(str.upper) == "A:1"
    assert [event async for event in ticket] == [Output("a:1", final=True)]
    assert (ticket.position, ticket.eta_seconds, ticket.cancelled) == (0, 0.0, False)
    assert (ticket.timing.steps, ticket.timing.batch_rows) == (1, 1)
    assert ticket.timing.compute_seconds == pytest.approx(INSTANT_SECONDS / 2)
    ticket.cancel()
    assert not ticket.cancelled
    await found.engine.close()


async def test_it_is_counted_like_any_other() -> None:
    found = await taught(INSTANT_SECONDS / 2)
    before = found.value("easel_rows_finished_total", outcome="ok")
    found.engine.submit(work("a"))
    assert found.value("easel_rows_finished_total", outcome="ok") == before + 1
    assert found.value("easel_queue_seconds_count") == before + 1
    assert found.value("easel_row_steps_total", stage="k") == before + 1
    assert found.value("easel_rows", state="waiting") == 0
    assert found.value("easel_backlog_seconds") == 0
    await found.engine.close()


async def test_a_step_that_takes_longer_is_queued() -> None:
    found = await taught(INSTANT_SECONDS * 2)
    ticket = found.engine.submit(work("a"))
    assert not ticket.done
    assert await ticket.result() == "a:1"
    await found.engine.close()


async def test_nobody_is_passed_by() -> None:
    found = await taught(INSTANT_SECONDS / 2)
    slow = found.engine.submit(work("slow", 3))
    later = found.engine.submit(work("later"))
    assert not later.done
    await asyncio.gather(slow.result(), later.result())
    await found.engine.close()


@pytest.mark.parametrize("more", [{"key": "new"}, {"steps": 2}])
async def test_other_kinds_of_rows_are_queued(more: dict[str, int | str]) -> None:
    found = await taught(INSTANT_SECONDS / 2)
    ticket = found.engine.submit(work("a", **more))  # type: ignore[arg-type]
    assert not ticket.done
    await ticket.result()
    await found.engine.close()


async def test_a_wait_for_company_holds_for_it_too() -> None:
    found = bench(EngineLimits(batch_wait_seconds=0.1), fixed=INSTANT_SECONDS / 2)
    for index in range(QUICK_AFTER + 2):
        found.engine.submit(work(f"t{index}"))
        found.clock.now += 0.2
        assert await found.run() == 1
    assert not found.engine.submit(work("a")).done


async def test_faults_of_every_kind_end_it_alone() -> None:
    found = await taught(INSTANT_SECONDS / 2)
    found.model.faults = [RuntimeError("secret")]
    failures = [found.engine.submit(work("raises"))]
    failures.append(found.engine.submit(work("fails", fails_at=1)))
    found.model.missing_outputs = 1
    failures.append(found.engine.submit(work("missing")))
    found.model.missing_outputs = 0
    for ticket in failures:
        assert ticket.done
        with pytest.raises(ModelFault):
            await ticket.result()
    assert found.value("easel_rows_finished_total", outcome="failed") == 3
    assert await found.engine.submit(work("fine")).result() == "fine:1"
    await found.engine.close()


async def test_what_keeps_a_row_out_keeps_it_out() -> None:
    found = await taught(INSTANT_SECONDS / 2)
    with pytest.raises(DeadlineExceeded):
        found.engine.submit(work("late"), deadline=found.clock.now)
    assert found.engine.submit(work("in time"), deadline=found.clock.now + 1.0).done
    with pytest.raises(ValueError, match="priority"):
        found.engine.submit(work("urgent"), priority=11)
    with pytest.raises(InvalidInput):
        found.engine.submit(FakeWork("empty", []))
    await found.engine.drain(1.0)
    with pytest.raises(Draining):
        found.engine.submit(work("after"))
    await found.engine.close()


async def test_a_model_that_became_slow_is_queued_again() -> None:
    found = await taught(INSTANT_SECONDS / 2)
    found.model.fixed = INSTANT_SECONDS * 20
    for index in range(200):
        ticket = found.engine.submit(work(f"s{index}"))
        if not ticket.done:
            break
        await ticket.result()
    assert not ticket.done
    await ticket.result()
    await found.engine.close()
