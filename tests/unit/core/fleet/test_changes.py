import asyncio
from collections.abc import AsyncGenerator

import pytest

from services.core.errors import Overloaded
from services.core.fleet.changes import Changes


def changes(present: dict[str, int], max_behind: int = 4) -> Changes[int]:
    return Changes(lambda: present.items(), max_behind=max_behind)


async def taken(watch: AsyncGenerator[int, None], count: int) -> list[int]:
    return [await anext(watch) for _ in range(count)]


async def test_what_is_there_comes_first_then_each_change() -> None:
    board = changes({"a": 1, "b": 2})
    watch = board.watch()
    assert await taken(watch, 2) == [1, 2]
    for value in (3, 4, 5):
        board.tell("a", value)
    assert await taken(watch, 3) == [3, 4, 5]
    await watch.aclose()
    assert not board.watched


async def test_a_watcher_is_woken() -> None:
    board = changes({})
    watch = board.watch()
    news = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    board.tell("a", 1)
    assert await news == 1
    await watch.aclose()


async def test_two_watchers_do_not_wait_for_each_other() -> None:
    board = changes({"a": 0})
    slow, fast = board.watch(), board.watch()
    assert await taken(slow, 1) == await taken(fast, 1) == [0]
    for value in (1, 2, 3):
        board.tell("a", value)
        assert await taken(fast, 1) == [value]
    assert await taken(slow, 3) == [1, 2, 3]
    await slow.aclose()
    await fast.aclose()


@pytest.mark.parametrize(("told", "seen"), [(4, [1, 2, 3, 4]), (5, [1, 2, 3, 4, 5]), (6, [6])])
async def test_one_too_far_behind_gets_the_latest_alone(told: int, seen: list[int]) -> None:
    board = changes({"a": 0}, max_behind=4)  # and one that is there
    watch = board.watch()
    await taken(watch, 1)
    for value in range(1, told + 1):
        board.tell("a", value)
    assert await taken(watch, len(seen)) == seen
    await watch.aclose()


async def test_the_order_is_that_of_the_latest_changes() -> None:
    board = changes({"a": 0}, max_behind=2)
    watch = board.watch()
    await taken(watch, 1)
    for key, value in (("a", 1), ("b", 2), ("b", 3), ("a", 4)):
        board.tell(key, value)
    assert await taken(watch, 2) == [3, 4]
    await watch.aclose()


async def test_a_watcher_that_missed_too_much_must_begin_anew() -> None:
    board = changes({}, max_behind=3)
    watch = board.watch()
    news = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    board.tell("first", 0)
    assert await news == 0
    for number in range(1000):
        board.tell(str(number), number)
    with pytest.raises(Overloaded) as caught:
        await anext(watch)
    assert caught.value.reason == "WATCHER_BEHIND"
    assert not board.watched


async def test_the_end_comes_after_what_was_told() -> None:
    board = changes({"a": 1})
    watch = board.watch()
    await taken(watch, 1)
    board.tell("a", 2)
    board.end()
    assert [value async for value in watch] == [2]
    assert [value async for value in board.watch()] == [1]
