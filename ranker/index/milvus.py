"""Vectors in Milvus: of a server, or of Milvus Lite, which is a local file.

Milvus has the vectors alone, by number; everything else is in the SQL database, which filters. A
vector goes to Milvus before the database knows of its picture, and leaves it after: what an
interrupted write leaves there belongs to no picture, and is passed over.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Collection as Several
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

import numpy as np
from sqlalchemy import Connection

from ranker.database import Database
from ranker.index import rows
from ranker.index.collection import Collection, Origin
from ranker.index.entry import Entry, Filter, Image, Match, Vector
from ranker.index.nearest import Graph
from ranker.index.rows import Shelf
from ranker.index.store import library_missing
from services.core.errors import NotReady
from services.core.pool import WorkerPool

log = logging.getLogger("easel.ranker")

T = TypeVar("T")

THREADS: Final = 4
MAX_WAITING: Final = 1024
EXACT_AMONG: Final = 4096
"""Where a filter lets no more pass, each of them is compared; else the nearest of all are gone
through until enough of them pass."""
MAX_FOUND: Final = 16_384
"""What Milvus answers one search with at most."""

_READ_AT_ONCE: Final = 1000
_SPARE: Final = 16
_NUMBER_BITS: Final = 62


class MilvusStore:
    """The ``VectorStore`` at ``uri``, http://host:port or a local file that ends with .db, beside a
    database of either kind."""

    def __init__(
        self, database: Database, uri: str, token: str = "", *, graph: Graph | None = None
    ) -> None:
        self._database = database
        self._uri = uri
        self._is_local = "://" not in uri
        self._token = token
        self._graph = graph or Graph()
        self._milvus: Any = None
        self._client: Any = None
        self._pool = WorkerPool("milvus", THREADS, MAX_WAITING)
        self._loaded: set[str] = set()
        self._loading = Lock()

    async def open(self) -> None:
        await self._pool.run(self._open)

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close)
        await asyncio.to_thread(self._close)

    async def collections(self) -> Sequence[Collection]:
        return [shelf.collection for shelf in await self._database.read(rows.all_shelves)]

    async def find(self, name: str) -> Collection:
        return (await self._shelf(name)).collection

    async def create(self, name: str, origin: Origin, created_at: datetime) -> Collection:
        make = partial(rows.create, name=name, origin=origin, created_at=created_at)
        shelf, _ = await self._database.write(make)
        await self._run(self._load, shelf)
        return shelf.collection

    async def drop(self, name: str) -> int:
        shelf = await self._database.write(partial(rows.drop, name=name))
        await self._run(self._drop, shelf)
        return shelf.collection.size

    async def put(
        self, name: str, origin: Origin, entries: Sequence[Entry], *, max_size: int
    ) -> Sequence[str]:
        shelf = await self._shelf(name)
        shelf.collection.origin.check_same(origin, name)
        numbers = {entry.image.id: secrets.randbits(_NUMBER_BITS) for entry in entries}
        await self._run(self._insert, shelf, entries, numbers)
        write = partial(
            rows.put,
            shelf=shelf,
            given=[entry.image for entry in entries],
            max_size=max_size,
            numbers=numbers,
        )
        written = await self._database.write(write)
        gone = [*written.replaced, *(numbers[id] for id in written.refused)]
        await self._run(self._delete, shelf, gone)
        return written.refused

    async def existing(self, name: str, ids: Several[str]) -> set[str]:
        shelf = await self._shelf(name)
        look = partial(rows.numbers_of, collection=shelf.number, ids=ids)
        return set(await self._database.read(look))

    async def vector(self, name: str, id: str) -> Vector | None:
        shelf = await self._shelf(name)
        look = partial(rows.numbers_of, collection=shelf.number, ids=[id])
        number = (await self._database.read(look)).get(id)
        if number is None:
            return None
        for _, vectors in await self._run(self._vectors, shelf, [number]):
            return np.array(vectors[0])
        return None

    async def nearest(
        self, name: str, vector: Vector, top_k: int, where: Filter
    ) -> Sequence[Match]:
        shelf = await self._shelf(name)
        if where:
            few = partial(
                rows.numbers_passing,
                collection=shelf.number,
                where=where,
                count=EXACT_AMONG + 1,
            )
            passing = await self._database.read(few)
            if len(passing) <= EXACT_AMONG:
                return await self._compare(shelf, vector, top_k, passing)
        found = await self._go_through(shelf, vector, top_k, where)
        if len(found) < top_k and where:
            everything = partial(rows.numbers_passing, collection=shelf.number, where=where)
            passing = await self._database.read(everything)
            return await self._compare(shelf, vector, top_k, passing)
        return found

    async def likeliest(self, name: str, top_k: int, where: Filter) -> Sequence[Match]:
        shelf = await self._shelf(name)
        find = partial(rows.likeliest, collection=shelf.number, count=top_k, where=where)
        return await self._database.read(find)

    async def page(self, name: str, after: str, count: int, where: Filter) -> Sequence[Image]:
        shelf = await self._shelf(name)
        find = partial(rows.page, collection=shelf.number, after=after, count=count, where=where)
        return await self._database.read(find)

    async def delete(self, name: str, ids: Several[str]) -> int:
        shelf = await self._shelf(name)
        gone = await self._database.write(partial(rows.remove, shelf=shelf, ids=ids))
        await self._run(self._delete, shelf, gone)
        return len(gone)

    async def tend(self, name: str) -> None:
        await self._run(self._flush, await self._shelf(name))

    async def _shelf(self, name: str) -> Shelf:
        return await self._database.read(partial(rows.find, name=name))

    async def _go_through(
        self, shelf: Shelf, vector: Vector, count: int, where: Filter
    ) -> list[Match]:
        """The nearest of all, until enough of them are pictures that pass."""
        asked = count + _SPARE
        while True:
            found = await self._run(self._search, shelf, vector, asked)
            numbers = [number for number, _ in found]
            look = partial(_described, shelf=shelf, numbers=numbers, where=where)
            images = await self._database.read(look)
            matches = [Match(images[number], near) for number, near in found if number in images]
            is_all = len(found) < asked or asked == MAX_FOUND
            if len(matches) >= count or is_all:
                return matches[:count]
            asked = min(4 * asked, MAX_FOUND)

    async def _compare(
        self, shelf: Shelf, vector: Vector, count: int, numbers: Sequence[int]
    ) -> list[Match]:
        """With each of ``numbers``."""
        if not numbers:
            return []
        similarities: list[tuple[float, int]] = []
        for some, vectors in await self._run(self._vectors, shelf, numbers):
            similarities += zip((vectors @ vector).tolist(), some, strict=True)
        best = sorted(similarities, reverse=True)[:count]
        look = partial(rows.described, numbers=[number for _, number in best])
        images = await self._database.read(look)
        return [Match(images[number], near) for near, number in best if number in images]

    async def _run(self, work: Callable[..., T], *given: Any) -> T:
        return await self._pool.run(self._told, partial(work, *given))

    def _told(self, work: Callable[[], T]) -> T:
        if self._client is None:
            raise NotReady()
        with self._errors():
            return work()

    def _open(self) -> None:
        if self._is_local:
            Path(self._uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            import pymilvus

            if self._is_local:
                import milvus_lite  # noqa: F401
        except ModuleNotFoundError as error:
            raise library_missing("Milvus", error.name or "pymilvus", "milvus") from None
        self._milvus = pymilvus
        with self._errors():
            self._client = pymilvus.MilvusClient(uri=self._uri, token=self._token)

    def _close(self) -> None:
        if self._client is None:
            return
        self._client.close()
        if self._is_local:
            from milvus_lite.server_manager import server_manager_instance

            # Milvus Lite serves on within this process, and has the file, until it is told.
            server_manager_instance.release_server(self._uri)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._milvus.MilvusException as error:
            log.error("Milvus failed", exc_info=error)
            raise NotReady("Milvus cannot be used now.", reason="MILVUS_UNAVAILABLE") from error

    def _load(self, shelf: Shelf) -> str:
        """The collection's name in Milvus, where it is made if need be: one that was opened again
        is not loaded."""
        name = _name(shelf)
        with self._loading:
            if name not in self._loaded:
                if not self._client.has_collection(name):
                    self._make(name, shelf.collection.origin.dimensions)
                self._client.load_collection(name)
                self._loaded.add(name)
        return name

    def _make(self, name: str, dimensions: int) -> None:
        kinds, graph = self._milvus.DataType, self._graph
        schema = self._milvus.MilvusClient.create_schema(auto_id=False)
        schema.add_field("number", kinds.INT64, is_primary=True)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=dimensions)
        params = self._milvus.MilvusClient.prepare_index_params()
        params.add_index(
            "vector",
            index_type="HNSW",
            metric_type="IP",
            params={"M": graph.links, "efConstruction": graph.build_width},
        )
        self._client.create_collection(
            name, schema=schema, index_params=params, consistency_level="Strong"
        )

    def _drop(self, shelf: Shelf) -> None:
        name = _name(shelf)
        with self._loading:
            self._loaded.discard(name)
            if self._client.has_collection(name):
                self._client.drop_collection(name)

    def _insert(self, shelf: Shelf, entries: Sequence[Entry], numbers: dict[str, int]) -> None:
        name = self._load(shelf)
        self._client.insert(
            name,
            [{"number": numbers[entry.image.id], "vector": entry.vector} for entry in entries],
        )

    def _delete(self, shelf: Shelf, numbers: Sequence[int]) -> None:
        if numbers:
            self._client.delete(self._load(shelf), ids=list(numbers))

    def _vectors(self, shelf: Shelf, numbers: Sequence[int]) -> list[tuple[list[int], Any]]:
        """Numbers, and their vectors as float32 [count, dimensions], in parts."""
        name, parts = self._load(shelf), []
        for first in range(0, len(numbers), _READ_AT_ONCE):
            some = list(numbers[first : first + _READ_AT_ONCE])
            found = self._client.query(
                name,
                filter=f"number in {some}",
                output_fields=["number", "vector"],
                consistency_level="Strong",
            )
            if found:
                vectors = np.array([row["vector"] for row in found], np.float32)
                parts.append(([row["number"] for row in found], vectors))
        return parts

    def _search(self, shelf: Shelf, vector: Vector, count: int) -> list[tuple[int, float]]:
        width = max(self._graph.search_width, min(2 * count, MAX_FOUND))
        (found,) = self._client.search(
            self._load(shelf),
            data=[vector],
            anns_field="vector",
            limit=count,
            search_params={"params": {"ef": width}},
            consistency_level="Strong",
        )
        return [(hit["number"], hit["distance"]) for hit in found]

    def _flush(self, shelf: Shelf) -> None:
        """What is not flushed is in no index, and searched slowly."""
        self._client.flush(self._load(shelf))


def _described(
    connection: Connection, shelf: Shelf, numbers: Sequence[int], where: Filter
) -> dict[int, Image]:
    """Those of ``numbers`` that are pictures which ``where`` lets pass."""
    if where:
        numbers = rows.numbers_passing(connection, shelf.number, where, among=numbers)
    return rows.described(connection, numbers)


def _name(shelf: Shelf) -> str:
    """One that no other database's collections have, and no earlier one of this name."""
    created = int(shelf.collection.created_at.timestamp() * 1e6)
    return f"easel_{shelf.number}_{created}"
