"""Vectors in Milvus: of a server, or of Milvus Lite, which is a local file.

Milvus has everything here, not the vectors alone: labels and attributes are fields of the same
rows, so that its filters see them. A collection's origin is one of its properties.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Several
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from ranker.index.collection import Collection, Origin
from ranker.index.entry import Entry, Filter, Image, Label, Match, Vector
from ranker.index.nearest import Graph
from ranker.index.store import library_missing, no_collection
from services.core.errors import FailedPrecondition, NotReady
from services.core.pool import WorkerPool

log = logging.getLogger("easel.ranker")

T = TypeVar("T")

THREADS: Final = 4
MAX_WAITING: Final = 1024
MAX_ID_BYTES: Final = 4096
MAX_LABELS: Final = 64
MAX_LABEL_BYTES: Final = 1024
MAX_ATTRIBUTES: Final = 256
MAX_ATTRIBUTE_BYTES: Final = 8192
MAX_DETAILS_BYTES: Final = 65_535
EXACT_AMONG: Final = 4096
"""Where a filter lets no more pass, each of them is compared; else a graph is followed, wider."""

_WIDER_WITH_FILTER: Final = 8
_MAX_SEARCH_WIDTH: Final = 16_384
_PREFIX: Final = "easel_"
_ABOUT: Final = "easel.collection"
_QUERIED_AT_ONCE: Final = 1000
_FIELDS: Final = ["id", "details"]


class MilvusStore:
    """The ``VectorStore`` at ``uri``: http://host:port, or a local file that ends with .db."""

    def __init__(self, uri: str, token: str = "", *, graph: Graph | None = None) -> None:
        self._uri = uri
        self._token = token
        self._graph = graph or Graph()
        self._milvus: Any = None
        self._client: Any = None
        self._pool = WorkerPool("milvus", THREADS, MAX_WAITING)
        # Reading what is there and writing after it: of one collection, one at a time.
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loaded: set[str] = set()
        self._loading = Lock()

    async def open(self) -> None:
        await self._pool.run(self._open)

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close)
        if self._client is not None:
            await asyncio.to_thread(self._client.close)

    async def collections(self) -> Sequence[Collection]:
        return await self._run(self._collections)

    async def find(self, name: str) -> Collection:
        return await self._run(self._find, name)

    async def create(self, name: str, origin: Origin, created_at: datetime) -> Collection:
        async with self._turn(name):
            return await self._run(self._create, name, origin, created_at)

    async def drop(self, name: str) -> int:
        async with self._turn(name):
            return await self._run(self._drop, name)

    async def put(
        self, name: str, origin: Origin, entries: Sequence[Entry], *, max_size: int
    ) -> Sequence[str]:
        async with self._turn(name):
            return await self._run(self._put, name, origin, entries, max_size)

    async def existing(self, name: str, ids: Several[str]) -> set[str]:
        return await self._run(self._existing, name, ids)

    async def vector(self, name: str, id: str) -> Vector | None:
        return await self._run(self._vector, name, id)

    async def nearest(
        self, name: str, vector: Vector, top_k: int, where: Filter
    ) -> Sequence[Match]:
        return await self._run(self._nearest, name, vector, top_k, where)

    async def likeliest(self, name: str, top_k: int, where: Filter) -> Sequence[Match]:
        return await self._run(self._likeliest, name, top_k, where)

    async def page(self, name: str, after: str, count: int, where: Filter) -> Sequence[Image]:
        return await self._run(self._page, name, after, count, where)

    async def delete(self, name: str, ids: Several[str]) -> int:
        async with self._turn(name):
            return await self._run(self._delete, name, ids)

    async def tend(self, name: str) -> None:
        await self._run(self._flush, name)

    def _turn(self, name: str) -> asyncio.Lock:
        return self._writing.setdefault(name, asyncio.Lock())

    async def _run(self, work: Callable[..., T], *given: Any) -> T:
        return await self._pool.run(self._told, partial(work, *given))

    def _told(self, work: Callable[[], T]) -> T:
        if self._client is None:
            raise NotReady()
        with self._errors():
            return work()

    def _open(self) -> None:
        is_local = "://" not in self._uri
        if is_local:
            Path(self._uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            import pymilvus

            if is_local:
                import milvus_lite  # noqa: F401
        except ModuleNotFoundError as error:
            raise library_missing("Milvus", error.name or "pymilvus", "milvus") from None
        self._milvus = pymilvus
        with self._errors():
            self._client = pymilvus.MilvusClient(uri=self._uri, token=self._token)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._milvus.MilvusException as error:
            log.error("Milvus failed", exc_info=error)
            raise NotReady("Milvus cannot be used now.", reason="MILVUS_UNAVAILABLE") from error

    def _collections(self) -> list[Collection]:
        names = [name for name in self._client.list_collections() if name.startswith(_PREFIX)]
        found = [self._describe(_plain(name)) for name in names]
        return sorted((each for each in found if each is not None), key=lambda each: each.name)

    def _find(self, name: str) -> Collection:
        found = self._describe(name)
        if found is None:
            raise no_collection(name)
        return found

    def _describe(self, name: str) -> Collection | None:
        if not self._client.has_collection(_written(name)):
            return None
        about = self._about(name)
        created_at = datetime.fromisoformat(about["created_at"])
        origin = Origin.from_json(json.dumps(about["origin"]))
        return Collection(name, origin, self._size(name), created_at)

    def _about(self, name: str) -> Any:
        properties = self._client.describe_collection(_written(name)).get("properties", {})
        try:
            return json.loads(properties[_ABOUT])
        except (KeyError, ValueError):
            raise FailedPrecondition(
                f"The collection {_written(name)!r} of Milvus is another program's.",
                reason="COLLECTION_FOREIGN",
            ) from None

    def _size(self, name: str) -> int:
        rows = self._query(name, "", output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def _create(self, name: str, origin: Origin, created_at: datetime) -> Collection:
        there = self._describe(name)
        if there is not None:
            return there
        about = {"origin": json.loads(origin.to_json()), "created_at": created_at.isoformat()}
        self._client.create_collection(
            _written(name),
            schema=self._schema(origin.dimensions),
            index_params=self._index(),
            properties={_ABOUT: json.dumps(about)},
            consistency_level="Strong",
        )
        return Collection(name, origin, 0, created_at)

    def _schema(self, dimensions: int) -> Any:
        kinds = self._milvus.DataType
        schema = self._milvus.MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=dimensions)
        texts = {"datatype": kinds.ARRAY, "element_type": kinds.VARCHAR}
        schema.add_field("labels", **texts, max_capacity=MAX_LABELS, max_length=MAX_LABEL_BYTES)
        schema.add_field(
            "attributes", **texts, max_capacity=MAX_ATTRIBUTES, max_length=MAX_ATTRIBUTE_BYTES
        )
        schema.add_field("details", kinds.VARCHAR, max_length=MAX_DETAILS_BYTES)
        return schema

    def _index(self) -> Any:
        params = self._milvus.MilvusClient.prepare_index_params()
        graph = {"M": self._graph.links, "efConstruction": self._graph.build_width}
        params.add_index("vector", index_type="HNSW", metric_type="IP", params=graph)
        return params

    def _drop(self, name: str) -> int:
        size = self._find(name).size
        self._client.drop_collection(_written(name))
        self._loaded.discard(name)
        return size

    def _put(self, name: str, origin: Origin, entries: Sequence[Entry], max_size: int) -> list[str]:
        collection = self._find(name)
        collection.origin.check_same(origin, name)
        there = self._existing(name, [entry.image.id for entry in entries])
        new = [entry.image.id for entry in entries if entry.image.id not in there]
        refused = new[max(0, max_size - collection.size) :]
        rows = [_row(entry) for entry in entries if entry.image.id not in set(refused)]
        if rows:
            self._client.upsert(_written(name), rows)
        return refused

    def _existing(self, name: str, ids: Several[str]) -> set[str]:
        found: set[str] = set()
        asked = list(ids)
        for first in range(0, len(asked), _QUERIED_AT_ONCE):
            some = asked[first : first + _QUERIED_AT_ONCE]
            rows = self._query(name, f"id in {_quoted(some)}", output_fields=["id"])
            found.update(row["id"] for row in rows)
        return found

    def _vector(self, name: str, id: str) -> Vector | None:
        rows = self._query(name, f"id in {_quoted([id])}", output_fields=["vector"])
        return np.array(rows[0]["vector"], np.float32) if rows else None

    def _nearest(self, name: str, vector: Vector, count: int, where: Filter) -> list[Match]:
        if not where:
            return self._follow_graph(name, vector, count, where, self._width(count))
        expression = _expression(where)
        few = self._query(name, expression, output_fields=["id"], limit=EXACT_AMONG + 1)
        if len(few) > EXACT_AMONG:
            width = min(_MAX_SEARCH_WIDTH, self._width(count) * _WIDER_WITH_FILTER)
            found = self._follow_graph(name, vector, count, where, width)
            # A graph finds its way past what is filtered out, as far as it looks.
            if len(found) == count:
                return found
        return self._compare(name, vector, count, expression)

    def _width(self, count: int) -> int:
        return max(self._graph.search_width, 2 * count)

    def _follow_graph(
        self, name: str, vector: Vector, count: int, where: Filter, width: int
    ) -> list[Match]:
        self._load(name)
        found = self._client.search(
            _written(name),
            data=[vector.tolist()],
            anns_field="vector",
            limit=count,
            filter=_expression(where),
            output_fields=_FIELDS,
            search_params={"params": {"ef": width}},
            consistency_level="Strong",
        )
        return [Match(_image(hit["entity"]), hit["distance"]) for hit in found[0]]

    def _compare(self, name: str, vector: Vector, count: int, expression: str) -> list[Match]:
        """With every one that passes."""
        matches = (
            Match(_image(row), float(np.dot(np.array(row["vector"], np.float32), vector)))
            for row in self._rows(name, expression, [*_FIELDS, "vector"])
        )
        return heapq.nlargest(count, matches, key=lambda match: match.similarity)

    def _likeliest(self, name: str, count: int, where: Filter) -> list[Match]:
        images = self._all(name, _expression(where))
        best = heapq.nsmallest(count, images, key=partial(_likelihood, wanted=set(where.labels)))
        return [Match(image) for image in best]

    def _page(self, name: str, after: str, count: int, where: Filter) -> list[Image]:
        expression = " and ".join(filter(None, [f"id > {_quoted(after)}", _expression(where)]))
        found = []
        for image in self._all(name, expression, batch=count):
            found.append(image)
            if len(found) == count:
                break
        return found

    def _all(self, name: str, expression: str, batch: int = _QUERIED_AT_ONCE) -> Iterator[Image]:
        return map(_image, self._rows(name, expression, _FIELDS, batch))

    def _rows(
        self, name: str, expression: str, fields: list[str], batch: int = _QUERIED_AT_ONCE
    ) -> Iterator[Any]:
        """By id."""
        self._load(name)
        rows = self._client.query_iterator(
            _written(name),
            batch_size=batch,
            filter=expression,
            output_fields=fields,
            consistency_level="Strong",
        )
        try:
            while some := rows.next():
                yield from some
        finally:
            rows.close()

    def _delete(self, name: str, ids: Several[str]) -> int:
        there = sorted(self._existing(name, ids))
        if there:
            self._client.delete(_written(name), ids=there)
        return len(there)

    def _flush(self, name: str) -> None:
        """Unflushed rows are in no index, and searched slowly."""
        self._load(name)
        self._client.flush(_written(name))

    def _query(self, name: str, expression: str, **options: Any) -> Any:
        self._load(name)
        return self._client.query(
            _written(name), filter=expression, consistency_level="Strong", **options
        )

    def _load(self, name: str) -> None:
        """What was opened again is not loaded. Raises ``NotFound``."""
        with self._loading:
            if name in self._loaded and self._client.has_collection(_written(name)):
                return
            self._loaded.discard(name)
            if not self._client.has_collection(_written(name)):
                raise no_collection(name)
            self._client.load_collection(_written(name))
            self._loaded.add(name)


def _written(name: str) -> str:
    """A name that Milvus takes: letters, digits and `_`, which stands for what it does not take."""
    return _PREFIX + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", name)


def _plain(written: str) -> str:
    name = written.removeprefix(_PREFIX)
    return re.sub(r"_([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), name)


def _row(entry: Entry) -> dict[str, Any]:
    image = entry.image
    return {
        "id": image.id,
        "vector": entry.vector.tolist(),
        "labels": [label.name for label in image.labels],
        "attributes": [_pair(name, value) for name, value in sorted(image.attributes.items())],
        "details": _details(image),
    }


def _pair(name: str, value: str) -> str:
    """As one text that no other pair has, whatever signs are in either."""
    return f"{len(name)}:{name}={value}"


def _details(image: Image) -> str:
    assert image.indexed_at is not None
    about = {
        "labels": [[label.index, label.name, label.score] for label in image.labels],
        "attributes": dict(image.attributes),
        "indexed_at": image.indexed_at.isoformat(),
    }
    return json.dumps(about, ensure_ascii=False)


def _image(row: Mapping[str, Any]) -> Image:
    about = json.loads(row["details"])
    labels = tuple(Label(*label) for label in about["labels"])
    return Image(
        row["id"], labels, about["attributes"], datetime.fromisoformat(about["indexed_at"])
    )


def _expression(where: Filter) -> str:
    parts = []
    if where.labels:
        parts.append(f"array_contains_any(labels, {_quoted(list(where.labels))})")
    if where.attributes:
        pairs = [_pair(name, value) for name, value in where.attributes.items()]
        parts.append(f"array_contains_all(attributes, {_quoted(pairs)})")
    return " and ".join(parts)


def _quoted(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _likelihood(image: Image, wanted: set[str]) -> tuple[float, bytes]:
    best = max(label.score for label in image.labels if label.name in wanted)
    return -best, image.id.encode()
