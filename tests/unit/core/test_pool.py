"""The worker pool: bounded, context-keeping, closed cleanly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from services.core.errors import Draining, Overloaded
from services.core.pool import WorkerPool

request: ContextVar[str] = ContextVar("request", default="")


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool("test", threads=1, max_pending=2)
    yield pool
    pool.close()


class Gate:
    """A call that says when it runs and ends when it is let."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        self.running.set()
        assert self.opened.wait(10)
        return "through"


async def _until_running(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.running.wait, 10)


async def test_answers_and_raises_what_the_call_does(pool: WorkerPool) -> None:
    assert await pool.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 7, 0)
    assert pool.pending == 0


async def test_calls_see_the_context_of_their_caller(pool: WorkerPool) -> None:
    request.set("r1")
    assert await pool.run(request.get) == "r1"


async def test_refuses_when_full_and_recovers(pool: WorkerPool) -> None:
    gate = Gate()
    running = asyncio.create_task(pool.run(gate))
    await _until_running(gate)
    queued = asyncio.create_task(pool.run(str, 1))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await pool.run(str, 2)
    assert refused.value.retry_after_seconds > 0
    gate.opened.set()
    assert await running == "through"
    assert await queued == "1"
    assert await pool.run(str, 3) == "3"


async def test_a_caller_cancelled_in_the_queue_leaves_it(pool: WorkerPool) -> None:
    gate = Gate()
    running = asyncio.create_task(pool.run(gate))
    await _until_running(gate)
    called: list[int] = []
    queued = asyncio.create_task(pool.run(called.append, 1))
    await asyncio.sleep(0)
    assert pool.pending == 2
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert pool.pending == 1
    gate.opened.set()
    await running
    assert called == []


async def test_a_caller_cancelled_while_running_counts_until_the_call_ends(
    pool: WorkerPool,
) -> None:
    gate = Gate()
    running = asyncio.create_task(pool.run(gate))
    await _until_running(gate)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pool.pending == 1
    gate.opened.set()
    assert await pool.run(str, 1) == "1"
    assert pool.pending == 0


async def test_idle_once_what_runs_and_what_is_queued_has_ended(pool: WorkerPool) -> None:
    gate = Gate()
    running = asyncio.create_task(pool.run(gate))
    await _until_running(gate)
    queued = asyncio.create_task(pool.run(str, 1))
    idle = asyncio.create_task(pool.until_idle())
    await asyncio.sleep(0)
    assert not idle.done()
    gate.opened.set()
    await idle
    assert pool.pending == 0
    assert (await running, await queued) == ("through", "1")
    await pool.until_idle()


async def test_what_is_queued_when_it_closes_is_refused(pool: WorkerPool) -> None:
    gate = Gate()
    running = asyncio.create_task(pool.run(gate))
    await _until_running(gate)
    queued = asyncio.create_task(pool.run(str, 1))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    with pytest.raises(Draining):
        await queued
    gate.opened.set()
    assert await running == "through"
    await closing


async def test_closed_pool_takes_nothing(pool: WorkerPool) -> None:
    pool.close()
    with pytest.raises(Draining):
        await pool.run(str, 1)


@pytest.mark.parametrize(("threads", "max_pending"), [(0, 1), (2, 1)])
def test_sizes_that_make_no_sense_are_refused(threads: int, max_pending: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        WorkerPool("test", threads, max_pending)
