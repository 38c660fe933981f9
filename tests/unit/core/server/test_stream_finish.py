"""Items that are turned into responses when it is their turn to be sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from services.core.server.stream import answer_each


async def numbers() -> AsyncIterator[int]:
    for number in (2, 0):
        yield number


def same(number: int) -> asyncio.Future[int]:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(number)
    return future


def finish(request: int, answer: int) -> str:
    return f"{request}: {1 / answer}"


def failed(request: int, error: Exception) -> str:
    return f"{request}: {type(error).__name__}"


async def test_an_item_that_cannot_be_finished_fails_alone() -> None:
    answers = answer_each(numbers(), same, max_in_flight=2, finish=finish, failed=failed)
    assert [answer async for answer in answers] == ["2: 0.5", "0: ZeroDivisionError"]
