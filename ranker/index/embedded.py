"""Vectors in the SQLite database, and in memory in FAISS indexes: the embedded default.

The database is what lasts. An index in memory is filled from it when the ranker starts; a graph,
which takes minutes to build, is also kept in a file, and brought up to date from the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection as Several
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, insert, select

from ranker.database import Database
from ranker.index import rows, tables
from ranker.index.collection import Collection, Origin
from ranker.index.entry import Entry, Filter, Image, Match, Vector
from ranker.index.nearest import Graph, Nearest, library
from ranker.index.rows import Shelf, Written
from services.core.background import in_thread, whole
from services.core.pool import WorkerPool

log = logging.getLogger("easel.ranker")

SEARCHING_THREADS: Final = 2
MAX_WAITING: Final = 1024
_LOADED_AT_ONCE: Final = 4096
# Into a graph, at the next start, in a fraction of a second.
_CAUGHT_UP_AT_ONCE: Final = 256


@dataclass(slots=True)
class _Held:
    """A collection in memory. ``writing`` keeps memory in the order of the database; ``unsaved``
    are the changes that its file does not have."""

    nearest: Nearest
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    unsaved: int = 0


class EmbeddedStore:
    """The ``VectorStore`` of one process over its own SQLite database.

    ``directory`` is where graphs are kept; None keeps none. Vectors are compared one by one up to
    ``exact_size`` of a collection.
    """

    def __init__(
        self,
        database: Database,
        directory: Path | None,
        *,
        exact_size: int,
        graph: Graph | None = None,
    ) -> None:
        self._database = database
        self._directory = directory
        self._exact_size = exact_size
        self._graph = graph or Graph()
        self._held: dict[int, asyncio.Future[_Held]] = {}
        self._pool = WorkerPool("index", SEARCHING_THREADS, MAX_WAITING)
        self._filling: asyncio.Task[None] | None = None

    async def open(self) -> None:
        library()
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
        self._filling = asyncio.create_task(self._fill())

    async def close(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        for future in self._held.values():
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().nearest.stop()
        for number in list(self._held):
            await self._save(number, more_than=_CAUGHT_UP_AT_ONCE)
        await asyncio.to_thread(self._pool.close)

    async def collections(self) -> Sequence[Collection]:
        return [shelf.collection for shelf in await self._database.read(rows.all_shelves)]

    async def find(self, name: str) -> Collection:
        return (await self._shelf(name)).collection

    async def create(self, name: str, origin: Origin, created_at: datetime) -> Collection:
        make = partial(rows.create, name=name, origin=origin, created_at=created_at)
        shelf, _ = await self._database.write(make)
        return shelf.collection

    # Memory must follow what the database has: what changes both is done whole.
    async def drop(self, name: str) -> int:
        return await whole(self._drop(name))

    async def put(
        self, name: str, origin: Origin, entries: Sequence[Entry], *, max_size: int
    ) -> Sequence[str]:
        return await whole(self._put(name, origin, entries, max_size))

    async def existing(self, name: str, ids: Several[str]) -> set[str]:
        shelf = await self._shelf(name)
        look = partial(rows.numbers_of, collection=shelf.number, ids=ids)
        return set(await self._database.read(look))

    async def vector(self, name: str, id: str) -> Vector | None:
        shelf = await self._shelf(name)
        held = await self._hold(shelf)
        look = partial(rows.numbers_of, collection=shelf.number, ids=[id])
        number = (await self._database.read(look)).get(id)
        return None if number is None else held.nearest.vector(number)

    async def nearest(
        self, name: str, vector: Vector, top_k: int, where: Filter
    ) -> Sequence[Match]:
        shelf = await self._shelf(name)
        held = await self._hold(shelf)
        among = None
        if where:
            passing = partial(rows.numbers_passing, collection=shelf.number, where=where)
            among = await self._database.read(passing)
        found = await self._pool.run(held.nearest.search, vector, top_k, among)
        numbers = [number for number, _ in found]
        images = await self._database.read(partial(rows.described, numbers=numbers))
        return [
            Match(images[number], similarity) for number, similarity in found if number in images
        ]

    async def likeliest(self, name: str, top_k: int, where: Filter) -> Sequence[Match]:
        shelf = await self._shelf(name)
        find = partial(rows.likeliest, collection=shelf.number, count=top_k, where=where)
        return await self._database.read(find)

    async def page(self, name: str, after: str, count: int, where: Filter) -> Sequence[Image]:
        shelf = await self._shelf(name)
        find = partial(rows.page, collection=shelf.number, after=after, count=count, where=where)
        return await self._database.read(find)

    async def delete(self, name: str, ids: Several[str]) -> int:
        return await whole(self._delete(name, ids))

    async def tend(self, name: str) -> None:
        shelf = await self._shelf(name)
        held = await self._hold(shelf)
        is_new = await in_thread(held.nearest.tend, "index-graph")
        await self._save(shelf.number, more_than=0 if is_new else len(held.nearest) // 20)

    async def _fill(self) -> None:
        """Have every collection in memory before it is asked for."""
        for shelf in await self._database.read(rows.all_shelves):
            await asyncio.wait([self._holding(shelf)])

    async def _put(
        self, name: str, origin: Origin, entries: Sequence[Entry], max_size: int
    ) -> Sequence[str]:
        shelf = await self._shelf(name)
        shelf.collection.origin.check_same(origin, name)
        held = await self._hold(shelf)
        async with held.writing:
            write = partial(_write, shelf=shelf, entries=entries, max_size=max_size)
            written = await self._database.write(write)
            kept = [entry for entry in entries if entry.image.id in written.numbers]
            held.unsaved += len(kept)
            await asyncio.to_thread(_follow, held.nearest, kept, written)
        return written.refused

    async def _delete(self, name: str, ids: Several[str]) -> int:
        shelf = await self._shelf(name)
        held = await self._hold(shelf)
        async with held.writing:
            gone = await self._database.write(partial(rows.remove, shelf=shelf, ids=ids))
            held.unsaved += len(gone)
            await asyncio.to_thread(held.nearest.remove, gone)
        return len(gone)

    async def _drop(self, name: str) -> int:
        shelf = await self._database.write(partial(rows.drop, name=name))
        holding = self._held.pop(shelf.number, None)
        if holding is not None:
            (await holding).nearest.stop()
        path = self._graph_file(shelf.number)
        if path is not None:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        return shelf.collection.size

    async def _shelf(self, name: str) -> Shelf:
        return await self._database.read(partial(rows.find, name=name))

    async def _hold(self, shelf: Shelf) -> _Held:
        return await asyncio.shield(self._holding(shelf))

    def _holding(self, shelf: Shelf) -> asyncio.Future[_Held]:
        future = self._held.get(shelf.number)
        failed = future is not None and future.done() and future.exception() is not None
        if future is None or failed:
            future = asyncio.ensure_future(self._load(shelf))
            self._held[shelf.number] = future
        return future

    async def _load(self, shelf: Shelf) -> _Held:
        """The collection as the database has it."""
        nearest = await asyncio.to_thread(self._from_file, shelf)
        everything = partial(rows.numbers_passing, collection=shelf.number, where=Filter())
        there = set(await self._database.read(everything))
        kept = nearest.numbers
        nearest.remove(kept - there)
        missing = sorted(there - kept)
        for first in range(0, len(missing), _LOADED_AT_ONCE):
            some = missing[first : first + _LOADED_AT_ONCE]
            numbers, vectors = await self._database.read(
                partial(_read_vectors, first=some[0], last=some[-1], among=set(some), shelf=shelf)
            )
            await asyncio.to_thread(nearest.add, numbers, vectors)
        return _Held(nearest, unsaved=len(missing))

    def _from_file(self, shelf: Shelf) -> Nearest:
        """The graph that was kept, or nothing."""
        dimensions = shelf.collection.origin.dimensions
        made = Nearest(dimensions, self._exact_size, self._graph)
        path = self._graph_file(shelf.number)
        if path is None or not path.exists():
            return made
        try:
            made.load(path)
        except (OSError, ValueError) as error:
            log.warning("a graph of the image index is built anew: %s: %s", path.name, error)
        return made

    async def _save(self, number: int, *, more_than: int) -> None:
        """Keep a graph that changed so much: it is written as a whole, and what its file lacks is
        read from the database."""
        path, future = self._graph_file(number), self._held.get(number)
        if path is None or future is None or not future.done() or future.exception() is not None:
            return
        held = future.result()
        if held.unsaved > more_than and held.nearest.has_graph:
            held.unsaved = 0
            await asyncio.to_thread(held.nearest.save, path)

    def _graph_file(self, number: int) -> Path | None:
        return None if self._directory is None else self._directory / f"{number}.graph"


def _write(
    connection: Connection, shelf: Shelf, entries: Sequence[Entry], max_size: int
) -> Written:
    written = rows.put(connection, shelf, [entry.image for entry in entries], max_size=max_size)
    vectors = [
        {"image": written.numbers[entry.image.id], "vector": _to_bytes(entry.vector)}
        for entry in entries
        if entry.image.id in written.numbers
    ]
    if vectors:
        connection.execute(insert(tables.vectors), vectors)
    return written


def _read_vectors(
    connection: Connection, first: int, last: int, among: set[int], shelf: Shelf
) -> tuple[list[int], Any]:
    """Those of ``among``, which lie from ``first`` to ``last``."""
    images, vectors = tables.images.c, tables.vectors.c
    found = connection.execute(
        select(vectors.image, vectors.vector)
        .join(tables.images, images.number == vectors.image)
        .where(images.collection == shelf.number, vectors.image.between(first, last))
    )
    pairs = [(row.image, row.vector) for row in found if row.image in among]
    data = np.frombuffer(b"".join(vector for _, vector in pairs), "<f4")
    return [number for number, _ in pairs], data.reshape(
        len(pairs), shelf.collection.origin.dimensions
    )


def _follow(nearest: Nearest, kept: Sequence[Entry], written: Written) -> None:
    """Memory after the database."""
    nearest.remove(written.replaced)
    if kept:
        numbers = [written.numbers[entry.image.id] for entry in kept]
        nearest.add(numbers, np.stack([entry.vector for entry in kept]))


def _to_bytes(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()
