"""The engine's life: load, start, the real loop and thread, drain, close, and its own death."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import pytest
from prometheus_client import CollectorRegistry

from services.core.engine import (
    DeviceLost,
    Engine,
    EngineLimits,
    EngineMetrics,
    InlineDevice,
    RowFailed,
    Stage,
)
from services.core.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    ModelFault,
    NotReady,
    OutOfMemory,
)
from tests.unit.core.engine.fake_model import (
    Bench,
    FakeClock,
    FakeModel,
    FakeWork,
    bench,
    work,
)


@dataclass
class GatedModel:
    """Steps on the device's thread, each once it is let; outputs the step's thread."""

    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closed: bool = False
    steps: int = 1

    def load(self) -> None:
        """Nothing to load."""

    def warm_up(self) -> Iterable[Sequence[str]]:
        return ()

    def plan(self, work: str) -> Sequence[Stage]:
        return [Stage("s", work[:1], steps=self.steps)]

    def step(self, stage: Stage, works: Sequence[str]) -> Sequence[str | RowFailed | None]:
        self.entered.release()
        assert self.gate.acquire(timeout=10)
        if "die" in works:
            raise DeviceLost
        return [threading.current_thread().name for _ in works]

    def close(self) -> None:
        self.closed = True

    async def is_stepping(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=10)


async def threaded(
    model: GatedModel, registry: CollectorRegistry | None = None, **kwargs: object
) -> Engine[str, str]:
    metrics = EngineMetrics(registry or CollectorRegistry(), "threaded")
    engine: Engine[str, str] = Engine(model, metrics=metrics, **kwargs)  # type: ignore[arg-type]
    await asyncio.to_thread(engine.load)
    await engine.start()
    return engine


async def test_steps_run_on_one_thread_that_close_joins() -> None:
    model = GatedModel()
    engine = await threaded(model)
    tickets = [engine.submit("a"), engine.submit("b")]
    model.gate.release(2)
    names = {await ticket.result() for ticket in tickets}
    assert len(names) == 1
    assert threading.current_thread().name not in names
    await engine.close()
    assert model.closed
    assert not names & {thread.name for thread in threading.enumerate()}
    await engine.close()


async def test_batches_form_while_the_device_is_busy() -> None:
    model = GatedModel()
    registry = CollectorRegistry()
    # The first step's time is what it is held back for, and must not speak against company.
    engine = await threaded(model, registry, clock=FakeClock())
    first = engine.submit("a")
    await model.is_stepping()
    others = [engine.submit("a") for _ in range(2)]
    model.gate.release(2)
    await asyncio.gather(first.result(), *(ticket.result() for ticket in others))
    count = registry.get_sample_value("easel_batch_rows_count", {"engine": "threaded"})
    assert count == 2.0
    await engine.close()


async def test_a_cancel_during_a_step_is_answered_with_the_steps_end() -> None:
    model = GatedModel()
    engine = await threaded(model)
    ticket = engine.submit("a")
    await model.is_stepping()
    ticket.cancel()
    assert engine.report().rows == 1
    model.gate.release()
    with pytest.raises(Cancelled):
        await ticket.result()
    await engine.drain(10.0)
    assert engine.report().rows == 0
    await engine.close()


async def test_a_waiting_rows_deadline_is_answered_while_the_device_is_busy() -> None:
    model, clock = GatedModel(), FakeClock()
    engine = await threaded(model, clock=clock)
    busy = engine.submit("a")
    await model.is_stepping()
    late = engine.submit("b", deadline=clock.now + 1e-3)
    clock.now += 1.0
    with pytest.raises(DeadlineExceeded):
        await late.result()
    assert not busy.done
    model.gate.release()
    await busy.result()
    await engine.close()


async def test_close_cancels_what_runs_and_waits_for_the_step() -> None:
    model = GatedModel(steps=5)
    engine = await threaded(model)
    running = engine.submit("a")
    await model.is_stepping()
    waiting = engine.submit("b")
    closing = asyncio.create_task(engine.close())
    with pytest.raises(Cancelled):
        await waiting.result()
    assert not running.done
    assert not closing.done()
    model.gate.release()
    with pytest.raises(Cancelled):
        await running.result()
    await closing
    assert engine.report().rows == 0


async def test_drain_lets_the_admitted_finish_and_refuses_the_rest() -> None:
    model = GatedModel()
    registry = CollectorRegistry()
    engine = await threaded(model, registry)
    ticket = engine.submit("a")
    await model.is_stepping()
    draining = asyncio.create_task(engine.drain(10.0))
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        engine.submit("b")
    model.gate.release()
    await draining
    assert await ticket.result()
    refused = {"engine": "threaded", "reason": "draining"}
    assert registry.get_sample_value("easel_admission_refused_total", refused) == 1.0
    await engine.close()


async def test_drain_cancels_what_does_not_finish_in_time() -> None:
    made = bench()
    ticket = made.engine.submit(work("a"))
    await made.engine.drain(0.0)
    with pytest.raises(Cancelled):
        await ticket.result()


async def test_an_engine_not_loaded_is_not_ready() -> None:
    engine: Engine[FakeWork, str] = Engine(
        FakeModel(FakeClock()), metrics=EngineMetrics(CollectorRegistry(), "new")
    )
    assert not engine.ready
    with pytest.raises(NotReady):
        engine.submit(work("a"))
    await engine.close()


def test_a_device_lost_in_the_warm_up_fails_the_load() -> None:
    class Lost(GatedModel):
        def warm_up(self) -> Iterable[Sequence[str]]:
            return (["die"],)

    model = Lost()
    model.gate.release()
    engine: Engine[str, str] = Engine(model, metrics=EngineMetrics(CollectorRegistry(), "lost"))
    with pytest.raises(RuntimeError, match="the device was lost while the model was warmed up"):
        engine.load()
    assert not engine.ready


async def test_a_dead_engine_is_never_silent(caplog: pytest.LogCaptureFixture) -> None:
    died: list[BaseException] = []
    model = GatedModel()
    engine = await threaded(model, on_fatal=died.append)
    running = engine.submit("die")
    await model.is_stepping()
    waiting = engine.submit("waits")
    with caplog.at_level(logging.CRITICAL):
        model.gate.release()
        for ticket in (running, waiting):
            with pytest.raises(ModelFault):
                await ticket.result()
    assert len(died) == 1
    assert engine.failed is died[0]
    assert not engine.ready
    assert len(caplog.records) == 1
    with pytest.raises(NotReady):
        engine.submit("a")
    await engine.close()


async def test_an_engine_keeps_nothing_of_a_finished_row() -> None:
    made = bench(EngineLimits(max_rows=4))
    gone = work("gone")
    watched = weakref.ref(gone)
    ticket = made.engine.submit(gone, deadline=1e9)
    del gone
    gc.disable()
    try:
        await made.run()
        await ticket.result()
        assert watched() is None
    finally:
        gc.enable()


class Computed:
    """As large as what a step computes."""


class OutOfRoom(FakeModel):
    """Runs out of memory deep in a step, which a library says in its own words; as a row's own
    failure where ``alone``.
    """

    computed: weakref.ref[Computed]
    room = True
    alone = False

    def step(self, stage: Stage, works: Sequence[FakeWork]) -> Sequence[str | RowFailed | None]:
        if self.room:
            return super().step(stage, works)
        try:
            self._fail()
        except OutOfMemory as error:
            if not self.alone:
                raise
            return [RowFailed(error)]

    def _fail(self) -> NoReturn:
        try:
            self._compute()
        except RuntimeError as error:
            raise OutOfMemory from error

    def _compute(self) -> NoReturn:
        computed = Computed()
        self.computed = weakref.ref(computed)
        raise RuntimeError("no more room")


@pytest.fixture
def full() -> Iterator[tuple[OutOfRoom, Engine[FakeWork, str]]]:
    """An engine that takes two rows a step, which do not fit; nothing is collected by the way."""
    model = OutOfRoom(FakeClock(), fixed=0.25, samples=[[work("warm") for _ in range(2)]])
    metrics = EngineMetrics(CollectorRegistry(), "full")
    engine: Engine[FakeWork, str] = Engine(
        model, metrics=metrics, clock=model.clock, device=InlineDevice()
    )
    engine.load()
    model.room = False
    gc.disable()
    yield model, engine
    gc.enable()


@pytest.mark.parametrize("alone", [False, True])
async def test_an_error_that_is_kept_holds_on_to_nothing_that_was_computed(
    full: tuple[OutOfRoom, Engine[FakeWork, str]], alone: bool
) -> None:
    model, engine = full
    model.alone = alone
    ticket = engine.submit(work("a"))
    await engine.tick()
    with pytest.raises(OutOfMemory) as told:
        await ticket.result()
    assert told.value is not None
    assert model.computed() is None


async def test_rows_that_are_stepped_again_find_the_memory_free(
    full: tuple[OutOfRoom, Engine[FakeWork, str]],
) -> None:
    model, engine = full
    tickets = engine.submit_all([work("a"), work("b")])
    await engine.tick()
    assert not any(ticket.done for ticket in tickets)
    assert model.computed() is None


async def test_deadlines_of_finished_rows_do_not_pile_up() -> None:
    made = bench()
    for i in range(1000):
        made.engine.submit(work(str(i)), deadline=1e9)
        await made.engine.tick()
    assert len(made.engine._deadlines) < 200


def test_engines_share_a_registry() -> None:
    registry = CollectorRegistry()
    EngineMetrics(registry, "a").finished("ok")
    EngineMetrics(registry, "b").finished("ok", 2)
    counts = [
        registry.get_sample_value("easel_rows_finished_total", {"engine": name, "outcome": "ok"})
        for name in ("a", "b")
    ]
    assert counts == [1.0, 2.0]


async def test_steps_are_counted_by_stage() -> None:
    made = bench(known=["x", "y"], fixed=0.1)
    stages = [Stage("x", "x"), Stage("y", "y", steps=3)]
    made.engine.submit_all([FakeWork("a", stages), FakeWork("b", stages)])
    await made.run()
    assert made.value("easel_row_steps_total", stage="x") == 2.0
    assert made.value("easel_row_steps_total", stage="y") == 6.0
    assert made.value("easel_step_seconds_count", stage="y") == 3.0
    assert made.value("easel_batch_rows_sum") == 8.0
    assert made.value("easel_queue_seconds_count") == 2.0


# Warming up.


def warmed(model: FakeModel) -> Bench:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry, "fake")
    engine: Engine[FakeWork, str] = Engine(model, metrics=metrics, clock=model.clock)
    engine.load()
    return Bench(engine, model, model.clock, registry)


def test_load_times_every_stage_of_the_samples() -> None:
    stages = [Stage("x", "x"), Stage("y", "y", steps=2)]
    samples = [[FakeWork("w", stages) for _ in range(n)] for n in (1, 4)]
    made = warmed(FakeModel(FakeClock(), 0.1, 0.01, samples=samples))
    assert made.model.loaded
    fits = {key.key: (key.fixed_seconds, key.seconds_per_cost) for key in made.engine.report().keys}
    assert fits["x"] == pytest.approx((0.1, 0.01), rel=0.05)
    assert fits["y"] == pytest.approx((0.1, 0.01), rel=0.05)


def test_a_sample_batch_out_of_memory_lowers_the_cap() -> None:
    samples = [[work("w") for _ in range(n)] for n in (1, 2, 8)]
    made = warmed(FakeModel(FakeClock(), 0.1, 0.01, fits=4.0, samples=samples))
    assert made.engine.report().keys[0].cap_cost == 4.0


def test_a_model_that_cannot_take_one_sample_does_not_load() -> None:
    samples = [[work("w")]]
    with pytest.raises((MemoryError, OutOfMemory)):
        warmed(FakeModel(FakeClock(), fits=0.5, samples=samples))


def test_a_sample_row_that_fails_fails_the_load() -> None:
    samples = [[work("w", fails_at=1)]]
    with pytest.raises(ValueError, match="w"):
        warmed(FakeModel(FakeClock(), samples=samples))
