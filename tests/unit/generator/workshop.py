"""A studio over a fake network, whose pools fail on demand.

Time moves with the network's steps alone, so that which rows share one hangs on no pause of the
machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from prometheus_client import CollectorRegistry

from services.core.engine import Engine, EngineLimits, EngineMetrics
from services.core.pool import WorkerPool
from services.generator.controlnet import LoadControl, load_control
from services.generator.diffusion import PictureWork, Result
from services.generator.events import Event
from services.generator.model import ControlFolder
from services.generator.results import Results
from services.generator.studio import Studio
from tests.unit.generator.fakes import NO_CONTROLS, FakeScribe, fake_model
from tests.unit.generator.timed import TimedNetwork

P = ParamSpec("P")
R = TypeVar("R")


class FaultyPool(WorkerPool):
    """Raises ``faults`` one by one before it works."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 1, 64)
        self.faults: list[Exception] = []

    async def run(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.faults:
            raise self.faults.pop()
        return await super().run(fn, *args, **kwargs)


@dataclass
class Workshop:
    network: TimedNetwork = field(default_factory=TimedNetwork)
    prepare: FaultyPool = field(default_factory=lambda: FaultyPool("prepare"))
    load: FaultyPool = field(default_factory=lambda: FaultyPool("load"))
    finish: FaultyPool = field(default_factory=lambda: FaultyPool("finish"))
    told: list[Event] = field(default_factory=list)
    results: Results | None = None
    limits: EngineLimits = field(default_factory=EngineLimits)
    controls: ControlFolder = NO_CONTROLS
    load_control: LoadControl = load_control

    def __post_init__(self) -> None:
        model = fake_model(self.network, controls=self.controls, load_control=self.load_control)
        metrics = EngineMetrics(CollectorRegistry(), "fake")
        self.engine: Engine[PictureWork, Result] = Engine(
            model, limits=self.limits, metrics=metrics, clock=self.network.clock
        )
        self.studio = Studio(
            model,
            self.engine,
            prepare=self.prepare,
            load=self.load,
            finish=self.finish,
            scribe=FakeScribe(),
            draw_seed=int,
            results=self.results,
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.engine.load)
        await self.engine.start()
        self.network.batches.clear()
        yield
        self.network.gate.set()
        await self.engine.close()
        self.prepare.close()
        self.load.close()
        self.finish.close()

    async def put(self, event: Event) -> None:
        self.told.append(event)

    def of(self, kind: type[Event]) -> list[int]:
        return [event.index for event in self.told if isinstance(event, kind)]


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds that nothing announces."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
