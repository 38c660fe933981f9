"""Eight callers of the demo generator at once, against a stock pipeline, alone and with batches.

Each caller asks for its next picture when it has the last one. The generator is a process of its
own, asked over loopback; the peers get the same requests from a queue in this process, where they
need no wire, no PNG and no engine. One peer serves them in turn, the other, as request-level
batching does, takes the oldest request and all that wait and are equal to it in steps and guidance.
All three give previews: the peers' cost nothing and count as sent when the step has ended.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import torch
from diffusers import StableDiffusionPipeline

from benchmarks.cancel import until_serving
from benchmarks.processes import started
from benchmarks.report import Bound, Entry, quick
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from models import DEMO_GENERATOR

COMMAND = "make bench-generator"
CALLERS = 8
PER_CALLER = 1 if quick() else 5
ROUNDS = 1 if quick() else 5
STEPS = (10, 15, 20, 25, 30)
PREVIEW_EVERY = 5
GUIDANCE = 3.0
PROMPTS = (
    "a red star",
    "a blue circle",
    "a green square",
    "a yellow triangle on a black background",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    prompt: str
    steps: int
    seed: int


@dataclass(slots=True)
class Served:
    """What one round took: ``seconds`` in all, and to each picture's first preview."""

    seconds: float = 0.0
    first_previews: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.first_previews) / self.seconds

    @property
    def first_preview(self) -> float:
        return statistics.mean(self.first_previews)


def requests(seed: int) -> list[list[Asked]]:
    """What each caller asks for, one after another; the same for the same seed."""
    chance = random.Random(seed)
    return [
        [
            Asked(chance.choice(PROMPTS), chance.choice(STEPS), chance.randrange(2**32))
            for _ in range(PER_CALLER)
        ]
        for _ in range(CALLERS)
    ]


async def generator(target: str, asked: Sequence[Sequence[Asked]]) -> Served:
    served = Served()
    async with grpc.aio.insecure_channel(target) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        began = time.perf_counter()
        await asyncio.gather(*(_call_in_turn(stub, mine, served) for mine in asked))
        served.seconds = time.perf_counter() - began
    return served


async def _call_in_turn(
    stub: generator_pb2_grpc.GeneratorServiceAsyncStub, asked: Sequence[Asked], served: Served
) -> None:
    for one in asked:
        request = pb.GenerateRequest(
            text_to_image=pb.TextToImage(),
            prompt=one.prompt,
            steps=one.steps,
            guidance_scale=GUIDANCE,
            seed=one.seed,
            preview=pb.Preview(every=PREVIEW_EVERY),
            omit_steps=True,
        )
        began, first = time.perf_counter(), None
        async for event in stub.Generate(request):
            if event.HasField("preview") and first is None:
                first = time.perf_counter() - began
        assert first is not None, "a picture came without a preview"
        served.first_previews.append(first)


Waiting = deque[tuple[int, Asked, float]]
Take = Callable[[Waiting], list[tuple[int, Asked, float]]]


def oldest(waiting: Waiting) -> list[tuple[int, Asked, float]]:
    """In turn."""
    return [waiting.popleft()]


def oldest_and_equal(waiting: Waiting) -> list[tuple[int, Asked, float]]:
    """Request-level batching."""
    steps = waiting[0][1].steps
    taken = [each for each in waiting if each[1].steps == steps]
    for each in taken:
        waiting.remove(each)
    return taken


def pipeline() -> Any:
    kind: Any = StableDiffusionPipeline
    loaded = kind.from_pretrained(
        DEMO_GENERATOR,
        dtype=torch.float32,
        safety_checker=None,
        requires_safety_checker=False,
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded


def peer(made: Any, asked: Sequence[Sequence[Asked]], take: Take) -> Served:
    """The same requests through a stock pipeline."""
    served, began = Served(), time.perf_counter()
    coming = [deque(mine) for mine in asked]
    waiting: Waiting = deque((caller, mine.popleft(), began) for caller, mine in enumerate(coming))
    while waiting:
        batch = take(waiting)
        previewed = _paint(made, [one for _, one, _ in batch])
        now = time.perf_counter()
        for caller, _, since in batch:
            served.first_previews.append(previewed - since)
            if coming[caller]:
                waiting.append((caller, coming[caller].popleft(), now))
    served.seconds = time.perf_counter() - began
    return served


def _paint(made: Any, batch: Sequence[Asked]) -> float:
    """Moment of the first preview."""
    moments: list[float] = []

    def stepped(_pipeline: Any, step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
        if step + 1 == PREVIEW_EVERY:
            moments.append(time.perf_counter())
        return state

    made(
        [one.prompt for one in batch],
        num_inference_steps=batch[0].steps,
        guidance_scale=GUIDANCE,
        generator=[torch.Generator("cpu").manual_seed(one.seed) for one in batch],
        callback_on_step_end=stepped,
    )
    return moments[0]


def entries() -> list[Entry]:
    made = pipeline()
    ours: list[Served] = []
    alone: list[Served] = []
    batched: list[Served] = []
    with started("generator") as process:
        asyncio.run(until_serving(process.target))
        for number in range(0 if quick() else -1, ROUNDS):  # the one before the first warms up
            asked = requests(number + 1)
            round_ = (
                asyncio.run(generator(process.target, asked)),
                peer(made, asked, oldest),
                peer(made, asked, oldest_and_equal),
            )
            if number >= 0:
                for kept, served in zip((ours, alone, batched), round_, strict=True):
                    kept.append(served)
    return [
        *_compared("one pipeline in turn", ours, alone, rate=3.0, preview=4.0),
        *_compared("batches of equal requests", ours, batched, rate=3.0, preview=4.0),
        *_absolute("generator", ours),
        *_absolute("one pipeline in turn", alone),
        *_absolute("batches of equal requests", batched),
    ]


def _compared(
    name: str,
    ours: Sequence[Served],
    theirs: Sequence[Served],
    *,
    rate: float,
    preview: float,
) -> list[Entry]:
    rates = [mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True)]
    waits = [
        other.first_preview / mine.first_preview for mine, other in zip(ours, theirs, strict=True)
    ]
    return [
        _ratio(f"8 callers, pictures a second / {name}", rates, rate),
        _ratio(f"8 callers, {name} / time to the first preview", waits, preview),
    ]


def _ratio(name: str, ratios: Sequence[float], least: float) -> Entry:
    bound = Bound(">=", least)
    return Entry(name, statistics.median(ratios), "ratio", COMMAND, bound, _spread(ratios))


def _absolute(name: str, served: Sequence[Served]) -> list[Entry]:
    rates = [each.rate for each in served]
    waits = [each.first_preview for each in served]
    rate, wait = statistics.median(rates), statistics.median(waits)
    return [
        Entry(f"8 callers, {name}", rate, "pictures/s", COMMAND, None, _spread(rates)),
        Entry(f"8 callers, first preview, {name}", wait, "s", COMMAND, None, _spread(waits)),
    ]


def _spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / 2
