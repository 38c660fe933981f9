"""A test service without contracts of ours: every shape and style of RPC, acting on its request.

A request's text says what happens to it: the name of an error raises it, ``boom`` raises what is
not of our tree, ``wait`` waits for the test, anything else is sent back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from prometheus_client import CollectorRegistry

from services.core import errors
from services.core.errors import EaselError
from services.core.log import JsonHandler
from services.core.server import call as calls
from services.core.server.call import CallContext
from services.core.server.channel import ChannelLimits, open_channel
from services.core.server.interceptor import CallInterceptor, Gate, open_gate
from services.core.server.metrics import ServerMetrics, call_type

SERVICE = "easel.test.v1.EchoService"
SECRET = "/secret/path"
SHAPES = {
    "Unary": (False, False),
    "Serve": (False, True),
    "Collect": (True, False),
    "Chat": (True, True),
    "ServeByWriting": (False, True),
    "CollectByReading": (True, False),
    "ChatByWriting": (True, True),
    "Planned": (False, False),
    "PlannedStream": (True, True),
}
SERVED = [name for name in SHAPES if not name.startswith("Planned")]
ERRORS: dict[str, EaselError] = {
    "InvalidInput": errors.InvalidInput("steps", "too many", 100, 10**9),
    "NotFound": errors.NotFound("no such model"),
    "FailedPrecondition": errors.FailedPrecondition(),
    "NotSupported": errors.NotSupported(),
    "Unauthenticated": errors.Unauthenticated(),
    "PermissionDenied": errors.PermissionDenied(),
    "Overloaded": errors.Overloaded(2.5),
    "NotReady": errors.NotReady(),
    "Draining": errors.Draining(),
    "DeadlineExceeded": errors.DeadlineExceeded(),
    "Cancelled": errors.Cancelled(),
    "ModelFault": errors.ModelFault(SECRET),
    "OutOfMemory": errors.OutOfMemory(SECRET),
}


class Echo:
    """The servicer. ``before`` runs in every handler, for hops to somewhere else."""

    def __init__(self, before: Callable[[str], Awaitable[object]] | None = None) -> None:
        self.calls: list[CallContext] = []
        self.started = asyncio.Event()
        self.finish = asyncio.Event()
        self.released = asyncio.Event()
        self._before = before

    async def act(self, text: str) -> StringValue:
        self.calls.append(calls.current())
        if self._before is not None:
            await self._before(text)
        if text in ERRORS:
            raise ERRORS[text]
        if text == "boom":
            raise ValueError(SECRET)
        if text == "leaked-cancel":
            raise asyncio.CancelledError
        if text == "wait":
            await self._wait()
        return StringValue(value=text)

    async def _wait(self) -> None:
        self.started.set()
        try:
            await self.finish.wait()
        finally:
            await asyncio.sleep(0)  # cleaning up may itself have to wait
            self.released.set()

    async def Unary(self, request: StringValue, context: Any) -> StringValue:
        return await self.act(request.value)

    async def Serve(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        yield StringValue(value="first")
        yield await self.act(request.value)

    async def Collect(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        return StringValue(
            value=" ".join([(await self.act(r.value)).value async for r in requests])
        )

    async def Chat(
        self, requests: AsyncIterator[StringValue], context: Any
    ) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield await self.act(request.value)

    async def ServeByWriting(self, request: StringValue, context: Any) -> None:
        await context.write(StringValue(value="first"))
        await context.write(await self.act(request.value))

    async def CollectByReading(self, requests: Any, context: Any) -> StringValue:
        words = []
        while (request := await context.read()) is not grpc.aio.EOF:
            words.append((await self.act(request.value)).value)
        return StringValue(value=" ".join(words))

    async def ChatByWriting(self, requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(await self.act(request.value))

    def Planned(self, request: Any, context: Any) -> Any:
        """As ``grpc_tools`` generates a method that nobody has written yet."""
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")

    PlannedStream = Planned


def handler(servicer: Echo) -> grpc.GenericRpcHandler:
    make: dict[tuple[bool, bool], Any] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            name: make[shape](
                getattr(servicer, name), StringValue.FromString, StringValue.SerializeToString
            )
            for name, shape in SHAPES.items()
        },
    )


@dataclass
class Running:
    """A server on a free port, with what a test looks at."""

    servicer: Echo
    registry: CollectorRegistry
    target: str = ""
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def metric(self, name: str, shape: str, **labels: str) -> float:
        kind = call_type(*SHAPES[shape])
        known = {"grpc_type": kind, "grpc_service": SERVICE, "grpc_method": shape}
        return self.registry.get_sample_value(name, {**known, **labels}) or 0.0

    def handled(self, shape: str, code: str) -> float:
        return self.metric("grpc_server_handled_total", shape, grpc_code=code)


@asynccontextmanager
async def running(
    servicer: Echo | None = None, *, gate: Gate = open_gate, call_log: JsonHandler | None = None
) -> AsyncIterator[Running]:
    found = Running(servicer or Echo(), CollectorRegistry())
    server = grpc.aio.server()
    services = CallInterceptor(ServerMetrics(found.registry), gate, call_log).install(server)
    services.add_generic_rpc_handlers((handler(found.servicer),))
    found.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield found
    finally:
        await server.stop(None)


@asynccontextmanager
async def connected(target: str) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(target, limits=ChannelLimits(max_attempts=1)) as channel:
        await channel.channel_ready()
        yield channel


def invoke(
    channel: grpc.aio.Channel, shape: str, *texts: str, open_ended: bool = False, **options: Any
) -> Any:
    """Start an RPC of any shape; returns gRPC's call object."""
    streaming, responds = SHAPES[shape]
    kind = f"{'stream' if streaming else 'unary'}_{'stream' if responds else 'unary'}"
    make = getattr(channel, kind)
    multi = make(f"/{SERVICE}/{shape}", StringValue.SerializeToString, StringValue.FromString)
    messages = [StringValue(value=text) for text in texts]
    request = _sent(messages, open_ended) if streaming else messages[0]
    return multi(request, **options)


async def answers(call: Any, shape: str) -> list[str]:
    if SHAPES[shape][1]:
        return [response.value async for response in call]
    return [(await call).value]


async def _sent(messages: Iterable[StringValue], open_ended: bool) -> AsyncIterator[StringValue]:
    for message in messages:
        yield message
    if open_ended:
        await asyncio.get_running_loop().create_future()


async def eventually(holds: Callable[[], bool]) -> None:
    """Let the loop run until ``holds``; the test's own timeout bounds it."""
    while not holds():  # noqa: ASYNC110  what is waited for has no event
        await asyncio.sleep(0)
