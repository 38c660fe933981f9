import asyncio

import pytest

from services.generator.outbox import Outbox


async def test_items_of_all_writers_until_the_last_has_ended() -> None:
    outbox: Outbox[int] = Outbox(2)

    async def write(first: int) -> None:
        for item in range(first, first + 5):
            await outbox.put(item)

    outbox.spawn(write(0))
    outbox.spawn(write(10))
    seen = [item async for item in outbox.items()]
    assert sorted(seen) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert [item for item in seen if item < 10] == [0, 1, 2, 3, 4]


async def test_no_writer_no_items() -> None:
    assert [item async for item in Outbox[int](1).items()] == []


async def test_a_slow_reader_holds_the_writer_back() -> None:
    outbox: Outbox[int] = Outbox(2)
    written: list[int] = []

    async def write() -> None:
        for item in range(9):
            await outbox.put(item)
            written.append(item)

    outbox.spawn(write())
    items = outbox.items()
    assert await anext(items) == 0
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(written) <= 4
    await items.aclose()


async def test_what_was_put_comes_before_the_error() -> None:
    outbox: Outbox[int] = Outbox(2)

    async def write() -> None:
        await outbox.put(1)
        raise ValueError("enough")

    outbox.spawn(write())
    items = outbox.items()
    assert await anext(items) == 1
    with pytest.raises(ValueError, match="enough"):
        await anext(items)


async def test_closing_cancels_the_writers_and_waits_for_them() -> None:
    outbox: Outbox[int] = Outbox(1)
    ended = False

    async def write() -> None:
        nonlocal ended
        try:
            await outbox.put(1)
            await asyncio.get_running_loop().create_future()
        finally:
            ended = True

    outbox.spawn(write())
    items = outbox.items()
    assert await anext(items) == 1
    await items.aclose()
    assert ended
