"""What vector stores have after faults: of a process, of a file, of another store, of rights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, make_url, text

from ranker.database import Database
from ranker.index.embedded import EmbeddedStore
from ranker.index.entry import Filter
from ranker.index.milvus import MilvusStore
from ranker.index.nearest import Graph
from ranker.index.pgvector import PgVectorStore
from services.core.errors import FailedPrecondition, NotReady
from tests.integration.ranker.stores import (
    DIMENSIONS,
    NOW,
    ORIGIN,
    ROOM,
    entries,
    entry,
    opened,
    truth,
    units,
)

GRAPH = Graph(16, 40, 64)


async def test_what_was_put_is_there_though_the_process_just_ended(tmp_path: Path) -> None:
    """Nothing is closed, and the graph's file is older than the database."""
    url, directory = f"sqlite:///{tmp_path / 'easel.db'}", tmp_path / "index"
    given = entries(units(300))
    async with opened("embedded", tmp_path, "", 100) as store:
        await store.create("pictures", ORIGIN, NOW)
        await store.put("pictures", ORIGIN, given[:200], max_size=ROOM)
        await store.tend("pictures")
    first = EmbeddedStore(Database.open(url), directory, exact_size=100, graph=GRAPH)
    await first.open()
    await first.put("pictures", ORIGIN, given[200:], max_size=ROOM)
    await first.delete("pictures", [each.image.id for each in given[:20]])

    async with opened("embedded", tmp_path, "", 100) as second:
        assert (await second.find("pictures")).size == 280
        for vector in units(5, seed=1):
            found = await second.nearest("pictures", vector, 10, Filter())
            assert [match.image.id for match in found] == truth(given[20:], vector, 10)
    await first.close()


@pytest.mark.parametrize("damage", [b"", b"something else", b"easel graph 1\n{}\n"])
async def test_a_graph_that_cannot_be_read_is_built_anew(tmp_path: Path, damage: bytes) -> None:
    given = entries(units(200))
    async with opened("embedded", tmp_path, "", 100) as store:
        await store.create("pictures", ORIGIN, NOW)
        await store.put("pictures", ORIGIN, given, max_size=ROOM)
        await store.tend("pictures")
    (file,) = (tmp_path / "index").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    async with opened("embedded", tmp_path, "", 100) as store:
        vector = units(1, seed=1)[0]
        found = await store.nearest("pictures", vector, 10, Filter())
        assert [match.image.id for match in found] == truth(given, vector, 10)
        await store.tend("pictures")
    assert file.read_bytes()[:40] == whole[:40]


async def test_a_dropped_collection_leaves_no_graph(tmp_path: Path) -> None:
    async with opened("embedded", tmp_path, "", 100) as store:
        await store.create("pictures", ORIGIN, NOW)
        await store.put("pictures", ORIGIN, entries(units(200)), max_size=ROOM)
        await store.tend("pictures")
        assert len(list((tmp_path / "index").iterdir())) == 1
        await store.drop("pictures")
    assert list((tmp_path / "index").iterdir()) == []


async def test_two_rankers_share_a_postgresql(postgres_database: str, tmp_path: Path) -> None:
    async with (
        opened("pgvector", tmp_path, postgres_database, 50) as one,
        opened("pgvector", tmp_path, postgres_database, 50) as other,
    ):
        await one.create("pictures", ORIGIN, NOW)
        given = entries(units(100))
        await one.put("pictures", ORIGIN, given[:60], max_size=ROOM)
        await other.put("pictures", ORIGIN, given[60:], max_size=ROOM)
        await one.tend("pictures")
        await other.tend("pictures")
        vector = units(1, seed=1)[0]
        for store in (one, other):
            found = await store.nearest("pictures", vector, 10, Filter())
            assert [match.image.id for match in found] == truth(given, vector, 10)
        refused = await other.put("pictures", ORIGIN, entries(units(3), "q"), max_size=101)
        assert list(refused) == ["q00001", "q00002"]
        assert await one.drop("pictures") == 101
        assert await other.collections() == []


async def test_more_dimensions_than_pgvector_can_index(
    postgres_database: str, tmp_path: Path
) -> None:
    origin = replace(ORIGIN, dimensions=2001)
    given = entries(units(30, dimensions=2001))
    async with opened("pgvector", tmp_path, postgres_database, 10) as store:
        await store.create("pictures", origin, NOW)
        await store.put("pictures", origin, given, max_size=ROOM)
        await store.tend("pictures")
        vector = units(1, seed=1, dimensions=2001)[0]
        found = await store.nearest("pictures", vector, 5, Filter())
        assert [match.image.id for match in found] == truth(given, vector, 5)


async def test_a_graph_whose_build_was_interrupted_is_built_anew(
    postgres_database: str, tmp_path: Path
) -> None:
    async with opened("pgvector", tmp_path, postgres_database, 50) as store:
        await store.create("pictures", ORIGIN, NOW)
        await store.put("pictures", ORIGIN, entries(units(60)), max_size=ROOM)
        await store.tend("pictures")
        engine = create_engine(postgres_database, isolation_level="AUTOCOMMIT")
        name = "image_vector_1_graph"
        valid = text(f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{name}'::regclass")
        with engine.connect() as connection:
            assert connection.scalar(valid)
            # What CREATE INDEX CONCURRENTLY leaves behind when its client is killed.
            broken = f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass"
            connection.execute(text(broken))
            await store.tend("pictures")
            assert connection.scalar(valid)
        engine.dispose()


async def test_a_postgresql_without_pgvector(postgres_database: str) -> None:
    """And a user who may not bring it in."""
    url = make_url(postgres_database)
    engine = create_engine(postgres_database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE ROLE {url.database}_user LOGIN"))
        connection.execute(text(f"GRANT ALL ON SCHEMA public TO {url.database}_user"))
    database = Database.open(url.set(username=f"{url.database}_user"))
    try:
        with pytest.raises(FailedPrecondition, match="needs the extension pgvector") as caught:
            await PgVectorStore(database, exact_size=10).open()
        assert caught.value.reason == "NO_PGVECTOR"
    finally:
        await database.close()
        with engine.connect() as connection:
            connection.execute(text(f"DROP OWNED BY {url.database}_user"))
            connection.execute(text(f"DROP ROLE {url.database}_user"))
        engine.dispose()


class Interrupted(Database):
    """A database that does not take the ``failing``th write."""

    failing = -1

    async def write(self, fn: Callable[[Connection], Any]) -> Any:
        self.failing -= 1
        if self.failing == 0:
            raise NotReady("Away.")
        return await super().write(fn)


async def test_vectors_that_belong_to_no_picture_are_passed_over(tmp_path: Path) -> None:
    """Milvus has them, and the database never heard of them."""
    database = Interrupted.open(f"sqlite:///{tmp_path / 'easel.db'}")
    store = MilvusStore(database, str(tmp_path / "vectors.db"))
    try:
        await store.open()
        await store.create("pictures", ORIGIN, NOW)
        vector = units(1, seed=1)[0]
        near = [entry(f"near {n}", (vector + 0.001 * each)) for n, each in enumerate(units(80))]
        database.failing = 1
        with pytest.raises(NotReady):
            await store.put("pictures", ORIGIN, near, max_size=ROOM)
        given = entries(units(30, seed=2))
        await store.put("pictures", ORIGIN, given, max_size=ROOM)

        found = await store.nearest("pictures", vector, 10, Filter())
        assert [match.image.id for match in found] == truth(given, vector, 10)
        assert len(await store.nearest("pictures", vector, 40, Filter())) == 30
        assert (await store.find("pictures")).size == 30
        assert given[0].vector.shape == (DIMENSIONS,)
    finally:
        await store.close()
        await database.close()
