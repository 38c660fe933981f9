"""Every kind of vector store, opened, closed and opened again; and vectors to put in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.database import Database
from ranker.index.collection import Origin
from ranker.index.embedded import EmbeddedStore
from ranker.index.entry import Entry, Image, Label, Vector
from ranker.index.nearest import Graph
from ranker.index.store import VectorStore

KINDS: Final = ("memory", "embedded", "pgvector", "milvus")
LASTING: Final = ("embedded", "pgvector", "milvus")
DIMENSIONS: Final = 16
NOW: Final = datetime(2026, 11, 25, 12, 30, 15, 250_000, UTC)
ORIGIN: Final = Origin("vit", "1", "sha256:c", 12, "cls", "model", DIMENSIONS)
ROOM: Final = 1_000_000

Kept = Callable[..., Any]


@asynccontextmanager
async def opened(
    kind: str, place: Path, postgres_url: str, exact_size: int = 10_000
) -> AsyncIterator[VectorStore]:
    """A store of that kind over what it kept in ``place`` or in the database, if anything."""
    database = Database.open(_url(kind, place, postgres_url))
    store = _store(kind, database, place, exact_size)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
        await database.close()


def _url(kind: str, place: Path, postgres_url: str) -> str:
    if kind == "pgvector":
        return postgres_url
    return "sqlite://" if kind == "memory" else f"sqlite:///{place / 'easel.db'}"


def _store(kind: str, database: Database, place: Path, exact_size: int) -> VectorStore:
    if kind == "pgvector":
        from ranker.index.pgvector import PgVectorStore

        return PgVectorStore(database, exact_size=exact_size)
    if kind == "milvus":
        from ranker.index.milvus import MilvusStore

        return MilvusStore(database, str(place / "vectors.db"))
    directory = place / "index" if kind == "embedded" else None
    return EmbeddedStore(database, directory, exact_size=exact_size, graph=Graph(16, 40, 64))


def units(count: int, seed: int = 0, dimensions: int = DIMENSIONS) -> Any:
    """float32 [count, dimensions], of length 1."""
    made = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def entry(
    id: str,
    vector: Vector,
    labels: Mapping[str, float] | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Entry:
    named = tuple(
        Label(index, name, score) for index, (name, score) in enumerate((labels or {}).items())
    )
    return Entry(Image(id, named, attributes or {}, NOW), vector)


def entries(vectors: Any, prefix: str = "p") -> list[Entry]:
    return [entry(f"{prefix}{place:05}", vector) for place, vector in enumerate(vectors)]


def truth(given: Sequence[Entry], vector: Vector, count: int) -> list[str]:
    """The ids of the ``count`` nearest, by comparing all in float64."""
    similarity = np.stack([each.vector for each in given]).astype(np.float64) @ vector
    order = np.argsort(-similarity, kind="stable")[:count]
    return [given[place].image.id for place in order]
