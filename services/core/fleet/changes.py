"""News for whoever watches: what is there first, then each change, within a bound of memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar

from services.core.errors import Overloaded

T = TypeVar("T")

MAX_BEHIND: Final = 64
"""Changes that a watcher may be behind before it is told the latest of each thing alone."""

_RETRY_SECONDS: Final = 1.0


class Changes(Generic[T]):
    """Tells changes of keyed things to any number of watchers; belongs to one event loop.

    ``present`` answers everything as it is now.
    """

    def __init__(
        self, present: Callable[[], Iterable[tuple[Hashable, T]]], *, max_behind: int = MAX_BEHIND
    ) -> None:
        self._present = present
        self._max_behind = max_behind
        self._watchers: set[_Watcher[T]] = set()
        self._ended = False

    @property
    def watched(self) -> bool:
        return bool(self._watchers)

    def tell(self, key: Hashable, value: T) -> None:
        for watcher in self._watchers:
            watcher.add(key, value)

    def end(self) -> None:
        """Ends every watch, once what was told is read."""
        self._ended = True
        for watcher in self._watchers:
            watcher.wake()

    async def watch(self) -> AsyncGenerator[T, None]:
        """What is there, then each change in its order.

        A watcher more than ``max_behind`` changes behind gets the latest of each thing alone;
        should even that be too much, because many things came and went meanwhile, it ends with
        ``Overloaded`` and must watch anew.
        """
        there = list(self._present())
        watcher = _Watcher(there, self._max_behind + len(there))
        self._watchers.add(watcher)
        try:
            while True:
                while watcher.pending:
                    yield watcher.pending.popleft()[1]
                if watcher.lost:
                    raise Overloaded(
                        _RETRY_SECONDS, "Too far behind; watch again.", reason="WATCHER_BEHIND"
                    )
                if self._ended:
                    return
                await watcher.news()
        finally:
            self._watchers.discard(watcher)


class _Watcher(Generic[T]):
    def __init__(self, there: Iterable[tuple[Hashable, T]], most: int) -> None:
        self.pending = deque(there)
        self.lost = False
        self._most = most
        self._waiting: asyncio.Future[None] | None = None

    def add(self, key: Hashable, value: T) -> None:
        if self.lost:
            return
        self.pending.append((key, value))
        if len(self.pending) > self._most:
            self._conflate()
        self.wake()

    def wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def news(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting

    def _conflate(self) -> None:
        latest: dict[Hashable, T] = {}
        for key, value in self.pending:
            latest.pop(key, None)  # so that the order is that of the latest changes
            latest[key] = value
        self.pending = deque(latest.items())
        if len(self.pending) > self._most:
            self.pending.clear()
            self.lost = True
