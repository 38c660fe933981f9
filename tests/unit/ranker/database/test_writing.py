"""Writes gather while one is under way, and share its successor's transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from sqlalchemy import Connection, event, make_url, text

from ranker.database.engines import Engines, open_engines
from ranker.database.writing import MAX_GROUP, Writer
from services.core.errors import Draining, Overloaded


@pytest.fixture
def engines() -> Iterator[Engines]:
    opened = open_engines(make_url("sqlite://"), 1)
    with opened.writing.begin() as connection:
        connection.execute(text("CREATE TABLE number (value INTEGER PRIMARY KEY)"))
    yield opened
    opened.dispose()


def put(value: int) -> object:
    return lambda connection: connection.execute(text(f"INSERT INTO number VALUES ({value})"))


class Commits:
    def __init__(self, engines: Engines) -> None:
        self.rows: list[int] = []
        event.listen(engines.writing, "commit", self)

    def __call__(self, connection: Connection) -> None:
        self.rows.append(connection.scalar(text("SELECT count(*) FROM number")) or 0)


def test_writes_that_wait_share_a_transaction(engines: Engines) -> None:
    writer = Writer(engines, max_waiting=10 * MAX_GROUP)
    commits = Commits(engines)
    may_end = threading.Event()
    writer.submit(lambda connection: may_end.wait(60))
    waiting = MAX_GROUP + 10
    futures: list[Future[object]] = [
        writer.submit(put(value))  # type: ignore[arg-type]
        for value in range(waiting)
    ]
    may_end.set()
    for future in futures:
        future.result(60)
    writer.close()

    # The first one alone or with some that came before it was taken; then as many as may.
    assert commits.rows[-1] == waiting
    assert len(commits.rows) <= 3


def test_no_more_wait_than_may(engines: Engines) -> None:
    writer = Writer(engines, max_waiting=2)
    began, may_end = threading.Event(), threading.Event()

    def held(connection: Connection) -> None:
        began.set()
        may_end.wait(60)

    first = writer.submit(held)
    began.wait(60)
    waiting = [writer.submit(lambda connection: 1) for _ in range(2)]
    with pytest.raises(Overloaded) as caught:
        writer.submit(lambda connection: 1)
    assert caught.value.retry_after_seconds > 0
    may_end.set()
    first.result(60)

    assert [future.result(60) for future in waiting] == [1, 1]
    assert writer.submit(lambda connection: 2).result(60) == 2
    writer.close()
    with pytest.raises(Draining):
        writer.submit(lambda connection: 3)


def test_a_group_that_cannot_begin_fails_as_a_whole(engines: Engines) -> None:
    def fail(connection: Connection) -> None:
        raise LookupError

    event.listen(engines.writing, "begin", fail)
    writer = Writer(engines, max_waiting=10)
    with pytest.raises(LookupError):
        writer.submit(lambda connection: 1).result(60)
    event.remove(engines.writing, "begin", fail)
    assert writer.submit(lambda connection: 1).result(60) == 1
    writer.close()
