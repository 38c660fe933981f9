"""How this process keeps memory: what Python's collector looks at, and what glibc does with what is
freed. All of it is the whole process's, and for a process that is one service.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from services.core.background import in_thread

_ARENA_MAX: Final = -8
"""M_ARENA_MAX of ``mallopt(3)``."""
_VARIABLE: Final = "MALLOC_ARENA_MAX"
_EVERY_SECONDS: Final = 30.0
"""Each takes some milliseconds, in which nobody else may take memory."""
_TUNABLE: Final = "glibc.malloc.arena_max"


def share_arena() -> None:
    """Have all threads share one pool of free memory, where the environment does not say how many.

    By itself glibc has eight pools a processor. Buffers of ever other sizes come and go on a
    service's dozens of threads, and each pool keeps what it has freed: resident memory grows for
    hours though what is in use does not. Call it before threads start. Elsewhere nothing happens.
    """
    if _VARIABLE in os.environ or _TUNABLE in os.environ.get("GLIBC_TUNABLES", ""):
        return
    _glibc("mallopt", _ARENA_MAX, 1)


def settle() -> None:
    """Have the collector leave alone all that is there now, which stays as long as the process.

    By itself it looks at everything only once a quarter as many objects have come as there are: of
    half a million that PyTorch brings, after hours. Until then cycles stay that younger collections
    missed, of calls that ended in an error above all, with the pictures that they hold; and when it
    looks, everything stands still for a quarter of a second.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # how many there are is counted here


def settle_again() -> None:
    """``settle``, where that was done, once what was there may have gone, like a model."""
    if gc.get_freeze_count():
        gc.unfreeze()
        settle()


def give_back() -> None:
    """Free the cycles, and return to the system what is kept of freed memory."""
    gc.collect()
    _glibc("malloc_trim", 0)


@asynccontextmanager
async def giving_back(
    *, every_seconds: float = _EVERY_SECONDS, give: Callable[[], None] = give_back
) -> AsyncIterator[None]:
    """While inside, memory is given back from time to time. What is in use may be level, and what
    is resident yet grow: buffers of ever other sizes are laid into free memory, and touch ever more
    of it. ``settle`` first, or each time takes long.
    """

    async def give_again_and_again() -> None:
        while True:
            await asyncio.sleep(every_seconds)
            await in_thread(give, "memory")

    giving = asyncio.create_task(give_again_and_again())
    try:
        yield
    finally:
        giving.cancel()


def _glibc(function: str, *given: int) -> None:
    with suppress(OSError, AttributeError):  # of another C library
        getattr(ctypes.CDLL("libc.so.6"), function)(*given)
