"""Bounded bidirectional streams, for every RPC that answers items: as they finish, or in order.

A servicer hands the generator straight back, so that closing it reaches the work at once::

    def ClassifyStream(self, request_iterator, context):
        return answer_each(request_iterator, self._classify, max_in_flight=32, failed=item_error)
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any, Generic, TypeVar

from services.core.errors import Cancelled

Q = TypeVar("Q")
R = TypeVar("R")


def _unchanged(request: object, result: Any) -> Any:
    del request
    return result


async def answer_each(
    requests: AsyncIterable[Q],
    handle: Callable[[Q], Awaitable[Any]],
    *,
    max_in_flight: int,
    failed: Callable[[Q, Exception], R],
    finish: Callable[[Q, Any], R] = _unchanged,
) -> AsyncGenerator[R, None]:
    """Yield one response per request, in the order in which they finish.

    No request is read while ``max_in_flight`` (>= 1) of them are unanswered; an item counts as
    answered once the reader of this generator comes back for the next one, so a slow reader
    bounds the memory too. ``finish`` turns what ``handle`` answered into a response, and
    ``failed`` the exception of either; what ``failed`` itself raises ends the stream. Closing or
    cancelling the generator cancels every item and waits until they have ended. A ``handle`` that
    returns a future costs no task.
    """
    flight = _Flight(handle, finish, failed, max_in_flight)
    read_next = aiter(requests).__anext__
    reader: asyncio.Future[bool] | None = None
    try:
        while True:
            # As long as every item is answered at once, one task reads and writes in turn.
            while not flight.pending:
                try:
                    request = await read_next()
                except StopAsyncIteration:
                    return
                future = flight.begin(request)
                if future.done():
                    yield flight.response(request, future)
                else:
                    flight.follow(request, future)
            reader = asyncio.ensure_future(flight.read(read_next))
            reader.add_done_callback(flight.wake_writer)
            while True:
                while flight.finished:
                    yield flight.response(*flight.finished.popleft())
                    flight.release()
                if reader.done():
                    ended = reader.result()
                    if not flight.pending:
                        break
                await flight.progress()
            if ended:
                return
    finally:
        await flight.cancel(reader)


async def answer_in_order(
    requests: AsyncIterable[Q],
    handle: Callable[[Q], Awaitable[Any]],
    *,
    max_in_flight: int,
    failed: Callable[[Q, Exception], R],
    finish: Callable[[Q, Any], R] = _unchanged,
) -> AsyncGenerator[R, None]:
    """As ``answer_each``, but in the order of the requests: one that takes long holds those after
    it back, at most ``max_in_flight`` with it.
    """
    flight = _Flight(handle, finish, failed, max_in_flight)
    room = asyncio.Semaphore(max_in_flight)
    begun: asyncio.Queue[tuple[Q, asyncio.Future[Any]] | None] = asyncio.Queue()

    async def read() -> bool:
        read_next = aiter(requests).__anext__
        try:
            while True:
                await room.acquire()
                request = await read_next()
                future = flight.begin(request)
                flight.pending.add(future)
                begun.put_nowait((request, future))
        except StopAsyncIteration:
            return True
        finally:
            begun.put_nowait(None)

    reader = asyncio.ensure_future(read())
    try:
        while (item := await begun.get()) is not None:
            request, future = item
            await asyncio.wait((future,))
            flight.pending.discard(future)
            yield flight.response(request, future)
            room.release()
        await reader
    finally:
        await flight.cancel(reader)


class _Flight(Generic[Q, R]):
    """The items that were read and are not answered yet."""

    def __init__(
        self,
        handle: Callable[[Q], Awaitable[Any]],
        finish: Callable[[Q, Any], R],
        failed: Callable[[Q, Exception], R],
        max_in_flight: int,
    ) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")
        self._handle = handle
        self._to_response = finish
        self._failed = failed
        self._room = max_in_flight
        self._loop = asyncio.get_running_loop()
        self._reader_waits: asyncio.Future[None] | None = None
        self._writer_waits: asyncio.Future[None] | None = None
        self.pending: set[asyncio.Future[Any]] = set()
        self.finished: deque[tuple[Q, asyncio.Future[Any]]] = deque()

    async def read(self, read_next: Callable[[], Awaitable[Q]]) -> bool:
        """Have items under way until the requests end (True), or one is answered at once while
        none is (False).
        """
        while True:
            if self._room == 0:
                self._reader_waits = self._loop.create_future()
                await self._reader_waits
            try:
                request = await read_next()
            except StopAsyncIteration:
                return True
            future = self.begin(request)
            self.follow(request, future)
            if future.done() and self.pending == {future}:
                return False

    def begin(self, request: Q) -> asyncio.Future[Any]:
        try:
            found = self._handle(request)
            # Checked here first, for asyncio takes three calls to see it.
            return found if isinstance(found, asyncio.Future) else asyncio.ensure_future(found)
        except Exception as error:
            future: asyncio.Future[Any] = self._loop.create_future()
            future.set_exception(error)
            return future

    def follow(self, request: Q, future: asyncio.Future[Any]) -> None:
        """Count the item as under way until the answer is taken that its future brings."""
        self._room -= 1
        self.pending.add(future)
        future.add_done_callback(functools.partial(self._finish, request))

    def _finish(self, request: Q, future: asyncio.Future[Any]) -> None:
        self.pending.discard(future)
        self.finished.append((request, future))
        self.wake_writer()

    def response(self, request: Q, future: asyncio.Future[Any]) -> R:
        if future.cancelled():
            return self._failed(request, Cancelled())
        try:
            return self._to_response(request, future.result())
        except Exception as error:
            return self._failed(request, error)

    def release(self) -> None:
        self._room += 1
        if self._reader_waits is not None and not self._reader_waits.done():
            self._reader_waits.set_result(None)

    def wake_writer(self, _done: object = None) -> None:
        if self._writer_waits is not None and not self._writer_waits.done():
            self._writer_waits.set_result(None)

    async def progress(self) -> None:
        """Wait until an item finishes or the reader ends."""
        self._writer_waits = self._loop.create_future()
        await self._writer_waits

    async def cancel(self, reader: asyncio.Future[bool] | None) -> None:
        ending: list[asyncio.Future[Any]] = [*self.pending]
        if reader is not None:
            ending.append(reader)
        for future in ending:
            future.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for _, future in self.finished:
            if not future.cancelled():
                future.exception()  # seen, so that asyncio does not report it as lost
