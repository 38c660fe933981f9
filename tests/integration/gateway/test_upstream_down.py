"""Services that are down, come back, or were never there."""

from __future__ import annotations

import asyncio

import grpc

from services.core.errors import NotReady
from services.core.server.status import abort
from tests.integration.gateway.fakes import (
    CLASSIFY,
    CLASSIFY_STREAM,
    Door,
    FakeService,
    failure,
    gateway,
    reason_of,
)

_PATIENCE_SECONDS = 20


async def test_unreachable_service_is_named() -> None:
    async with gateway() as door:
        for call in (door.method(CLASSIFY)(b""), door.method(CLASSIFY_STREAM)().read()):
            error = await failure(call)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.details() == "The classifier service cannot be reached."
            assert reason_of(error) == "UPSTREAM_UNREACHABLE"
        await door.idle("classifier")
        assert door.app.upstreams["classifier"].traffic.failed == 2


async def test_unresolvable_name_is_not_told_to_callers() -> None:
    async with gateway(classifier_target="dns:///secret.invalid:1") as door:
        error = await failure(door.method(CLASSIFY)(b""))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "secret" not in str(error.details())


async def test_refusal_of_a_service_is_not_taken_for_its_absence(
    door: Door, classifier: FakeService
) -> None:
    async def refuse(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await abort(context, NotReady("still loading"), "id-1")

    classifier.behaviors[CLASSIFY] = refuse
    error = await failure(door.method(CLASSIFY)(b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "still loading")


async def test_what_the_transport_says_is_not_told_to_callers(
    door: Door, classifier: FakeService
) -> None:
    async def fail(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "recvmsg: ipv4:10.0.0.7:50051")

    classifier.behaviors[CLASSIFY] = fail
    error = await failure(door.method(CLASSIFY)(b""))
    assert error.details() == "The classifier service cannot be reached."
    assert reason_of(error) == "UPSTREAM_UNREACHABLE"


async def test_service_that_dies_mid_stream() -> None:
    fake = FakeService("classifier")
    server = await fake.start()
    async with gateway(classifier_target=fake.target) as door:
        call = door.method(CLASSIFY_STREAM)()
        await call.write(b"a")
        assert await call.read() == b"a"
        await server.stop(None)
        error = await failure(call.read())
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await door.idle("classifier")


async def test_restarted_service_is_used_again() -> None:
    first = FakeService("classifier")
    server = await first.start()
    async with gateway(classifier_target=first.target) as door:
        assert await door.method(CLASSIFY)(b"1") == b"1"
        await server.stop(None)
        assert (await failure(door.method(CLASSIFY)(b""))).code() is grpc.StatusCode.UNAVAILABLE
        server = await FakeService("classifier").start(int(first.target.rpartition(":")[2]))
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await answer_or_none(door) != b"2":
                pass
    await server.stop(None)


async def answer_or_none(door: Door) -> bytes | None:
    try:
        answer: bytes = await door.method(CLASSIFY)(b"2")
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return None
    return answer
