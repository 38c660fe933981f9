"""A generator served as it is in a process of its own, over a fake network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.core.config import load_settings
from services.core.server.app import Address, serve
from services.generator.config import GeneratorSettings
from services.generator.service import GeneratorApp
from tests.unit.generator.fakes import FakeNetwork, fake_model


def fake_app(network: FakeNetwork, **settings: object) -> GeneratorApp:
    loaded = load_settings(GeneratorSettings, environ={}, **settings)
    return GeneratorApp(loaded, fake_model(network))


@asynccontextmanager
async def running(app: GeneratorApp) -> AsyncIterator[str]:
    """Run ``app`` on this loop as its process does, on a free port; gives its target."""
    stop = asyncio.Event()
    opened: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    server = asyncio.ensure_future(serve(app, stop=stop, opened=opened.set_result))
    target = (await opened).target
    try:
        await _ready(target)
        yield target
    finally:
        stop.set()
        code = await server
    assert code == 0


@asynccontextmanager
async def serving(app: GeneratorApp) -> AsyncIterator[grpc.aio.Channel]:
    async with running(app) as target, grpc.aio.insecure_channel(target) as channel:
        yield channel


@contextmanager
def serving_in_thread(app: GeneratorApp) -> Iterator[grpc.Channel]:
    """As ``serving``, for tests that are not coroutines."""
    opened: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        leave = asyncio.Event()
        async with running(app) as target:
            opened.set_result((target, asyncio.get_running_loop(), leave))
            await leave.wait()

    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(asyncio.run, run())
        ended.add_done_callback(lambda _: opened.cancel())
        target, loop, leave = opened.result()
        try:
            with grpc.insecure_channel(target) as channel:
                yield channel
        finally:
            loop.call_soon_threadsafe(leave.set)
            ended.result()


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds that nothing announces."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def _ready(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        async for response in watch:
            if response.status == health_pb2.HealthCheckResponse.SERVING:
                watch.cancel()
                return
