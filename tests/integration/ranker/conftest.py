"""A real ranker between real upstream servers, all on free loopback ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from easel.ranker.v1 import ranker_pb2_grpc
from ranker.config import RankerSettings
from ranker.pictures.judges.reward import Plugins
from ranker.service import SERVICE_NAME, RankerApp
from services.core.config import load_settings
from services.core.server.app import Address, serve
from tests.integration.ranker.upstreams import Upstreams, upstreams


@dataclass(frozen=True, slots=True)
class RunningRanker:
    stub: Any
    channel: grpc.aio.Channel
    app: RankerApp
    upstreams: Upstreams
    target: str

    def metric(self, name: str, **labels: str) -> float:
        return self.app.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running_ranker(
    up: Upstreams, plugins: Plugins | None = None, **settings: Any
) -> AsyncIterator[RunningRanker]:
    values = {
        "classifier_target": up.classifier_target,
        "generator_target": up.generator_target,
        "drain_timeout_seconds": 0.0,
        **settings,
    }
    app = RankerApp(
        load_settings(RankerSettings, environ={}, **values), CollectorRegistry(), plugins
    )
    stop: asyncio.Event = asyncio.Event()
    opened: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(app, stop=stop, opened=opened.set_result))
    try:
        address = await opened
        async with grpc.aio.insecure_channel(address.target) as channel:
            await _until_serving(channel)
            stub: Any = ranker_pb2_grpc.RankerServiceStub(channel)
            yield RunningRanker(stub, channel, app, up, address.target)
    finally:
        stop.set()
        assert await serving == 0


async def _until_serving(channel: grpc.aio.Channel) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service=SERVICE_NAME)
    )
    async for answer in watch:
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            watch.cancel()
            return


@pytest.fixture
async def each_ranker(database_url: str) -> AsyncIterator[RunningRanker]:
    """One on each kind of database."""
    async with upstreams() as up, running_ranker(up, database_url=database_url) as running:
        yield running


@pytest.fixture
async def ranker() -> AsyncIterator[RunningRanker]:
    async with upstreams() as up, running_ranker(up) as running:
        yield running
