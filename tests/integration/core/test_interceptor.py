"""The interceptor around every shape and style of RPC, on real servers."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import weakref
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from prometheus_client import CollectorRegistry

from services.core.errors import InvalidInput, Overloaded
from services.core.log import JsonHandler
from services.core.server import status
from services.core.server.interceptor import MAX_METHODS, CallInterceptor
from services.core.server.metrics import CODE_LABELS, ServerMetrics
from tests.integration.core.echo import (
    ERRORS,
    SECRET,
    SERVED,
    SERVICE,
    SHAPES,
    Echo,
    Running,
    answers,
    connected,
    eventually,
    invoke,
    running,
)

pytestmark = pytest.mark.timeout(60)


def is_handled(server: Running, shape: str, label: str, count: int) -> bool:
    return server.handled(shape, label) == count


async def failure(call: Any, shape: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answers(call, shape)
    return caught.value


@pytest.mark.parametrize("shape", SERVED)
async def test_ok(shape: str) -> None:
    async with running() as server, connected(server.target) as channel:
        streaming, responds = SHAPES[shape]
        texts = ["a", "b"] if streaming else ["b"]
        expected = (["a", "b"] if responds else ["a b"]) if streaming else ["first", "b"]
        call = invoke(channel, shape, *texts, metadata=(("x-request-id", "id-1"),))
        assert await answers(call, shape) == (expected if streaming or responds else ["b"])
        assert ("x-request-id", "id-1") in tuple(await call.trailing_metadata())
        await eventually(lambda: server.handled(shape, "OK") == 1)
        sent = len(expected) if responds else 1
        assert server.metric("grpc_server_started_total", shape) == 1
        assert server.metric("grpc_server_msg_received_total", shape) == len(texts)
        assert server.metric("grpc_server_msg_sent_total", shape) == sent
        assert server.metric("grpc_server_handling_seconds_count", shape) == 1


@pytest.mark.parametrize("shape", SERVED)
async def test_errors_of_our_tree(shape: str) -> None:
    async with running() as server, connected(server.target) as channel:
        for name, error in ERRORS.items():
            failed = await failure(
                invoke(channel, shape, name, metadata=(("x-request-id", "id-1"),)), shape
            )
            code = status.status_code(error)
            assert failed.code() is code
            assert SECRET not in repr(failed)
            after = status.from_rpc_error(failed)
            if code is not grpc.StatusCode.INTERNAL:
                assert vars(after) == vars(error)
            assert ("x-request-id", "id-1") in tuple(failed.trailing_metadata())
        codes = [CODE_LABELS[status.status_code(error)] for error in ERRORS.values()]
        for label in set(codes):
            await eventually(partial(is_handled, server, shape, label, codes.count(label)))


class Pictures:
    """As large as what a request brings."""


@pytest.mark.parametrize("shape", SERVED)
async def test_what_a_refused_request_brought_is_not_left_to_the_collector(shape: str) -> None:
    brought: list[weakref.ref[Pictures]] = []

    async def before(text: str) -> None:
        pictures = Pictures()
        brought.append(weakref.ref(pictures))
        try:
            raise ValueError(text)
        except ValueError:
            raise Overloaded(1.0)  # noqa: B904  the context is what is to be let go too

    async with running(Echo(before)) as server, connected(server.target) as channel:
        gc.collect()
        gc.disable()
        try:
            await failure(invoke(channel, shape, "x"), shape)
            await eventually(lambda: brought[0]() is None)
        finally:
            gc.enable()


@pytest.mark.parametrize("shape", SERVED)
async def test_unknown_exceptions_tell_nothing(
    shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as server, connected(server.target) as channel:
        failed = await failure(invoke(channel, shape, "boom"), shape)
        assert failed.code() is grpc.StatusCode.INTERNAL
        assert failed.details() == status.INTERNAL_MESSAGE
        assert SECRET not in repr(failed)
        await eventually(lambda: server.handled(shape, "Internal") == 1)
        assert SECRET in caplog.text


@pytest.mark.parametrize("shape", SERVED)
async def test_a_client_that_cancels(shape: str) -> None:
    async with running() as server, connected(server.target) as channel:
        call = invoke(channel, shape, "wait", open_ended=True)
        await server.servicer.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answers(call, shape)
        await server.servicer.released.wait()
        await eventually(lambda: server.handled(shape, "Canceled") == 1)


@pytest.mark.parametrize("shape", SERVED)
async def test_a_deadline_that_passes(shape: str) -> None:
    async with running() as server, connected(server.target) as channel:
        failed = await failure(invoke(channel, shape, "wait", open_ended=True, timeout=0.1), shape)
        assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await server.servicer.released.wait()
        await eventually(lambda: server.handled(shape, "DeadlineExceeded") == 1)


async def test_a_client_that_stops_reading_a_stream_closes_the_generator() -> None:
    class Endless(Echo):
        async def Serve(self, request: Any, context: Any) -> AsyncIterator[StringValue]:
            try:
                while True:
                    yield await self.act("again")
            finally:
                self.released.set()

    async with running(Endless()) as server, connected(server.target) as channel:
        call = invoke(channel, "Serve", "x")
        assert (await call.read()).value == "again"
        call.cancel()
        await server.servicer.released.wait()
        await eventually(lambda: server.handled("Serve", "Canceled") == 1)


@pytest.mark.parametrize("shape", SERVED)
async def test_work_cancelled_from_within_is_answered(shape: str) -> None:
    async with running() as server, connected(server.target) as channel:
        failed = await failure(invoke(channel, shape, "leaked-cancel"), shape)
        assert failed.code() is grpc.StatusCode.CANCELLED
        await eventually(lambda: server.handled(shape, "Canceled") == 1)


@pytest.mark.parametrize("shape", ["Planned", "PlannedStream"])
async def test_methods_of_the_contract_that_nobody_wrote(shape: str) -> None:
    async with running() as server, connected(server.target) as channel:
        failed = await failure(invoke(channel, shape, "x"), shape)
        assert failed.code() is grpc.StatusCode.UNIMPLEMENTED
        assert status.from_rpc_error(failed).reason == "NOT_SUPPORTED"
        await eventually(lambda: server.handled(shape, "Unimplemented") == 1)


async def test_unknown_methods_have_fixed_labels() -> None:
    async with running() as server, connected(server.target) as channel:
        for number in range(20):
            for kind in ("unary_unary", "unary_stream"):
                call = getattr(channel, kind)(f"/made.up.Service{number}/Method")(b"x")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await (call if kind == "unary_unary" else call.read())
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        labels = {
            sample.labels["grpc_service"]
            for family in server.registry.collect()
            for sample in family.samples
        }
        assert labels == {"unknown"}


async def test_a_pass_through_cannot_be_made_to_grow() -> None:
    async def echo(request: bytes, context: object) -> bytes:
        return request

    class PassThrough(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            return grpc.unary_unary_rpc_method_handler(echo)

    registry = CollectorRegistry()
    server = grpc.aio.server()
    services = CallInterceptor(ServerMetrics(registry)).install(server)
    services.add_generic_rpc_handlers((PassThrough(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connected(f"127.0.0.1:{port}") as channel:
        for number in range(MAX_METHODS + 20):
            multi: Any = channel.unary_unary(f"/a.B/M{number}")
            assert await multi(b"x") == b"x"
    await server.stop(None)
    family = next(f for f in registry.collect() if f.name == "grpc_server_started")
    methods = {s.labels["grpc_method"]: s.value for s in family.samples if s.name[-5:] == "total"}
    assert len(methods) == MAX_METHODS + 1
    assert methods["other"] == 20


@pytest.mark.parametrize("shape", SERVED)
async def test_bytes_that_are_no_message(shape: str) -> None:
    async with running() as server, connected(server.target) as channel:
        streaming, responds = SHAPES[shape]
        kind = f"{'stream' if streaming else 'unary'}_{'stream' if responds else 'unary'}"
        multi = getattr(channel, kind)(f"/{SERVICE}/{shape}")

        async def requests() -> AsyncIterator[bytes]:
            yield b"\xff\xff\xff"

        call = multi(requests() if streaming else b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if responds else call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await eventually(lambda: server.handled(shape, "InvalidArgument") == 1)


async def test_bad_metadata_names_its_key() -> None:
    async with running() as server, connected(server.target) as channel:
        call = invoke(channel, "Unary", "x", metadata=(("easel-priority", "99"),))
        error = status.from_rpc_error(await failure(call, "Unary"))
        assert isinstance(error, InvalidInput)
        assert error.field == "easel-priority"
        assert server.servicer.calls == []


async def test_the_gate_refuses_with_its_error() -> None:
    refusals = [Overloaded(1.5), None]
    async with running(gate=refusals.pop) as server, connected(server.target) as channel:
        assert await answers(invoke(channel, "Unary", "x"), "Unary") == ["x"]
        error = status.from_rpc_error(await failure(invoke(channel, "Unary", "x"), "Unary"))
        assert isinstance(error, Overloaded)
        assert error.retry_after_seconds == 1.5
        assert len(server.servicer.calls) == 1


async def test_one_line_a_call() -> None:
    stream = io.StringIO()
    handler = JsonHandler("toy", stream)
    handler.setLevel(logging.INFO)
    async with running(call_log=handler) as server, connected(server.target) as channel:
        metadata = (("x-request-id", 'id-"1"'), ("easel-tenant", "acme"))
        await answers(invoke(channel, "Chat", "a", "b", metadata=metadata), "Chat")
        await failure(invoke(channel, "Unary", "NotFound"), "Unary")
        await eventually(lambda: stream.getvalue().count("\n") == 2)
    chat, unary = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert chat.pop("seconds") > 0
    assert chat.pop("ts")
    assert chat == {
        "level": "info",
        "service": "toy",
        "logger": "easel.rpc",
        "event": "call",
        "request_id": 'id-"1"',
        "method": f"/{SERVICE}/Chat",
        "code": "OK",
        "tenant": "acme",
        "peer": "ipv4:127.0.0.1",
    }
    assert (unary["code"], unary["method"]) == ("NotFound", f"/{SERVICE}/Unary")
