"""A state machine does to the engine what callers, models and readers may do, in any order.

No row is lost, stepped after its end, answered twice or starved; no row feels what happens to its
neighbours; and in the end everything is back at zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar, TypeVarTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.core.engine import EngineLimits, Output, Progress, Stage, Ticket
from services.core.engine.ready import IMPATIENT_EVERY
from services.core.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    EaselError,
    ModelFault,
    Overloaded,
)
from tests.unit.core.engine.fake_model import Common, FakeWork, bench

Args = TypeVarTuple("Args")
R = TypeVar("R")

STEP_SECONDS = 0.05
LIMITS = EngineLimits(
    max_rows=16,
    max_backlog_seconds=20.0,
    max_batch_rows=4,
    patience_seconds=0.5,
    max_undelivered=2,
)
PATIENCE_TICKS = int(LIMITS.patience_seconds / STEP_SECONDS) + 1
STARVED_TICKS = PATIENCE_TICKS + IMPATIENT_EVERY * (LIMITS.max_rows + 1)
KEYS = ("x", "y", "z")


class MeddlingDevice:
    """Lets a test act while a step is on the device."""

    def __init__(self) -> None:
        self.meddle: Callable[[], None] | None = None

    async def run(self, fn: Callable[[*Args], R], *args: *Args) -> R:
        if self.meddle is not None:
            meddle, self.meddle = self.meddle, None
            meddle()
        return fn(*args)

    def close(self) -> None:
        """Nothing to free."""


@dataclass(slots=True, eq=False)
class Known:
    """What the test knows of a row it submitted."""

    ticket: Ticket[str]
    work: FakeWork
    deadline: float | None
    ready_at_tick: int
    reader: AsyncIterator[Progress | Output[str]] | None = None
    read: tuple[str, ...] = ()
    cancelled: bool = False
    faulted: bool = False
    steps_at_end: int | None = None


@st.composite
def stages(draw: st.DrawFn) -> list[Stage]:
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3))
    return [
        Stage(key, key, draw(st.sampled_from([0.5, 1.0, 2.0])), draw(st.integers(1, 5)))
        for key in keys
    ]


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.device = MeddlingDevice()
        self.loop = asyncio.new_event_loop()
        self.made = bench(
            LIMITS, fixed=STEP_SECONDS, per_cost=0.01, known=["x"], device=self.device
        )
        self.rows: list[Known] = []
        self.ticks = 0
        self.names = 0
        self.draining: asyncio.Task[None] | None = None

    def do(self, act: Coroutine[Any, Any, R]) -> R:
        return self.loop.run_until_complete(act)

    @property
    def live(self) -> list[Known]:
        return [row for row in self.rows if not row.ticket.done]

    # Callers.

    @rule(
        plan=stages(),
        count=st.integers(1, 4),
        shared=st.integers(0, 2),
        outputs=st.frozensets(st.integers(1, 10)),
        fails_at=st.one_of(st.none(), st.none(), st.integers(1, 6)),
        tenant=st.sampled_from(["a", "b", "c"]),
        priority=st.sampled_from([-1, 0, 0, 5]),
        patience=st.one_of(st.none(), st.floats(0.0, 3.0)),
        reads=st.booleans(),
    )
    def submit(
        self,
        plan: list[Stage],
        count: int,
        shared: int,
        outputs: frozenset[int],
        fails_at: int | None,
        tenant: str,
        priority: int,
        patience: float | None,
        reads: bool,
    ) -> None:
        first = min(shared, len(plan) - 1)
        plan = [replace(stage, shared=self.names) for stage in plan[:first]] + plan[first:]
        common = Common(sum(stage.steps for stage in plan[:first]))
        outputs = frozenset(step for step in outputs if step > common.total)
        works = [
            FakeWork(
                f"r{self.names + i}",
                plan,
                outputs,
                fails_at if i == 0 else None,
                common=common,
            )
            for i in range(count)
        ]
        self.names += count
        deadline = None if patience is None else self.made.clock.now + patience
        before = self.made.engine.report().rows
        try:
            tickets = self.made.engine.submit_all(
                works, tenant=tenant, priority=priority, deadline=deadline
            )
        except Overloaded:
            assert self.made.engine.report().rows == before
        except Draining:
            assert self.draining is not None
        except DeadlineExceeded:
            assert deadline is not None
            assert deadline <= self.made.clock.now
        else:
            for ticket, work in zip(tickets, works, strict=True):
                row = Known(ticket, work, deadline, self.ticks)
                row.reader = aiter(ticket) if reads else None
                self.rows.append(row)
                assert ticket.position >= 0
                assert ticket.eta_seconds >= 0.0

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.cancel_row(data.draw(st.sampled_from(self.live)))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), ticks=st.integers(1, 3))
    def cancel_during_a_step(self, data: st.DataObject, ticks: int) -> None:
        row = data.draw(st.sampled_from(self.live))
        self.device.meddle = lambda: self.cancel_row(row)
        self.tick(ticks)

    @precondition(lambda self: any(row.ticket.done for row in self.rows))
    @rule(data=st.data())
    def cancel_too_late(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from([row for row in self.rows if row.ticket.done]))
        was = row.ticket.cancelled
        row.ticket.cancel()
        assert row.ticket.cancelled == was

    def cancel_row(self, row: Known) -> None:
        if not row.ticket.done:
            row.ticket.cancel()
            row.cancelled = True
            assert row.ticket.cancelled
            for other in self.live:
                if other.work.common is row.work.common:  # one of them may take its place
                    other.ready_at_tick = self.ticks

    @precondition(lambda self: any(row.reader for row in self.rows))
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.do(self.read_one(data.draw(st.sampled_from([r for r in self.rows if r.reader]))))

    async def read_one(self, row: Known) -> None:
        """One event if there is one."""
        assert row.reader is not None
        task = asyncio.ensure_future(anext(row.reader))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
        try:
            event = await task
        except (asyncio.CancelledError, StopAsyncIteration, EaselError):
            return
        row.ready_at_tick = self.ticks
        if isinstance(event, Output):
            row.read += (event.value,)

    # The world.

    @rule(seconds=st.floats(0.01, 2.0))
    def advance_clock(self, seconds: float) -> None:
        self.made.clock.now += seconds

    @rule(kind=st.sampled_from([RuntimeError("boom"), ValueError("bang")]))
    def break_next_step(self, kind: Exception) -> None:
        self.made.model.faults[:] = [kind]

    @rule(fits=st.sampled_from([2.0, 3.0, 100.0]))
    def change_memory(self, fits: float) -> None:
        self.made.model.fits = fits

    @rule(count=st.integers(1, 12))
    def tick(self, count: int) -> None:
        for _ in range(count):
            self.one_tick()

    @precondition(lambda self: self.draining is None and self.ticks > 30)
    @rule()
    def drain(self) -> None:
        self.draining = self.loop.create_task(self.made.engine.drain(3600.0))
        self.do(asyncio.sleep(0))

    def one_tick(self) -> bool:
        model = self.made.model
        batches, breaking = len(model.batches), bool(model.faults)
        steps = {row: row.work.steps for row in self.rows}
        if not self.do(self.made.engine.tick()):
            return False
        self.ticks += 1
        assert len(model.batches) == batches + 1
        batch = set(model.batches[-1])
        moved = {row.work.common for row in self.rows if row.work.name in batch}
        broke = breaking and not model.faults
        for row in self.rows:
            if row.work.common in moved:
                row.ready_at_tick = self.ticks
            if row.work.name in batch:
                row.faulted |= broke
            else:
                assert row.work.steps == steps[row]
        return True

    # What always holds.

    @invariant()
    def what_is_common_is_done_once(self) -> None:
        for row in self.rows:
            common = row.work.common
            assert common is not None
            assert row.work.steps == 0 or common.steps == common.total

    @invariant()
    def no_row_is_stepped_after_its_end(self) -> None:
        for row in self.rows:
            if row.ticket.done:
                if row.steps_at_end is None:
                    row.steps_at_end = row.work.steps
                assert row.work.steps == row.steps_at_end

    @invariant()
    def every_row_is_counted(self) -> None:
        report = self.made.engine.report()
        assert report.rows == len(self.live)
        assert sum(key.rows for key in report.keys) >= report.rows
        assert report.backlog_seconds >= 0.0

    @invariant()
    def nobody_starves(self) -> None:
        for row in self.live:
            held = row.reader is not None or row.work.outputs
            assert held or self.ticks - row.ready_at_tick <= STARVED_TICKS

    def teardown(self) -> None:
        self.made.model.faults.clear()
        self.made.model.fits = 1000.0
        self.do(self.finish())
        self.loop.run_until_complete(self.made.engine.close())
        self.loop.close()

    async def finish(self) -> None:
        to_go = sum(row.work.total - row.work.steps for row in self.live)
        results = [asyncio.ensure_future(self.outcome(row)) for row in self.rows]
        await asyncio.sleep(0)
        ticks = idle = 0
        while self.live:
            stepped = await self.made.engine.tick()
            ticks += stepped
            idle = 0 if stepped else idle + 1
            assert ticks <= to_go
            assert idle < 3
            for _ in range(4):  # Readers catch up, which makes held rows ready.
                await asyncio.sleep(0)
        await asyncio.gather(*results)
        if self.draining is not None:
            await self.draining
        made, report = self.made, self.made.engine.report()
        assert (report.rows, report.backlog_seconds) == (0, 0.0)
        assert [made.value("easel_rows", state=s) for s in ("waiting", "active")] == [0.0, 0.0]
        outcomes = ("ok", "cancelled", "deadline", "failed")
        ended = [made.value("easel_rows_finished_total", outcome=o) for o in outcomes]
        assert sum(ended) == len(self.rows)  # Answered once each.
        assert all(key.remaining_cost == 0.0 for key in report.keys)

    async def outcome(self, row: Known) -> None:
        work = row.work
        failing = work.fails_at is not None and work.fails_at <= work.total
        if row.reader is not None:
            async for event in _quietly(row.reader):
                if isinstance(event, Output):
                    row.read += (event.value,)
        try:
            value = await row.ticket.result()
        except Cancelled:
            assert row.cancelled
        except DeadlineExceeded:
            assert row.deadline is not None
            assert self.made.clock.now >= row.deadline
        except ModelFault:
            assert row.faulted or failing
        else:
            assert value == f"{work.name}:{work.total}"
            assert not failing
            assert not row.cancelled
            steps = sorted({*work.outputs, work.total} & set(range(1, work.total + 1)))
            if row.reader is not None:
                assert row.read == tuple(f"{work.name}:{step}" for step in steps)


async def _quietly(
    events: AsyncIterator[Progress | Output[str]],
) -> AsyncIterator[Progress | Output[str]]:
    try:
        async for event in events:
            yield event
    except EaselError:
        return


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
