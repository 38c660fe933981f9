"""Vectors in memory: exact, as a graph, and from the one to the other."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from ranker.index.nearest import Graph, Nearest, Vectors

GRAPH = Graph(links=16, build_width=40, search_width=64)
DIMENSIONS = 12


def vectors(count: int, seed: int = 0) -> Vectors:
    made = np.random.default_rng(seed).standard_normal((count, DIMENSIONS))
    units: Vectors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return units


def filled(count: int, exact_size: int = 10_000) -> tuple[Nearest, Vectors]:
    """Vector i has the number i + 100."""
    given = vectors(count)
    made = Nearest(DIMENSIONS, exact_size, GRAPH)
    made.add(range(100, 100 + count), given)
    return made, given


def truth(given: Vectors, numbers: list[int], query: Vectors, count: int) -> list[int]:
    chosen = np.array(numbers)
    similarities = given[chosen - 100].astype(np.float64) @ query
    return [int(number) for number in chosen[np.argsort(-similarities)[:count]]]


def numbers(found: list[tuple[int, float]]) -> list[int]:
    return [number for number, _ in found]


@pytest.mark.parametrize("exact_size", [10_000, 100])
def test_the_nearest_with_their_cosines(exact_size: int) -> None:
    nearest, given = filled(500, exact_size)
    nearest.tend()
    assert nearest.has_graph == (exact_size == 100)
    for query in vectors(20, seed=1):
        found = nearest.search(query, 10)
        assert numbers(found) == truth(given, list(range(100, 600)), query, 10)
        cosines = [float(given[number - 100] @ query) for number, _ in found]
        assert [value for _, value in found] == pytest.approx(cosines, abs=1e-6)


@pytest.mark.parametrize("exact_size", [10_000, 100])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_among_some_it_is_exact(exact_size: int, share: float) -> None:
    nearest, given = filled(400, exact_size)
    nearest.tend()
    chosen = np.random.default_rng(3).permutation(range(100, 500))[: int(400 * share)].tolist()
    for query in vectors(10, seed=1):
        found = nearest.search(query, 10, [*chosen, 99_999])
        assert numbers(found) == truth(given, chosen, query, 10)
    assert nearest.search(given[0], 10, []) == []


@pytest.mark.parametrize(("size", "has_graph"), [(99, False), (100, False), (101, True)])
def test_a_graph_is_built_above_the_size_for_comparing(size: int, has_graph: bool) -> None:
    nearest, _ = filled(size, exact_size=100)
    assert nearest.tend() == has_graph
    assert nearest.has_graph == has_graph
    assert not nearest.tend()


def test_a_graph_grows_and_loses() -> None:
    nearest, given = filled(300, exact_size=100)
    nearest.tend()
    more = vectors(100, seed=5)
    nearest.add(range(1000, 1100), more)
    nearest.remove([*range(100, 150), 1000, 5_000])

    assert len(nearest) == 349
    assert numbers(nearest.search(more[7], 1)) == [1007]
    assert 1000 not in numbers(nearest.search(more[0], 349))
    assert len(nearest.search(more[0], 1_000)) == 349
    assert nearest.vector(1000) is None
    kept = nearest.vector(1001)
    assert kept is not None
    np.testing.assert_array_equal(kept, more[1])
    np.testing.assert_array_equal(nearest.vector(200), given[100])


def test_what_is_worn_is_built_anew() -> None:
    nearest, given = filled(500, exact_size=100)
    nearest.tend()
    nearest.remove(range(100, 200))
    assert not nearest.tend()
    nearest.remove([200])
    assert nearest.tend()
    assert nearest.numbers == set(range(201, 600))
    for query in vectors(10, seed=1):
        found = nearest.search(query, 10)
        assert numbers(found) == truth(given, list(range(201, 600)), query, 10)


def test_of_few_that_are_left_no_graph_is_made() -> None:
    nearest, _ = filled(500, exact_size=100)
    nearest.tend()
    nearest.remove(range(100, 520))
    assert nearest.tend()
    assert not nearest.has_graph
    assert len(nearest.search(vectors(1)[0], 100)) == 80


def test_nothing_in_it() -> None:
    nearest = Nearest(DIMENSIONS, 100, GRAPH)
    query = vectors(1)[0]
    assert nearest.search(query, 10) == []
    assert not nearest.tend()
    nearest.add([1], vectors(1))
    nearest.remove([1])
    assert nearest.search(query, 10) == []


def test_searches_and_changes_beside_a_graph_that_is_built() -> None:
    nearest, given = filled(3_000, exact_size=100)
    more, done = vectors(500, seed=7), Event()
    queries = vectors(5, seed=1)
    faults: list[str] = []

    def search() -> None:
        while not done.is_set():
            for query in queries:
                found = numbers(nearest.search(query, 10))
                if len(found) != 10 or len(set(found)) != 10:
                    faults.append(f"{found}")

    def change() -> None:
        for place in range(0, 500, 10):
            nearest.add(range(10_000 + place, 10_010 + place), more[place : place + 10])
            nearest.remove(range(100 + place, 102 + place))

    searching, changing = Thread(target=search), Thread(target=change)
    searching.start()
    changing.start()
    assert nearest.tend()
    changing.join()
    done.set()
    searching.join()

    gone = {number for place in range(0, 500, 10) for number in (100 + place, 101 + place)}
    assert not faults
    assert nearest.has_graph
    assert nearest.numbers == (set(range(100, 3_100)) - gone) | set(range(10_000, 10_500))
    assert all(numbers(nearest.search(more[place], 1)) == [10_000 + place] for place in range(500))
    assert not gone & set(numbers(nearest.search(given[0], 3_400)))


def test_a_build_that_is_stopped_leaves_all_as_it_was() -> None:
    nearest, given = filled(500, exact_size=100)
    nearest.stop()
    assert not nearest.tend()
    assert not nearest.has_graph
    assert numbers(nearest.search(given[3], 1)) == [103]


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    nearest, _ = filled(400, exact_size=100)
    nearest.tend()
    nearest.remove([100, 101])
    nearest.save(tmp_path / "7.graph")
    assert [path.name for path in tmp_path.iterdir()] == ["7.graph"]

    read = Nearest(DIMENSIONS, 100, GRAPH)
    read.load(tmp_path / "7.graph")
    assert read.has_graph
    # It says what it has; what of that is still wanted, the database knows.
    assert read.numbers == set(range(100, 500))
    read.remove([100, 101])
    for query in vectors(10, seed=1):
        assert read.search(query, 10) == nearest.search(query, 10)
    read.add([1000], vectors(1, seed=9))
    assert numbers(read.search(vectors(1, seed=9)[0], 1)) == [1000]


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "noise", "dimensions"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, damage: str) -> None:
    nearest, _ = filled(200, exact_size=100)
    nearest.tend()
    path = tmp_path / "7.graph"
    nearest.save(path)
    whole = path.read_bytes()
    head = whole.index(b"}\n")
    path.write_bytes(
        {
            "empty": b"",
            "cut": whole[: len(whole) // 2],
            "other": b"something else",
            "noise": whole[:head] + b"}\n" + bytes(1000),
            "dimensions": whole,
        }[damage]
    )
    read = Nearest(5 if damage == "dimensions" else DIMENSIONS, 100, GRAPH)
    with pytest.raises(ValueError, match=r"."):
        read.load(path)
    assert len(read) == 0
