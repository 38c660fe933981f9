"""A gateway in this process and services behind it that do what a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from gateway.config import Settings
from gateway.routing import ROUTES, SERVICE_OF, Route, Shape
from gateway.service import Gateway
from services.core.config import load_settings
from services.core.server.app import Address, serve

CLASSIFY = "/easel.classifier.v1.ClassifierService/Classify"
CLASSIFY_STREAM = "/easel.classifier.v1.ClassifierService/ClassifyStream"
GENERATE = "/easel.generator.v1.GeneratorService/Generate"
LIST_MODELS = "/easel.model.v1.ModelService/ListModels"
START_JOB = "/easel.trainer.v1.TrainingService/StartJob"
# None of our contracts has this shape, and the gateway must pass it all the same.
COLLECT = Route(
    "/test.v1.Shapes/Collect", "test.v1.Shapes", "Collect", Shape.CLIENT_STREAM, ("classifier",)
)
TEST_ROUTES = {**ROUTES, COLLECT.path: COLLECT}

# Refuses at once: nothing listens on port 1 of a test machine's loopback.
NOBODY = "127.0.0.1:1"

Behavior = Callable[[Any, Any], Any]
_HANDLERS = {
    Shape.UNARY: grpc.unary_unary_rpc_method_handler,
    Shape.SERVER_STREAM: grpc.unary_stream_rpc_method_handler,
    Shape.CLIENT_STREAM: grpc.stream_unary_rpc_method_handler,
    Shape.BIDI: grpc.stream_stream_rpc_method_handler,
}


async def echo_one(request: bytes, context: Any) -> bytes:
    return request


async def echo_thrice(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield request


async def echo_joined(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([request async for request in requests])


async def echo_each(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


ECHOES: Mapping[Shape, Behavior] = {
    Shape.UNARY: echo_one,
    Shape.SERVER_STREAM: echo_thrice,
    Shape.CLIENT_STREAM: echo_joined,
    Shape.BIDI: echo_each,
}


@dataclass
class FakeService(grpc.GenericRpcHandler):
    """Speaks raw bytes: echoes every method of the table, or does what ``behaviors`` say."""

    name: str
    behaviors: dict[str, Behavior] = field(default_factory=dict)
    target: str = ""

    def __post_init__(self) -> None:
        self.health = HealthServicer()

    def service(self, handler_call_details: Any) -> Any:
        route = TEST_ROUTES.get(handler_call_details.method)
        if route is None:
            return None
        return _HANDLERS[route.shape](self.behaviors.get(route.path, ECHOES[route.shape]))

    async def start(self, port: int = 0) -> grpc.aio.Server:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 2**26)])
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        server.add_generic_rpc_handlers((self,))
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        self.target = f"127.0.0.1:{bound}"
        await self.tell_health("SERVING")
        await server.start()
        return server

    async def tell_health(self, state: str) -> None:
        value = health_pb2.HealthCheckResponse.ServingStatus.Value(state)
        await self.health.set(SERVICE_OF[self.name], value)


@asynccontextmanager
async def serving(fake: FakeService) -> AsyncIterator[FakeService]:
    server = await fake.start()
    try:
        yield fake
    finally:
        await server.stop(None)


@dataclass(frozen=True)
class Door:
    """A running gateway and a channel to it."""

    app: Gateway
    address: Address
    channel: grpc.aio.Channel

    def method(self, path: str) -> Any:
        """Return the raw-bytes callable of ``path``."""
        shape = TEST_ROUTES[path].shape
        sides = {False: "unary", True: "stream"}
        return getattr(self.channel, "_".join(sides[side] for side in shape.value))(path)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.app.registry.get_sample_value(name, labels)

    async def idle(self, upstream: str) -> None:
        """Return once the gateway has let go of every call to ``upstream``."""
        await self.app.upstreams[upstream].traffic.idle.wait()
        assert self.sample("easel_gateway_upstream_in_flight", upstream=upstream) == 0


@asynccontextmanager
async def gateway(**settings: object) -> AsyncIterator[Door]:
    """Serve a gateway on a free port; targets that are not given have nobody behind them."""
    nobody = {f"{name}_target": NOBODY for name in ("classifier", "generator", "ranker")}
    app = Gateway(load_settings(Settings, environ={}, **{**nobody, **settings}), TEST_ROUTES)
    opened: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    running = asyncio.create_task(serve(app, stop=stop, opened=opened.set_result))
    either: set[asyncio.Future[Any]] = {opened, running}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    address = opened.result()
    # Channels to one target share connections process-wide unless told not to.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 2**26)]
    async with grpc.aio.insecure_channel(address.target, options) as channel:
        await _until_serving(channel)
        yield Door(app, address, channel)
    stop.set()
    assert await running == 0


async def _until_serving(channel: grpc.aio.Channel) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    async for answer in watch:
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            break
    watch.cancel()


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def reason_of(error: grpc.aio.AioRpcError) -> str:
    packed = error.trailing_metadata()["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(packed).details:
        if detail.Unpack(info):
            break
    return str(info.reason)
