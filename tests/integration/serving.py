"""An application served as it is in a process of its own, on this loop or in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.core.server.app import Address, Application, serve


@asynccontextmanager
async def running(app: Application) -> AsyncIterator[str]:
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
async def serving(app: Application) -> AsyncIterator[grpc.aio.Channel]:
    async with running(app) as target, grpc.aio.insecure_channel(target) as channel:
        yield channel


@contextmanager
def serving_in_thread(app: Application) -> Iterator[grpc.Channel]:
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


async def _ready(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        async for response in watch:
            if response.status == health_pb2.HealthCheckResponse.SERVING:
                watch.cancel()
                return
