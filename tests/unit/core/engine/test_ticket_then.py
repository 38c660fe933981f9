"""What is made of a row's output without a task that waits for it."""

from __future__ import annotations

import asyncio

import pytest

from services.core.errors import InvalidInput, ModelFault
from tests.unit.core.engine.fake_model import bench, work


async def test_the_output_is_finished_as_soon_as_it_is_there() -> None:
    made = bench()
    future = made.engine.submit(work("a")).then(str.upper)
    await made.run()
    assert future.done()
    assert await future == "A:1"


async def test_a_finished_row_is_answered_at_once() -> None:
    made = bench()
    ticket = made.engine.submit(work("a"))
    await made.run()
    assert ticket.then(len).result() == 3


async def test_the_rows_error_and_that_of_finishing_are_its_errors() -> None:
    def refuse(output: str) -> str:
        raise InvalidInput("dtype", output)

    made = bench()
    failed = made.engine.submit(work("a", fails_at=1)).then(len)
    refused = made.engine.submit(work("b")).then(refuse)
    await made.run()
    with pytest.raises(ModelFault):
        await failed
    with pytest.raises(InvalidInput):
        await refused


async def test_cancelling_gives_the_row_up() -> None:
    made = bench()
    made.engine.submit(work("a")).then(len).cancel()
    await asyncio.sleep(0)
    assert made.engine.report().rows == 0
    assert not await made.engine.tick()


async def test_a_row_is_not_held_back_for_a_reader_that_never_comes() -> None:
    made = bench()
    future = made.engine.submit(work("a", 40, outputs=range(40))).then(len)
    await made.run()
    assert future.result() == len("a:40")
