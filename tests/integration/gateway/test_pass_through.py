"""Calls through a real gateway to a service that is told what to do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from gateway.routing import ROUTES
from services.core.server.metrics import CODE_LABELS
from services.core.server.status import DETAILS_KEY
from tests.integration.core.echo import eventually
from tests.integration.gateway.fakes import (
    CLASSIFY,
    CLASSIFY_STREAM,
    COLLECT,
    GENERATE,
    LIST_MODELS,
    START_JOB,
    Door,
    FakeService,
    failure,
    gateway,
    reason_of,
)


async def stream_of(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def _calls() -> dict[int, object]:
    """Those of this process, by id; told by type, for some objects act when they are asked."""
    found = (each for each in gc.get_objects() if issubclass(type(each), grpc.aio.Call))
    return {id(call): call for call in found}


class TestShapes:
    async def test_unary(self, door: Door) -> None:
        assert await door.method(CLASSIFY)(b"not even a message") == b"not even a message"

    async def test_server_stream(self, door: Door) -> None:
        assert [m async for m in door.method(GENERATE)(b"one")] == [b"one"] * 3

    async def test_client_stream(self, door: Door) -> None:
        assert await door.method(COLLECT.path)(stream_of(b"a", b"b", b"c")) == b"abc"

    async def test_bidi(self, door: Door) -> None:
        sent = [str(i).encode() for i in range(100)]
        assert [m async for m in door.method(CLASSIFY_STREAM)(stream_of(*sent))] == sent

    async def test_bidi_answers_before_the_caller_is_done(self, door: Door) -> None:
        call = door.method(CLASSIFY_STREAM)()
        for word in (b"one", b"two"):
            await call.write(word)
            assert await call.read() == word
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async def test_empty_stream(self, door: Door) -> None:
        assert [m async for m in door.method(CLASSIFY_STREAM)(stream_of())] == []

    async def test_empty_answers(self, door: Door, generator: FakeService) -> None:
        async def nothing(request: bytes, context: Any) -> AsyncIterator[bytes]:
            return
            yield

        generator.behaviors[GENERATE] = nothing
        assert [m async for m in door.method(GENERATE)(b"")] == []

    async def test_half_close_reaches_the_service(
        self, door: Door, classifier: FakeService
    ) -> None:
        async def count(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            yield str(len([request async for request in requests])).encode()

        classifier.behaviors[CLASSIFY_STREAM] = count
        call = door.method(CLASSIFY_STREAM)(stream_of(b"a", b"b"))
        assert [m async for m in call] == [b"2"]

    async def test_service_that_ends_first(self, door: Door, classifier: FakeService) -> None:
        async def one(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            yield await anext(requests)

        classifier.behaviors[CLASSIFY_STREAM] = one
        call = door.method(CLASSIFY_STREAM)()
        await call.write(b"only")
        assert [await call.read(), await call.read()] == [b"only", grpc.aio.EOF]
        assert await call.code() is grpc.StatusCode.OK
        await door.idle("classifier")

    async def test_slow_reader_holds_the_service_back(
        self, door: Door, generator: FakeService
    ) -> None:
        messages, sent = 2000, 0

        async def flood(request: bytes, context: Any) -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(messages):
                sent += 1
                yield bytes(2**16)

        generator.behaviors[GENERATE] = flood
        call = door.method(GENERATE)(b"")
        await call.read()
        for _ in range(50):
            await door.method(CLASSIFY)(b"")
        assert sent < messages // 2
        call.cancel()
        await door.idle("generator")


class TestMetadata:
    async def test_crosses_both_ways(self, door: Door, classifier: FakeService) -> None:
        seen: dict[str, Any] = {}

        async def tell(request: bytes, context: Any) -> bytes:
            seen.update(context.invocation_metadata())
            await context.send_initial_metadata((("x-first", "1"), ("x-raw-bin", b"\0\xff")))
            context.set_trailing_metadata((("x-last", "2"),))
            return b""

        classifier.behaviors[CLASSIFY] = tell
        call = door.method(CLASSIFY)(
            b"", metadata=(("x-mine", "3"), ("x-mine-bin", b"\xfe"), ("easel-tenant", "acme"))
        )
        await call
        initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        assert (seen["x-mine"], seen["x-mine-bin"], seen["easel-tenant"]) == ("3", b"\xfe", "acme")
        assert (initial["x-first"], initial["x-raw-bin"]) == ("1", b"\0\xff")
        assert trailing["x-last"] == "2"

    async def test_crosses_streams(self, door: Door, classifier: FakeService) -> None:
        async def tell(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            await context.send_initial_metadata((("x-first", "1"),))
            async for request in requests:
                yield request
            context.set_trailing_metadata((("x-last", "2"),))

        classifier.behaviors[CLASSIFY_STREAM] = tell
        call = door.method(CLASSIFY_STREAM)()
        # Before anything is sent: a caller may wait for it.
        assert (await call.initial_metadata())["x-first"] == "1"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert (await call.trailing_metadata())["x-last"] == "2"

    async def test_request_id_and_trace_continue(self, door: Door, classifier: FakeService) -> None:
        seen: list[tuple[str, Any]] = []

        async def tell(request: bytes, context: Any) -> bytes:
            seen.extend(context.invocation_metadata())
            return b""

        classifier.behaviors[CLASSIFY] = tell
        trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        metadata = (("x-request-id", "r-1"), ("traceparent", f"00-{trace}-{span}-01"))
        call = door.method(CLASSIFY)(b"", metadata=metadata)
        await call
        assert [value for key, value in seen if key == "x-request-id"] == ["r-1"]
        (parent,) = [value for key, value in seen if key == "traceparent"]
        assert trace in parent
        assert span not in parent
        answered = (await call.trailing_metadata()).get_all("x-request-id")
        assert answered == ["r-1"]


class TestDeadline:
    async def test_service_sees_what_is_left(self, door: Door, classifier: FakeService) -> None:
        async def tell(request: bytes, context: Any) -> bytes:
            return str(context.time_remaining()).encode()

        classifier.behaviors[CLASSIFY] = tell
        # gRPC rounds the time up on each hop, by less than 1 in 100.
        assert 0 < float(await door.method(CLASSIFY)(b"", timeout=60)) < 61
        assert await door.method(CLASSIFY)(b"") == b"None"

    @pytest.mark.parametrize("path", [CLASSIFY, CLASSIFY_STREAM])
    async def test_ends_the_call_on_both_sides(
        self, path: str, door: Door, classifier: FakeService
    ) -> None:
        ended = asyncio.Event()
        classifier.behaviors[path] = until_cancelled(asyncio.Event(), ended)
        argument = stream_of(b"") if path == CLASSIFY_STREAM else b""
        call = door.method(path)(argument, timeout=0.3)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await ended.wait()
        await door.idle("classifier")


class TestCancellation:
    @pytest.mark.parametrize("path", [CLASSIFY, COLLECT.path, GENERATE, CLASSIFY_STREAM])
    async def test_reaches_the_service(
        self, path: str, door: Door, classifier: FakeService, generator: FakeService
    ) -> None:
        begun, ended = asyncio.Event(), asyncio.Event()
        fake = generator if path == GENERATE else classifier
        fake.behaviors[path] = until_cancelled(begun, ended)
        streams = path in (COLLECT.path, CLASSIFY_STREAM)
        call = door.method(path)(stream_of(b"a") if streams else b"a")
        await begun.wait()
        call.cancel()
        await ended.wait()
        await door.idle(fake.name)

    async def test_caller_gone_mid_stream_leaves_nothing(
        self, classifier: FakeService, door: Door
    ) -> None:
        before = asyncio.all_tasks()
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(door.address.target, options)
        call: Any = channel.stream_stream(CLASSIFY_STREAM)()
        await call.write(b"a")
        assert await call.read() == b"a"
        await channel.close(None)
        await door.idle("classifier")
        # What remains beyond the servers' own loops would be a pump that nobody ends.
        left = {task for task in asyncio.all_tasks() - before if "_request_call" not in repr(task)}
        _, pending = await asyncio.wait({asyncio.create_task(asyncio.sleep(0)), *left}, timeout=10)
        assert not pending
        assert door.sample(
            "grpc_client_handled_total",
            grpc_type="bidi_stream",
            grpc_service="easel.classifier.v1.ClassifierService",
            grpc_method="ClassifyStream",
            grpc_code=CODE_LABELS[grpc.StatusCode.CANCELLED],
        )

    async def test_two_hundred_in_a_row(self, door: Door, generator: FakeService) -> None:
        for _ in range(200):
            call = door.method(GENERATE)(b"a")
            await call.read()
            call.cancel()
        await door.idle("generator")
        assert door.app.upstreams["generator"].traffic.failed == 0


class TestErrors:
    async def test_rich_details_are_unchanged(self, door: Door, classifier: FakeService) -> None:
        details = rich_status().SerializeToString()

        async def refuse(request: bytes, context: Any) -> bytes:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "steps: too many",
                (("grpc-status-details-bin", details), ("x-more", "1")),
            )
            return b""

        classifier.behaviors[CLASSIFY] = refuse
        error = await failure(door.method(CLASSIFY)(b""))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "steps: too many"
        trailing = error.trailing_metadata()
        assert trailing.get_all("grpc-status-details-bin") == [details]
        assert trailing["x-more"] == "1"
        assert len(trailing.get_all("x-request-id")) == 1

    async def test_mid_stream(self, door: Door, generator: FakeService) -> None:
        details = rich_status().SerializeToString()

        async def break_off(request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield b"one"
            await context.abort(
                grpc.StatusCode.ABORTED, "broke", (("grpc-status-details-bin", details),)
            )

        generator.behaviors[GENERATE] = break_off
        call = door.method(GENERATE)(b"")
        assert await call.read() == b"one"
        with pytest.raises(grpc.aio.AioRpcError, match="broke") as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert (await call.trailing_metadata())["grpc-status-details-bin"] == details
        assert door.app.upstreams["generator"].traffic.failed == 1

    @pytest.mark.parametrize(
        "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    )
    async def test_every_code_stays(
        self, code: grpc.StatusCode, door: Door, classifier: FakeService
    ) -> None:
        async def refuse(request: bytes, context: Any) -> bytes:
            await context.abort(code, "why", ((DETAILS_KEY, details),))
            return b""

        details = status_pb2.Status(code=code.value[0], message="why").SerializeToString()
        classifier.behaviors[CLASSIFY] = refuse
        error = await failure(door.method(CLASSIFY)(b""))
        assert (error.code(), error.details()) == (code, "why")

    @pytest.mark.parametrize("path", [CLASSIFY, CLASSIFY_STREAM, COLLECT.path])
    async def test_a_call_that_failed_is_not_left_to_the_collector(
        self, path: str, door: Door, classifier: FakeService
    ) -> None:
        """It keeps its channel, which goes on connecting for it once the gateway has closed it."""

        async def refuse(request: object, context: Any) -> Any:
            await context.abort(grpc.StatusCode.INTERNAL, "why")

        async def refuse_stream(request: object, context: Any) -> AsyncIterator[bytes]:
            await context.abort(grpc.StatusCode.INTERNAL, "why")
            yield b""

        behavior = refuse_stream if path == CLASSIFY_STREAM else refuse
        classifier.behaviors[path] = behavior
        # A single request, or a stream of a single byte.
        call = door.method(path)(b"" if path == CLASSIFY else stream_of(b""))
        gc.collect()
        before = _calls()
        gc.disable()
        try:
            assert await call.code() is grpc.StatusCode.INTERNAL
            await eventually(lambda: _calls().keys() <= before.keys())
        finally:
            gc.enable()

    async def test_message_over_the_limit(self, classifier: FakeService) -> None:
        async with gateway(classifier_target=classifier.target, max_message_bytes=2**16) as door:
            for call in (
                door.method(CLASSIFY)(bytes(2**17)),
                door.method(COLLECT.path)(stream_of(b"", bytes(2**17))),
            ):
                assert (await failure(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await door.idle("classifier")

    async def test_answer_over_the_limit(self, classifier: FakeService) -> None:
        async def flood(request: bytes, context: Any) -> bytes:
            return bytes(2**17)

        classifier.behaviors[CLASSIFY] = flood
        async with gateway(classifier_target=classifier.target, max_message_bytes=2**16) as door:
            error = await failure(door.method(CLASSIFY)(b""))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def test_unknown_method(self, door: Door) -> None:
        call: Any = door.channel.unary_unary("/easel.classifier.v1.ClassifierService/Nothing")
        assert (await failure(call(b""))).code() is grpc.StatusCode.UNIMPLEMENTED

    async def test_service_that_is_not_configured(self, door: Door) -> None:
        error = await failure(door.method(START_JOB)(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "trainer" in str(error.details())
        assert reason_of(error) == "UPSTREAM_NOT_CONFIGURED"


class TestModelService:
    async def test_goes_where_the_caller_says(
        self, door: Door, classifier: FakeService, generator: FakeService
    ) -> None:
        for fake in (classifier, generator):
            fake.behaviors[LIST_MODELS] = constant(fake.name.encode())
        call = door.method(LIST_MODELS)
        for name in ("classifier", "generator"):
            assert await call(b"", metadata=(("easel-service", name),)) == name.encode()

    async def test_needs_the_key(self, door: Door) -> None:
        for metadata in ((), (("easel-service", "ranker"),)):
            error = await failure(door.method(LIST_MODELS)(b"", metadata=metadata))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "easel-service to classifier or generator" in str(error.details())


class TestMetrics:
    async def test_every_call_is_counted(self, door: Door) -> None:
        await door.method(CLASSIFY)(b"")
        await failure(door.method(START_JOB)(b""))
        route = ROUTES[CLASSIFY]
        labels = {
            "grpc_type": "unary",
            "grpc_service": route.service,
            "grpc_method": route.method,
        }
        for side in ("server", "client"):
            assert door.sample(f"grpc_{side}_handled_total", grpc_code="OK", **labels) == 1
            assert door.sample(f"grpc_{side}_handling_seconds_count", **labels) == 1
        traffic = door.app.upstreams["classifier"].traffic
        assert (traffic.started, traffic.ended, traffic.failed) == (1, 1, 0)
        assert traffic.mean_seconds > 0


def constant(answer: bytes) -> Any:
    async def behavior(request: bytes, context: Any) -> bytes:
        return answer

    return behavior


def until_cancelled(begun: asyncio.Event, ended: asyncio.Event) -> Any:
    """A coroutine handler of any shape that waits for ever and tells how it ends."""

    async def behavior(request: Any, context: Any) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    return behavior


def rich_status() -> status_pb2.Status:
    status = status_pb2.Status(code=3, message="steps: too many")
    violations = error_details_pb2.BadRequest()
    violations.field_violations.add(field="steps", description="too many")
    status.details.add().Pack(violations)
    return status
