"""Random bytes to every method: the gateway never fails by itself, and keeps nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.gateway.fakes import TEST_ROUTES, Door, FakeService, gateway

# The services behind echo, so any other code would be the gateway's own.
CODES = {
    ("classifier",): grpc.StatusCode.OK,
    ("generator",): grpc.StatusCode.OK,
    ("ranker",): grpc.StatusCode.OK,
    ("trainer",): grpc.StatusCode.UNIMPLEMENTED,
    ("classifier", "generator"): grpc.StatusCode.INVALID_ARGUMENT,
}


@pytest.fixture
async def echoes(classifier: FakeService) -> AsyncIterator[Door]:
    target = classifier.target
    async with gateway(
        classifier_target=target, generator_target=target, ranker_target=target
    ) as opened:
        yield opened


async def code_of(door: Door, path: str, messages: list[bytes]) -> grpc.StatusCode:
    async def stream() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    sends_many, gets_many = TEST_ROUTES[path].shape.value
    call = door.method(path)(stream() if sends_many else b"".join(messages))
    # gRPC tells no code before every answer is read.
    while gets_many and await read_or_none(call) is not None:
        pass
    code: grpc.StatusCode = await call.code()
    return code


async def read_or_none(call: Any) -> bytes | None:
    try:
        message: Any = await call.read()
    except grpc.aio.AioRpcError:
        return None
    return None if message is grpc.aio.EOF else message


@pytest.mark.parametrize("path", TEST_ROUTES)
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(messages=st.lists(st.binary(max_size=300), max_size=4))
async def test_random_bytes(path: str, messages: list[bytes], echoes: Door) -> None:
    assert await code_of(echoes, path, messages) is CODES[TEST_ROUTES[path].upstreams]
    for name in echoes.app.upstreams:
        await echoes.idle(name)
