"""Work on the same thing in the order in which it came, on different things at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Turns:
    """``async with turns.of(key): ...``; a turn is taken when the block is entered."""

    def __init__(self) -> None:
        self._last: dict[Hashable, asyncio.Event] = {}

    @asynccontextmanager
    async def of(self, key: Hashable) -> AsyncIterator[None]:
        before, own = self._last.get(key), asyncio.Event()
        self._last[key] = own
        try:
            if before is not None:
                await before.wait()
            yield
        finally:
            if self._last[key] is own:
                del self._last[key]
            own.set()
