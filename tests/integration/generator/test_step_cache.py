"""Step caching over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from tests.integration.generator.server import fake_app
from tests.integration.serving import serving
from tests.unit.generator.test_step_cache import Layered


@pytest_asyncio.fixture
async def stub() -> AsyncIterator[generator_pb2_grpc.GeneratorServiceAsyncStub]:
    async with serving(fake_app(Layered())) as channel:
        yield generator_pb2_grpc.GeneratorServiceStub(channel)


async def image(
    stub: generator_pb2_grpc.GeneratorServiceAsyncStub, **fields: Any
) -> pb.GeneratedImage:
    [*_, last] = [event async for event in stub.Generate(pb.GenerateRequest(**fields))]
    return last.image


async def test_a_cached_picture_can_be_made_again(
    stub: generator_pb2_grpc.GeneratorServiceAsyncStub,
) -> None:
    plain = await image(stub, prompt="a star", seed=1, steps=8)
    off = await image(stub, prompt="a star", seed=1, steps=8, cache_interval=1)
    cached = await image(stub, prompt="a star", seed=1, steps=8, cache_interval=4)
    assert off.provenance.pixel_sha256 == plain.provenance.pixel_sha256
    assert cached.provenance.pixel_sha256 != plain.provenance.pixel_sha256
    assert cached.provenance.request.cache_interval == 4
    assert b"Cache interval: 4" in cached.image.encoded
    assert b"Cache interval" not in off.image.encoded
    again = await image(
        stub, **{field.name: value for field, value in cached.provenance.request.ListFields()}
    )
    assert again.provenance.pixel_sha256 == cached.provenance.pixel_sha256


async def test_every_step_is_told(stub: generator_pb2_grpc.GeneratorServiceAsyncStub) -> None:
    asked = pb.GenerateRequest(prompt="a star", steps=5, cache_interval=2)
    events = [event async for event in stub.Generate(asked)]
    assert events[-1].image.timing.steps == 7
    told = [event.step.step for event in events if event.HasField("step")]
    assert told == sorted(set(told))


async def test_beyond_the_limit(stub: generator_pb2_grpc.GeneratorServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await image(stub, prompt="a star", cache_interval=11)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "cache_interval" in str(caught.value.details())
    assert (await image(stub, prompt="a star", cache_interval=10)).steps == 6
