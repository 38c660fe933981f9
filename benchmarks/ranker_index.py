"""The image index: how many of the true nearest each store finds, and how long it takes.

The vectors are made to be like embeddings of pictures: a thousand clusters in 64 directions whose
weights fall off, turned into 1,024 dimensions with a little noise in all of them, of length 1.
Their intrinsic dimension is about 30 by two nearest neighbours (Facco et al., 2017), what is told
of the last layers of image networks. Queries are of the same clusters, and not among the vectors.
Truth is by comparing all.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.report import Bound, Chart, Entry, Line, quick
from ranker.database import Database
from ranker.index.collection import Origin
from ranker.index.embedded import EmbeddedStore
from ranker.index.entry import Entry as Picture
from ranker.index.entry import Filter, Image, Label
from ranker.index.milvus import MilvusStore
from ranker.index.nearest import Graph
from ranker.index.pgvector import PgVectorStore
from ranker.index.store import VectorStore
from tests.postgres import new_database, running_postgres

COMMAND: Final = "make bench-ranker"
SIZE: Final = 10_000 if quick() else 100_000
EXACT_SIZE: Final = SIZE // 2
DIMENSIONS: Final = 1024
QUERIES: Final = 100 if quick() else 200
FILTERED_QUERIES: Final = 20
ENOUGH: Final = 40
"""Queries that a slow store is asked at least."""

PATIENCE_MILLISECONDS: Final = 4_000
FOUND: Final = 10
WIDTHS: Final = (16, 32, 64, 128, 256)
CLUSTERS: Final = 1000
LATENT: Final = 64
SPREAD: Final = 0.7
NOISE: Final = 0.02
TOGETHER: Final = 500
PARTS: Final = 100
"""Pictures fall into so many parts by an attribute; a search with a filter is within one."""

NAMES: Final = {"faiss": "FAISS", "pgvector": "pgvector", "milvus": "Milvus Lite"}
_COLLECTION: Final = "pictures"
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_ORIGIN: Final = Origin("synthetic", "1", "sha256:0", 24, "cls", "model", DIMENSIONS)

Vectors = Any


@dataclass(frozen=True, slots=True)
class Data:
    """float32 [SIZE, DIMENSIONS] and queries, of length 1."""

    vectors: Vectors
    queries: Vectors

    @classmethod
    def made(cls, seed: int = 5) -> Data:
        chance = np.random.default_rng(seed)
        basis = np.linalg.qr(chance.standard_normal((DIMENSIONS, LATENT)))[0].T.astype("f4")
        weights = (1.0 / np.sqrt(1.0 + np.arange(LATENT) / 8.0)).astype("f4")
        centres = weights * chance.standard_normal((CLUSTERS, LATENT), "f4")

        def drawn(count: int) -> Vectors:
            around = SPREAD * weights * chance.standard_normal((count, LATENT), "f4")
            points = (centres[chance.integers(CLUSTERS, size=count)] + around) @ basis
            points += NOISE * chance.standard_normal((count, DIMENSIONS), "f4")
            return points / np.linalg.norm(points, axis=1, keepdims=True)

        return cls(drawn(SIZE), drawn(QUERIES))

    def truth(self, part: int | None = None) -> list[set[str]]:
        """The ids of each query's nearest; of those in ``part``."""
        numbers = np.arange(SIZE) if part is None else np.arange(part, SIZE, PARTS)
        similarities = self.queries @ self.vectors[numbers].T
        best = np.argpartition(-similarities, FOUND, axis=1)[:, :FOUND]
        return [{_id(int(numbers[place])) for place in row} for row in best]

    def pictures(self) -> Iterator[list[Picture]]:
        for first in range(0, SIZE, TOGETHER):
            yield [
                Picture(
                    Image(
                        _id(number),
                        (Label(number % CLUSTERS, f"label {number % CLUSTERS}", 0.9),),
                        {"part": str(number % PARTS)},
                        _NOW,
                    ),
                    self.vectors[number],
                )
                for number in range(first, min(first + TOGETHER, SIZE))
            ]


@dataclass(slots=True)
class Found:
    """What was measured of one store. ``curve`` is (recall, milliseconds) by search width."""

    filling_seconds: float = 0.0
    building_seconds: float = 0.0
    recall: float = 0.0
    milliseconds: float = 0.0
    spread: float = 0.0
    filtered_recall: float = 0.0
    filtered_milliseconds: float = 0.0
    curve: dict[int, tuple[float, float]] | None = None


def _id(number: int) -> str:
    return f"picture {number}"


@contextmanager
def places() -> Iterator[tuple[Path, str]]:
    """A folder, and the URL of an empty PostgreSQL database."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_postgres() as server,
        new_database(server) as url,
    ):
        yield Path(folder), url


@asynccontextmanager
async def opened(
    kind: str, folder: Path, url: str, width: int | None = None
) -> AsyncIterator[VectorStore]:
    """The store as the ranker would have it; ``width`` is efSearch."""
    graph = Graph() if width is None else replace(Graph(), search_width=width)
    sqlite = f"sqlite:///{folder / kind}.db"
    database = Database.open(url if kind == "pgvector" else sqlite)
    store: VectorStore
    if kind == "faiss":
        store = EmbeddedStore(database, folder / "index", exact_size=EXACT_SIZE, graph=graph)
    elif kind == "pgvector":
        store = PgVectorStore(database, exact_size=EXACT_SIZE, graph=graph)
    else:
        store = MilvusStore(database, str(folder / "vectors.db"), graph=graph)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
        await database.close()


async def found_in(kind: str, folder: Path, url: str, data: Data) -> Found:
    found = Found(curve={})
    async with opened(kind, folder, url) as store:
        await store.create(_COLLECTION, _ORIGIN, _NOW)
        started = time.perf_counter()
        for pictures in data.pictures():
            await store.put(_COLLECTION, _ORIGIN, pictures, max_size=SIZE)
        found.filling_seconds = time.perf_counter() - started
        started = time.perf_counter()
        await store.tend(_COLLECTION)
    # Milvus Lite builds beside searches, and ends when it is closed.
    found.building_seconds = time.perf_counter() - started
    # As it is after a restart: what was loaded is what is searched.
    truth, part = data.truth(), data.truth(part=7)
    async with opened(kind, folder, url) as store:
        found.recall, times = await searched(store, data.queries, truth, Filter())
        found.milliseconds = statistics.median(times)
        found.spread = (np.quantile(times, 0.9) - np.quantile(times, 0.1)) / 2
        some = data.queries[:FILTERED_QUERIES]
        where = Filter(attributes={"part": "7"})
        found.filtered_recall, times = await searched(store, some, part, where)
        found.filtered_milliseconds = statistics.median(times)
    assert found.curve is not None
    for width in WIDTHS:
        async with opened(kind, folder, url, width) as store:
            recall, times = await searched(store, data.queries, truth, Filter())
            found.curve[width] = recall, statistics.median(times)
    return found


async def searched(
    store: VectorStore, queries: Vectors, truth: list[set[str]], where: Filter
) -> tuple[float, list[float]]:
    """The share of the true nearest that was found, and each query's milliseconds: of all queries,
    or as many as there is time for."""
    await store.nearest(_COLLECTION, queries[0], FOUND, where)
    hits, times = 0, []
    for query, expected in zip(queries, truth, strict=False):
        started = time.perf_counter()
        matches = await store.nearest(_COLLECTION, query, FOUND, where)
        times.append(1e3 * (time.perf_counter() - started))
        hits += len({match.image.id for match in matches} & expected)
        if len(times) >= ENOUGH and sum(times) > PATIENCE_MILLISECONDS:
            break
    return hits / (FOUND * len(times)), times


def entries(found: dict[str, Found]) -> list[Entry]:
    made = []
    for kind, each in found.items():
        what = f"{NAMES[kind]}, {SIZE:,} x {DIMENSIONS:,}"
        made += [
            Entry(f"{what}: recall@10", each.recall, "", COMMAND, Bound(">=", 0.98)),
            Entry(f"{what}: a search, median", each.milliseconds, "ms", COMMAND,
                  spread=float(each.spread)),
            Entry(f"{what}: recall@10 within 1 % by a filter", each.filtered_recall, "", COMMAND,
                  Bound(">=", 1.0)),
            Entry(f"{what}: a search with it, median", each.filtered_milliseconds, "ms", COMMAND),
            Entry(f"{what}: written", SIZE / each.filling_seconds, "pictures/s", COMMAND),
            Entry(f"{what}: graph built and kept", each.building_seconds, "s", COMMAND),
        ]  # fmt: skip
    return made


def chart(found: dict[str, Found]) -> Chart:
    lines = []
    for kind, each in found.items():
        points = [point for _, point in sorted((each.curve or {}).items())]
        times = tuple(milliseconds for _, milliseconds in points)
        lines.append(Line(NAMES[kind], times, tuple(recall for recall, _ in points)))
    return Chart(
        "index",
        f"{SIZE:,} vectors of {DIMENSIONS:,} dimensions, search width {WIDTHS[0]} to {WIDTHS[-1]}",
        "milliseconds a search, one at a time",
        "recall@10 against comparing all",
        tuple(lines),
        log="x",
        level=0.98,
    )


def measure() -> tuple[list[Entry], list[Chart]]:
    data, found = Data.made(), {}
    with places() as (folder, url):
        for kind in NAMES:
            found[kind] = asyncio.run(found_in(kind, folder, url, data))
            gc.collect()
    return entries(found), [chart(found)]
