"""The bounded stream: order, bounds, errors of items, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import Cancelled, NotFound
from services.core.server.stream import answer_each, answer_in_order


class Items:
    """Requests 0..count-1, and futures for their answers that a test completes by hand."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read = 0
        self.closed = False
        self.futures: dict[int, asyncio.Future[str]] = {}

    async def requests(self) -> AsyncIterator[int]:
        try:
            for item in range(self.count):
                self.read += 1
                yield item
        finally:
            self.closed = True

    def handle(self, item: int) -> asyncio.Future[str]:
        self.futures[item] = asyncio.get_running_loop().create_future()
        return self.futures[item]

    def answers(self, max_in_flight: int = 4) -> Any:
        return answer_each(self.requests(), self.handle, max_in_flight=max_in_flight, failed=failed)

    def in_order(self, max_in_flight: int = 4) -> Any:
        return answer_in_order(
            self.requests(), self.handle, max_in_flight=max_in_flight, failed=failed
        )


def failed(item: int, error: Exception) -> str:
    return f"{item}: {type(error).__name__}"


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def none_left() -> bool:
    await settle()
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_empty_stream_has_no_answer() -> None:
    assert [answer async for answer in Items(0).answers()] == []
    assert await none_left()


async def test_answers_come_in_the_order_they_finish() -> None:
    items = Items(3)
    answers = items.answers()
    first = asyncio.ensure_future(anext(answers))
    await settle()
    items.futures[2].set_result("c")
    assert await first == "c"
    items.futures[1].set_result("b")
    items.futures[0].set_result("a")
    assert [answer async for answer in answers] == ["b", "a"]
    assert items.closed
    assert await none_left()


async def test_no_request_is_read_over_the_bound() -> None:
    items = Items(10)
    answers = items.answers(max_in_flight=3)
    first = asyncio.ensure_future(anext(answers))
    await settle()
    assert items.read == 3
    for item in range(3):
        items.futures[item].set_result("done")
    await first
    await settle()
    # Nothing is read for the answer that nobody has come back for.
    assert items.read == 3
    await anext(answers)
    await settle()
    assert items.read == 4
    await answers.aclose()
    assert await none_left()


async def test_coroutines_do_as_well_as_futures() -> None:
    async def handle(item: int) -> str:
        await asyncio.sleep(0)
        return str(item)

    answers = answer_each(Items(50).requests(), handle, max_in_flight=7, failed=failed)
    assert sorted([int(answer) async for answer in answers]) == list(range(50))
    assert await none_left()


async def test_errors_of_items_become_their_answers() -> None:
    async def handle(item: int) -> str:
        raise NotFound

    def refuse(item: int) -> Awaitable[str]:
        raise NotFound

    for kind in (handle, refuse):
        answers = answer_each(Items(2).requests(), kind, max_in_flight=1, failed=failed)
        assert [answer async for answer in answers] == ["0: NotFound", "1: NotFound"]


async def test_a_cancelled_item_is_an_error_of_that_item() -> None:
    items = Items(2)
    answers = items.answers()
    first = asyncio.ensure_future(anext(answers))
    await settle()
    items.futures[0].cancel()
    items.futures[1].set_result("b")
    assert {await first, await anext(answers)} == {f"0: {Cancelled.__name__}", "b"}


async def test_what_failed_raises_ends_the_stream() -> None:
    items = Items(2)

    def fatal(item: int, error: Exception) -> str:
        raise error

    answers = answer_each(items.requests(), items.handle, max_in_flight=2, failed=fatal)
    first = asyncio.ensure_future(anext(answers))
    await settle()
    items.futures[1].set_exception(NotFound())
    with pytest.raises(NotFound):
        await first
    assert items.futures[0].cancelled()
    assert await none_left()


async def test_an_error_of_the_requests_ends_the_stream_and_its_items() -> None:
    items = Items(1)

    async def broken() -> AsyncIterator[int]:
        yield 0
        raise ConnectionError

    answers = answer_each(broken(), items.handle, max_in_flight=2, failed=failed)
    with pytest.raises(ConnectionError):
        await anext(answers)
    assert items.futures[0].cancelled()
    assert await none_left()


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_going_away_cancels_everything(how: str) -> None:
    items = Items(10)
    answers = items.answers(max_in_flight=4)
    first = asyncio.ensure_future(anext(answers))
    await settle()
    if how == "cancel":
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    else:
        items.futures[0].set_result("a")
        await first
        await answers.aclose()
    assert all(future.done() for future in items.futures.values())
    assert items.futures[3].cancelled()
    assert await none_left()


async def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_in_flight"):
        await anext(Items(1).answers(max_in_flight=0))


@given(
    st.lists(st.integers(0, 5), max_size=30),
    st.integers(1, 8),
)
async def test_every_item_is_answered_once(delays: list[int], bound: int) -> None:
    running = most = 0

    async def requests() -> AsyncIterator[tuple[int, int]]:
        for pair in enumerate(delays):
            yield pair

    async def handle(request: tuple[int, int]) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(request[1]):
            await asyncio.sleep(0)
        running -= 1
        if request[1] == 3:
            raise NotFound
        return request[0]

    answers = answer_each(
        requests(), handle, max_in_flight=bound, failed=lambda request, _: request[0]
    )
    assert sorted([answer async for answer in answers]) == list(range(len(delays)))
    assert most <= bound


async def test_items_answered_at_once_need_no_task_of_their_own() -> None:
    items = Items(4)
    tasks = []

    def handle(item: int) -> asyncio.Future[str]:
        future = items.handle(item)
        future.set_result(str(item))
        tasks.append(len(asyncio.all_tasks()))
        return future

    answers = answer_each(items.requests(), handle, max_in_flight=2, failed=failed)
    assert [answer async for answer in answers] == ["0", "1", "2", "3"]
    assert tasks == [1, 1, 1, 1]
    assert await none_left()


async def test_nothing_is_read_ahead_of_an_answer_given_at_once() -> None:
    items = Items(3)

    def handle(item: int) -> asyncio.Future[str]:
        future = items.handle(item)
        future.set_result("done")
        return future

    answers = answer_each(items.requests(), handle, max_in_flight=3, failed=failed)
    await anext(answers)
    await settle()
    assert items.read == 1
    await answers.aclose()
    assert items.read == 1


@given(st.lists(st.sampled_from(["now", "later", "never"]), max_size=30), st.integers(1, 4))
async def test_answers_at_once_and_later_mix(kinds: list[str], bound: int) -> None:
    loop = asyncio.get_running_loop()
    running = most = 0

    async def requests() -> AsyncIterator[int]:
        for item in range(len(kinds)):
            yield item

    def handle(item: int) -> asyncio.Future[int]:
        nonlocal running, most
        future: asyncio.Future[int] = loop.create_future()
        if kinds[item] == "now":
            future.set_result(item)
            return future
        running += 1
        most = max(most, running)

        def end() -> None:
            nonlocal running
            running -= 1
            if kinds[item] == "later":
                future.set_result(item)
            else:
                future.set_exception(NotFound())

        loop.call_soon(loop.call_soon, end)
        return future

    answers = answer_each(
        requests(), handle, max_in_flight=bound, failed=lambda request, _: request
    )
    assert sorted([answer async for answer in answers]) == list(range(len(kinds)))
    assert most <= bound
    assert await none_left()


async def test_in_order_an_empty_stream_has_no_answer() -> None:
    assert [answer async for answer in Items(0).in_order()] == []
    assert await none_left()


async def test_answers_in_the_order_of_the_requests() -> None:
    items = Items(3)
    answers = items.in_order()
    first = asyncio.ensure_future(anext(answers))
    await settle()
    items.futures[2].set_result("c")
    items.futures[1].set_exception(NotFound())
    await settle()
    assert not first.done()
    items.futures[0].set_result("a")
    assert await first == "a"
    assert [answer async for answer in answers] == ["1: NotFound", "c"]
    assert items.closed
    assert await none_left()


async def test_in_order_what_waits_for_its_turn_counts() -> None:
    items = Items(10)
    answers = items.in_order(max_in_flight=3)
    first = asyncio.ensure_future(anext(answers))
    await settle()
    assert items.read == 3
    items.futures[1].set_result("b")
    items.futures[2].set_result("c")
    await settle()
    assert items.read == 3
    items.futures[0].set_result("a")
    await first
    await settle()
    # Nothing is read for the answer that nobody has come back for.
    assert items.read == 3
    await anext(answers)
    await settle()
    assert items.read == 4
    await answers.aclose()
    assert items.futures[3].cancelled()
    assert await none_left()


async def test_in_order_what_failed_raises_ends_the_stream() -> None:
    items = Items(2)

    def fatal(item: int, error: Exception) -> str:
        raise error

    answers = answer_in_order(items.requests(), items.handle, max_in_flight=2, failed=fatal)
    first = asyncio.ensure_future(anext(answers))
    await settle()
    items.futures[0].set_exception(NotFound())
    with pytest.raises(NotFound):
        await first
    assert items.futures[1].cancelled()
    assert await none_left()


async def test_in_order_an_error_of_the_requests_comes_after_the_answers() -> None:
    items = Items(1)

    async def broken() -> AsyncIterator[int]:
        yield 0
        raise ConnectionError

    answers = answer_in_order(broken(), items.handle, max_in_flight=2, failed=failed)
    first = asyncio.ensure_future(anext(answers))
    await settle()
    items.futures[0].set_result("a")
    assert await first == "a"
    with pytest.raises(ConnectionError):
        await anext(answers)
    assert await none_left()


async def test_in_order_going_away_cancels_everything() -> None:
    items = Items(10)
    first = asyncio.ensure_future(anext(items.in_order(max_in_flight=4)))
    await settle()
    items.futures[1].set_exception(NotFound())  # nobody will ask for it
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert all(future.done() for future in items.futures.values())
    assert await none_left()


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 8))
async def test_in_order_every_item_is_answered_in_its_turn(delays: list[int], bound: int) -> None:
    running = most = 0

    async def requests() -> AsyncIterator[tuple[int, int]]:
        for pair in enumerate(delays):
            yield pair

    async def handle(request: tuple[int, int]) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(request[1]):
            await asyncio.sleep(0)
        running -= 1
        if request[1] == 3:
            raise NotFound
        return request[0]

    answers = answer_in_order(
        requests(), handle, max_in_flight=bound, failed=lambda request, _: request[0]
    )
    assert [answer async for answer in answers] == list(range(len(delays)))
    assert most <= bound
    assert await none_left()
