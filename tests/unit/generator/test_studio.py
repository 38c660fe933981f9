"""What goes wrong beside the device, and what is left of a picture once its life has ended."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import pytest_asyncio
from prometheus_client import CollectorRegistry

from services.core.caller import Caller
from services.core.engine import Engine, EngineMetrics
from services.core.errors import ModelFault, Overloaded
from services.core.pool import WorkerPool
from services.generator.diffusion import PictureWork, Result
from services.generator.request import PreviewMethod, PreviewWish, Wish
from services.generator.session import Session
from services.generator.studio import Admitted, Event, Failed, Finished, Stopped, Studio
from tests.unit.generator.fakes import FakeNetwork, FakeScribe, fake_model

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
    network: FakeNetwork = field(default_factory=FakeNetwork)
    prepare: FaultyPool = field(default_factory=lambda: FaultyPool("prepare"))
    finish: FaultyPool = field(default_factory=lambda: FaultyPool("finish"))
    told: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        model = fake_model(self.network)
        metrics = EngineMetrics(CollectorRegistry(), "fake")
        self.engine: Engine[PictureWork, Result] = Engine(model, metrics=metrics)
        self.studio = Studio(
            model,
            self.engine,
            prepare=self.prepare,
            finish=self.finish,
            scribe=FakeScribe(),
            draw_seed=int,
        )

    async def put(self, event: Event) -> None:
        self.told.append(event)

    def of(self, kind: type[Event]) -> list[int]:
        return [event.index for event in self.told if isinstance(event, kind)]


@pytest_asyncio.fixture
async def workshop() -> AsyncIterator[Workshop]:
    workshop = Workshop()
    await asyncio.to_thread(workshop.engine.load)
    await workshop.engine.start()
    workshop.network.batches.clear()
    yield workshop
    workshop.network.gate.set()
    await workshop.engine.close()
    workshop.prepare.close()
    workshop.finish.close()


async def test_a_fault_outside_the_tree_is_that_pictures_alone(workshop: Workshop) -> None:
    workshop.finish.faults.append(RuntimeError("a secret of the encoder"))
    await workshop.studio.job(Wish(steps=2, count=2), Caller()).run(workshop.put)
    [failed] = [event for event in workshop.told if isinstance(event, Failed)]
    assert isinstance(failed.error, ModelFault)
    assert "secret" not in failed.error.message
    assert len(workshop.of(Finished)) == 1


async def test_a_fault_outside_the_tree_is_that_requests_alone(workshop: Workshop) -> None:
    session = Session(workshop.studio, Caller(), max_live=4)
    workshop.prepare.faults.append(RuntimeError("a secret of the tokenizer"))

    async def read() -> None:
        session.submit(Wish(id="a", steps=2))
        session.submit(Wish(id="b", steps=2))

    told = [(name, event) async for name, _, event in session.events(read())]
    assert [name for name, event in told if isinstance(event, Finished)] == ["b"]
    [(name, failed)] = [(name, event) for name, event in told if isinstance(event, Failed)]
    assert name == "a"
    assert isinstance(failed.error, ModelFault)


async def test_a_failed_picture_takes_no_more_steps(workshop: Workshop) -> None:
    workshop.finish.faults.append(Overloaded(1.0))
    preview = PreviewWish(at_steps=(1,), method=PreviewMethod.DECODED)
    wish = Wish(steps=100, guidance_scale=1.0, count=2, preview=preview)
    await workshop.studio.job(wish, Caller()).run(workshop.put)
    assert len(workshop.of(Failed)) == len(workshop.of(Finished)) == 1
    assert workshop.network.batches.count(2) < 100


async def test_a_picture_is_let_go_when_its_life_ends(workshop: Workshop) -> None:
    gc.collect()
    workshop.network.gate.clear()
    read = asyncio.Event()

    async def put(event: Event) -> None:
        workshop.told.append(event)
        if isinstance(event, Finished):
            await read.wait()

    job = workshop.studio.job(Wish(steps=2, count=3), Caller())
    running = asyncio.create_task(job.run(put))
    await until(lambda: len(workshop.of(Admitted)) == 3)
    job.cancel([0, 2])
    workshop.network.gate.set()
    await until(lambda: workshop.of(Finished) == [1])
    assert sorted(workshop.of(Stopped)) == [0, 2]
    works = [each for each in gc.get_objects() if type(each) is PictureWork]
    assert [work.seed for work in works if work.order is job.order] == [1]
    del works
    read.set()
    await running


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds that nothing announces."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
