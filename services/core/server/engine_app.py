"""Applications whose work is done by one engine, or by a fleet of models with one each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry

from services.core.card import ModelCard, ModelKind
from services.core.engine import (
    Device,
    Engine,
    EngineLimits,
    EngineMetrics,
    EngineReport,
    Model,
    ThreadDevice,
)
from services.core.fleet import Fleet, Maker
from services.core.pool import WorkerPool
from services.core.reference import ModelFiles
from services.core.server.app import Application

Work = TypeVar("Work")
Out = TypeVar("Out")
M = TypeVar("M", bound=Model[Any, Any])


class Runs(Protocol):
    """What does the work: an ``Engine``, a ``Fleet``."""

    def load(self) -> None: ...
    async def start(self) -> None: ...
    async def drain(self, timeout_seconds: float) -> None: ...
    async def close(self) -> None: ...


class RunningApplication(Application):
    """Loads, starts, watches, drains and closes what does the work; subclasses set it as ``runs``
    and register their servicers. ``pools`` are closed after it.
    """

    runs: Runs
    pools: Sequence[WorkerPool] = ()

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._broken = asyncio.Event()
        self._fault: BaseException | None = None

    def load(self) -> None:
        self.runs.load()

    async def start(self) -> None:
        await self.runs.start()

    async def watch(self) -> None:
        await self._broken.wait()
        raise RuntimeError("an engine stopped") from self._fault

    async def drain(self, timeout_seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        await self.runs.drain(timeout_seconds)
        # Rows that have just ended may still have to be encoded.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                for pool in self.pools:
                    await pool.until_idle()

    async def close(self) -> None:
        await self.runs.close()
        for pool in self.pools:
            await asyncio.to_thread(pool.close)

    def _break(self, fault: BaseException) -> None:
        self._fault = fault
        self._broken.set()


class EngineApplication(RunningApplication, Generic[Work, Out]):
    """An application of one engine.

    ``name`` is the engine's label in the metrics. ``device`` runs the steps; a thread of its own
    by default. ``clock`` is the engine's; callers' deadlines are on the monotonic one.
    """

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
        super().__init__(registry)
        self.engine: Engine[Any, Out] = Engine(
            model,
            limits=limits,
            metrics=EngineMetrics(self.registry, name),
            device=device,
            clock=clock,
            on_fatal=self._break,
        )
        self.runs = self.engine


class FleetApplication(RunningApplication, Generic[M]):
    """An application of several models; the parameters are those of ``Fleet``."""

    def __init__(
        self,
        first: Callable[[], tuple[ModelFiles, M]],
        describe: Callable[[M, EngineReport], ModelCard],
        *,
        kind: ModelKind,
        limits: EngineLimits,
        registry: CollectorRegistry | None = None,
        maker: Maker[M] | None = None,
        budget_bytes: int | None = None,
        device: Callable[[], Device] = ThreadDevice,
    ) -> None:
        super().__init__(registry)
        self.fleet: Fleet[M] = Fleet(
            first,
            describe,
            kind=kind,
            limits=limits,
            registry=self.registry,
            maker=maker,
            budget_bytes=budget_bytes,
            device=device,
            on_fatal=self._break,
        )
        self.runs = self.fleet
