"""Where the blocking steps of a model run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar, TypeVarTuple

Args = TypeVarTuple("Args")
R = TypeVar("R")


class Device(Protocol):
    """Runs one blocking call at a time."""

    async def run(self, fn: Callable[[*Args], R], *args: *Args) -> R:
        """Answers what ``fn`` returns; raises what it raises."""

    def close(self) -> None:
        """Blocks until the current call has ended, then frees the thread."""


class ThreadDevice:
    """One thread of its own, so that a model is only ever stepped by one."""

    def __init__(self, name: str = "device") -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, fn: Callable[[*Args], R], *args: *Args) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, fn, *args)

    def close(self) -> None:
        self._executor.shutdown(wait=True)


class InlineDevice:
    """Runs on the caller's thread: for tests and single-threaded tools."""

    async def run(self, fn: Callable[[*Args], R], *args: *Args) -> R:
        await asyncio.sleep(0)  # The loop's other tasks would never run between two steps.
        return fn(*args)

    def close(self) -> None:
        """Nothing to free."""
