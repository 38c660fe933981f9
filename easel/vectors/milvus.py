"""Vectors in a Milvus collection: of a server, or of Milvus Lite, which is a local file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

from easel.vectors.extras import needed
from easel.vectors.recipe import Column, Recipe, Record, numbers
from easel.vectors.sink import StoreError

_BATCH_ROWS: Final = 128
_QUERY: Final = 500
_MAX_NAME_BYTES: Final = 4096
_MAX_RECIPE_BYTES: Final = 8192


class Milvus:
    """``collection`` at ``uri`` (http://host:port, or a local file that ends with .db).

    A row a picture: ``file``, the picture's name, is the primary key; ``layer_N`` is its vector
    in float32, indexed by inner product where vectors have length 1, else by Euclidean distance;
    ``recipe`` says as JSON how it was made.
    """

    def __init__(
        self, uri: str, collection: str, token: str = "", *, batch_rows: int = _BATCH_ROWS
    ) -> None:
        self.uri = uri
        self.collection = collection
        self._token = token
        self._local = "://" not in uri
        if self._local and not uri.endswith(".db"):
            raise ValueError(f"--to: milvus:{uri} is neither a server's URL nor a file.db")
        about = {"what": "A Milvus collection", "extra": "milvus"}
        self._pymilvus: Any = needed("pymilvus", library="pymilvus", **about)
        if self._local:
            needed("milvus_lite", library="milvus-lite", **about)
        self._batch_rows = batch_rows

    def check(self, recipe: Recipe) -> None:
        if recipe.pooling == "patch":
            raise ValueError(
                "--pooling: patch gives a grid of vectors, a Milvus field holds one a picture; "
                "Parquet holds grids"
            )

    def open(self, recipe: Recipe, *, resume: bool) -> MilvusSink:
        self.check(recipe)
        if self._local:
            Path(self.uri).parent.mkdir(parents=True, exist_ok=True)
        with self.errors():
            client = self._pymilvus.MilvusClient(uri=self.uri, token=self._token)
        sink = MilvusSink(self, client, recipe, self._batch_rows)
        try:
            with self.errors():
                if client.has_collection(self.collection) and not resume:
                    raise ValueError(
                        f"{self} is there already; --resume goes on with it, "
                        "--collection names another"
                    )
        except BaseException:
            sink.close()
            raise
        return sink

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the library's errors into ``StoreError``."""
        try:
            yield
        except self._pymilvus.MilvusException as error:
            raise StoreError(f"{self}: {error.message}") from error

    def schema(self, columns: tuple[Column, ...]) -> Any:
        kinds = self._pymilvus.DataType
        schema = self._pymilvus.MilvusClient.create_schema(auto_id=False)
        schema.add_field("file", kinds.VARCHAR, is_primary=True, max_length=_MAX_NAME_BYTES)
        schema.add_field("recipe", kinds.VARCHAR, max_length=_MAX_RECIPE_BYTES)
        for column in columns:
            schema.add_field(column.name, kinds.FLOAT_VECTOR, dim=column.size)
        return schema

    def indexes(self, columns: tuple[Column, ...], recipe: Recipe) -> Any:
        params = self._pymilvus.MilvusClient.prepare_index_params()
        for column in columns:
            metric = "IP" if recipe.normalize else "L2"
            params.add_index(column.name, index_type="AUTOINDEX", metric_type=metric)
        return params

    def __str__(self) -> str:
        return f"collection {self.collection} at {self.uri}"


class MilvusSink:
    """Writes batches as they come. A row replaces the one of the same picture, so what is sent
    twice is there once."""

    def __init__(self, store: Milvus, client: Any, recipe: Recipe, batch_rows: int) -> None:
        self._store = store
        self._batch_rows = batch_rows
        self._client = client
        self._recipe = recipe
        self._columns: tuple[Column, ...] = ()
        self._waiting: list[Record] = []

    def kept(self, names: Collection[str]) -> set[str]:
        found: set[str] = set()
        with self._store.errors():
            if not self._client.has_collection(self._store.collection):
                return found
            self._check_fields({"file": None, "recipe": None})
            self._client.load_collection(self._store.collection)
            self._query('file != ""', limit=1)  # of any picture: all are of one recipe
            left = iter(names)
            while some := list(islice(left, _QUERY)):
                found |= self._query(f"file in {json.dumps(some, ensure_ascii=False)}")
        return found

    def begin(self, columns: tuple[Column, ...]) -> None:
        store, name = self._store, self._store.collection
        self._columns = columns
        with store.errors():
            if self._client.has_collection(name):
                self._check_fields({column.name: column.size for column in columns})
                return
            self._client.create_collection(
                name,
                schema=store.schema(columns),
                index_params=store.indexes(columns, self._recipe),
            )

    def _query(self, which: str, **options: Any) -> set[str]:
        """The pictures in the rows that ``which`` chooses, each checked for its recipe."""
        rows = self._client.query(
            self._store.collection,
            filter=which,
            output_fields=["file", "recipe"],
            consistency_level="Strong",
            **options,
        )
        for row in rows:
            had = Recipe.from_json(row["recipe"])
            had.check_same(self._recipe, f"{row['file']} in {self._store}")
        return {row["file"] for row in rows}

    def _check_fields(self, asked: Mapping[str, int | None]) -> None:
        """Raises ``ValueError`` unless the collection has each field, of so many numbers."""
        fields = self._client.describe_collection(self._store.collection)["fields"]
        there = {each["name"]: each.get("params", {}).get("dim") for each in fields}
        for field, size in asked.items():
            if field not in there or (size is not None and int(there[field] or 0) != size):
                wanted = f"{field} of {size} numbers" if size else field
                raise ValueError(f"{self._store} has no field {wanted}; --collection names another")

    def add(self, record: Record) -> None:
        if len(record.name.encode()) > _MAX_NAME_BYTES:
            raise ValueError(f"{record.name!r}: longer than {_MAX_NAME_BYTES} bytes")
        self._waiting.append(record)
        if len(self._waiting) == self._batch_rows:
            self.save()

    def save(self) -> None:
        if not self._waiting:
            return
        rows = [self._row(record) for record in self._waiting]
        with self._store.errors():
            self._client.upsert(self._store.collection, rows)
        self._waiting.clear()

    def finish(self) -> None:
        self.save()
        with self._store.errors():
            if self._client.has_collection(self._store.collection):
                self._client.flush(self._store.collection)

    def close(self) -> None:
        self._client.close()

    def _row(self, record: Record) -> dict[str, Any]:
        row: dict[str, Any] = {"file": record.name, "recipe": self._recipe.to_json()}
        for column, data in zip(self._columns, record.values, strict=True):
            row[column.name] = numbers(data, self._recipe.dtype)
        return row
