"""Connections to SQLite and PostgreSQL, one engine for reading and one for writing.

Writing transactions exclude each other in both, across processes too: what one reads, no other
changes before it commits. So reading, deciding and writing within one is safe, and two never
deadlock. Reading ones cannot write, and see the database as it was when they began.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from services.core.errors import FailedPrecondition

IN_MEMORY: Final = "sqlite://"
_DRIVERS: Final = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
# How long a writer of this process waits for those of others.
_BUSY_SECONDS: Final = 60.0
_CONNECT_SECONDS: Final = 10
_CACHE_KIBIBYTES: Final = 32 * 1024
# Any number that no other program on the same PostgreSQL database takes its locks by.
WRITERS_LOCK: Final = 0x6561_7365_6C


@dataclass(frozen=True, slots=True)
class Engines:
    """``turn`` is held while a connection is in use: there is only one where all is in memory.

    ``maintaining`` has connections without a transaction, where the database has use for them.
    """

    reading: Engine
    writing: Engine
    turn: AbstractContextManager[Any]
    maintaining: Engine | None = None

    def dispose(self) -> None:
        self.reading.dispose()
        self.writing.dispose()
        if self.maintaining is not None:
            self.maintaining.dispose()


def parse_url(text: str | URL) -> URL:
    """The address of a database: ``sqlite:///path``, ``sqlite://`` for memory alone, or
    ``postgresql://user:password@host/name``. Raises ``ValueError``, which never has the password.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise ValueError("must be a URL such as postgresql://user:password@host/name") from None
    kind = url.get_backend_name()
    if kind not in _DRIVERS or url.drivername not in (kind, _DRIVERS[kind]):
        allowed = " or ".join(f"{name}://" for name in _DRIVERS)
        raise ValueError(f"must be one that begins with {allowed}, not {url.drivername}://")
    return url.set(drivername=_DRIVERS[kind])


def is_in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def open_engines(url: URL, readers: int) -> Engines:
    """Engines that connect when they are first used; at most ``readers`` connections read."""
    if is_in_memory(url):
        return _in_memory()
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, readers)
    return _postgresql(url, readers)


def _in_memory() -> Engines:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")

    def engine(*begin: str) -> Engine:
        made = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
        _begin_with(made, *begin)
        return made

    return Engines(
        reading=engine("PRAGMA query_only = ON", "BEGIN"),
        writing=engine("PRAGMA query_only = OFF", "BEGIN"),
        turn=Lock(),
    )


def _sqlite(url: URL, readers: int) -> Engines:
    def engine(size: int, *pragmas: str) -> Engine:
        # The driver's own transactions begin late and end before DDL; ours are begun by hand.
        options = {"timeout": _BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}
        made = create_engine(url, connect_args=options, pool_size=size, max_overflow=0)
        _connect_with(made, "foreign_keys = ON", f"cache_size = -{_CACHE_KIBIBYTES}", *pragmas)
        return made

    reading = engine(readers, "query_only = ON")
    _begin_with(reading, "BEGIN")
    # WAL: readers and the writer do not wait for each other. FULL: what was told to be written is
    # on the disk.
    writing = engine(1, "journal_mode = WAL", "synchronous = FULL")
    _begin_with(writing, "BEGIN IMMEDIATE")
    return Engines(reading, writing, turn=nullcontext())


def _postgresql(url: URL, readers: int) -> Engines:
    options = {"connect_timeout": _CONNECT_SECONDS, "application_name": "easel-ranker"}
    own = {key: value for key, value in options.items() if key not in url.query}

    def engine(size: int, **execution_options: Any) -> Engine:
        try:
            return create_engine(
                url,
                connect_args=own,
                pool_size=size,
                max_overflow=0,
                pool_pre_ping=True,
                execution_options=execution_options,
            )
        except ModuleNotFoundError:
            raise FailedPrecondition(
                "PostgreSQL needs a driver: pip install 'easel[postgres]'."
            ) from None

    reading = engine(readers, isolation_level="REPEATABLE READ", postgresql_readonly=True)
    writing = engine(1)
    _begin_with(writing, f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")
    maintaining = create_engine(
        url, connect_args=own, poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    return Engines(reading, writing, nullcontext(), maintaining)


def _connect_with(engine: Engine, *pragmas: str) -> None:
    def prepare(connection: Any, record: object) -> None:
        del record
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    event.listen(engine, "connect", prepare)


def _begin_with(engine: Engine, *statements: str) -> None:
    def begin(connection: Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    listener: Callable[[Connection], None] = begin
    event.listen(engine, "begin", listener)
