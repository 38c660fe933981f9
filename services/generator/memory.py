"""Out of memory, in the one word that the engine knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from services.core.errors import OutOfMemory


@contextmanager
def memory_faults() -> Iterator[None]:
    """Raises ``OutOfMemory`` for what PyTorch and OpenVINO raise when a GPU or the host has no more
    room.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory from error
    except RuntimeError as error:
        # The allocator of the host has no exception of its own (c10/core/impl/alloc_cpu.cpp), and
        # OpenVINO wraps that of C++.
        if not any(text in str(error) for text in ("can't allocate memory", "std::bad_alloc")):
            raise
        raise OutOfMemory from error
