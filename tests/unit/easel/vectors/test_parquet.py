from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from easel.vectors.parquet import ParquetFile
from easel.vectors.recipe import Column, Record
from easel.vectors.sink import StoreError
from tests.unit.easel.vectors.made import COLUMNS, RECIPE, recipe, record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "v.parquet"


def test_a_row_a_picture_and_a_column_a_layer(path: Path) -> None:
    file = ParquetFile(path)
    file.write(RECIPE, COLUMNS, iter([record("a", 1.0), record("ü/b", 10.0)]))

    table = parquet.read_table(path)
    assert table.to_pylist() == [
        {"file": "a", "layer_2": [1.0, 2.0, 3.0], "layer_4": [4.0, 5.0]},
        {"file": "ü/b", "layer_2": [10.0, 11.0, 12.0], "layer_4": [13.0, 14.0]},
    ]
    assert str(table.schema.field("layer_2").type) == "fixed_size_list<element: float>[3]"
    assert file.read() == (RECIPE, ["a", "ü/b"])
    assert [each.name for each in path.parent.iterdir()] == ["v.parquet"]


def test_what_was_there_stays_first(path: Path) -> None:
    file = ParquetFile(path)
    file.write(RECIPE, COLUMNS, iter([record("b", 1.0)]))
    file.write(RECIPE, COLUMNS, iter([record("a", 5.0)]))

    rows = parquet.read_table(path).to_pylist()
    assert [(row["file"], row["layer_4"]) for row in rows] == [("b", [4, 5]), ("a", [8, 9])]


def test_half_floats_stay_half_floats(path: Path) -> None:
    half = recipe(dtype="float16")
    ParquetFile(path).write(half, COLUMNS, iter([record("a", 0.5, "e")]))

    table = parquet.read_table(path)
    assert str(table.schema.field("layer_4").type) == "fixed_size_list<element: halffloat>[2]"
    assert table.to_pylist()[0]["layer_4"] == [3.5, 4.5]


def test_patches_are_a_grid(path: Path) -> None:
    grid = recipe(layers=(4,), pooling="patch")
    data = record("x", 0.0).values[0] + record("x", 3.0).values[0]
    ParquetFile(path).write(grid, (Column(4, (1, 2, 3)),), iter([Record("a", (data,))]))

    assert parquet.read_table(path).to_pylist() == [
        {"file": "a", "layer_4": [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]}
    ]


@pytest.mark.parametrize(("group_bytes", "groups"), [(1, 5), (39, 5), (40, 3), (100, 1)])
def test_groups_of_rows_are_bounded(path: Path, group_bytes: int, groups: int) -> None:
    names = [str(number) for number in range(5)]
    file = ParquetFile(path, group_bytes=group_bytes)  # a row has 5 numbers of 4 bytes
    file.write(RECIPE, COLUMNS, iter(record(name, float(name)) for name in names))

    with parquet.ParquetFile(path) as written:
        assert written.num_row_groups == groups
        rows = written.read().to_pylist()
    assert [(row["file"], row["layer_2"][0]) for row in rows] == [(n, float(n)) for n in names]


def test_other_shapes_are_refused(path: Path) -> None:
    file = ParquetFile(path)
    file.write(RECIPE, COLUMNS, iter([record("a")]))
    before = path.read_bytes()

    with pytest.raises(ValueError, match="of other shapes"):
        file.write(RECIPE, (Column(2, (5,)),), iter([]))
    assert path.read_bytes() == before


def test_a_file_that_is_none(path: Path) -> None:
    path.write_bytes(b"no parquet at all")

    with pytest.raises(StoreError, match=r"v\.parquet"):
        ParquetFile(path).read()


def test_a_file_of_somebody_else(path: Path) -> None:
    import pyarrow

    parquet.write_table(pyarrow.table({"file": ["a"]}), path)
    with pytest.raises(ValueError, match="not made by `easel embed`"):
        ParquetFile(path).read()
