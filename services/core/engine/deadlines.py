"""The deadlines of the admitted rows, watched by one timer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from services.core.engine.row import Row, State

AnyRow = Row[Any, Any]

SLACK_ENTRIES = 64


class Deadlines:
    """Earliest first. Entries of released rows are dropped when they are most of the heap."""

    def __init__(self, clock: Callable[[], float], on_due: Callable[[], None]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._heap: list[tuple[float, int, AnyRow]] = []
        self._live = 0
        self._last_due = -math.inf
        self._longest = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on ``on_due`` is called when the earliest deadline passes."""
        self._loop = loop
        self._set_timer()

    def disarm(self) -> None:
        self._loop = None
        self._stop_timer()

    def add(self, row: AnyRow) -> None:
        if row.deadline is None:
            return
        heappush(self._heap, (row.deadline, row.id, row))
        self._live += 1
        self._last_due = max(self._last_due, row.due)
        self._longest = max(self._longest, row.company_seconds())
        if self._heap[0][2] is row:
            self._set_timer()

    def discard(self, row: AnyRow) -> None:
        """The row was released."""
        if row.deadline is None:
            return
        self._live -= 1
        if self._live == 0:
            self._last_due, self._longest = -math.inf, 0.0
        if len(self._heap) > 2 * self._live + SLACK_ENTRIES:
            self._heap = [entry for entry in self._heap if entry[2].state is not State.RELEASED]
            heapify(self._heap)

    def leeway_seconds(self, due: float) -> float:
        """For how long the device may be kept from the rows that are here, at least, so that each
        of them is still in time; inf for a new one with this ``due``, if it goes after all.
        """
        if due >= self._last_due:
            return math.inf
        while self._heap and self._heap[0][2].state is State.RELEASED:
            heappop(self._heap)
        if not self._heap:  # those that are left are late, and only end their step
            return math.inf
        return self._heap[0][0] - self._clock() - self._longest

    def due(self) -> list[AnyRow]:
        """Takes out the rows whose deadline has passed, released ones among them."""
        rows: list[AnyRow] = []
        if not self._heap:
            return rows
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            rows.append(heappop(self._heap)[2])
        if rows:
            self._set_timer()
        return rows

    def _set_timer(self) -> None:
        self._stop_timer()
        if self._loop is not None and self._heap:
            delay = max(0.0, self._heap[0][0] - self._clock())
            self._timer = self._loop.call_later(delay, self._fire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._on_due()
        if self._timer is None:
            self._set_timer()
