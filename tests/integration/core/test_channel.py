"""Deadline, cancel, metadata and errors across two hops of real servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from prometheus_client import CollectorRegistry

from services.core.errors import InvalidInput, NotReady, Overloaded
from services.core.server import status
from services.core.server.channel import ChannelLimits, open_channel
from services.core.server.metrics import ClientMetrics, call_type
from tests.integration.core.echo import (
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
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
METADATA = (
    ("x-request-id", "id-1"),
    ("easel-tenant", "acme"),
    ("easel-priority", "-3"),
    ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),
)


@dataclass
class Chain:
    near: Running
    far: Running
    registry: CollectorRegistry

    def client_metric(self, name: str, shape: str, **labels: str) -> float:
        kind = call_type(*SHAPES[shape])
        known = {"grpc_type": kind, "grpc_service": SERVICE, "grpc_method": shape}
        return self.registry.get_sample_value(name, {**known, **labels}) or 0.0


@asynccontextmanager
async def chain(shape: str) -> AsyncIterator[Chain]:
    """Two servers: every call of the near one makes a call of ``shape`` to the far one."""
    registry = CollectorRegistry()
    async with running() as far:
        channel = open_channel(far.target, metrics=ClientMetrics(registry))

        async def hop(text: str) -> None:
            try:
                call = invoke(channel, shape, text, open_ended=text == "wait")
                try:
                    await answers(call, shape)
                finally:
                    call.cancel()
            except grpc.aio.AioRpcError as error:
                raise status.from_rpc_error(error) from error

        async with channel, running(Echo(before=hop)) as near:
            yield Chain(near, far, registry)


@pytest.mark.parametrize("shape", SERVED)
async def test_metadata_and_deadline_arrive(shape: str) -> None:
    async with chain(shape) as hops, connected(hops.near.target) as channel:
        call = invoke(channel, "Unary", "hi", timeout=60.0, metadata=METADATA)
        assert await answers(call, "Unary") == ["hi"]
        near, far = hops.near.servicer.calls[0], hops.far.servicer.calls[0]
        assert (far.request_id, far.tenant, far.priority) == ("id-1", "acme", -3)
        assert TRACE in near.traceparent
        assert TRACE in far.traceparent
        assert near.traceparent != far.traceparent
        assert near.deadline is not None
        assert far.deadline is not None
        # A second more at most: gRPC rounds timeouts up to three digits.
        assert far.deadline <= near.deadline + 1.0
        assert far.deadline > time.monotonic()


@pytest.mark.parametrize("shape", SERVED)
async def test_a_request_id_made_up_on_the_way_is_the_same_on_both_hops(shape: str) -> None:
    async with chain(shape) as hops, connected(hops.near.target) as channel:
        await answers(invoke(channel, "Unary", "hi"), "Unary")
        far = hops.far.servicer.calls[0]
        assert far.request_id == hops.near.servicer.calls[0].request_id != ""
        assert far.deadline is None


@pytest.mark.parametrize("shape", SERVED)
async def test_cancel_reaches_the_far_end(shape: str) -> None:
    async with chain(shape) as hops, connected(hops.near.target) as channel:
        call = invoke(channel, "Unary", "wait")
        await hops.far.servicer.started.wait()
        call.cancel()
        await hops.far.servicer.released.wait()
        await eventually(lambda: hops.near.handled("Unary", "Canceled") == 1)
        await eventually(lambda: hops.far.handled(shape, "Canceled") == 1)
        await eventually(
            lambda: (
                hops.client_metric("grpc_client_handled_total", shape, grpc_code="Canceled") == 1
            )
        )


@pytest.mark.parametrize("shape", SERVED)
async def test_the_callers_deadline_ends_the_far_end(shape: str) -> None:
    async with chain(shape) as hops, connected(hops.near.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers(invoke(channel, "Unary", "wait", timeout=0.2), "Unary")
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await hops.far.servicer.released.wait()
        await eventually(lambda: hops.far.handled(shape, "DeadlineExceeded") == 1)


@pytest.mark.parametrize("shape", SERVED)
async def test_errors_pass_with_their_details(shape: str) -> None:
    async with chain(shape) as hops, connected(hops.near.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers(invoke(channel, "Unary", "Overloaded"), "Unary")
        error = status.from_rpc_error(caught.value)
        assert isinstance(error, Overloaded)
        assert error.retry_after_seconds == 2.5
        labels = {"grpc_code": "ResourceExhausted"}
        assert hops.client_metric("grpc_client_handled_total", shape, **labels) == 1
        assert hops.client_metric("grpc_client_started_total", shape) == 1
        assert hops.client_metric("grpc_client_handling_seconds_count", shape) == 1


async def test_callers_hold_grpcs_own_call_object() -> None:
    async with running() as server, connected(server.target) as channel:
        call = invoke(channel, "Serve", "x", timeout=60.0)
        assert isinstance(call, grpc.aio.UnaryStreamCall)
        remaining = call.time_remaining()
        assert remaining is not None
        assert 0 < remaining <= 60.0
        assert [message.value async for message in call] == ["first", "x"]
        assert await call.code() is grpc.StatusCode.OK


async def test_writing_and_reading_by_hand() -> None:
    async with running() as server, connected(server.target) as channel:
        make: Any = channel.stream_stream(
            f"/{SERVICE}/Chat", StringValue.SerializeToString, StringValue.FromString
        )
        call = make()
        for word in ("a", "b"):
            await call.write(StringValue(value=word))
            assert (await call.read()).value == word
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_large_messages_need_the_limits_raised() -> None:
    text = "x" * (5 * 2**20)
    async with running() as server:
        small = ChannelLimits(max_message_bytes=2**20)
        async with open_channel(server.target, limits=small) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answers(invoke(channel, "Unary", text), "Unary")
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert isinstance(status.from_rpc_error(caught.value), InvalidInput)


async def test_unavailable_is_tried_again_with_a_request_of_picture_size() -> None:
    text = "x" * 2**20
    refusals = [None, NotReady(), NotReady()]
    async with running(gate=refusals.pop) as server, open_channel(server.target) as channel:
        assert await answers(invoke(channel, "Unary", text), "Unary") == [text]
        assert server.handled("Unary", "Unavailable") == 2


def is_cancelled(server: Running, shape: str) -> bool:
    return server.handled(shape, "Canceled") == 1


async def test_a_cancelled_reader_cancels_its_call() -> None:
    async with running() as server, connected(server.target) as channel:
        for shape in ("Serve", "Chat"):
            server.servicer.started.clear()
            server.servicer.released.clear()
            call = invoke(channel, shape, "wait", open_ended=True)
            reading = asyncio.ensure_future(answers(call, shape))
            await server.servicer.started.wait()
            # gRPC's own stream loses a cancel that comes before its request is known to be sent,
            # and the reader learns of that some turns of the loop later.
            await call.wait_for_connection()
            for _ in range(10):
                await asyncio.sleep(0)
            reading.cancel()
            await server.servicer.released.wait()
            await eventually(partial(is_cancelled, server, shape))
