"""Entries on their way into a store: those that wait together are put together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ranker.index.entry import Entry

Put = Callable[[Sequence[Entry]], Awaitable[Sequence[str]]]

MAX_TOGETHER: Final = 128


class Inbox:
    """Of one collection. What ``put`` raises, everybody of that batch gets; it is not cancelled
    when they are."""

    def __init__(self, put: Put) -> None:
        """``put`` returns the ids that it found no room for."""
        self._put = put
        self._waiting: deque[tuple[Entry, asyncio.Future[bool]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def add(self, entry: Entry) -> bool:
        """Whether there was room for it; returns once it is kept. Of one id the last to come
        stays."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await future

    async def ended(self) -> None:
        """Return once nothing waits."""
        while self._working is not None:
            await asyncio.wait([self._working])

    async def _work(self) -> None:
        while batch := self._next():
            await self._settle(batch)
        self._working = None

    def _next(self) -> list[tuple[Entry, asyncio.Future[bool]]]:
        """As many as go together: a second one of the same id waits for its turn."""
        batch: dict[str, tuple[Entry, asyncio.Future[bool]]] = {}
        while self._waiting and len(batch) < MAX_TOGETHER:
            if self._waiting[0][0].image.id in batch:
                break
            entry, future = self._waiting.popleft()
            batch[entry.image.id] = entry, future
        return list(batch.values())

    async def _settle(self, batch: Sequence[tuple[Entry, asyncio.Future[bool]]]) -> None:
        try:
            refused = set(await self._put([entry for entry, _ in batch]))
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for entry, future in batch:
            if not future.done():
                future.set_result(entry.image.id not in refused)
