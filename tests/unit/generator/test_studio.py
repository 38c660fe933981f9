"""What goes wrong beside the device, and what is left of a picture once its life has ended."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from services.core.caller import Caller
from services.core.engine import EngineLimits
from services.core.errors import InvalidInput, ModelFault, Overloaded
from services.generator.controls import ControlUse
from services.generator.diffusion import PictureWork
from services.generator.events import Admitted, Event, Failed, Finished, Stopped
from services.generator.model import ControlFolder
from services.generator.network import Feature, Look, Network, Residuals
from services.generator.request import PreviewMethod, PreviewWish, Wish
from services.generator.session import Session
from services.generator.steering import ControlNet
from tests.unit.generator.pictures import given, picture
from tests.unit.generator.timed import TimedNetwork
from tests.unit.generator.workshop import Workshop, until


@pytest_asyncio.fixture
async def workshop() -> AsyncIterator[Workshop]:
    workshop = Workshop()
    async with workshop.open():
        yield workshop


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


async def test_an_id_that_is_refused_is_told(workshop: Workshop) -> None:
    session = Session(workshop.studio, Caller(), max_live=4)
    errors: list[InvalidInput] = []

    async def read() -> None:
        session.submit(Wish(id="x" * 81, steps=1))
        acts: tuple[Callable[[], None], ...] = (
            lambda: session.submit(Wish(id="x" * 81, steps=1)),
            lambda: session.cancel("nobody", ()),
            lambda: session.cancel("y" * 81, ()),
            lambda: session.keep_only("", ()),
        )
        for act in acts:
            with pytest.raises(InvalidInput) as raised:
                act()
            errors.append(raised.value)

    assert [name async for name, _, event in session.events(read()) if isinstance(event, Finished)]
    assert [(error.field, error.limit, error.given) for error in errors] == [
        ("id", "once at a time", "x" * 80),
        ("cancel.id", None, "nobody"),
        ("cancel.id", None, "y" * 80),
        ("keep_only.id", None, ""),
    ]


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


async def test_a_caller_who_leaves_leaves_nothing_to_the_collector(workshop: Workshop) -> None:
    workshop.network.gate.clear()
    job = workshop.studio.job(Wish(steps=2, count=3), Caller())
    watched, events = weakref.ref(job), job.events()
    gc.collect()
    gc.disable()
    try:
        assert isinstance(await anext(events), Admitted)
        workshop.network.gate.set()
        await events.aclose()
        del job, events
        await until(lambda: workshop.engine.rows == 0)
        await until(lambda: watched() is None)
    finally:
        gc.enable()


@dataclass
class Watched(TimedNetwork):
    """Remembers how noisy what it was shown was."""

    times: list[float] = field(default_factory=list)

    def predict(self, look: Look) -> torch.Tensor:
        self.times += look.timesteps.tolist()
        return super().predict(look)


@pytest.mark.parametrize("in_step", [False, True])
async def test_pictures_take_their_steps_in_turn_where_that_is_asked(in_step: bool) -> None:
    network = Watched()
    workshop = Workshop(network, limits=EngineLimits(max_batch_rows=1))
    async with workshop.open():
        network.times.clear()
        wish = Wish(steps=4, guidance_scale=1.0, count=3, in_step=in_step)
        await workshop.studio.job(wish, Caller()).run(workshop.put)
    first, second, third, last = sorted(set(network.times), reverse=True)
    each = [first, second, third, last]
    assert network.times == (sorted(each * 3, reverse=True) if in_step else each * 3)


@dataclass(frozen=True)
class Still:
    """A net that moves nothing."""

    name: str
    digest: str = "sha256:00"

    def residuals(self, look: Look, pictures: torch.Tensor) -> Residuals:
        return Residuals((torch.zeros_like(look.latents),))


@dataclass
class Loading:
    """Nets that are not read before ``gate`` is set."""

    gate: threading.Event = field(default_factory=threading.Event)
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def load(self, name: str, _folder: Path, _network: Network) -> ControlNet:
        self.began.release()
        self.gate.wait()
        return Still(name)


async def test_a_load_is_waited_for_by_those_alone_that_name_what_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "edges").mkdir()
    loading = Loading()
    network = TimedNetwork(features=frozenset({Feature.RESIDUALS}))
    workshop = Workshop(network, controls=ControlFolder(tmp_path), load_control=loading.load)
    use = ControlUse("edges", given(picture(), "controls.edges"))
    steered = Wish(steps=2, controls=(use,))
    slow: list[Event] = []

    async def put(event: Event) -> None:
        slow.append(event)

    async with workshop.open():
        jobs = [workshop.studio.job(steered, Caller()) for _ in range(2)]
        running = [asyncio.create_task(job.run(put)) for job in jobs]
        try:
            await asyncio.to_thread(loading.began.acquire)
            await workshop.studio.job(Wish(steps=2), Caller()).run(workshop.put)
            assert workshop.of(Finished) == [0]
            assert not slow
        finally:
            loading.gate.set()
        await asyncio.gather(*running)
    assert len([event for event in slow if isinstance(event, Finished)]) == 2
