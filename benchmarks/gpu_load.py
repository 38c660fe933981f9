"""Pictures a second of a served generator on a GPU, by how many callers ask at once, against the
compiled diffusers pipeline: asked for one picture after another, and for whole batches.

Each caller asks for its next picture when it has the last one. The generator is a process of its
own with its default settings but for the precision, which is the pipeline's, bfloat16; it is asked
over loopback, and answers PNG files. The pipeline is in this process, with its U-Net and its
decoder compiled by ``torch.compile``; it answers in memory, and has neither wire nor engine. Its
batches are as large as there are callers: all of them ask for the same number of steps, so that
nobody has to wait for an equal request.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import diffusers
import grpc
import torch

from benchmarks.cancel import until_serving
from benchmarks.gpu_steps import GUIDANCE, precision_on
from benchmarks.gpu_subject import COMMAND, Size
from benchmarks.processes import Process, started
from benchmarks.report import Chart, Entry, Line
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from services import accelerator

PROMPT: Final = "a red star on a white background"
LOAD_SECONDS: Final = 400.0
EAGER: Final = "generator"
COMPILED: Final = "generator, compiled"
IN_TURN: Final = "diffusers compiled, one after another"
BATCHED: Final = "diffusers compiled, batches of all callers"
_LEAST: Final = 2
_WARM_UP_STEPS: Final = 4


@dataclass(slots=True)
class Rates:
    """Pictures a second by round, of each who was measured, by the number of callers."""

    found: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def keep(self, name: str, callers: int, rate: float) -> None:
        self.found.setdefault(name, {}).setdefault(callers, []).append(rate)

    def median(self, name: str, callers: int) -> float:
        return statistics.median(self.found[name][callers])

    def entries(self, size: Size) -> list[Entry]:
        """All that was found, and the generator's over the pipeline's where both were."""
        found = [
            Entry(
                f"{size.name}, {_counted(callers)}: {name}",
                statistics.median(rates),
                "pictures/s",
                COMMAND,
                None,
                (max(rates) - min(rates)) / 2,
            )
            for name, by_callers in self.found.items()
            for callers, rates in by_callers.items()
        ]
        return [*found, *self._ratios(size)]

    def chart(self, size: Size) -> Chart:
        """The saturation curve."""
        return Chart(
            name="saturation",
            title=f"Pictures a second, {size.name}, {size.side} × {size.side}, {size.steps} steps",
            x="callers at once",
            y="pictures a second",
            lines=tuple(
                Line(
                    name,
                    x=tuple(float(callers) for callers in by_callers),
                    y=tuple(statistics.median(rates) for rates in by_callers.values()),
                    low=tuple(min(rates) for rates in by_callers.values()),
                    high=tuple(max(rates) for rates in by_callers.values()),
                )
                for name, by_callers in self.found.items()
            ),
            log="x",
        )

    def _ratios(self, size: Size) -> Iterator[Entry]:
        """Each round's rate over the pipeline's median: they were not measured in turns."""
        for name in (EAGER, COMPILED):
            for peer in (IN_TURN, BATCHED):
                for callers, rates in self.found.get(name, {}).items():
                    if callers in self.found.get(peer, {}):
                        theirs = self.median(peer, callers)
                        ratios = [rate / theirs for rate in rates]
                        what = f"{size.name}, {_counted(callers)}: {name} / {peer}"
                        spread = (max(ratios) - min(ratios)) / 2
                        median = statistics.median(ratios)
                        yield Entry(what, median, "ratio", COMMAND, None, spread)


def each_asks(callers: int, size: Size) -> int:
    """Pictures that every caller asks for in a round: at least two, and alone four."""
    return max(_LEAST, max(size.callers) // (8 * callers))


def settings(directory: Path, device: torch.device, *, compiled: bool) -> list[str]:
    """As arguments of ``benchmarks.servers``: its own defaults but for the model, the device and
    the precision.
    """
    told = {"model": str(directory), "device": str(device), "precision": precision_on(device)}
    if device.type == "cpu":
        told |= {"backend": "pytorch", "warm_up_seconds": "0"}
    if compiled:
        told["compile"] = "true"
    return [f"{name}={value}" for name, value in told.items()]


def served(
    directory: Path, device: torch.device, log: Path, *, compiled: bool = False
) -> AbstractContextManager[Process]:
    """A generator that is being loaded."""
    return started("generator", *settings(directory, device, compiled=compiled), log=log)


def await_serving(server: Process, log: Path) -> None:
    """Until it has made its first picture."""
    try:
        asyncio.run(until_serving(server.target, LOAD_SECONDS, ended=server.ended))
    except RuntimeError as error:
        raise RuntimeError(f"{error}: see {log}") from error


def measure_served(rates: Rates, name: str, target: str, size: Size) -> None:
    # The engine tries larger batches a step at a time, and a GPU's libraries choose anew for each.
    for callers in size.callers:
        asyncio.run(asked(target, callers, 1, size.steps))
    for _ in range(size.rounds):
        for callers in size.callers:
            each = each_asks(callers, size)
            rates.keep(name, callers, asyncio.run(asked(target, callers, each, size.steps)))


async def asked(target: str, callers: int, each: int, steps: int) -> float:
    """Pictures a second."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        began = time.perf_counter()
        made = await asyncio.gather(
            *(
                _caller(stub, range(number * each, (number + 1) * each), steps)
                for number in range(callers)
            )
        )
        return sum(made) / (time.perf_counter() - began)


async def _caller(
    stub: generator_pb2_grpc.GeneratorServiceAsyncStub, seeds: Sequence[int], steps: int
) -> int:
    made = 0
    for seed in seeds:
        request = pb.GenerateRequest(
            text_to_image=pb.TextToImage(),
            prompt=PROMPT,
            steps=steps,
            guidance_scale=GUIDANCE,
            seed=seed,
            omit_steps=True,
        )
        async for event in stub.Generate(request):
            kind = event.WhichOneof("event")
            if kind in ("failed", "blocked"):
                raise RuntimeError(f"picture {seed} ended as {kind}: {event}")
            made += kind == "image"
    return made


def pipeline(directory: Path, device: torch.device, *, compiled: bool) -> Any:
    kind: Any = diffusers.StableDiffusionPipeline
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    made = kind.from_pretrained(
        directory, dtype=dtype, safety_checker=None, requires_safety_checker=False
    ).to(device)
    made.set_progress_bar_config(disable=True)
    for part in (made.unet, made.vae):
        part.to(memory_format=torch.channels_last)
    if compiled:
        # On a processor, where all is for a look, it is traced and not built: that takes minutes.
        backend = "inductor" if device.type == "cuda" else "eager"
        made.unet = torch.compile(made.unet, backend=backend)
        made.vae.decode = torch.compile(made.vae.decode, backend=backend)
    return made


def warm_up_pipeline(made: Any, size: Size, device: torch.device) -> None:
    """Compiled for one picture, then for any number of them."""
    for pictures in (1, *reversed(size.callers)):
        painted(made, pictures, replace(size, steps=_WARM_UP_STEPS), device)


def measure_pipeline(rates: Rates, made: Any, size: Size, device: torch.device) -> None:
    """Of a pipeline that is warm."""
    for _ in range(size.rounds):
        one = painted(made, 1, size, device)
        for callers in size.callers:
            # In turn it makes as many a second, however many wait.
            rates.keep(IN_TURN, callers, one)
            batch = one if callers == 1 else painted(made, callers, size, device)
            rates.keep(BATCHED, callers, batch)


def painted(made: Any, pictures: int, size: Size, device: torch.device) -> float:
    """Pictures a second of one call."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(pictures)]
    accelerator.finish(device)
    began = time.perf_counter()
    found = made(
        [PROMPT] * pictures,
        num_inference_steps=size.steps,
        guidance_scale=GUIDANCE,
        generator=generators,
    ).images
    assert len(found) == pictures
    return pictures / (time.perf_counter() - began)


def _counted(callers: int) -> str:
    return f"{callers} caller{'s' if callers > 1 else ''}"
