"""The engine: admits rows, batches them by the policy, steps the model, delivers what comes out.

All state lives on the event loop; only ``model.step`` runs on the device's thread, and one batch
is there at a time. Nothing polls: with no row to step, the engine sleeps until one comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar

from services.core.engine.admission import (
    UNREACHABLE,
    Forecast,
    Standing,
    decide,
    forecast,
    seconds_of,
)
from services.core.engine.backlog import Backlog, KeyLoad
from services.core.engine.deadlines import Deadlines
from services.core.engine.device import Device, ThreadDevice
from services.core.engine.limits import EngineLimits
from services.core.engine.metrics import EngineMetrics
from services.core.engine.policy import Choice, Lane, Shares, choose, ripe_at
from services.core.engine.promises import wait_seconds
from services.core.engine.ready import ReadyRows
from services.core.engine.row import Convoy, Group, Row, State, form_convoys, leave_convoys
from services.core.engine.stage import DeviceLost, Model, RowFailed, Stage
from services.core.engine.ticket import Ticket
from services.core.engine.warmup import warm_up
from services.core.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    EaselError,
    ModelFault,
    NotReady,
    OutOfMemory,
    Overloaded,
    let_go,
)

log = logging.getLogger(__name__)

Work = TypeVar("Work")
Out = TypeVar("Out")

PRIORITIES = range(-10, 11)

LEARN_EVERY = 8
"""Of the steps that are taken at once, one in so many is learned from: it costs a third of one."""


class Phase(IntEnum):
    """Where an engine is in its life."""

    NEW = 0
    READY = 1
    DRAINING = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True)
class KeyReport:
    """One key as it stands: the fit (None before the first step), the cap in force, the work."""

    key: Hashable
    fixed_seconds: float | None
    seconds_per_cost: float | None
    samples: int
    cap_cost: float
    rows: int
    remaining_cost: float


@dataclass(frozen=True, slots=True)
class EngineReport:
    """``rows`` = ``waiting`` (never stepped) + ``active``; ``limits`` as in force."""

    rows: int
    waiting: int
    active: int
    backlog_seconds: float
    limits: EngineLimits
    keys: tuple[KeyReport, ...]


class Engine(Generic[Work, Out]):
    """Runs one model on one device.

    ``load`` (from a thread), ``start``, ``submit`` ..., ``drain``, ``close``, in that order;
    everything but ``load`` belongs to one event loop. ``clock`` gives seconds that never go back;
    deadlines are moments on it. ``on_fatal`` is called once should the engine itself break: it
    then answers ``NotReady``, having failed every row.
    """

    def __init__(
        self,
        model: Model[Work, Out],
        *,
        limits: EngineLimits | None = None,
        metrics: EngineMetrics,
        clock: Callable[[], float] = time.monotonic,
        device: Device | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.limits = limits or EngineLimits()
        self.failed: BaseException | None = None
        self._model = model
        self._metrics = metrics
        self._clock = clock
        self._device = device or ThreadDevice()
        self._on_fatal = on_fatal
        self._phase = Phase.NEW
        self._backlog = Backlog(self.limits)
        self._ready = ReadyRows()
        self._deadlines = Deadlines(clock, self._expire)
        self._shares = Shares()
        self._rows: dict[int, Row[Work, Out]] = {}
        self._waiting = 0
        self._last_id = 0
        # The stage whose step is so short that rows which nobody is ahead of need no queue.
        self._instant: Stage | None = None
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._ripe: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        metrics.watch(
            lambda: float(self._waiting),
            lambda: float(len(self._rows) - self._waiting),
            lambda: self._backlog.seconds,
        )

    # Life.

    def load(self, loaded: Callable[[], object] | None = None) -> None:
        """Loads and warms the model up. Blocking: call it from a thread. Raises what it raises.

        ``loaded`` is called, in that thread, between the two.
        """
        self._model.load()
        if loaded is not None:
            loaded()
        try:
            warm_up(self._model, self._backlog, self._clock)
        except DeviceLost as error:
            # Nothing has been served on it that would have to end: the load has failed.
            raise RuntimeError("the device was lost while the model was warmed up") from error
        self._phase = Phase.READY

    async def start(self) -> None:
        """Starts stepping."""
        if self._task is None:
            self._deadlines.arm(asyncio.get_running_loop())
            self._task = asyncio.create_task(self._run(), name="engine")

    async def drain(self, timeout_seconds: float) -> None:
        """Refuses new rows, lets the admitted ones finish, and cancels what is left in the end."""
        if self._phase < Phase.DRAINING:
            self._phase = Phase.DRAINING
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_seconds)
        self._cancel_all()
        await self._empty.wait()

    async def close(self) -> None:
        """Cancels every row, waits for the running step, then frees the device and the model."""
        if self._phase is Phase.CLOSED:
            return
        self._phase = Phase.CLOSED
        self._cancel_all()
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._deadlines.disarm()
        self._stop_waiting()
        self._metrics.unwatch()
        try:
            await self._device.run(self._model.close)
        finally:
            await asyncio.to_thread(self._device.close)

    @property
    def ready(self) -> bool:
        """Whether a row would be considered now."""
        return self._phase is Phase.READY and self.failed is None

    @property
    def rows(self) -> int:
        """Admitted and not finished."""
        return len(self._rows)

    @property
    def backlog_seconds(self) -> float:
        """Predicted device seconds of all admitted work."""
        return self._backlog.seconds

    def report(self) -> EngineReport:
        """The engine as it stands."""
        keys = []
        for load in self._backlog:
            fit = load.fit
            keys.append(
                KeyReport(
                    key=load.key,
                    fixed_seconds=None if fit is None else fit.fixed,
                    seconds_per_cost=None if fit is None else fit.per_cost,
                    samples=load.cost.samples,
                    cap_cost=load.cap_cost,
                    rows=load.rows,
                    remaining_cost=load.remaining,
                )
            )
        rows, waiting = len(self._rows), self._waiting
        return EngineReport(
            rows, waiting, rows - waiting, self.backlog_seconds, self.limits, tuple(keys)
        )

    # Admission.

    def submit(
        self,
        work: Work,
        *,
        tenant: str = "",
        priority: int = 0,
        deadline: float | None = None,
    ) -> Ticket[Out]:
        """Admits one row.

        ``priority`` -10..10, larger is more urgent. ``deadline`` is a moment on ``clock``. Raises
        ``Overloaded``, ``DeadlineExceeded``, ``Draining``, ``NotReady``, and what ``plan`` raises.
        """
        if self._instant and not self._rows and self.ready and self._is_ahead(deadline):
            stages = self._model.plan(work)
            if stages[0] == self._instant and len(stages) == 1 and priority in PRIORITIES:
                return self._step_at_once(work, stages[0], tenant)
        (ticket,) = self.submit_all((work,), tenant=tenant, priority=priority, deadline=deadline)
        return ticket

    def submit_all(
        self,
        works: Iterable[Work],
        *,
        tenant: str = "",
        priority: int = 0,
        deadline: float | None = None,
        in_step: bool = False,
    ) -> list[Ticket[Out]]:
        """Admits all of them or none; else as ``submit``.

        ``in_step``: where a batch does not hold all of them, each takes a step in its turn.
        """
        if priority not in PRIORITIES:
            raise ValueError(f"priority must be within -10..10, got {priority}")
        works = tuple(works)
        try:
            self._check_open()
            rows = [self._row(work, tenant, priority, deadline) for work in works]
            self._admit(rows, deadline)
        except (Overloaded, NotReady, DeadlineExceeded) as refusal:
            self._metrics.refused(refusal.reason, len(works))
            raise
        if in_step and rows:
            group = Group(rows[0].id, len(rows), max(row.steps_left for row in rows))
            for row in rows:
                row.group = group
        tickets = [self._enter(row) for row in rows]
        self._wake.set()
        return tickets

    def in_time(
        self,
        plans: Iterable[Sequence[Stage]],
        *,
        tenant: str = "",
        priority: int = 0,
        deadline: float | None = None,
    ) -> bool:
        """Whether rows with these plans would not be refused for their deadline now."""
        rows = [self._planned(None, plan, tenant, priority, deadline) for plan in plans]
        try:
            self._admit(rows, deadline)
        except Overloaded as refusal:
            return refusal.reason != UNREACHABLE
        except DeadlineExceeded:
            return False
        leave_convoys(rows)
        return True

    def _row(
        self, work: Work, tenant: str, priority: int, deadline: float | None
    ) -> Row[Work, Out]:
        return self._planned(work, self._model.plan(work), tenant, priority, deadline)

    def _planned(
        self,
        work: Any,
        stages: Sequence[Stage],
        tenant: str,
        priority: int,
        deadline: float | None,
    ) -> Row[Work, Out]:
        if not stages:
            raise ValueError("a plan needs at least one stage")
        self._last_id += 1
        loads = [self._backlog.load(stage.key, stage.name) for stage in stages]
        return Row(self._last_id, work, stages, loads, tenant, priority, deadline)

    def _admit(self, rows: list[Row[Work, Out]], deadline: float | None) -> None:
        """Forms their convoys, which a refusal breaks up."""
        form_convoys(rows)
        try:
            self._check_admitted(rows, deadline)
        except EaselError:
            leave_convoys(rows)
            raise

    def _check_admitted(self, rows: list[Row[Work, Out]], deadline: float | None) -> None:
        spare = None if deadline is None else deadline - self._clock()
        company, leeway = 0.0, math.inf
        if spare is not None:
            if spare <= 0.0:
                raise DeadlineExceeded()
            company = sum(row.company_seconds() for row in rows)
            leeway = (
                self._deadlines.leeway_seconds(min(row.due for row in rows)) if rows else leeway
            )
        refusal = decide(
            rows=len(self._rows),
            adding=len(rows),
            backlog_seconds=self._backlog.seconds,
            own_seconds=_own_seconds(rows),
            company_seconds=company,
            spare_seconds=spare,
            leeway_seconds=leeway,
            wait_seconds=lambda: self._wait_seconds(rows),
            limits=self.limits,
        )
        if refusal is not None:
            raise Overloaded(refusal.retry_after_seconds, reason=refusal.reason)

    def _check_open(self) -> None:
        if self._phase >= Phase.DRAINING:
            raise Draining()
        if not self.ready:
            raise NotReady()

    def _is_ahead(self, deadline: float | None) -> bool:
        return deadline is None or deadline > self._clock()

    def _find_instant(self, load: KeyLoad, stage: Stage) -> None:
        waits = self.limits.batch_wait_seconds > 0.0
        instant = stage.steps == 1 and not waits and load.is_instant(stage.cost)
        self._instant = stage if instant else None

    def _wait_seconds(self, rows: list[Row[Work, Out]]) -> float:
        asking = [row.standing() for row in rows]
        now, most = self._clock(), self.limits.max_batch_rows
        return wait_seconds(asking, self._standings(), now, most)

    def _standings(self) -> Iterator[Standing]:
        return (row.standing() for row in self._rows.values())

    def _enter(self, row: Row[Work, Out]) -> Ticket[Out]:
        row.ticket = Ticket(self, row, row.id, row.tenant)
        row.admitted_at = self._clock()
        self._rows[row.id] = row
        self._waiting += 1
        first = row.first_own
        for load, stage in zip(row.loads[first:], row.stages[first:], strict=True):
            self._backlog.enter(load, stage)
        self._deadlines.add(row)
        self._ready.join(row)
        if row.convoy is not None and row.follows:
            row.state = State.FOLLOWING
        else:
            self._ready.add(row, row.admitted_at)
        self._empty.clear()
        return row.ticket

    def _step_at_once(self, work: Work, stage: Stage, tenant: str) -> Ticket[Out]:
        """Admits, steps and answers a row in one go, which nobody is ahead of."""
        self._last_id += 1
        outcome, seconds = self._step(stage, (work,))
        if self._last_id % LEARN_EVERY == 0 and _computed(outcome):
            load = self._backlog.load(stage.key, stage.name)
            load.observe(stage.cost, seconds)
            load.took(seconds)
            self._find_instant(load, stage)
        ticket: Ticket[Out] = Ticket(self, None, self._last_id, tenant)
        timing = ticket.timing
        timing.compute_seconds = seconds
        timing.batch_rows = timing.steps = 1
        value, error = self._last_of(stage, outcome)
        ticket.finish(value, error)
        self._metrics.stepped_at_once(stage.name, seconds, error is None)
        return ticket

    def _last_of(
        self, stage: Stage, outcome: Sequence[Out | RowFailed | None] | Exception
    ) -> tuple[Out | None, EaselError | None]:
        """What a row's last step, taken alone, ends it with."""
        if isinstance(outcome, Exception):
            log.error("a step of %s failed with 1 row", stage.name, exc_info=outcome)
            let_go(outcome)
            return None, _fault(outcome)
        if len(outcome) != 1:
            outcome = (RowFailed(ValueError(f"{len(outcome)} outputs for 1 row")),)
        (last,) = outcome
        if last is None:
            last = RowFailed(ValueError("the last step put nothing out"))
        if isinstance(last, RowFailed):
            return None, _row_error(stage, last.cause)
        return last, None

    # The ticket's side.

    def cancel_row(self, row: Row[Work, Out]) -> None:
        self._drop(row, Cancelled(), "cancelled")

    def resume_row(self, row: Row[Work, Out]) -> None:
        """Makes a row ready again whose reader has caught up."""
        if row.state is State.HELD and not row.ticket.behind(self.limits.max_undelivered):
            self._make_ready(row)
            self._wake.set()

    def forecast_row(self, row: Row[Work, Out]) -> Forecast:
        return forecast(row.standing(), self._standings())

    # Stepping.

    async def tick(self) -> bool:
        """Steps one batch, if a row is ready; says whether. ``start`` does it over and over."""
        self._expire()
        choice = self._choose()
        if choice is None:
            return False
        rows = self._ready.take(choice)
        self._begin(rows)
        stage, works, load = rows[0].stage, [row.work for row in rows], rows[0].loads[rows[0].index]
        began = self._clock()
        if load.quick:
            outcome, seconds = self._step(stage, works)
            self._find_instant(load, stage)
        else:
            outcome, seconds = await self._device.run(self._step, stage, works)
        self._settle(rows, stage, outcome, seconds, self._clock() - began)
        return True

    async def _run(self) -> None:
        try:
            while self._phase is not Phase.CLOSED:
                self._wake.clear()
                if await self.tick() and self._ready:
                    # One turn of the loop, in which rows may arrive that share the next step.
                    await asyncio.sleep(0)
                else:
                    await self._wake.wait()
        except BaseException as error:
            self._die(error)
            raise

    def _choose(self) -> Choice[Row[Any, Any]] | None:
        lanes = self._ready.lanes()
        if not lanes:
            return None
        now = self._clock()
        impatient = self._ready.impatient(now - self.limits.patience_seconds)
        if self.limits.batch_wait_seconds > 0.0 and impatient is None:
            lanes = self._ripe_lanes(lanes, now)
            if not lanes:
                return None
        load = self._backlog.load
        choice = choose(lanes, now, self._shares, load, self.limits, impatient)
        if choice.in_turn:
            self._shares.serve(choice.lane.priority, choice.lane.tenant, choice.lane.key)
        return choice

    def _ripe_lanes(self, lanes: list[Lane[Any]], now: float) -> list[Lane[Any]]:
        self._stop_waiting()
        ripe = ripe_at(lanes, self._backlog.load, self.limits)
        first = min(ripe.values())
        if first > now:
            loop = asyncio.get_running_loop()
            self._ripe = loop.call_later(first - now, self._wake.set)
        return [lane for lane in lanes if ripe[lane.key] <= now]

    def _stop_waiting(self) -> None:
        if self._ripe is not None:
            self._ripe.cancel()
            self._ripe = None

    def _begin(self, rows: list[Row[Work, Out]]) -> None:
        now = self._clock()
        for row in rows:
            row.state = State.RUNNING
            if not row.started:
                self._mark_started(row, now)
                if row.convoy is not None:
                    for follower in row.followers:
                        self._mark_started(follower, now)

    def _mark_started(self, row: Row[Work, Out], now: float) -> None:
        row.started = True
        self._waiting -= 1
        row.ticket.timing.queue_seconds = now - row.admitted_at
        self._metrics.queue_seconds.observe(now - row.admitted_at)

    def _step(
        self, stage: Stage, works: Sequence[Work]
    ) -> tuple[Sequence[Out | RowFailed | None] | Exception, float]:
        """On the device's thread. The time is the model's, without the way there and back."""
        started = self._clock()
        try:
            outcome: Sequence[Out | RowFailed | None] | Exception = self._model.step(stage, works)
        except Exception as error:
            outcome = error
        return outcome, self._clock() - started

    def _settle(
        self,
        rows: list[Row[Work, Out]],
        stage: Stage,
        outcome: Sequence[Out | RowFailed | None] | Exception,
        seconds: float,
        elapsed: float,
    ) -> None:
        """``elapsed`` is ``seconds`` on the device and the way there and back. Costs are learned
        from all of it, for the device does nothing else meanwhile: a busy loop asks for larger
        batches. A step that failed may have taken no time: nothing is learned from it.
        """
        if not self._ends_all(rows):
            self._charge(rows, elapsed)
        load, cost = rows[0].loads[rows[0].index], _cost(rows)
        if _computed(outcome):
            load.observe(cost, elapsed)
            load.took(seconds)
        self._expire()
        if isinstance(outcome, Exception):
            failed = self._retry if isinstance(outcome, OutOfMemory | MemoryError) else self._fail
            failed(rows, stage, outcome)
        elif len(outcome) != len(rows):
            error = ValueError(f"{len(outcome)} outputs for {len(rows)} rows")
            self._fail(rows, stage, error)
        else:
            load.remaining -= cost
            self._advance(rows, stage, outcome, seconds)

    def _ends_all(self, rows: list[Row[Work, Out]]) -> bool:
        """Whether nothing is left after this step, and nobody to be owed what it took."""
        return len(rows) == len(self._rows) and all(row.steps_left == 1 for row in rows)

    def _charge(self, rows: list[Row[Work, Out]], seconds: float) -> None:
        costs: dict[Lane[Any], float] = {}
        for row in rows:
            costs[row.lane] = costs.get(row.lane, 0.0) + row.stage.cost
        share = seconds / sum(costs.values())
        for lane, cost in costs.items():
            self._shares.charge(lane.priority, lane.tenant, lane.key, cost * share)

    def _advance(
        self,
        rows: list[Row[Work, Out]],
        stage: Stage,
        outputs: Sequence[Out | RowFailed | None],
        seconds: float,
    ) -> None:
        self._metrics.stepped(stage.name, len(rows), seconds)
        for row, output in zip(rows, outputs, strict=True):
            if row.convoy is not None and not isinstance(output, RowFailed):
                self._carry(row, row.convoy, seconds, len(rows))
            row.took_step(seconds, len(rows))
            if row.dropped is not None:
                self._release(row)
            else:
                self._deliver(row, output)

    def _carry(
        self, leader: Row[Work, Out], convoy: Convoy, seconds: float, batch_rows: int
    ) -> None:
        """Takes along those for whom ``leader`` has taken its step."""
        followers = leader.followers
        arrived = leader.left == 1 and leader.index + 1 == convoy.stages
        for row in followers:
            row.took_step(seconds, batch_rows)
            if row.left == 0:
                self._next_stage(row)
            row.ticket.wake_reader()
        if arrived:
            leader.convoy = None
            for row in followers:
                row.convoy = None
                self._make_ready(row)

    def _deliver(self, row: Row[Work, Out], output: Out | RowFailed | None) -> None:
        ticket = row.ticket
        if isinstance(output, RowFailed):
            self._end(row, error=_row_error(row.stage, output.cause))
        elif row.steps_left == 0:
            if output is None:
                cause = ValueError("the last step put nothing out")
                self._end(row, error=_row_error(row.stage, cause))
            else:
                self._end(row, value=output)
        else:
            if row.left == 0:
                self._next_stage(row)
            if output is not None:
                ticket.put(output)
            ticket.wake_reader()
            if ticket.behind(self.limits.max_undelivered):
                row.state = State.HELD
            else:
                self._make_ready(row)

    def _next_stage(self, row: Row[Work, Out]) -> None:
        if not row.follows:
            self._backlog.leave(row.loads[row.index], row.stage, 0)
        self._ready.quit(row)
        row.index += 1
        row.left = row.stage.steps
        self._ready.join(row)

    def _make_ready(self, row: Row[Work, Out]) -> None:
        row.state = State.READY
        self._ready.add(row, self._clock())

    # Failing.

    def _retry(self, rows: list[Row[Work, Out]], stage: Stage, error: Exception) -> None:
        """Halves the key's cap. A row fails only when it does not fit alone, so that one too large
        never takes its neighbours with it.
        """
        if len(rows) == 1:
            self._fail(rows, stage, error)
            return
        log.warning("out of memory in %s with %d rows", stage.name, len(rows))
        let_go(error)
        rows[0].loads[rows[0].index].out_of_memory(_cost(rows))
        for row in rows:
            if row.dropped is not None:
                self._release(row)
            else:
                self._make_ready(row)

    def _fail(self, rows: list[Row[Work, Out]], stage: Stage, cause: Exception) -> None:
        log.error("a step of %s failed with %d rows", stage.name, len(rows), exc_info=cause)
        let_go(cause)
        for row in rows:
            if row.dropped is not None:
                self._release(row)
            else:
                self._end(row, error=_fault(cause))

    def _die(self, error: BaseException) -> None:
        """The engine's own task ended: nothing that is here will ever be answered."""
        if self._phase is Phase.CLOSED:
            return
        self.failed = error
        log.critical("the engine stopped", exc_info=error)
        for row in list(self._rows.values()):
            row.state = State.HELD if row.state is State.RUNNING else row.state
            self._drop(row, _fault(error), "failed")
        if self._on_fatal is not None:
            self._on_fatal(error)

    # Ending.

    def _end(
        self, row: Row[Work, Out], value: Out | None = None, error: EaselError | None = None
    ) -> None:
        """Answers and releases a row that is not ready."""
        row.ticket.finish(value, error)
        self._metrics.finished("ok" if error is None else "failed")
        self._release(row)

    def _expire(self) -> None:
        for row in self._deadlines.due():
            self._drop(row, DeadlineExceeded(), "deadline")

    def _cancel_all(self) -> None:
        for row in list(self._rows.values()):
            self._drop(row, Cancelled(), "cancelled")

    def _drop(self, row: Row[Work, Out], error: EaselError, outcome: str) -> None:
        """Gives a row up, and releases it: now, or right after its running step.

        A cancel is answered with the release, when what the row took is known; a row that is late
        or lost is answered at once.
        """
        if row.state is State.RELEASED or row.dropped is not None:
            return
        row.dropped, row.dropped_at = error, self._clock()
        self._metrics.finished(outcome)
        if row.state is State.RUNNING:
            if not isinstance(error, Cancelled):
                row.ticket.finish(None, error)
            return
        if row.state is State.READY:
            self._ready.remove(row)
        self._release(row)

    def _release(self, row: Row[Work, Out]) -> None:
        """Takes a row out that is not ready, with all that it held."""
        for index in range(row.first_own, len(row.stages)):
            self._backlog.leave(row.loads[index], row.stages[index], row.steps_to_go(index))
        heir = row.leave_convoy()
        self._ready.quit(row)
        del self._rows[row.id]
        self._waiting -= not row.started
        if row.dropped is not None and not row.ticket.done:
            row.ticket.finish(None, row.dropped)
        if isinstance(row.dropped, Cancelled):
            self._metrics.release_seconds.observe(self._clock() - row.dropped_at)
        row.release()
        self._deadlines.discard(row)
        if heir is not None and heir.convoy is not None:
            self._lead(heir, heir.convoy)
        if not self._rows:
            self._shares.clear()
            self._empty.set()

    def _lead(self, row: Row[Work, Out], convoy: Convoy) -> None:
        """What the row waited for is now its own to do."""
        for index in range(row.index, convoy.stages):
            self._backlog.enter(row.loads[index], row.stages[index], row.steps_to_go(index))
        self._make_ready(row)
        self._wake.set()


def _fault(cause: BaseException) -> ModelFault:
    fault = OutOfMemory() if isinstance(cause, OutOfMemory | MemoryError) else ModelFault()
    fault.__cause__ = cause
    return fault


def _row_error(stage: Stage, cause: Exception) -> EaselError:
    if not isinstance(cause, EaselError):
        log.error("a row failed in %s", stage.name, exc_info=cause)
    let_go(cause)
    return cause if isinstance(cause, EaselError) else _fault(cause)


def _computed(outcome: Sequence[Any] | Exception) -> bool:
    """Whether the time of a step tells what such steps cost."""
    if isinstance(outcome, Exception):
        return False
    return any(not isinstance(output, RowFailed) for output in outcome)


def _cost(rows: list[Row[Any, Any]]) -> float:
    return sum([row.stages[row.index].cost for row in rows])


def _own_seconds(rows: list[Row[Any, Any]]) -> float:
    if len(rows) == 1:
        return rows[0].remaining_seconds()
    return seconds_of(row.standing() for row in rows)
