"""From a client's cancel to the release of its row, over a real socket, on the demo generator.

Client and server share one process and so one clock. A release is seen on the engine's own count
of rows, looked at every half millisecond: that is added to each figure, never taken off.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import grpc
from prometheus_client import CollectorRegistry

from benchmarks.report import Bound, Entry, quick
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from models import DEMO_GENERATOR
from services.core.config import load_settings
from services.core.engine import Stage
from services.core.reference import resolve
from services.core.server.app import Address, serve
from services.generator import pytorch
from services.generator.config import GeneratorSettings
from services.generator.diffusion import Answer, PictureWork
from services.generator.model import GeneratorModel
from services.generator.service import GeneratorApp

CANCELS = 40 if quick() else 200
STEPS = 150
COMMAND = "make bench-core"
LOOK_SECONDS = 0.0005


class TimedModel(GeneratorModel):
    """Keeps the seconds of the longest step since ``forget``, of whatever stage."""

    longest_step = 0.0

    def forget(self) -> None:
        """Leaves out what was: warm-up steps larger batches than are measured."""
        self.longest_step = 0.0

    def step(self, stage: Stage, works: Sequence[PictureWork]) -> Sequence[Answer]:
        began = time.monotonic()
        try:
            return super().step(stage, works)
        finally:
            self.longest_step = max(self.longest_step, time.monotonic() - began)


def demo_model() -> TimedModel:
    load = partial(pytorch.load, device="cpu", precision="float32", threads=1)
    return TimedModel(partial(resolve, str(DEMO_GENERATOR)), load, warm_up_seconds=0.5)


def application(model: TimedModel) -> GeneratorApp:
    settings = load_settings(GeneratorSettings, environ={})
    return GeneratorApp(settings, model, registry=CollectorRegistry())


def request(steps: int) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        text_to_image=pb.TextToImage(), prompt="a red star", steps=steps, seed=1
    )


async def cancelled(stub: generator_pb2_grpc.GeneratorServiceAsyncStub, step: int) -> float:
    """Moment at which a generation was cancelled by its client, after ``step`` steps."""
    call = stub.Generate(request(STEPS))
    async for event in call:
        if event.WhichOneof("event") == "step" and event.step.step >= step:
            break
    moment = time.monotonic()
    call.cancel()
    return moment


async def released(app: GeneratorApp) -> float:
    """Moment at which the engine has no row."""
    while app.engine.report().rows:  # noqa: ASYNC110  # looking must not change what is measured
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic()


async def releases(app: GeneratorApp, target: str) -> list[float]:
    """Seconds of each of CANCELS cancels, one after another."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        seconds = []
        for step in itertools.islice(itertools.cycle(range(1, 6)), CANCELS):
            began = await cancelled(stub, step)
            seconds.append(await released(app) - began)
    return seconds


def rows_left(app: GeneratorApp) -> float:
    samples = [sample for metric in app.registry.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.name == "easel_rows")


async def entries() -> list[Entry]:
    model, stop = demo_model(), asyncio.Event()
    app = application(model)
    opened: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(app, stop=stop, opened=opened.set_result))
    address = await opened
    await until_serving(address.target)
    model.forget()
    seconds = await releases(app, address.target)
    step, left = model.longest_step, rows_left(app)
    stop.set()
    await server
    return [
        Entry("cancels in a row", len(seconds), "cancels", COMMAND),
        Entry("cancel to release, median", statistics.median(seconds), "s", COMMAND),
        Entry("longest step", step, "s", COMMAND),
        Entry("cancel to release, longest", max(seconds), "s", COMMAND, Bound("<=", step + 0.05)),
        Entry("rows left in the gauges", left, "rows", COMMAND, Bound("<=", 0)),
    ]


async def until_serving(
    target: str, seconds: float = 60.0, *, ended: Callable[[], int | None] = lambda: None
) -> None:
    """Returns once a picture was made; about ``seconds`` are waited for it, and not for a server
    that has ``ended``. Raises ``RuntimeError``.
    """
    async with grpc.aio.insecure_channel(target) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        for _ in range(round(seconds / 0.1)):
            try:
                async for _event in stub.Generate(request(steps=1)):
                    pass
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                if ended() is not None:
                    raise RuntimeError(f"the generator ended with {ended()}") from error
                await asyncio.sleep(0.1)
    raise RuntimeError("the generator did not become ready")
