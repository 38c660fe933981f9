"""The application of a service whose work is done by one engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry

from services.core.engine import Device, Engine, EngineLimits, EngineMetrics, Model
from services.core.pool import WorkerPool
from services.core.server.app import Application

Work = TypeVar("Work")
Out = TypeVar("Out")


class EngineApplication(Application, Generic[Work, Out]):
    """Loads, starts, watches, drains and closes the engine; subclasses register their servicers.

    ``name`` is the engine's label in the metrics. ``device`` runs the steps; a thread of its own
    by default. ``clock`` is the engine's; callers' deadlines are on the monotonic one.
    ``pools`` are closed after the engine.
    """

    pools: Sequence[WorkerPool] = ()

    def __init__(
        self,
        model: Model[Work, Out],
        *,
        name: str,
        limits: EngineLimits,
        registry: CollectorRegistry | None = None,
        device: Device | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self._broken = asyncio.Event()
        self.engine: Engine[Any, Out] = Engine(
            model,
            limits=limits,
            metrics=EngineMetrics(self.registry, name),
            device=device,
            clock=clock,
            on_fatal=lambda _: self._broken.set(),
        )

    def load(self) -> None:
        self.engine.load()

    async def start(self) -> None:
        await self.engine.start()

    async def watch(self) -> None:
        await self._broken.wait()
        raise RuntimeError("the engine stopped") from self.engine.failed

    async def drain(self, timeout_seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        await self.engine.drain(timeout_seconds)
        # Rows that have just ended may still have to be encoded.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                for pool in self.pools:
                    await pool.until_idle()

    async def close(self) -> None:
        await self.engine.close()
        for pool in self.pools:
            await asyncio.to_thread(pool.close)
