"""The one ``MetaData`` of all tables, and column types that mean the same in every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Dialect, Integer, MetaData, Table, TypeDecorator
from sqlalchemy.dialects import postgresql, sqlite

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

RowId: Final = BigInteger().with_variant(Integer(), "sqlite")
"""A primary key that the database counts up: 64 bits, and SQLite's own row number."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """An aware ``datetime``, kept as whole microseconds since 1970 UTC in a 64-bit integer, so that
    it is exact, ordered and open to arithmetic in every database. Naive ones are a ``ValueError``.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else _EPOCH + timedelta(microseconds=value)


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that has ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """As ``insert_into``, for statements that are kept."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
