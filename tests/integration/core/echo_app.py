"""The echo service as an application, with every step of its life in the test's hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

import grpc
from prometheus_client import CollectorRegistry

from services.core.config import ServiceSettings
from services.core.server.app import Application
from tests.integration.core.echo import SERVICE, Echo, handler


class EchoSettings(ServiceSettings):
    service: ClassVar[str] = "echo"


class EchoApplication(Application):
    """Waits in ``drain`` for the calls that ``wait``; ``steps`` is what was called, in order."""

    def __init__(
        self,
        settings: ServiceSettings,
        load: Callable[[], object] = lambda: None,
        free: Callable[[], object] = lambda: None,
    ) -> None:
        self.settings = settings
        self.service_names = (SERVICE,)
        self.registry = CollectorRegistry()
        self.steps: list[str] = []
        self.fatal = asyncio.Event()
        self.drain_ends = asyncio.Event()
        self.drain_ends.set()
        self._load = load
        self._free = free

    def register(self, server: grpc.aio.Server) -> None:
        self.servicer = Echo()
        server.add_generic_rpc_handlers((handler(self.servicer),))
        self.steps.append("register")

    def load(self) -> None:
        self.steps.append("load")
        self._load()

    async def start(self) -> None:
        self.steps.append("start")

    async def watch(self) -> None:
        await self.fatal.wait()
        raise RuntimeError("the engine broke")

    async def drain(self, timeout_seconds: float) -> None:
        self.steps.append("drain")
        self.servicer.finish.set()
        await self.drain_ends.wait()

    async def close(self) -> None:
        self.steps.append("close")
        await asyncio.to_thread(self._free)
