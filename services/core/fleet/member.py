"""One model of a fleet."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from services.core.card import ModelState
from services.core.engine import Engine, EngineMetrics
from services.core.reference import ModelFiles

M = TypeVar("M")


@dataclass(slots=True, eq=False)
class Member(Generic[M]):
    """A version of a model, with the engine that runs it.

    ``share`` is its part of the name's traffic, 0 to 1; ``used_at`` is on the fleet's clock, and
    set by whoever uses the model; ``bytes`` are those of its weights, until it is loaded those on
    disk. All of it belongs to the event loop.
    """

    files: ModelFiles
    model: M
    engine: Engine[Any, Any]
    metrics: EngineMetrics
    state: ModelState = ModelState.LOADING
    error: str = ""
    share: float = 0.0
    bytes: int = 0
    used_at: float = 0.0
    _held: int = 0
    _free: asyncio.Event | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.files.name, self.files.version

    @property
    def label(self) -> str:
        """What it is called in metrics, logs and messages."""
        return label_of(self.files)

    @property
    def in_use(self) -> bool:
        return self._held > 0 or self.engine.rows > 0

    def __enter__(self) -> None:
        """Keeps the model for the block, which will still submit to its engine.

        A coroutine that begins with it is safe from the moment when ``Fleet.find`` answered, if it
        is awaited, or made a task, in the same turn of the loop.
        """
        self._held += 1

    def __exit__(self, *_: object) -> None:
        self._held -= 1
        if not self._held and self._free is not None:
            self._free.set()

    async def drain(self, timeout_seconds: float) -> None:
        """As the engine's own, but what still prepares for it comes first."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        # Tasks that were made for the model before this one begin before this one goes on.
        await asyncio.sleep(0)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._held:
                    # One for all who wait: an unload, and the end of the process.
                    if self._free is None or self._free.is_set():
                        self._free = asyncio.Event()
                    await self._free.wait()
        await self.engine.drain(max(0.0, deadline - asyncio.get_running_loop().time()))


def label_of(files: ModelFiles) -> str:
    return f"{files.name}/{files.version}"
