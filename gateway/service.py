"""The gateway as its process sees it: GatewayService beside everything that is passed through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

import grpc
from prometheus_client import CollectorRegistry

import easel
from easel.gateway.v1 import gateway_pb2 as pb
from easel.gateway.v1 import gateway_pb2_grpc
from gateway.config import Settings
from gateway.proxy import PassThrough
from gateway.routing import ROUTES, Route
from gateway.status import StatusBoard
from gateway.upstream import Upstream, open_upstreams, until_idle
from services.core.server.app import Application
from services.core.server.scopes import Scopes

GATEWAY_SERVICE = pb.DESCRIPTOR.services_by_name["GatewayService"].full_name


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    """``easel.gateway.v1.GatewayService``."""

    def __init__(self, board: StatusBoard) -> None:
        self._board = board
        self._started = time.monotonic()

    async def Status(self, request: pb.StatusRequest, context: object) -> pb.StatusResponse:
        del context
        services = await self._board.ask(request.services)
        return pb.StatusResponse(
            services=services,
            ready=all(service.state == pb.SERVICE_STATE_SERVING for service in services),
            version=easel.__version__,
            uptime_seconds=time.monotonic() - self._started,
        )


class Gateway(Application):
    """The gateway.

    It is ready as soon as it listens, whatever the state of the services behind it: Status has to
    answer just then. Health is told of the gateway's own names only, since whoever asks for a
    passed-through one would take the gateway's state for that service's; Status tells both.
    """

    def __init__(self, settings: Settings, routes: Mapping[str, Route] = ROUTES) -> None:
        self.settings = settings
        self.registry = CollectorRegistry()
        # Filled by ``register``, since channels belong to the event loop.
        self.upstreams: dict[str, Upstream] = {}
        self.service_names = (GATEWAY_SERVICE,)
        self._routes = routes

    def register(self, server: grpc.aio.Server) -> None:
        self.upstreams.update(
            open_upstreams(
                self.settings.targets(),
                max_message_bytes=self.settings.max_message_bytes,
                registry=self.registry,
            )
        )
        board = StatusBoard(self.upstreams, self.settings.status_timeout_seconds)
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(GatewayServicer(board), server)
        scopes = Scopes(
            administration=self.settings.administered,
            setting=self.settings.administration_variable(),
        )
        server.add_generic_rpc_handlers((PassThrough(self._routes, self.upstreams, scopes),))

    def load(self) -> None:
        """Nothing to load: the models are behind."""

    async def start(self) -> None:
        """Begin to connect, so that the first caller need not wait for it."""
        for upstream in self.upstreams.values():
            upstream.channel.get_state(try_to_connect=True)

    async def drain(self, timeout_seconds: float) -> None:
        """Let the calls that are passing end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await until_idle(self.upstreams.values())

    async def close(self) -> None:
        await asyncio.gather(*(up.channel.close() for up in self.upstreams.values()))
