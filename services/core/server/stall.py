"""Streams whose readers take nothing any more."""

from __future__ import annotations

import asyncio
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

    One timer a stream, however many messages it has: it is set anew where it finds that the reader
    is not behind, or not behind for long enough.
    """

    __slots__ = ("_clock", "_end", "_seconds", "_since", "_timer", "ended")

    def __init__(self, seconds: float, clock: Clock, end: Callable[[], object]) -> None:
        self.ended = False
        self._seconds = seconds
        self._clock = clock
        self._end = end
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def write_began(self) -> None:
        self._since = self._clock.time()
        if self._timer is None:
            self._timer = self._clock.call_later(self._seconds, self._look)

    def write_ended(self) -> None:
        self._since = None

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        since = self._since
        waited = 0.0 if since is None else self._clock.time() - since
        if waited >= self._seconds:
            self.ended = True
            self._end()
            return
        self._timer = None
        if since is not None:
            self._timer = self._clock.call_later(self._seconds - waited, self._look)
