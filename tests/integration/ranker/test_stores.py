"""What every vector store promises, asked of each: in memory, FAISS beside SQLite, pgvector, Milvus
Lite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ranker.index.collection import Collection
from ranker.index.entry import Filter, Image, Label
from ranker.index.store import VectorStore
from services.core.errors import FailedPrecondition, NotFound
from tests.integration.ranker.stores import (
    KINDS,
    LASTING,
    NOW,
    ORIGIN,
    ROOM,
    entries,
    entry,
    opened,
    truth,
    units,
)

NO_FILTER = Filter()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    kind = request.node.callspec.params.get("kind")
    return request.getfixturevalue("postgres_database") if kind == "pgvector" else ""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(kind: str, tmp_path: Path, url: str) -> AsyncIterator[VectorStore]:
    async with opened(kind, tmp_path, url) as made:
        await made.create("pictures", ORIGIN, NOW)
        yield made


async def test_the_nearest_come_first_with_all_that_was_kept(store: VectorStore) -> None:
    vectors = units(3)
    await store.put(
        "pictures",
        ORIGIN,
        [
            entry("a", vectors[0], {"red star": 0.75, "ring": 0.25}, {"shop": "north", "ü": "="}),
            entry("b", vectors[1]),
            entry("c", vectors[2], {"ring": 0.5}),
        ],
        max_size=ROOM,
    )
    found = await store.nearest("pictures", vectors[0], 3, NO_FILTER)

    assert found[0].image == Image(
        "a",
        (Label(0, "red star", 0.75), Label(1, "ring", 0.25)),
        {"shop": "north", "ü": "="},
        NOW,
    )
    similarities = [match.similarity for match in found]
    expected = sorted((vectors @ vectors[0]).tolist(), reverse=True)
    assert similarities == pytest.approx(expected, abs=1e-5)
    assert {match.image.id for match in found} == {"a", "b", "c"}


async def test_exactly_the_nearest(store: VectorStore) -> None:
    given = entries(units(300))
    await store.put("pictures", ORIGIN, given, max_size=ROOM)
    for vector in units(20, seed=1):
        found = await store.nearest("pictures", vector, 10, NO_FILTER)
        assert [match.image.id for match in found] == truth(given, vector, 10)


async def test_more_asked_for_than_there_are(store: VectorStore) -> None:
    await store.put("pictures", ORIGIN, entries(units(5)), max_size=ROOM)
    assert len(await store.nearest("pictures", units(1)[0], 1000, NO_FILTER)) == 5


async def test_a_collection_with_nothing_in_it(store: VectorStore) -> None:
    vector = units(1)[0]
    assert await store.nearest("pictures", vector, 10, NO_FILTER) == []
    assert await store.nearest("pictures", vector, 10, Filter(("ring",))) == []
    assert await store.likeliest("pictures", 10, Filter(("ring",))) == []
    assert await store.page("pictures", "", 10, NO_FILTER) == []
    assert await store.existing("pictures", ["a"]) == set()
    assert await store.vector("pictures", "a") is None
    assert await store.delete("pictures", ["a"]) == 0
    await store.tend("pictures")


FILTERS = [
    Filter(("ring",)),
    Filter(("ring", "star")),
    Filter(attributes={"shop": "north"}),
    Filter(attributes={"shop": "north", "year": "2024"}),
    Filter(("star",), {"year": "2025"}),
    Filter(("nothing is called that",)),
    Filter(attributes={"shop": "nowhere"}),
    Filter(attributes={"nothing": "north"}),
]


@pytest.mark.parametrize("exact_size", [10_000, 100], ids=["exact", "graph"])
async def test_a_filter_finds_the_nearest_of_those_it_lets_pass(
    kind: str, tmp_path: Path, url: str, exact_size: int
) -> None:
    """Few pass, and they lie anywhere: cutting down what a search without filter finds would not
    do."""
    labels = ("ring", "star", "circle", "square", "line", "dot", "cube", "ball")
    given = [
        entry(
            f"p{place}",
            vector,
            {labels[place % 8]: 0.8, labels[(place + 3) % 8]: 0.2} if place % 10 else {},
            {"shop": ("north", "south")[place % 40 == 7], "year": str(2000 + place % 30)}
            if place % 40 in (7, 11, 24)
            else {"year": "2025"},
        )
        for place, vector in enumerate(units(600))
    ]
    async with opened(kind, tmp_path, url, exact_size) as store:
        await store.create("pictures", ORIGIN, NOW)
        await store.put("pictures", ORIGIN, given, max_size=ROOM)
        await store.tend("pictures")
        for where in FILTERS:
            passing = [each for each in given if where.passes(each.image)]
            for vector in units(4, seed=1):
                found = await store.nearest("pictures", vector, 10, where)
                expected = truth(passing, vector, 10) if passing else []
                assert [match.image.id for match in found] == expected, where
            pages = await store.page("pictures", "", 1000, where)
            assert [image.id for image in pages] == sorted(each.image.id for each in passing)


async def test_the_likeliest_come_first(store: VectorStore) -> None:
    vectors = units(5)
    await store.put(
        "pictures",
        ORIGIN,
        [
            entry("unsure", vectors[0], {"ring": 0.3, "star": 0.6}),
            entry("sure", vectors[1], {"ring": 0.9}),
            entry("b", vectors[2], {"star": 0.7, "ring": 0.1}),
            entry("a", vectors[3], {"ring": 0.7}, {"shop": "north"}),
            entry("no", vectors[4], {"dot": 1.0}),
        ],
        max_size=ROOM,
    )

    async def likeliest(count: int, *labels: str, **attributes: str) -> list[str]:
        where = Filter(labels, attributes)
        found = await store.likeliest("pictures", count, where)
        return [match.image.id for match in found]

    assert await likeliest(10, "ring") == ["sure", "a", "unsure", "b"]
    assert await likeliest(10, "ring", "star") == ["sure", "a", "b", "unsure"]
    assert await likeliest(2, "ring", "star") == ["sure", "a"]
    assert await likeliest(10, "ring", shop="north") == ["a"]


async def test_pages_by_the_bytes_of_ids(store: VectorStore) -> None:
    ids = ["Zebra", "apple", "apple pie", "b\\back", 'a "quoted"', "zebra", "Äpfel", "z/ü='", "💡"]
    vectors = units(len(ids))
    given = [entry(id, vectors[place]) for place, id in enumerate(ids)]
    await store.put("pictures", ORIGIN, given, max_size=ROOM)
    found: list[str] = []
    while page := await store.page("pictures", found[-1] if found else "", 2, NO_FILTER):
        assert len(page) <= 2
        found += [image.id for image in page]
    assert found == sorted(ids, key=str.encode)
    assert await store.existing("pictures", [*ids, "other"]) == set(ids)
    for place, id in enumerate(ids):
        vector = await store.vector("pictures", id)
        assert vector is not None
        np.testing.assert_allclose(vector, vectors[place], atol=1e-6)


async def test_an_id_is_there_once(store: VectorStore) -> None:
    vectors = units(3)
    await store.put(
        "pictures", ORIGIN, [entry("a", vectors[0], {"ring": 0.9}, {"x": "1"})], max_size=ROOM
    )
    await store.put("pictures", ORIGIN, [entry("b", vectors[1])], max_size=ROOM)
    await store.put("pictures", ORIGIN, [entry("a", vectors[2], {"star": 0.8})], max_size=ROOM)

    (best, other) = await store.nearest("pictures", vectors[2], 10, NO_FILTER)
    assert best.image == Image("a", (Label(0, "star", 0.8),), {}, NOW)
    assert best.similarity == pytest.approx(1.0, abs=1e-5)
    assert other.image.id == "b"
    assert await store.nearest("pictures", vectors[2], 10, Filter(("ring",))) == []
    assert await store.likeliest("pictures", 10, Filter(("ring",))) == []
    assert (await store.find("pictures")).size == 2


async def test_what_was_deleted_is_gone(store: VectorStore) -> None:
    given = entries(units(20))
    await store.put("pictures", ORIGIN, given, max_size=ROOM)
    assert await store.delete("pictures", ["p00003", "p00004", "p00005", "not there"]) == 3
    assert await store.delete("pictures", ["p00003"]) == 0

    left = [each for each in given if each.image.id not in ("p00003", "p00004", "p00005")]
    found = await store.nearest("pictures", given[4].vector, 20, NO_FILTER)
    assert [match.image.id for match in found] == truth(left, given[4].vector, 17)
    assert len(await store.page("pictures", "", 100, NO_FILTER)) == 17
    assert (await store.find("pictures")).size == 17
    await store.put("pictures", ORIGIN, [given[4]], max_size=ROOM)
    best = (await store.nearest("pictures", given[4].vector, 1, NO_FILTER))[0]
    assert best.image.id == "p00004"


@pytest.mark.parametrize(
    ("there", "refused"), [(7, []), (8, []), (9, ["c"]), (11, ["a", "b", "c"])]
)
async def test_a_full_collection_takes_no_new_ids(
    store: VectorStore, there: int, refused: list[str]
) -> None:
    given = entries(units(there))
    await store.put("pictures", ORIGIN, given, max_size=ROOM)
    vectors = units(4, seed=2)
    more = [entry(id, vectors[place]) for place, id in enumerate(["a", "p00000", "b", "c"])]

    assert list(await store.put("pictures", ORIGIN, more, max_size=11)) == refused
    assert (await store.find("pictures")).size == there + 3 - len(refused)
    best = (await store.nearest("pictures", vectors[1], 1, NO_FILTER))[0]
    assert best.image.id == "p00000"
    assert best.similarity == pytest.approx(1.0, abs=1e-5)


async def test_collections_are_by_themselves(store: VectorStore) -> None:
    other = replace(ORIGIN, dimensions=5, digest="sha256:other")
    made = await store.create("A-b_c.d", other, NOW)
    assert made == Collection("A-b_c.d", other, 0, NOW)
    # Only in how they are written would these two be one, where a name is changed to fit.
    await store.create("A_b-c.d", other, NOW)
    vectors = units(2, dimensions=5)
    await store.put("A-b_c.d", other, [entry("a", vectors[0], {"ring": 1.0})], max_size=ROOM)
    await store.put("pictures", ORIGIN, entries(units(3)), max_size=ROOM)

    assert [(each.name, each.size) for each in await store.collections()] == [
        ("A-b_c.d", 1),
        ("A_b-c.d", 0),
        ("pictures", 3),
    ]
    assert await store.find("A-b_c.d") == Collection("A-b_c.d", other, 1, NOW)
    assert [m.image.id for m in await store.nearest("A-b_c.d", vectors[1], 9, NO_FILTER)] == ["a"]
    assert await store.likeliest("pictures", 9, Filter(("ring",))) == []


async def test_one_that_is_there_is_not_made_again(store: VectorStore) -> None:
    await store.put("pictures", ORIGIN, entries(units(3)), max_size=ROOM)
    other = replace(ORIGIN, dimensions=5, digest="sha256:other")
    found = await asyncio.gather(*(store.create("pictures", other, NOW) for _ in range(4)))
    assert {(each.origin, each.size) for each in found} == {(ORIGIN, 3)}


async def test_vectors_of_another_origin_are_refused(store: VectorStore) -> None:
    await store.put("pictures", ORIGIN, entries(units(3)), max_size=ROOM)
    for other in (
        replace(ORIGIN, digest="sha256:other"),
        replace(ORIGIN, layer=11),
        replace(ORIGIN, pooling="mean"),
        replace(ORIGIN, fit="pad"),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            await store.put("pictures", other, entries(units(3), "q"), max_size=ROOM)
        assert caught.value.reason == "MODEL_DIFFERS"
    assert (await store.find("pictures")).size == 3


async def test_a_dropped_collection_is_gone(store: VectorStore) -> None:
    await store.put("pictures", ORIGIN, entries(units(30)), max_size=ROOM)
    assert await store.drop("pictures") == 30
    assert await store.collections() == []
    await store.create("pictures", replace(ORIGIN, dimensions=3), NOW)
    assert await store.nearest("pictures", units(1, dimensions=3)[0], 9, NO_FILTER) == []


async def test_no_collection_of_that_name(store: VectorStore) -> None:
    vector = units(1)[0]
    for asked in (
        store.find("other"),
        store.drop("other"),
        store.put("other", ORIGIN, entries(units(1)), max_size=ROOM),
        store.existing("other", ["a"]),
        store.vector("other", "a"),
        store.nearest("other", vector, 1, NO_FILTER),
        store.likeliest("other", 1, Filter(("ring",))),
        store.page("other", "", 1, NO_FILTER),
        store.delete("other", ["a"]),
        store.tend("other"),
    ):
        with pytest.raises(NotFound, match="no collection 'other'"):
            await asked


async def test_writers_beside_each_other_lose_nothing(store: VectorStore) -> None:
    """Eight of them, with ids of their own and one that they all write, beside searches."""
    vectors = units(240)
    given = [entry(f"w{place % 8}-{place // 8}", vector) for place, vector in enumerate(vectors)]
    shared = units(8, seed=3)

    async def write(writer: int) -> None:
        own = given[writer::8]
        for first in range(0, len(own), 10):
            await store.put("pictures", ORIGIN, own[first : first + 10], max_size=ROOM)
            await store.put("pictures", ORIGIN, [entry("shared", shared[writer])], max_size=ROOM)

    async def search() -> None:
        for vector in units(30, seed=1):
            found = await store.nearest("pictures", vector, 10, NO_FILTER)
            ids = [match.image.id for match in found]
            assert len(ids) == len(set(ids))

    await asyncio.gather(*(write(writer) for writer in range(8)), search())
    assert (await store.find("pictures")).size == 241
    ids = [image.id for image in await store.page("pictures", "", 1000, NO_FILTER)]
    assert ids == sorted([*(each.image.id for each in given), "shared"])
    last = await store.vector("pictures", "shared")
    assert last is not None
    assert (shared @ last).max() == pytest.approx(1.0, abs=1e-5)
    both = [*given, entry("shared", last)]
    for vector in units(5, seed=4):
        found = await store.nearest("pictures", vector, 10, NO_FILTER)
        assert [match.image.id for match in found] == truth(both, vector, 10)


@pytest.mark.parametrize("kind", LASTING, indirect=True)
@pytest.mark.parametrize("exact_size", [10_000, 100], ids=["exact", "graph"])
async def test_all_is_there_after_a_restart(
    kind: str, tmp_path: Path, url: str, exact_size: int
) -> None:
    given = [
        entry(f"p{place:05}", vector, {"ring": 0.5} if place % 7 == 0 else {"dot": 0.5}, {"n": "1"})
        for place, vector in enumerate(units(400))
    ]
    async with opened(kind, tmp_path, url, exact_size) as store:
        await store.create("pictures", ORIGIN, NOW)
        await store.put("pictures", ORIGIN, given[:300], max_size=ROOM)
        await store.tend("pictures")
        await store.put("pictures", ORIGIN, given[300:], max_size=ROOM)
        await store.delete("pictures", [each.image.id for each in given[:50]])
        changed = replace(given[60], vector=units(1, seed=9)[0])
        await store.put("pictures", ORIGIN, [changed], max_size=ROOM)
    left = [*given[50:60], changed, *given[61:]]
    async with opened(kind, tmp_path, url, exact_size) as store:
        assert await store.find("pictures") == Collection("pictures", ORIGIN, 350, NOW)
        for vector in units(10, seed=1):
            found = await store.nearest("pictures", vector, 10, NO_FILTER)
            assert [match.image.id for match in found] == truth(left, vector, 10)
        ringed = [each for each in left if each.image.labels[0].name == "ring"]
        found = await store.nearest("pictures", changed.vector, 10, Filter(("ring",)))
        assert [match.image.id for match in found] == truth(ringed, changed.vector, 10)
        assert found[0].image in [each.image for each in ringed]
        await store.put("pictures", ORIGIN, [entry("new", units(1, seed=8)[0])], max_size=ROOM)
        best = (await store.nearest("pictures", units(1, seed=8)[0], 1, NO_FILTER))[0]
        assert best.image.id == "new"
