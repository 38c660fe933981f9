"""Many writers, one reader, a bound on what lies between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Items of the tasks it spawned, in the order they were put; ``put`` waits while it is full.

    ``items`` ends once every task has ended, and raises the first error of one. Closing or
    cancelling it cancels the tasks and waits for them.
    """

    def __init__(self, max_unread: int) -> None:
        self._unread: asyncio.Queue[T] = asyncio.Queue(max_unread)
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    def spawn(self, writer: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(writer)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def put(self, item: T) -> None:
        await self._unread.put(item)
        self._news.set()

    async def items(self) -> AsyncGenerator[T, None]:
        try:
            while True:
                self._news.clear()
                while not self._unread.empty():
                    yield self._unread.get_nowait()
                if self._error is not None:
                    raise self._error
                if not self._tasks and self._unread.empty():
                    return
                await self._news.wait()
        finally:
            self._error = None  # whose frames hold on to this
            await self._cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and self._error is None:
            self._error = task.exception()
        self._news.set()

    async def _cancel(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
