"""Threads for work beside the device: decoding inputs, encoding outputs."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from services.core.errors import Draining, Overloaded

P = ParamSpec("P")
R = TypeVar("R")

SMOOTHING = 0.1
"""Weight of the newest call in the mean duration."""

MIN_RETRY_SECONDS = 0.05


class WorkerPool:
    """``threads`` threads behind a queue that refuses instead of growing.

    At most ``max_pending`` calls are running or queued. Calls keep the context variables of their
    caller. A caller cancelled while its call is queued takes the call out of the queue; a call
    already running ends, and counts until then.
    """

    def __init__(self, name: str, threads: int, max_pending: int) -> None:
        if threads < 1 or max_pending < threads:
            raise ValueError(f"need 1 <= threads <= max_pending, got {threads}, {max_pending}")
        self.threads = threads
        self.max_pending = max_pending
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = Lock()
        self._calls: set[Future[Any]] = set()
        self._mean_seconds = 0.0
        self._closed = False

    @property
    def pending(self) -> int:
        """Calls running or queued."""
        return len(self._calls)

    async def run(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Answers what ``fn`` returns. Raises what it raises, ``Overloaded`` and ``Draining``."""
        if self._closed:
            raise Draining()
        if self.pending >= self.max_pending:
            raise Overloaded(self._retry_seconds(), reason="POOL_FULL")
        call = partial(contextvars.copy_context().run, self._timed, fn, *args, **kwargs)
        future = self._executor.submit(call)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling() or not self._closed:
                raise
            raise Draining() from None  # not its caller, but ``close`` gave the call up

    async def until_idle(self) -> None:
        """Returns once nothing is running or queued."""
        loop = asyncio.get_running_loop()
        while self._calls:
            for call in tuple(self._calls):
                ended = asyncio.Event()
                call.add_done_callback(partial(_tell, loop, ended))
                await ended.wait()

    def close(self) -> None:
        """Drops what is queued and blocks until what is running has ended."""
        self._closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _timed(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        began = time.monotonic()
        try:
            return fn(*args, **kwargs)
        finally:
            self._learn(time.monotonic() - began)

    def _learn(self, seconds: float) -> None:
        with self._lock:
            first = self._mean_seconds == 0.0
            weight = 1.0 if first else SMOOTHING
            self._mean_seconds += weight * (seconds - self._mean_seconds)

    def _retry_seconds(self) -> float:
        return max(MIN_RETRY_SECONDS, self._mean_seconds * self.pending / self.threads)


def _tell(loop: asyncio.AbstractEventLoop, ended: asyncio.Event, _: Future[Any]) -> None:
    with suppress(RuntimeError):  # the loop is closed, and nobody waits there
        loop.call_soon_threadsafe(ended.set)
