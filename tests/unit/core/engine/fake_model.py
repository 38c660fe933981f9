"""A clock that only moves when told, and a model that does what its works say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, TypeVarTuple

from prometheus_client import CollectorRegistry

from services.core.engine import (
    Device,
    Engine,
    EngineLimits,
    EngineMetrics,
    InlineDevice,
    RowFailed,
    Stage,
)
from services.core.errors import InvalidInput

Args = TypeVarTuple("Args")
R = TypeVar("R")

ENGINE = "fake"


@dataclass(slots=True)
class FakeClock:
    """Seconds since the test began."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True, eq=False)
class Common:
    """The ``total`` first steps of several works, of which ``steps`` are taken, by any of them."""

    total: int
    steps: int = 0


@dataclass(slots=True, eq=False, weakref_slot=True)
class FakeWork:
    """Puts out ``name:step`` at the steps in ``outputs`` and at its last; counts its steps, without
    those that are ``common``.
    """

    name: str
    stages: Sequence[Stage]
    outputs: frozenset[int] = frozenset()
    fails_at: int | None = None
    steps: int = 0
    common: Common | None = None

    @property
    def done(self) -> int:
        """The steps taken, by it or for it."""
        return self.steps + (0 if self.common is None else self.common.steps)

    @property
    def total(self) -> int:
        return sum(stage.steps for stage in self.stages)


@dataclass(slots=True)
class FakeModel:
    """A step takes ``fixed + per_cost * cost`` on ``clock``. ``faults`` are raised by the next
    steps, one each; more than ``fits`` cost is out of memory.
    """

    clock: FakeClock
    fixed: float = 0.0
    per_cost: float = 0.0
    fits: float = float("inf")
    samples: Sequence[Sequence[FakeWork]] = ()
    faults: list[Exception] = field(default_factory=list)
    missing_outputs: int = 0
    batches: list[list[str]] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    loaded: bool = False
    closed: bool = False

    def load(self) -> None:
        self.loaded = True

    def warm_up(self) -> Iterable[Sequence[FakeWork]]:
        return self.samples

    def plan(self, work: FakeWork) -> Sequence[Stage]:
        if not work.stages:
            raise InvalidInput("steps", "must be at least 1", limit=1, given=0)
        return work.stages

    def step(self, stage: Stage, works: Sequence[FakeWork]) -> Sequence[str | RowFailed | None]:
        cost = stage.cost * len(works)
        self.batches.append([work.name for work in works])
        self.stages.append(stage.name)
        self.clock.now += self.fixed + self.per_cost * cost
        if cost > self.fits:
            raise MemoryError
        if self.faults:
            raise self.faults.pop(0)
        return [_advance(work) for work in works][self.missing_outputs :]

    def close(self) -> None:
        self.closed = True


def _advance(work: FakeWork) -> str | RowFailed | None:
    common = work.common
    if common is not None and common.steps < common.total:
        if work.done + 1 == work.fails_at:
            return RowFailed(ValueError(work.name))
        common.steps += 1
        return None
    work.steps += 1
    if work.done == work.fails_at:
        return RowFailed(ValueError(work.name))
    if work.done == work.total or work.done in work.outputs:
        return f"{work.name}:{work.done}"
    return None


class GatedDevice:
    """Runs a call only once it is let; ``entered`` tells that one waits."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    async def run(self, fn: Callable[[*Args], R], *args: *Args) -> R:
        self.entered.set()
        await self.gate.wait()
        self.gate.clear()
        self.entered.clear()
        return fn(*args)

    def close(self) -> None:
        """Nothing to free."""


def work(
    name: str,
    steps: int = 1,
    *,
    key: str = "k",
    cost: float = 1.0,
    outputs: Iterable[int] = (),
    fails_at: int | None = None,
) -> FakeWork:
    """A work of one stage."""
    stage = Stage(key, key, cost, steps)
    return FakeWork(name, [stage], frozenset(outputs), fails_at)


@dataclass(slots=True)
class Bench:
    """An engine on a fake clock, with its fake model and its registry."""

    engine: Engine[FakeWork, str]
    model: FakeModel
    clock: FakeClock
    registry: CollectorRegistry

    def value(self, name: str, **labels: str) -> float:
        """A metric of the engine, 0 while it has no sample."""
        return self.registry.get_sample_value(name, {"engine": ENGINE, **labels}) or 0.0

    async def run(self, ticks: int = 10_000) -> int:
        """Ticks until nothing is ready; answers how often."""
        for count in range(ticks):
            if not await self.engine.tick():
                return count
        raise AssertionError(f"still busy after {ticks} ticks")


def bench(
    limits: EngineLimits | None = None,
    *,
    fixed: float = 0.0,
    per_cost: float = 0.0,
    known: Iterable[str] = (),
    device: Device | None = None,
    on_fatal: Callable[[BaseException], None] | None = None,
) -> Bench:
    """A loaded engine; steps of the ``known`` keys were timed at warm-up."""
    clock = FakeClock()
    samples = [[work("warm", key=key) for _ in range(n)] for key in known for n in (1, 4, 16, 64)]
    model = FakeModel(clock, fixed, per_cost, samples=samples)
    registry = CollectorRegistry()
    engine: Engine[FakeWork, str] = Engine(
        model,
        limits=limits or EngineLimits(),
        metrics=EngineMetrics(registry, ENGINE),
        clock=clock,
        device=device or InlineDevice(),
        on_fatal=on_fatal,
    )
    engine.load()
    model.batches.clear()
    model.stages.clear()
    return Bench(engine, model, clock, registry)
