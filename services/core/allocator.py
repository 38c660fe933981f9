"""How glibc keeps the memory that this process frees."""

from __future__ import annotations

import asyncio
import ctypes
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


def give_back() -> None:
    """Return to the system what is kept of freed memory. Elsewhere nothing happens."""
    _glibc("malloc_trim", 0)


@asynccontextmanager
async def giving_back(
    *, every_seconds: float = _EVERY_SECONDS, give: Callable[[], None] = give_back
) -> AsyncIterator[None]:
    """While inside, what is kept of freed memory is returned from time to time. What is in use may
    be level, and what is resident yet grow: buffers of ever other sizes are laid into free memory,
    and touch ever more of it.
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
