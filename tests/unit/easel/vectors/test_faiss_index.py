from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from easel.vectors.faiss_index import FaissFile
from easel.vectors.sink import StoreError
from tests.unit.easel.vectors.made import ONE, ONE_COLUMN, recipe, single


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "v.index"


def names(path: Path) -> list[str]:
    found: list[str] = json.loads((path.parent / "v.index.json").read_text())["names"]
    return found


def test_vector_i_belongs_to_name_i(path: Path) -> None:
    file = FaissFile(path)
    file.write(ONE, ONE_COLUMN, iter([single("a", 1.0), single("b", 9.0)]))
    index = faiss.read_index(str(path))

    distances, places = index.search(np.array([[9.0, 11.0]], "float32"), 2)
    assert [names(path)[place] for place in places[0]] == ["b", "a"]
    assert distances[0].tolist() == [1.0, 145.0]  # squared Euclidean distances
    assert file.read() == (ONE, ["a", "b"])


def test_vectors_of_length_1_are_compared_by_their_product(path: Path) -> None:
    FaissFile(path).write(recipe(layers=(4,), normalize=True), ONE_COLUMN, iter([single("a")]))

    assert faiss.read_index(str(path)).metric_type == faiss.METRIC_INNER_PRODUCT


def test_what_was_there_stays_first(path: Path) -> None:
    file = FaissFile(path)
    file.write(ONE, ONE_COLUMN, iter([single("b", 1.0)]))
    file.write(ONE, ONE_COLUMN, iter([single("a", 5.0)]))
    index = faiss.read_index(str(path))

    assert names(path) == ["b", "a"]
    assert [index.reconstruct(place).tolist() for place in range(2)] == [[1, 2], [5, 6]]


def test_half_floats_are_widened(path: Path) -> None:
    half = recipe(layers=(4,), dtype="float16")
    FaissFile(path).write(half, ONE_COLUMN, iter([single("a", 0.5, "e")]))

    assert faiss.read_index(str(path)).reconstruct(0).tolist() == [0.5, 1.5]


def test_ended_between_the_names_and_the_index(path: Path) -> None:
    file = FaissFile(path)
    file.write(ONE, ONE_COLUMN, iter([single("a", 1.0)]))
    old = path.read_bytes()
    file.write(ONE, ONE_COLUMN, iter([single("b", 2.0)]))
    path.write_bytes(old)

    assert file.read() == (ONE, ["a"])
    file.write(ONE, ONE_COLUMN, iter([single("b", 2.0)]))
    assert names(path) == ["a", "b"]
    assert faiss.read_index(str(path)).ntotal == 2


def test_more_vectors_than_names_is_an_error(path: Path) -> None:
    file = FaissFile(path)
    file.write(ONE, ONE_COLUMN, iter([single("a"), single("b")]))
    document = json.loads(file.names_path.read_text())
    file.names_path.write_text(json.dumps({**document, "names": ["a"]}))

    with pytest.raises(ValueError, match="names 1 pictures, the index has 2 vectors"):
        file.read()


def test_an_index_of_somebody_else(path: Path) -> None:
    faiss.write_index(faiss.IndexFlatL2(2), str(path))

    with pytest.raises(ValueError, match="not made by `easel embed`"):
        FaissFile(path).read()


def test_a_file_that_is_none(path: Path) -> None:
    file = FaissFile(path)
    file.write(ONE, ONE_COLUMN, iter([single("a")]))
    path.write_bytes(b"nothing")

    with pytest.raises(StoreError, match=r"v\.index"):
        file.read()


def test_names_of_somebody_else_are_not_replaced(path: Path) -> None:
    file = FaissFile(path)
    file.names_path.write_text("{}")

    with pytest.raises(ValueError, match=r"v\.index\.json is there already"):
        file.open(ONE, resume=False)


def test_several_layers_and_patches_are_refused(path: Path) -> None:
    file = FaissFile(path)

    with pytest.raises(ValueError, match="--layers: a FAISS index holds one layer, given 2,4"):
        file.check(recipe())
    with pytest.raises(ValueError, match="--pooling: patch"):
        file.check(recipe(layers=(4,), pooling="patch"))
    file.check(ONE)
