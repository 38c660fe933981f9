"""The result cache, as callers and Prometheus see it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from services.generator.service import GeneratorApp
from tests.integration.generator.server import fake_app, until
from tests.integration.serving import serving
from tests.unit.generator.fakes import FakeNetwork


async def made(stub: Any, **fields: Any) -> list[pb.GeneratedImage]:
    request = pb.GenerateRequest(**{"prompt": "a star", "steps": 3, "seed": 5, **fields})
    return [event.image async for event in stub.Generate(request) if event.HasField("image")]


def asked(app: GeneratorApp, outcome: str) -> float | None:
    name = "easel_result_cache_requests_total"
    return app.registry.get_sample_value(name, {"outcome": outcome})


async def test_answers_say_that_they_were_kept() -> None:
    app = fake_app(FakeNetwork(), result_cache_bytes=1 << 20)
    async with serving(app) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        [first] = await made(stub, id="a")
        [again] = await made(stub, id="b", omit_steps=True)
        assert (first.cached, again.cached) == (False, True)
        assert again.timing == common_pb2.Timing()
        assert first.timing.steps == 5
        assert (first.image, first.provenance) == (again.image, again.provenance)
        verified = await stub.Verify(pb.VerifyRequest(image=again.image))
        assert verified.verdict == pb.VERDICT_EQUAL
    assert (asked(app, "miss"), asked(app, "hit"), asked(app, "join")) == (1, 1, 0)
    held = app.registry.get_sample_value("easel_result_cache_bytes")
    assert held == pytest.approx(len(first.image.encoded), abs=4096)


async def test_equal_requests_at_once_are_made_once() -> None:
    network = FakeNetwork()
    app = fake_app(network, result_cache_bytes=1 << 20)
    async with serving(app) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        network.gate.clear()
        calls = [asyncio.create_task(made(stub, count=2)) for _ in range(5)]
        await until(lambda: asked(app, "join") == 4)
        assert app.engine.report().rows <= 2
        network.gate.set()
        pictures = [await call for call in calls]
    digests = {tuple(sorted(p.provenance.pixel_sha256 for p in each)) for each in pictures}
    assert len(digests) == 1
    assert (asked(app, "miss"), asked(app, "join")) == (1, 4)


async def test_off_by_default() -> None:
    app = fake_app(FakeNetwork())
    async with serving(app) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        assert [picture.cached for _ in range(2) for picture in await made(stub)] == [False] * 2
    assert asked(app, "miss") is None
