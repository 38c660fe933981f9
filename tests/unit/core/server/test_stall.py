"""A reader that takes nothing is given up after the time set, on a clock that a test moves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from services.core.server.stall import Stall


@dataclass
class Loop:
    """Timers that fire when the clock is moved past them."""

    now: float = 0.0
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        timer = asyncio.TimerHandle(self.now + delay, callback, (), loop)
        self.timers.append(timer)
        return timer

    def move(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.when() <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            if not timer.cancelled():
                timer._run()


@pytest.mark.parametrize(("waited", "ended"), [(9.9, 0), (10.0, 1), (10.1, 1)])
async def test_a_write_may_wait_for_so_long(waited: float, ended: int) -> None:
    loop, ends = Loop(), list[int]()
    stall = Stall(10.0, loop, lambda: ends.append(1))
    stall.watch()
    stall.since = loop.time()
    loop.move(waited)
    assert len(ends) == ended
    assert stall.ended == bool(ended)


async def test_a_reader_that_takes_now_and_then_is_never_given_up() -> None:
    loop, ends = Loop(), list[int]()
    stall = Stall(10.0, loop, lambda: ends.append(1))
    stall.watch()
    for _ in range(20):
        stall.since = loop.time()
        loop.move(9.0)
        stall.since = None
    assert not ends
    stall.since = loop.time()
    loop.move(9.0)
    loop.move(1.0)
    assert ends == [1]


async def test_nothing_to_write_is_no_stall_and_leaves_no_timer() -> None:
    loop, ends = Loop(), list[int]()
    stall = Stall(10.0, loop, lambda: ends.append(1))
    stall.watch()
    stall.since = loop.time()
    stall.since = None
    loop.move(10.0)
    loop.move(1000.0)
    assert not ends
    stall.stop()
    assert all(timer.cancelled() for timer in loop.timers)


async def test_without_an_end_nothing_is_watched() -> None:
    loop, ends = Loop(), list[int]()
    stall = Stall(math.inf, loop, lambda: ends.append(1))
    stall.watch()
    stall.since = loop.time()
    loop.move(1e9)
    assert not ends
    assert not loop.timers
    stall.stop()


async def test_stopped_it_ends_nothing() -> None:
    loop, ends = Loop(), list[int]()
    stall = Stall(10.0, loop, lambda: ends.append(1))
    stall.watch()
    stall.since = loop.time()
    stall.stop()
    loop.move(100.0)
    assert not ends
