"""``grpc.health.v1`` for a server that goes away politely."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer


class Health(HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """Health of the whole server (the empty name) and of each of ``services``.

    Everything is NOT_SERVING until ``serve`` and again after ``leave``. ``end_watches`` ends open
    Watch streams, which would otherwise hold a stopping server for its whole grace.
    """

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__()
        self._names = ("", *services)
        self._ended = asyncio.Event()
        self._server_status = dict.fromkeys(self._names, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def serve(self) -> None:
        for name in self._names:
            await self.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def leave(self) -> None:
        await self.enter_graceful_shutdown()

    def end_watches(self) -> None:
        self._ended.set()

    async def List(self, request: Any, context: Any) -> health_pb2.HealthListResponse:  # noqa: N802
        """Answer for all names at once; the servicer of ``grpc_health`` for asyncio lacks it."""
        del request, context
        statuses = {
            name: health_pb2.HealthCheckResponse(status=status)
            for name, status in self._server_status.items()
        }
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        watching = asyncio.ensure_future(super().Watch(request, context))
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({watching, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ending.cancel()
            await asyncio.gather(watching, ending, return_exceptions=True)
