"""The order of work on one thing, and the lock of readers and writers."""

from __future__ import annotations

import asyncio
from threading import Barrier, Thread

from ranker.index.sharing import SharedLock
from ranker.index.turns import Turns


async def test_turns_are_taken_in_order() -> None:
    turns, done = Turns(), []
    gates = {name: asyncio.Event() for name in ("a1", "a2", "a3", "b1")}

    async def work(name: str) -> None:
        async with turns.of(name[0]):
            await gates[name].wait()
            done.append(name)

    async with asyncio.TaskGroup() as group:
        for name in gates:
            group.create_task(work(name))
        gates["a3"].set()
        gates["a2"].set()
        gates["b1"].set()
        while done != ["b1"]:  # noqa: ASYNC110  (each pass lets the others go on)
            await asyncio.sleep(0)
        gates["a1"].set()
    assert done == ["b1", "a1", "a2", "a3"]


async def test_a_turn_that_fails_is_over() -> None:
    turns = Turns()
    try:
        async with turns.of("a"):
            raise ValueError
    except ValueError:
        pass
    async with turns.of("a"):
        pass


def test_readers_share_and_a_writer_is_alone() -> None:
    lock, both = SharedLock(), Barrier(2, timeout=30)
    seen: list[str] = []

    def read() -> None:
        with lock.shared():
            both.wait()  # passes only while both hold it
            seen.append("read")

    readers = [Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    count = 0

    def write() -> None:
        nonlocal count
        for _ in range(200):
            with lock.alone():
                was = count
                with_others = [reader for reader in readers if reader.is_alive()]
                count = was + 1
                assert not with_others

    writers = [Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (seen, count) == (["read", "read"], 800)
