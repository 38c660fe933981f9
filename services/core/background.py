"""Work that goes on where its caller gives up, or that a process leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

R = TypeVar("R")

_unfinished: Final[set[asyncio.Task[Any]]] = set()


async def whole(work: Coroutine[Any, Any, R]) -> R:
    """What ``work`` returns. It is done to its end though its caller gives up: for what waits for a
    thread, which cannot be stopped, and must not be begun again beside itself."""
    task = asyncio.ensure_future(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    return await asyncio.shield(task)


def in_thread(work: Callable[[], R], name: str = "load") -> asyncio.Future[R]:
    """Run ``work`` in a daemon thread of its own: what is inside native code cannot be stopped, and
    the interpreter would wait for a pool's threads.

    Cancelling the future does not stop the work.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def settle(error: BaseException | None, result: Any) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run_and_tell() -> None:
        error: BaseException | None = None
        result: R | None = None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed where the work was abandoned
            loop.call_soon_threadsafe(settle, error, result)

    threading.Thread(target=run_and_tell, name=name, daemon=True).start()
    return future
