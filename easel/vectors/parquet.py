"""Vectors in a Parquet file: a row a picture, a column a layer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from easel.vectors.extras import needed
from easel.vectors.recipe import ITEM_BYTES, Column, Recipe, Record
from easel.vectors.sink import FileSink, StoreError

_KEY: Final = b"easel"
_GROUP_BYTES: Final = 64 * 2**20
_MAX_GROUP_ROWS: Final = 65_536


class ParquetFile:
    """``file`` holds the picture's name, ``layer_N`` its vector: a list of fixed length, three
    deep for patches. The recipe is JSON in the file's metadata, under "easel"."""

    def __init__(self, path: Path, *, group_bytes: int = _GROUP_BYTES) -> None:
        self.path = path
        self._group_bytes = group_bytes
        self._arrow: Any = needed(
            "pyarrow", what="A Parquet file", library="pyarrow", extra="parquet"
        )
        self._parquet: Any = needed(
            "pyarrow.parquet", what="A Parquet file", library="pyarrow", extra="parquet"
        )

    def check(self, recipe: Recipe) -> None:
        del recipe  # every kind can be held

    def open(self, recipe: Recipe, *, resume: bool) -> FileSink:
        self.check(recipe)
        return FileSink(self, recipe, resume=resume)

    def read(self) -> tuple[Recipe, Sequence[str]] | None:
        if not self.path.exists():
            return None
        with self._opened() as file:
            found = (file.schema_arrow.metadata or {}).get(_KEY)
            if found is None:
                raise ValueError(f"{self.path}: not made by `easel embed`")
            names: list[str] = file.read(columns=["file"]).column("file").to_pylist()
            return Recipe.from_json(found), names

    def write(self, recipe: Recipe, columns: tuple[Column, ...], records: Iterator[Record]) -> None:
        schema = self._schema(recipe, columns)
        beside = self.path.with_name(f".{self.path.name}.new")
        row_bytes = sum(column.size for column in columns) * ITEM_BYTES[recipe.dtype]
        rows = max(1, min(_MAX_GROUP_ROWS, self._group_bytes // max(1, row_bytes)))
        with self._parquet.ParquetWriter(
            beside, schema, compression="zstd", use_dictionary=False
        ) as writer:
            if self.path.exists():
                self._copy(writer, schema)
            while group := list(islice(records, rows)):
                writer.write_table(self._table(group, recipe, columns, schema))
        put_in_place(beside, self.path)

    def _copy(self, writer: Any, schema: Any) -> None:
        with self._opened() as file:
            if not file.schema_arrow.equals(schema):
                raise ValueError(f"{self.path}: its vectors are of other shapes")
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))

    def _opened(self) -> Any:
        try:
            return self._parquet.ParquetFile(self.path)
        except self._arrow.ArrowException as error:
            raise StoreError(f"{self.path}: {error}") from error

    def _schema(self, recipe: Recipe, columns: tuple[Column, ...]) -> Any:
        arrow = self._arrow
        fields = [arrow.field("file", arrow.string(), nullable=False)]
        for column in columns:
            kind = self._item(recipe)
            for length in reversed(column.shape):
                kind = arrow.list_(kind, length)
            fields.append(arrow.field(column.name, kind))
        return arrow.schema(fields, metadata={_KEY: recipe.to_json().encode()})

    def _table(
        self, group: list[Record], recipe: Recipe, columns: tuple[Column, ...], schema: Any
    ) -> Any:
        arrow = self._arrow
        arrays = [arrow.array([record.name for record in group], arrow.string())]
        for number, column in enumerate(columns):
            data = b"".join(record.values[number] for record in group)
            count = len(group) * column.size
            made = arrow.Array.from_buffers(
                self._item(recipe), count, [None, arrow.py_buffer(data)]
            )
            for length in reversed(column.shape):
                made = arrow.FixedSizeListArray.from_arrays(made, length)
            arrays.append(made)
        return arrow.Table.from_arrays(arrays, schema=schema)

    def _item(self, recipe: Recipe) -> Any:
        return self._arrow.float16() if recipe.dtype == "float16" else self._arrow.float32()


def put_in_place(beside: Path, path: Path) -> None:
    """Give ``beside`` the name ``path``, once it is safely on the disk."""
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)
