"""Calls that stand or fall together."""

from __future__ import annotations

import asyncio

import pytest

from ranker.together import together


async def fails() -> None:
    raise LookupError("away")


async def test_what_each_returns_is_told() -> None:
    async with together() as both:
        one = both.create_task(asyncio.sleep(0, "one"))
        two = both.create_task(asyncio.sleep(0, "two"))
    assert (one.result(), two.result()) == ("one", "two")


async def test_the_first_error_ends_the_others_and_comes_by_itself() -> None:
    others: list[asyncio.Task[bool]] = []

    async def both() -> None:
        async with together() as group:
            others.append(group.create_task(asyncio.Event().wait()))
            group.create_task(fails())

    with pytest.raises(LookupError, match="away"):
        await both()
    assert [other.cancelled() for other in others] == [True]
