"""Vectors in a FAISS index, and beside it the names of the pictures in the index's order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from easel.vectors.extras import needed
from easel.vectors.parquet import put_in_place
from easel.vectors.recipe import Column, Recipe, Record
from easel.vectors.sink import FileSink, StoreError

_BATCH: Final = 4096
_NUMPY: Final = {"float32": "<f4", "float16": "<f2"}


class FaissFile:
    """An exact (flat) index of float32: by inner product of vectors of length 1, else by
    Euclidean distance.

    ``FILE.json`` has the recipe and the pictures' names; name i belongs to vector i. It is put in
    place before the index, so it may for a moment name more pictures than there are vectors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names_path = path.with_name(f"{path.name}.json")
        about = {"what": "A FAISS index", "library": "faiss-cpu", "extra": "faiss"}
        self._faiss: Any = needed("faiss", **about)
        self._numpy: Any = needed("numpy", **about)

    def check(self, recipe: Recipe) -> None:
        if len(recipe.layers) > 1:
            given = ",".join(map(str, recipe.layers))
            raise ValueError(f"--layers: a FAISS index holds one layer, given {given}")
        if recipe.pooling == "patch":
            raise ValueError(
                "--pooling: patch gives a grid of vectors, a FAISS index holds one a picture; "
                "Parquet holds grids"
            )

    def open(self, recipe: Recipe, *, resume: bool) -> FileSink:
        self.check(recipe)
        if self.names_path.exists() and not resume:
            raise ValueError(f"{self.names_path} is there already; --resume goes on with it")
        return FileSink(self, recipe, resume=resume)

    def read(self) -> tuple[Recipe, Sequence[str]] | None:
        if not self.path.exists():
            return None
        try:
            found = json.loads(self.names_path.read_text("utf-8"))
            recipe, names = Recipe.from_json(json.dumps(found["recipe"])), list(found["names"])
        except FileNotFoundError:
            raise ValueError(f"{self.path}: not made by `easel embed`") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.names_path}: no names of an index: {error}") from error
        count = self._index().ntotal
        if len(names) < count:
            raise ValueError(
                f"{self.names_path} names {len(names)} pictures, the index has {count} vectors"
            )
        return recipe, names[:count]

    def write(self, recipe: Recipe, columns: tuple[Column, ...], records: Iterator[Record]) -> None:
        (column,) = columns
        there = self.read()
        names = list(there[1]) if there else []
        index = self._index() if there else self._new(recipe, column)
        if index.d != column.size:
            raise ValueError(f"{self.path}: its vectors have {index.d} numbers, not {column.size}")
        while batch := list(islice(records, _BATCH)):
            names += [record.name for record in batch]
            data = b"".join(record.values[0] for record in batch)
            rows = self._numpy.frombuffer(data, _NUMPY[recipe.dtype])
            index.add(rows.reshape(len(batch), column.size).astype("float32"))
        beside = self.path.with_name(f".{self.path.name}.new")
        names_beside = self.path.with_name(f".{self.names_path.name}.new")
        try:
            self._faiss.write_index(index, str(beside))
        except RuntimeError as error:
            raise StoreError(f"{self.path}: {error}") from error
        said = {"recipe": json.loads(recipe.to_json()), "names": names}
        names_beside.write_text(json.dumps(said, ensure_ascii=False), "utf-8")
        put_in_place(names_beside, self.names_path)
        put_in_place(beside, self.path)

    def _new(self, recipe: Recipe, column: Column) -> Any:
        kind = self._faiss.IndexFlatIP if recipe.normalize else self._faiss.IndexFlatL2
        return kind(column.size)

    def _index(self) -> Any:
        try:
            return self._faiss.read_index(str(self.path))
        except RuntimeError as error:
            raise StoreError(f"{self.path}: {str(error).splitlines()[0]}") from error
