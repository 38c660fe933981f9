"""The database as the topics see it: reads and writes off the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from ranker.database.engines import IN_MEMORY, Engines, is_in_memory, open_engines, parse_url
from ranker.database.migration import check_version, migrate
from ranker.database.writing import Writer
from services.core.background import in_thread
from services.core.errors import FailedPrecondition, NotReady
from services.core.pool import WorkerPool

log = logging.getLogger("easel.ranker")

T = TypeVar("T")

READERS: Final = 4
MAX_WAITING_READS: Final = 1024
MAX_WAITING_WRITES: Final = 10_000
# What SQLite calls a statement that is wrong, or writes where it may only read, and SQLAlchemy an
# error of operation.
_MISTAKES: Final = frozenset({"SQLITE_ERROR", "SQLITE_READONLY"})


class Database:
    """One SQL database. ``connect`` comes first, ``close`` last.

    ``fn`` of ``read`` and ``write`` gets a connection within a transaction, in a thread, and takes
    what it returns out of its results; it must not touch the event loop. What it raises, its caller
    gets. A database that is away or full is ``NotReady``.
    """

    def __init__(self, url: str | URL = IN_MEMORY) -> None:
        """Raises ``ValueError`` for a URL that is none, or of another kind of database."""
        self._url = parse_url(url)
        self._engines: Engines | None = None
        self._writer: Writer | None = None
        self._readers = WorkerPool("database-reader", READERS, MAX_WAITING_READS)

    @classmethod
    def open(cls, url: str | URL = IN_MEMORY) -> Self:
        """As the constructor with ``connect``."""
        database = cls(url)
        database.connect()
        return database

    @property
    def is_in_memory(self) -> bool:
        return is_in_memory(self._url)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._url.get_backend_name()

    def connect(self) -> None:
        """Open the database and bring it to this release's version; blocking.

        Raises ``FailedPrecondition`` for one that cannot be used, and leaves it as it is then.
        """
        engines = open_engines(self._url, READERS)
        try:
            self._prepare(engines)
        except BaseException:
            engines.dispose()
            raise
        self._engines = engines
        self._writer = Writer(engines, max_waiting=MAX_WAITING_WRITES)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run ``fn`` on the database as it is now; several run beside each other.

        Raises what ``fn`` does, ``NotReady``, and ``Overloaded`` where too many wait.
        """
        with _told():
            return await self._readers.run(self._read, fn)

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run ``fn`` while nobody else writes; returns once it is kept for good.

        Writes waiting together share one transaction, each in a savepoint: where ``fn`` raises,
        what it did is undone, and no other. Cancelled in time, ``fn`` is never called; later, it is
        done all the same. Raises as ``read`` does.
        """
        if self._writer is None:
            raise NotReady()
        with _told():
            return await asyncio.wrap_future(self._writer.submit(fn))

    async def maintain(self, fn: Callable[[Connection], T]) -> T:
        """Run ``fn`` on a PostgreSQL connection of its own outside of a transaction, for statements
        that take minutes and let others write meanwhile, such as CREATE INDEX CONCURRENTLY.

        Raises what ``fn`` does, and ``NotReady``. The process may end before ``fn`` does.
        """
        engine = None if self._engines is None else self._engines.maintaining
        if engine is None:
            raise NotReady()

        def run() -> T:
            with engine.connect() as connection:
                return fn(connection)

        with _told():
            return await in_thread(run, "database-maintenance")

    async def close(self) -> None:
        """Write what was taken on, and let go; blocks no other work of the loop."""
        await asyncio.to_thread(self._close)

    def _read(self, fn: Callable[[Connection], T]) -> T:
        engines = self._engines
        if engines is None:
            raise NotReady()
        with engines.turn, engines.reading.connect() as connection, connection.begin():
            return fn(connection)

    def _prepare(self, engines: Engines) -> None:
        try:
            self._make_directory()
            # Connecting to write changes a file; whether it is ours is read before.
            with engines.turn, engines.reading.connect() as connection, connection.begin():
                check_version(connection)
            with engines.turn, engines.writing.begin() as connection:
                migrate(connection)
        except OSError as error:
            raise FailedPrecondition(
                f"The database's directory cannot be used: {error.strerror}."
            ) from error
        except DBAPIError as error:
            raise FailedPrecondition(
                f"The database cannot be used: {_first_line(error)}", reason="DATABASE_UNUSABLE"
            ) from error

    def _make_directory(self) -> None:
        if self.dialect == "sqlite" and not self.is_in_memory:
            Path(self._url.database or "").parent.mkdir(parents=True, exist_ok=True)

    def _close(self) -> None:
        self._readers.close()
        if self._writer is not None:
            self._writer.close()
        if self._engines is not None:
            self._engines.dispose()


@contextmanager
def _told() -> Iterator[None]:
    """A database that is away is told as such; everything else is its caller's."""
    try:
        yield
    except DBAPIError as error:
        if not _is_outage(error):
            raise
        log.error("the database cannot be used", exc_info=error)
        raise NotReady("The database cannot be used now.", reason="DATABASE_UNAVAILABLE") from error


def _is_outage(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    name = getattr(error.orig, "sqlite_errorname", "")
    return isinstance(error, OperationalError) and name not in _MISTAKES


def _first_line(error: DBAPIError) -> str:
    return next(iter(str(error.orig).splitlines()), type(error.orig).__name__)
