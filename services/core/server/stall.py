"""Streams whose readers take nothing any more."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """What is needed of an event loop."""

    def time(self) -> float: ...
    def call_later(
        self, delay: float, callback: Callable[[], object], /
    ) -> asyncio.TimerHandle: ...


class Stall:
    """Calls ``end`` once, when one write has waited for its reader for ``seconds``.

    ``since`` is when the write began that is under way, None between writes: set by the writer, at
    every message, so that all the rest costs nothing there. One timer a stream, however many
    messages it has: it is set anew where it finds that the reader is not behind, or not behind for
    long enough.
    """

    __slots__ = ("_clock", "_end", "_seconds", "_timer", "ended", "since")

    def __init__(self, seconds: float, clock: Clock, end: Callable[[], object]) -> None:
        self.ended = False
        self._seconds = seconds
        self._clock = clock
        self._end = end
        self.since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Begin to; without an end to ``seconds`` there is nothing to see."""
        if self._seconds < math.inf:
            self._timer = self._clock.call_later(self._seconds, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        waited = 0.0 if self.since is None else self._clock.time() - self.since
        if waited >= self._seconds:
            self.ended = True
            self._end()
            return
        self._timer = self._clock.call_later(self._seconds - waited, self._look)
