"""Vectors in PostgreSQL, by its extension pgvector.

Each collection has a table of vectors, made and dropped with it. Above ``exact_size`` pictures
``tend`` gives it an HNSW index; searches with a filter pass the index by, since it would first find
the nearest and only then look which of them are wanted.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable, Sequence
from collections.abc import Collection as Several
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import numpy as np
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Dialect,
    Float,
    TableClause,
    bindparam,
    cast,
    column,
    func,
    insert,
    select,
    table,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import UserDefinedType

from ranker.database import Database
from ranker.index import rows, tables
from ranker.index.collection import Collection, Origin
from ranker.index.entry import Entry, Filter, Image, Match, Vector
from ranker.index.nearest import Graph
from ranker.index.rows import Shelf
from services.core.errors import FailedPrecondition

log = logging.getLogger("easel.ranker")

# What an HNSW index of the type `vector` takes.
MAX_INDEXED_DIMENSIONS: Final = 2000
_MAX_SEARCH_WIDTH: Final = 1000
_BUILD_MEMORY: Final = "1GB"
_WORKERS: Final = 2
# Any number that no other program on the database takes its locks by.
_BUILDERS_LOCK: Final = 0x6561_736C
_PREPARED: Final = "sends vectors"


class PgVectorStore:
    """The ``VectorStore`` in a PostgreSQL database, which several rankers may share."""

    def __init__(self, database: Database, *, exact_size: int, graph: Graph | None = None) -> None:
        self._database = database
        self._exact_size = exact_size
        self._graph = graph or Graph()

    async def open(self) -> None:
        try:
            await self._database.write(_make_extension)
        except DBAPIError as error:
            raise FailedPrecondition(
                "The image index needs the extension pgvector in the PostgreSQL database: "
                "have its administrator run CREATE EXTENSION vector.",
                reason="NO_PGVECTOR",
            ) from error

    async def close(self) -> None:
        pass  # the database is closed by whoever opened it

    async def collections(self) -> Sequence[Collection]:
        return [shelf.collection for shelf in await self._database.read(rows.all_shelves)]

    async def find(self, name: str) -> Collection:
        return (await self._database.read(partial(rows.find, name=name))).collection

    async def create(self, name: str, origin: Origin, created_at: datetime) -> Collection:
        make = partial(_create, name=name, origin=origin, created_at=created_at)
        return await self._database.write(make)

    async def drop(self, name: str) -> int:
        return await self._database.write(partial(_drop, name=name))

    async def put(
        self, name: str, origin: Origin, entries: Sequence[Entry], *, max_size: int
    ) -> Sequence[str]:
        write = partial(_put, name=name, origin=origin, entries=entries, max_size=max_size)
        return await self._database.write(write)

    async def existing(self, name: str, ids: Several[str]) -> set[str]:
        return await self._database.read(partial(_existing, name=name, ids=ids))

    async def vector(self, name: str, id: str) -> Vector | None:
        return await self._database.read(partial(_vector, name=name, id=id))

    async def nearest(
        self, name: str, vector: Vector, top_k: int, where: Filter
    ) -> Sequence[Match]:
        width = self._graph.search_width
        find = partial(_nearest, name=name, vector=vector, count=top_k, where=where, width=width)
        return await self._database.read(find)

    async def likeliest(self, name: str, top_k: int, where: Filter) -> Sequence[Match]:
        def find(connection: Connection) -> list[Match]:
            shelf = rows.find(connection, name)
            return rows.likeliest(connection, shelf.number, top_k, where)

        return await self._database.read(find)

    async def page(self, name: str, after: str, count: int, where: Filter) -> Sequence[Image]:
        def find(connection: Connection) -> list[Image]:
            shelf = rows.find(connection, name)
            return rows.page(connection, shelf.number, after, count, where)

        return await self._database.read(find)

    async def delete(self, name: str, ids: Several[str]) -> int:
        def remove(connection: Connection) -> int:
            return len(rows.remove(connection, rows.find(connection, name), ids))

        return await self._database.write(remove)

    async def tend(self, name: str) -> None:
        shelf = await self._database.read(partial(rows.find, name=name))
        dimensions = shelf.collection.origin.dimensions
        if shelf.collection.size <= self._exact_size or dimensions > MAX_INDEXED_DIMENSIONS:
            return
        try:
            await self._database.maintain(partial(_index, shelf=shelf, graph=self._graph))
        except DBAPIError as error:
            if await self._is_gone(shelf):
                return
            raise FailedPrecondition("The index of vectors could not be built.") from error

    async def _is_gone(self, shelf: Shelf) -> bool:
        there = await self._database.read(rows.all_shelves)
        return shelf.number not in {each.number for each in there}


def _make_extension(connection: Connection) -> None:
    # Asked first: creating one takes rights that using it does not.
    there = connection.scalar(text("SELECT 1 FROM pg_extension WHERE extname = 'vector'"))
    if there is None:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))


def _create(connection: Connection, name: str, origin: Origin, created_at: datetime) -> Collection:
    shelf, is_new = rows.create(connection, name, origin, created_at)
    if is_new:
        connection.execute(
            text(
                f"CREATE TABLE {_table(shelf)} (image bigint PRIMARY KEY "
                f"REFERENCES {tables.images.name} (number) ON DELETE CASCADE, "
                f"vector vector({origin.dimensions}) NOT NULL) "
                # Its size says how many for other tables, and does not tell of the vectors.
                f"WITH (parallel_workers = {_WORKERS})"
            )
        )
    return shelf.collection


def _drop(connection: Connection, name: str) -> int:
    shelf = rows.find(connection, name)
    connection.execute(text(f"DROP TABLE {_table(shelf)}"))
    rows.drop(connection, name)
    return shelf.collection.size


def _put(
    connection: Connection, name: str, origin: Origin, entries: Sequence[Entry], max_size: int
) -> Sequence[str]:
    shelf = rows.find(connection, name)
    shelf.collection.origin.check_same(origin, name)
    written = rows.put(connection, shelf, [entry.image for entry in entries], max_size=max_size)
    vectors = [
        {"image": written.numbers[entry.image.id], "vector": entry.vector}
        for entry in entries
        if entry.image.id in written.numbers
    ]
    if vectors:
        _prepared(connection).execute(insert(_vectors(shelf)), vectors)
    return written.refused


def _existing(connection: Connection, name: str, ids: Several[str]) -> set[str]:
    return set(rows.numbers_of(connection, rows.find(connection, name).number, ids))


def _vector(connection: Connection, name: str, id: str) -> Vector | None:
    shelf = rows.find(connection, name)
    number = rows.numbers_of(connection, shelf.number, [id]).get(id)
    vectors = _vectors(shelf)
    found: Vector | None = connection.scalar(
        select(vectors.c.vector).where(vectors.c.image == number)
    )
    return found


def _nearest(
    connection: Connection, name: str, vector: Vector, count: int, where: Filter, width: int
) -> list[Match]:
    shelf = rows.find(connection, name)
    count = min(count, shelf.collection.size)
    _prepared(connection).execute(text("SET LOCAL jit = off"))
    found = _by_index(connection, shelf, vector, count, width) if not where else []
    # An index passes over what was deleted only after it has looked as far as it does.
    if where or len(found) < count:
        found = _among_all(connection, shelf, vector, count, where)
    images = rows.described(connection, [number for number, _ in found])
    return [Match(images[number], similarity) for number, similarity in found]


def _by_index(
    connection: Connection, shelf: Shelf, vector: Vector, count: int, width: int
) -> list[tuple[int, float]]:
    """Through the index, where there is one."""
    looked_at = min(_MAX_SEARCH_WIDTH, max(width, 2 * count))
    connection.execute(text(f"SET LOCAL hnsw.ef_search = {looked_at}"))
    # Vectors lie beside their table, which therefore looks small to the planner, and quick to read.
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    vectors = _vectors(shelf).c
    negative = _negative_product(vectors.vector, vector)
    found = select(vectors.image, negative.label("negative")).order_by(negative).limit(count)
    pairs = _pairs(connection.execute(found))
    connection.execute(text("SET LOCAL enable_seqscan = on"))
    return pairs


def _among_all(
    connection: Connection, shelf: Shelf, vector: Vector, count: int, where: Filter
) -> list[tuple[int, float]]:
    """By comparing every one: there is no index of what this sorts by."""
    vectors = _vectors(shelf)
    negative = (_negative_product(vectors.c.vector, vector) + 0.0).label("negative")
    found = (
        select(vectors.c.image, negative)
        .join(tables.images, tables.images.c.number == vectors.c.image)
        .where(*rows.passing(shelf.number, where))
        .order_by(negative)
        .limit(count)
    )
    return _pairs(connection.execute(found))


def _negative_product(column: ColumnElement[Any], vector: Vector) -> ColumnElement[float]:
    return column.op("<#>", return_type=Float())(bindparam(None, vector, _VectorType()))


def _pairs(found: Any) -> list[tuple[int, float]]:
    return [(row.image, -row.negative) for row in found]


def _index(connection: Connection, shelf: Shelf, graph: Graph) -> None:
    """Build the index while others write, unless somebody does. What an interrupted run left is
    built anew."""
    if not connection.scalar(select(func.pg_try_advisory_lock(_BUILDERS_LOCK, shelf.number))):
        return
    name = f"{_table(shelf)}_graph"
    is_valid = connection.scalar(
        text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"),
        {"name": name},
    )
    if is_valid:
        return
    connection.execute(text(f"SET maintenance_work_mem = '{_BUILD_MEMORY}'"))
    build = text(
        f"CREATE INDEX CONCURRENTLY {name} ON {_table(shelf)} USING hnsw (vector vector_ip_ops) "
        f"WITH (m = {graph.links}, ef_construction = {graph.build_width})"
    )
    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
    try:
        connection.execute(build)
    except DBAPIError as error:
        # Workers share memory, of which a container may have little.
        log.warning("a graph of vectors is built by one process alone: %s", error.orig)
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
        connection.execute(text("SET max_parallel_maintenance_workers = 0"))
        connection.execute(build)
    log.info("collection %r has a graph of its vectors now", shelf.collection.name)


def _vectors(shelf: Shelf) -> TableClause:
    return table(_table(shelf), column("image", BigInteger), column("vector", _VectorType()))


def _table(shelf: Shelf) -> str:
    return f"image_vector_{shelf.number}"


class _VectorType(UserDefinedType[Vector]):
    """pgvector's type: written in its binary format, which takes a fifth of the text's time, and
    read as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "vector"

    def bind_expression(self, bindvalue: BindParameter[Vector]) -> ColumnElement[Vector]:
        return cast(bindvalue, self)

    def bind_processor(self, dialect: Dialect) -> Callable[[Vector | None], Any]:
        del dialect
        return lambda vector: None if vector is None else _Sent(vector)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str], Vector]:
        del dialect, coltype
        return lambda text: np.array(json.loads(text), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A vector on its way to the server."""

    vector: Vector

    def to_bytes(self) -> bytes:
        """pgvector's ``vector_recv``: dimensions, nothing, numbers, all big-endian."""
        return struct.pack(">HH", len(self.vector), 0) + self.vector.astype(">f4").tobytes()


def _prepared(connection: Connection) -> Connection:
    """Its driver's connection told how a vector is sent. The server knows the type from where the
    vector stands in the statement."""
    if _PREPARED not in connection.info:
        from psycopg.adapt import Dumper
        from psycopg.pq import Format

        class VectorDumper(Dumper):
            format = Format.BINARY

            def dump(self, obj: _Sent) -> bytes:
                return obj.to_bytes()

        driver: Any = connection.connection.driver_connection
        driver.adapters.register_dumper(_Sent, VectorDumper)
        connection.info[_PREPARED] = True
    return connection
