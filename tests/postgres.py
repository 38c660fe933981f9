"""A real PostgreSQL for the tests, in a directory of its own, reached by a socket in it."""

from __future__ import annotations

import secrets
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine, make_url, text


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a new server, which ends with the context. It has pgvector."""
    with warnings.catch_warnings():
        # It looks for a directory of the session, and says when there is none.
        warnings.simplefilter("ignore", UserWarning)
        from pgserver import get_server

    # Not below pytest's own: as root the server runs as another user, who must not look in there.
    directory = tempfile.mkdtemp(prefix="easel-postgres-")
    server = get_server(directory, cleanup_mode="delete")
    try:
        # Nothing of it has to outlive a crash.
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def new_database(server_url: str) -> Iterator[str]:
    """The URL of an empty database on the server, dropped at the end of the context."""
    name = f"test_{secrets.token_hex(6)}"
    url = make_url(server_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield url.set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()
