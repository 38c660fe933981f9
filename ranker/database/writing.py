"""Writes that wait together share a transaction, which is what makes small ones cheap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ranker.database.engines import Engines
from services.core.errors import Draining, Overloaded

T = TypeVar("T")

MAX_GROUP: Final = 512
"""Writes in one transaction: others, of other processes too, wait that long at most."""

RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Write:
    fn: Callable[[Connection], Any]
    future: Future[Any]


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception


class Writer:
    """Runs writes in a thread of its own, in the order in which they came.

    Each is in a savepoint: one that raises is undone, alone. None is told before all of its group
    is committed; where that fails, all of them fail.
    """

    def __init__(self, engines: Engines, *, max_waiting: int) -> None:
        self._engines = engines
        self._max_waiting = max_waiting
        self._waiting: deque[_Write] = deque()
        self._lock = Lock()
        self._is_running = False
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database-writer")

    def submit(self, fn: Callable[[Connection], T]) -> Future[T]:
        """Raises ``Overloaded`` and ``Draining``; cancelled in time, ``fn`` is never called."""
        write = _Write(fn, Future())
        with self._lock:
            if self._is_closed:
                raise Draining()
            if len(self._waiting) >= self._max_waiting:
                raise Overloaded(RETRY_SECONDS, reason="DATABASE_BUSY")
            self._waiting.append(write)
            if not self._is_running:
                self._is_running = True
                self._thread.submit(self._run)
        return write.future

    def close(self) -> None:
        """Take nothing new, and return once all that was taken is written."""
        with self._lock:
            self._is_closed = True
        self._thread.shutdown(wait=True)

    def _run(self) -> None:
        while group := self._next_group():
            _settle([write for write in group if write.future.set_running_or_notify_cancel()], self)

    def _next_group(self) -> list[_Write]:
        with self._lock:
            count = min(MAX_GROUP, len(self._waiting))
            self._is_running = count > 0
            return [self._waiting.popleft() for _ in range(count)]

    def commit(self, fns: list[Callable[[Connection], Any]]) -> list[Any]:
        """What each returned, or its ``_Failure``, committed."""
        with self._engines.turn, self._engines.writing.begin() as connection:
            return [_attempt(connection, fn) for fn in fns]


def _settle(writes: list[_Write], writer: Writer) -> None:
    try:
        outcomes = writer.commit([write.fn for write in writes])
    except BaseException as error:
        for write in writes:
            write.future.set_exception(error)
        return
    for write, outcome in zip(writes, outcomes, strict=True):
        if isinstance(outcome, _Failure):
            write.future.set_exception(outcome.error)
        else:
            write.future.set_result(outcome)


def _attempt(connection: Connection, fn: Callable[[Connection], Any]) -> Any:
    savepoint = connection.begin_nested()
    try:
        value = fn(connection)
    except Exception as error:
        # The connection is gone and the group with it; nothing of it may be told as written.
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        savepoint.rollback()
        return _Failure(error)
    savepoint.commit()
    return value
