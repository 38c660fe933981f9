"""The application over one engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import grpc
import pytest

from services.core.config import ServiceSettings, load_settings
from services.core.engine import EngineLimits, InlineDevice
from services.core.errors import Draining
from services.core.pool import WorkerPool
from services.core.server.engine_app import EngineApplication
from tests.unit.core.engine.fake_model import FakeClock, FakeModel, FakeWork


class FakeApplication(EngineApplication[FakeWork, str]):
    settings = load_settings(ServiceSettings, environ={})
    service_names = ()

    def register(self, server: grpc.aio.Server) -> None:
        """No servicers."""


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool("test", threads=2, max_pending=2)
    yield pool
    pool.close()


@pytest.fixture
def app(pool: WorkerPool) -> FakeApplication:
    model = FakeModel(FakeClock())
    app = FakeApplication(model, name="fake", limits=EngineLimits(), device=InlineDevice())
    app.pools = (pool,)
    return app


async def keep_asking(pool: WorkerPool) -> None:
    while True:
        await pool.run(str, 1)


async def test_a_pool_whose_call_hangs_leaves_the_loop_alive(
    app: FakeApplication, pool: WorkerPool
) -> None:
    opened = threading.Event()
    running = asyncio.create_task(pool.run(opened.wait, 10))
    closing = asyncio.create_task(app.close())
    with pytest.raises(Draining):
        await keep_asking(pool)
    opened.set()
    assert await running
    await closing


async def test_a_drain_waits_for_what_is_being_encoded(
    app: FakeApplication, pool: WorkerPool
) -> None:
    app.load()
    await app.start()
    opened = threading.Event()
    encoding = asyncio.create_task(pool.run(opened.wait, 10))
    await asyncio.sleep(0)
    await app.drain(0.0)
    assert not encoding.done()
    draining = asyncio.create_task(app.drain(60.0))
    opened.set()
    await draining
    assert pool.pending == 0
    assert await encoding
    await app.close()
