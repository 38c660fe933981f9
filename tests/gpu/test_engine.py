"""The engine over a device: when a step is over, what a cancel frees, and what does not fit."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry

from services.core.engine import Engine, EngineLimits, EngineMetrics, Output
from services.core.errors import Cancelled, OutOfMemory
from services.generator import pytorch
from services.generator.diffusion import DENOISE, Picture, PictureWork, Result
from services.generator.model import GeneratorModel
from services.generator.network import Pixels
from services.generator.pytorch import TorchNetwork
from services.generator.request import PreviewMethod, PreviewWish, Wish
from services.generator.samplers import Sampler
from tests.gpu.painting import LEAST_PSNR, MOST_LEVELS, Gallery, finals, levels_apart, psnr
from tests.parity.generator.company import works
from tests.unit.generator.drive import rider

SLACK_BYTES = 2**20
"""Of what may be left of a picture: what libraries keep at their first call of a shape."""
MANY = 12
WISH = Wish(prompt="a red star", steps=3, guidance_scale=3.0, seed=3)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("gallery"))


@asynccontextmanager
async def running(model: GeneratorModel) -> AsyncIterator[Engine[PictureWork, Result]]:
    """Loaded, started, and having made one picture. To its clock every step takes a second, however
    many rows it has, so that batches grow as far as they may.
    """
    engine: Engine[PictureWork, Result] = Engine(
        model,
        limits=EngineLimits(max_batch_rows=MANY, max_step_seconds=60.0, max_backlog_seconds=1e6),
        metrics=EngineMetrics(CollectorRegistry(), "gpu"),
        clock=partial(next, itertools.count()),
    )
    await asyncio.to_thread(engine.load)
    await engine.start()
    await results(engine, works(model, WISH))
    yield engine
    await engine.close()


async def results(engine: Engine[PictureWork, Result], rows: Sequence[PictureWork]) -> list[Pixels]:
    tickets = engine.submit_all(rows)
    made = [await ticket.result() for ticket in tickets]
    assert all(isinstance(each, Picture) and each.final for each in made)
    return [each.pixels for each in made if isinstance(each, Picture)]


def held_bytes(device: torch.device) -> int:
    """Of tensors: on a GPU by its allocator, else of all that Python can reach."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    # No subclasses: what torch.compile keeps of other tests has no memory to ask for.
    found = (each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter))
    storages = (each.untyped_storage() for each in found if not each.is_meta)
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


async def test_requests_that_share_steps_are_painted_as_alone(
    gallery: Gallery, device: torch.device
) -> None:
    model = gallery.unloaded("1.x", partial(pytorch.load, device=str(device), precision="float32"))
    wishes = [
        replace(WISH, seed=index, steps=2 + index % 4, sampler=sampler, count=1 + index % 2)
        for index, sampler in enumerate((Sampler.DDIM, Sampler.EULER_ANCESTRAL, Sampler.HEUN))
    ]
    async with running(model) as engine:
        together = await asyncio.gather(*(results(engine, works(model, wish)) for wish in wishes))
    model.load()
    for wish, found in zip(wishes, together, strict=True):
        expected = finals(model, wish)
        assert len(found) == len(expected) == wish.count
        for one, other in zip(found, expected, strict=True):
            assert levels_apart(one, other) <= MOST_LEVELS


async def test_a_cancel_frees_its_row(gallery: Gallery, device: torch.device) -> None:
    model = gallery.unloaded("1.x", partial(pytorch.load, device=str(device), precision="float32"))
    preview = PreviewWish(every=1, method=PreviewMethod.FAST)
    async with running(model) as engine:
        base = held_bytes(device)
        rows = works(model, replace(WISH, steps=150, preview=preview), replace(WISH, seed=4))
        long, short = engine.submit_all(rows)
        del rows
        async for news in long:
            if isinstance(news, Output):
                break
        long.cancel()
        with pytest.raises(Cancelled):
            await long.result()
        await short.result()
        del long, short, news
        assert engine.rows == 0
        assert held_bytes(device) <= base + SLACK_BYTES


async def test_what_pictures_took_is_free_again(gallery: Gallery, device: torch.device) -> None:
    model = gallery.unloaded("XL", partial(pytorch.load, device=str(device), precision="bfloat16"))
    async with running(model) as engine:
        await results(engine, works(model, replace(WISH, count=MANY)))
        base = held_bytes(device)
        for seed in range(3):
            await results(engine, works(model, replace(WISH, count=MANY, seed=seed)))
        assert held_bytes(device) <= base + SLACK_BYTES


@dataclass
class Room:
    """How many pictures a device has room for at a time."""

    pictures: int = MANY


@dataclass(frozen=True, kw_only=True)
class Small(TorchNetwork):
    room: Room

    def decode(self, latents: torch.Tensor) -> Pixels:
        if len(latents) > self.room.pictures:
            raise torch.OutOfMemoryError(f"{len(latents)} pictures are too many")
        return super().decode(latents)


async def test_pictures_that_do_not_fit_together_are_made_in_turn(
    gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    room = Room()

    def load(directory: Path) -> Small:
        network = pytorch.load(directory, device="cpu", precision="float32")
        parts = {part.name: getattr(network, part.name) for part in fields(network)}
        return Small(**parts, room=room)

    model = gallery.unloaded("1.x", load)
    async with running(model) as engine:
        room.pictures = 1
        with caplog.at_level(logging.WARNING):
            found = await results(engine, works(model, replace(WISH, count=MANY)))
        assert engine.rows == 0
    assert_ran_out(caplog)
    assert len(found) == MANY


async def test_pictures_that_do_not_fit_on_the_gpu_together_are_made_in_turn(
    gallery: Gallery, gpu: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    load = partial(pytorch.load, device=str(gpu), precision="float16")
    model = gallery.unloaded("demo", load, most_pixels=512 * 512)
    wish = replace(WISH, width=512, height=512)
    async with running(model) as engine:
        [alone] = await results(engine, works(model, wish))
        with room_for(gpu, pictures=3, alone=await _reserved(engine, works(model, wish), gpu)):
            base = held_bytes(gpu)
            with caplog.at_level(logging.WARNING):
                found = await results(engine, works(model, replace(wish, count=MANY)))
            assert engine.rows == 0
            assert held_bytes(gpu) <= base + SLACK_BYTES
    assert_ran_out(caplog)
    # Of eight times the side that the model was made for: a last digit weighs more there.
    assert psnr(found[0], alone) >= LEAST_PSNR["float16"]


def test_what_is_asked_for_and_does_not_fit_is_told_as_such(
    gallery: Gallery, gpu: torch.device
) -> None:
    shelves = gallery.model("1.x", gpu, "bfloat16").loaded
    reserved = torch.cuda.memory_reserved(gpu)
    with room_for(gpu, pictures=0, alone=(reserved, reserved)):
        held = filled_up(gpu)
        for take in (lambda: shelves.controls.take("edges"), lambda: shelves.adapters.take("worn")):
            with pytest.raises(OutOfMemory):
                take()
        del held
    assert shelves.controls.take("edges").name == "edges"


def filled_up(gpu: torch.device) -> list[torch.Tensor]:
    """All that there is, in pieces that no room is left between."""
    held: list[torch.Tensor] = []
    for size in (2**24, 2**20, 2**16, 2**12, 2**9):
        with suppress(torch.OutOfMemoryError):
            while True:
                held.append(torch.empty(size, dtype=torch.uint8, device=gpu))
    return held


def assert_ran_out(caplog: pytest.LogCaptureFixture) -> None:
    told = [record.getMessage() for record in caplog.records]
    assert any(each.startswith("out of memory in ") for each in told), "all of it did fit"


async def _reserved(
    engine: Engine[PictureWork, Result], rows: Sequence[PictureWork], gpu: torch.device
) -> tuple[int, int]:
    """Bytes that the allocator has without pictures, and with one at its largest step."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(gpu)
    torch.cuda.reset_peak_memory_stats(gpu)
    await results(engine, rows)
    return before, torch.cuda.max_memory_reserved(gpu)


@contextmanager
def room_for(gpu: torch.device, *, pictures: int, alone: tuple[int, int]) -> Iterator[None]:
    without, with_one = alone
    room = without + pictures * (with_one - without)
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(gpu).total_memory
    torch.cuda.set_per_process_memory_fraction(room / total, gpu)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu)


def test_a_step_is_over_when_it_returns(gallery: Gallery, gpu: torch.device) -> None:
    model = gallery.model("demo", gpu, "bfloat16")
    [work] = works(model, replace(WISH, width=128, height=128))
    ahead = rider(model, work).ahead
    for stage in ahead:
        model.step(stage, [work])
        assert torch.cuda.current_stream(gpu).query(), f"{stage.name} is still being computed"


def test_a_denoising_step_waits_for_the_gpu_once_at_most(
    gallery: Gallery, gpu: torch.device
) -> None:
    model = gallery.model("XL", gpu, "bfloat16")
    preview = PreviewWish(every=1, method=PreviewMethod.FAST)
    wish = replace(WISH, sampler=Sampler.EULER_ANCESTRAL, preview=preview, count=3)
    rows = works(model, wish)
    for stage in rider(model, rows[0]).ahead:
        with waits() as told:
            model.step(stage, rows)
        if stage.name == DENOISE:
            assert len(told) <= 1, told


@contextmanager
def waits() -> Iterator[list[Any]]:
    """What PyTorch warns of: calls that wait until the GPU has done all that it was given."""
    told: list[Any] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield told
        finally:
            torch.cuda.set_sync_debug_mode("default")
            told += [each for each in caught if "synchronizing" in str(each.message)]
