"""From a client's cancel to the release of its row, over a real socket, on the demo generator.

Client and server share one process and so one clock. A release is seen on the engine's own count
of rows, looked at every half millisecond: that is added to each figure, never taken off.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from functools import partial

import grpc
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from benchmarks.report import Bound, Entry, quick
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from models import DEMO_GENERATOR
from services.core.config import load_settings
from services.core.reference import resolve
from services.core.server.app import Address, serve
from services.generator import pytorch
from services.generator.config import GeneratorSettings
from services.generator.model import GeneratorModel
from services.generator.service import GeneratorApp

CANCELS = 40 if quick() else 200
STEPS = 150
COMMAND = "make bench-core"
LOOK_SECONDS = 0.0005


def application() -> GeneratorApp:
    settings = load_settings(GeneratorSettings, environ={})
    load = partial(pytorch.load, device="cpu", precision="float32", threads=1)
    model = GeneratorModel(partial(resolve, str(DEMO_GENERATOR)), load, warm_up_seconds=0.5)
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


def longest_step(app: GeneratorApp) -> float:
    """Seconds, by the engine's own histogram: the upper edge of the last bucket that was hit."""
    edge, seen = 0.0, 0.0
    for sample in samples(app, "easel_step_seconds_bucket"):
        if sample.labels["stage"] == "denoise" and sample.value > seen:
            edge, seen = float(sample.labels["le"]), sample.value
    return edge


def rows_left(app: GeneratorApp) -> float:
    return sum(sample.value for sample in samples(app, "easel_rows"))


def samples(app: GeneratorApp, name: str) -> list[Sample]:
    metrics = app.registry.collect()
    return [sample for metric in metrics for sample in metric.samples if sample.name == name]


async def entries() -> list[Entry]:
    app, stop = application(), asyncio.Event()
    opened: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(app, stop=stop, opened=opened.set_result))
    address = await opened
    await until_serving(address.target)
    seconds = await releases(app, address.target)
    step, left = longest_step(app), rows_left(app)
    stop.set()
    await server
    return [
        Entry("cancels in a row", len(seconds), "cancels", COMMAND),
        Entry("cancel to release, median", statistics.median(seconds), "s", COMMAND),
        Entry("cancel to release, longest", max(seconds), "s", COMMAND, Bound("<=", step + 0.05)),
        Entry("rows left in the gauges", left, "rows", COMMAND, Bound("<=", 0)),
    ]


async def until_serving(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        for _ in range(600):
            try:
                async for _event in stub.Generate(request(steps=1)):
                    pass
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.1)
    raise RuntimeError("the generator did not become ready")
