"""Deadlines, degrading, priorities and tenants from a caller's metadata to the device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from services.generator.network import Look
from tests.integration.generator.server import fake_app, until
from tests.integration.serving import serving
from tests.unit.generator.fakes import FakeNetwork
from tests.unit.generator.timed import TimedNetwork

STEP_SECONDS = 0.05


@dataclass
class SlowStart(FakeNetwork):
    """Takes its time only while the engine learns what a step costs."""

    learning: bool = True

    def predict(self, look: Any) -> Any:
        assert isinstance(look, Look)
        if self.learning:
            time.sleep(STEP_SECONDS)
        return super().predict(look)


class Service:
    """A generator that believes its steps to be slow."""

    def __init__(self, *, least_steps: int = 20) -> None:
        self.network = SlowStart()
        self.app = fake_app(self.network, max_batch_rows=1, degrade_min_steps=least_steps)
        self.stub: generator_pb2_grpc.GeneratorServiceAsyncStub

    async def holds(self, rows: int) -> None:
        await until(lambda: self.app.engine.report().rows == rows)

    async def generate(self, seconds: float, **fields: Any) -> list[pb.GenerateEvent]:
        request = pb.GenerateRequest(prompt="a star", guidance_scale=1.0, **fields)
        return [event async for event in self.stub.Generate(request, timeout=seconds)]


@asynccontextmanager
async def opened(running: Service) -> AsyncIterator[Service]:
    async with serving(running.app) as channel:
        running.network.learning = False
        running.stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        yield running
        await running.holds(0)


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    async with opened(Service()) as running:
        yield running


async def test_fewer_steps_are_told_everywhere(service: Service) -> None:
    events = await service.generate(5.0, steps=150, allow_degrade=True, seed=3)
    admitted, image = events[0].admitted, events[-1].image
    assert 20 <= admitted.steps < 150
    assert image.degraded
    assert image.steps == image.provenance.request.steps == admitted.steps
    [*_, again] = [event async for event in service.stub.Generate(image.provenance.request)]
    assert again.image.provenance.pixel_sha256 == image.provenance.pixel_sha256
    assert not again.image.degraded


async def test_without_leave_it_is_refused_and_told_when_to_come_back(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.generate(5.0, steps=150)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(refused.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0.0


async def test_the_least_number_of_steps_is_kept() -> None:
    # 100 steps take 5 s or more, and the refusal has 4 s for its way.
    async with opened(Service(least_steps=100)) as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.generate(4.0, steps=150, allow_degrade=True)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_priorities_and_tenants_reach_the_rows() -> None:
    network = TimedNetwork()
    ended: list[str] = []
    app = fake_app(network, clock=network.clock, max_batch_rows=1)
    async with serving(app) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)

        # Far enough apart that their answers are on their way in the order they were made in.
        steps = {"a": 60, "b": 60, "c": 20, "d": 6}

        async def paint(name: str, tenant: str, priority: int) -> None:
            metadata = (("easel-tenant", tenant), ("easel-priority", str(priority)))
            width = 64 if name == "b" else 32
            request = pb.GenerateRequest(prompt="a star", steps=steps[name], width=width)
            async for _ in stub.Generate(request, metadata=metadata):
                pass
            ended.append(name)

        network.gate.clear()
        waiting = []
        for name, tenant, priority in (("a", "x", 0), ("b", "x", 0), ("c", "y", 0), ("d", "x", 5)):
            waiting.append(asyncio.ensure_future(paint(name, tenant, priority)))
            await until(lambda: app.engine.report().rows == len(waiting))
        network.gate.set()
        await asyncio.gather(*waiting)
    assert ended[0] == "d"
    # One tenant has two pictures under way, the other one.
    assert ended.index("c") < 3
