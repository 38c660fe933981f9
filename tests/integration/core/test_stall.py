"""A live client that never reads: its call ends, and with it what was made for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry

from services.core.server.interceptor import READER_STALLED, CallInterceptor
from services.core.server.metrics import ServerMetrics

pytestmark = pytest.mark.timeout(60)

# More than any flow-control window lets through unread.
LARGE = StringValue(value="x" * 2**22)


class Flood:
    """Answers for as long as somebody reads."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def serve(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        del request, context
        try:
            while True:
                yield LARGE
        finally:
            self.closed.set()


async def test_a_client_that_never_reads_is_ended_with_the_reason() -> None:
    flood = Flood()
    server = grpc.aio.server()
    interceptor = CallInterceptor(ServerMetrics(CollectorRegistry()), max_stall_seconds=0.2)
    handler = grpc.unary_stream_rpc_method_handler(
        flood.serve,
        request_deserializer=StringValue.FromString,
        response_serializer=StringValue.SerializeToString,
    )
    interceptor.install(server).add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("flood.Service", {"Flood": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = (("grpc.max_receive_message_length", 2**24),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.unary_stream(
            "/flood.Service/Flood",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )(StringValue())
        await flood.closed.wait()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for _ in call:
                pass
    await server.stop(0)
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    trailing = dict(ended.value.trailing_metadata() or ())
    told = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in told.details)
    assert info.reason == READER_STALLED
