"""Entries that wait together are put together, each with its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from ranker.index.entry import Entry, Image
from ranker.index.inbox import MAX_TOGETHER, Inbox
from services.core.errors import NotReady


class Shelf:
    """Takes one batch at a time, once it ``may``."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may = asyncio.Event()
        self.refused: set[str] = set()
        self.error: Exception | None = None

    @property
    def ids(self) -> list[str]:
        return [id for batch in self.batches for id in batch]

    async def put(self, entries: Sequence[Entry]) -> Sequence[str]:
        self.batches.append([entry.image.id for entry in entries])
        await self.may.wait()
        if self.error is not None:
            raise self.error
        return [entry.image.id for entry in entries if entry.image.id in self.refused]


def entry(id: str) -> Entry:
    return Entry(Image(id), np.ones(1, np.float32))


async def test_what_waits_goes_together() -> None:
    shelf = Shelf()
    inbox = Inbox(shelf.put)
    shelf.refused = {"c"}
    adding = [asyncio.create_task(inbox.add(entry(id))) for id in "abcd"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    adding += [asyncio.create_task(inbox.add(entry(id))) for id in "ef"]
    shelf.may.set()
    assert await asyncio.gather(*adding) == [True, True, False, True, True, True]
    assert shelf.ids == list("abcdef")
    assert len(shelf.batches) <= 2
    await inbox.ended()
    assert await inbox.add(entry("later"))


async def test_one_id_is_in_one_batch_once() -> None:
    shelf = Shelf()
    shelf.may.set()
    inbox = Inbox(shelf.put)
    await asyncio.gather(*(inbox.add(entry(id)) for id in ["a", "b", "a", "c", "a"]))
    assert shelf.batches == [["a", "b"], ["a", "c"], ["a"]]


@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_batches_have_a_largest_size(more: int) -> None:
    shelf = Shelf()
    shelf.may.set()
    inbox = Inbox(shelf.put)
    await asyncio.gather(*(inbox.add(entry(f"{n}")) for n in range(MAX_TOGETHER + more)))
    assert [len(batch) for batch in shelf.batches] == [
        [MAX_TOGETHER - 1],
        [MAX_TOGETHER],
        [MAX_TOGETHER, 1],
    ][more + 1]


async def test_a_failure_is_told_to_all_of_its_batch_and_no_other() -> None:
    shelf = Shelf()
    shelf.may.set()
    inbox = Inbox(shelf.put)
    shelf.error = NotReady("Away.")
    failed = await asyncio.gather(*(inbox.add(entry(id)) for id in "ab"), return_exceptions=True)
    assert failed == [shelf.error, shelf.error]
    shelf.error = None
    assert await inbox.add(entry("c"))


async def test_who_gives_up_takes_nobody_along() -> None:
    shelf = Shelf()
    inbox = Inbox(shelf.put)
    first, second = (asyncio.create_task(inbox.add(entry(id))) for id in "ab")
    await asyncio.sleep(0)
    first.cancel()
    shelf.may.set()
    assert await second
    await inbox.ended()
    assert shelf.ids == ["a", "b"]
