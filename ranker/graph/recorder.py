"""Outcomes that wait together are written together: that makes thousands a second cheap."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Final

from ranker.database import Database
from ranker.database.writing import RETRY_SECONDS
from ranker.graph.log import Recorded, Report, record
from services.core.errors import EaselError, Overloaded

MAX_GROUP: Final = 256
MAX_WAITING: Final = 10_000


class OutcomeRecorder:
    """Groups form while the one before is written; nothing waits for a group to fill."""

    def __init__(
        self, database: Database, half_life: float, max_waiting: int = MAX_WAITING
    ) -> None:
        """``half_life`` in seconds."""
        self._database = database
        self._half_life = half_life
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Report, asyncio.Future[Recorded]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def record(self, report: Report) -> Recorded:
        """Returns once it is kept for good. Raises as ``log.record``, and ``Overloaded``."""
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(RETRY_SECONDS, reason="DATABASE_BUSY")
        told: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        self._waiting.append((report, told))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await told

    async def _write(self) -> None:
        try:
            while self._waiting:
                size = min(MAX_GROUP, len(self._waiting))
                await self._write_group([self._waiting.popleft() for _ in range(size)])
        finally:
            self._writing = None

    async def _write_group(self, group: list[tuple[Report, asyncio.Future[Recorded]]]) -> None:
        reports = [report for report, _ in group]
        write = partial(record, reports=reports, half_life=self._half_life)
        try:
            found = await self._database.write(write)
        except Exception as error:
            for _, told in group:
                if not told.done():
                    told.set_exception(error)
            return
        for (_, told), each in zip(group, found, strict=True):
            if told.done():  # its caller is gone
                continue
            if isinstance(each, EaselError):
                told.set_exception(each)
            else:
                told.set_result(each)
