"""The database, of each kind that there is: in memory, in a file, on a PostgreSQL server."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from ranker.database import Database
from ranker.database.engines import open_engines
from ranker.database.migration import VERSION_TABLE, migrate, newest_version
from ranker.database.schema import Moment, RowId, insert_into, metadata
from services.core.errors import Draining, FailedPrecondition, NotReady

ROOT = Path(__file__).parents[4]

TABLES = MetaData()
COUNT = Table(
    "count",
    TABLES,
    Column("name", String, primary_key=True),
    Column("number", Integer, nullable=False),
)
NOTE = Table(
    "note",
    TABLES,
    Column("id", RowId, primary_key=True),
    Column("at", Moment),
    # Checked at the commit, not before.
    Column("count", ForeignKey("count.name", deferrable=True, initially="DEFERRED")),
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database.open(database_url)
    await opened.write(TABLES.create_all)
    yield opened
    await opened.close()


@pytest.fixture
def shared(database: Database) -> Database:
    """One that others can open too."""
    if database.is_in_memory:
        pytest.skip("what is in memory has one owner")
    return database


def put(name: str, number: int = 1) -> Callable[[Connection], None]:
    def write(connection: Connection) -> None:
        connection.execute(insert(COUNT).values(name=name, number=number))

    return write


def counts(connection: Connection) -> dict[str, int]:
    return {row.name: row.number for row in connection.execute(select(COUNT))}


class Held:
    """A write that stays in the writer's thread until it may go on."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, connection: Connection) -> None:
        self.began.set()
        assert self.may_end.wait(60)

    async def until_begun(self) -> None:
        await asyncio.to_thread(self.began.wait, 60)


async def test_what_is_written_is_read(database: Database) -> None:
    await database.write(put("a", 7))
    assert await database.read(counts) == {"a": 7}
    assert await database.write(counts) == {"a": 7}


async def test_a_write_that_fails_is_undone_and_no_other(database: Database) -> None:
    def writes_and_fails(connection: Connection) -> None:
        put("lost")(connection)
        raise LookupError("of its own")

    held = Held()
    first = asyncio.create_task(database.write(held))
    await held.until_begun()
    rest = asyncio.gather(
        *(database.write(put(f"{number}")) for number in range(10)),
        database.write(writes_and_fails),
        database.write(put("3")),
        database.write(put("last")),
        return_exceptions=True,
    )
    await asyncio.sleep(0)
    held.may_end.set()
    await first
    *good, failed, twice, last = await rest

    assert good == [None] * 10
    assert isinstance(failed, LookupError)
    assert isinstance(twice, IntegrityError)
    assert last is None
    assert set(await database.read(counts)) == {*map(str, range(10)), "last"}


async def test_none_of_a_group_is_told_as_written_when_its_commit_fails(
    database: Database,
) -> None:
    def dangles(connection: Connection) -> None:
        connection.execute(insert(NOTE).values(count="nowhere"))

    held = Held()
    first = asyncio.create_task(database.write(held))
    await held.until_begun()
    rest = asyncio.gather(database.write(put("a")), database.write(dangles), return_exceptions=True)
    await asyncio.sleep(0)
    held.may_end.set()
    await first

    assert [type(outcome) for outcome in await rest] == [IntegrityError, IntegrityError]
    assert await database.read(counts) == {}
    await database.write(put("b"))
    assert await database.read(counts) == {"b": 1}


async def test_reading_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"read-?only"):
        await database.read(put("a"))
    assert await database.read(counts) == {}
    await database.write(put("a"))


async def test_a_read_sees_the_moment_at_which_it_began(shared: Database) -> None:
    began, written = threading.Event(), threading.Event()

    def reads_twice(connection: Connection) -> list[dict[str, int]]:
        before = counts(connection)
        began.set()
        assert written.wait(60)
        return [before, counts(connection)]

    reading = asyncio.create_task(shared.read(reads_twice))
    await asyncio.to_thread(began.wait, 60)
    await shared.write(put("a"))
    written.set()

    assert await reading == [{}, {}]
    assert await shared.read(counts) == {"a": 1}


async def test_a_cancelled_write_that_waits_is_never_done(database: Database) -> None:
    held = Held()
    first = asyncio.create_task(database.write(held))
    await held.until_begun()
    second = asyncio.create_task(database.write(put("second")))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    held.may_end.set()
    await first
    await database.write(put("third"))

    assert await database.read(counts) == {"third": 1}


async def test_what_one_reads_to_write_no_other_changes(
    shared: Database, database_url: str
) -> None:
    def add_one(connection: Connection) -> None:
        number = connection.scalars(select(COUNT.c.number).where(COUNT.c.name == "n")).one()
        connection.execute(update(COUNT).values(number=number + 1))

    other = Database.open(database_url)
    await shared.write(put("n", 0))
    await asyncio.gather(*(each.write(add_one) for each in (shared, other) for _ in range(200)))
    await other.close()

    assert await shared.read(counts) == {"n": 400}


async def test_closing_writes_what_was_taken_on(shared: Database, database_url: str) -> None:
    closed = Database.open(database_url)
    held = Held()
    first = asyncio.create_task(closed.write(held))
    await held.until_begun()
    writes = [asyncio.create_task(closed.write(put(name))) for name in ("a", "b")]
    await asyncio.sleep(0)
    closing_down = asyncio.create_task(closed.close())
    held.may_end.set()
    await asyncio.gather(first, closing_down, *writes)

    assert set(await shared.read(counts)) == {"a", "b"}
    with pytest.raises(Draining):
        await closed.write(put("c"))
    with pytest.raises(Draining):
        await closed.read(counts)


async def test_before_it_is_open_it_is_not_ready(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(NotReady):
        await database.read(counts)
    with pytest.raises(NotReady):
        await database.write(put("a"))
    await database.close()


async def test_moments_keep_their_microseconds(database: Database) -> None:
    at = datetime(2026, 11, 25, 23, 59, 59, 123457, tzinfo=timezone(timedelta(hours=5)))

    def write(connection: Connection) -> None:
        connection.execute(insert(NOTE), [{"at": at}, {"at": None}])

    await database.write(write)
    rows = await database.read(lambda c: c.execute(select(NOTE.c.at).order_by(NOTE.c.id)).all())
    assert [row.at for row in rows] == [at, None]
    assert rows[0].at.tzinfo == UTC


async def test_an_insert_can_give_way(database: Database) -> None:
    def write(connection: Connection) -> None:
        given = insert_into(connection, COUNT).values(name="a", number=1)
        add = {"number": COUNT.c.number + given.excluded.number}
        statement = given.on_conflict_do_update(index_elements=["name"], set_=add)
        connection.execute(statement)

    for _ in range(3):
        await database.write(write)
    assert await database.read(counts) == {"a": 3}


async def test_the_migrations_make_the_tables_as_they_are(database_url: str) -> None:
    for file in sorted(ROOT.glob("ranker/*/tables.py")):
        importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    database = Database.open(database_url)

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata))

    assert await database.read(differences) == []
    await database.close()


async def test_opening_again_keeps_everything(shared: Database, database_url: str) -> None:
    await shared.write(put("a"))
    again = Database.open(database_url)
    assert await again.read(counts) == {"a": 1}
    assert await again.read(version) == newest_version()
    await again.close()


async def test_many_may_open_an_empty_one_at_once(database_url: str) -> None:
    if database_url == "sqlite://":
        pytest.skip("what is in memory has one owner")
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(Database.open, [database_url] * 4))
    assert {await each.read(version) for each in opened} == {newest_version()}
    for each in opened:
        await each.close()


def version(connection: Connection) -> object:
    return connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))


async def test_a_newer_one_is_refused_and_left_as_it_is(
    shared: Database, database_url: str
) -> None:
    await shared.write(
        lambda connection: connection.execute(
            text(f"UPDATE {VERSION_TABLE} SET version_num='9999'")
        )
    )
    await shared.close()
    before = content(database_url)

    with pytest.raises(FailedPrecondition, match=r"9999.* up to \d{4}") as caught:
        Database.open(database_url)

    assert caught.value.reason == "DATABASE_NEWER"
    assert content(database_url) == before


def content(url: str) -> object:
    """Every byte of a file; of a server every table and the version."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "")
        return [(each.name, each.read_bytes()) for each in sorted(file.parent.iterdir())]
    engines = open_engines(parsed, 1)
    with engines.reading.connect() as connection:
        found = (sorted(inspect(connection).get_table_names()), version(connection))
    engines.dispose()
    return found


async def test_a_migration_that_fails_leaves_nothing(database_url: str) -> None:
    engines = open_engines(make_url(database_url), 1)
    with suppress(LookupError), engines.writing.begin() as connection:
        migrate(connection)
        assert inspect(connection).get_table_names()
        raise LookupError
    with engines.reading.connect() as connection:
        assert inspect(connection).get_table_names() == []
    engines.dispose()


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(FailedPrecondition, match="another program's"):
        Database.open(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("No database, but long enough to be read as the header of one. " * 20)
    with pytest.raises(FailedPrecondition, match="not a database") as caught:
        Database.open(f"sqlite:///{path}")
    assert str(tmp_path) not in caught.value.message


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="directory cannot be used"):
        Database.open(f"sqlite:///{tmp_path / 'file' / 'data' / 'easel.db'}")


def test_a_server_that_is_away_is_refused_without_its_password() -> None:
    with pytest.raises(FailedPrecondition, match="cannot be used") as caught:
        Database.open("postgresql://someone:secret@127.0.0.1:1/easel")
    assert "secret" not in caught.value.message


async def test_a_connection_cut_off_fails_its_writes_alone(postgres_database: str) -> None:
    database = Database.open(postgres_database)
    await database.write(TABLES.create_all)

    def writes_and_is_cut_off(connection: Connection) -> None:
        put("lost")(connection)
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(NotReady) as caught:
        await database.write(writes_and_is_cut_off)
    assert caught.value.reason == "DATABASE_UNAVAILABLE"
    await database.write(put("a"))
    assert await database.read(counts) == {"a": 1}
    await database.close()
