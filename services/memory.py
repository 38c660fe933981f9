"""Out of memory, in the one word that the engine knows; both model services use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from services.core.errors import OutOfMemory

# Those without an exception of their own: the allocator of the host (c10/core/impl/alloc_cpu.cpp),
# C++'s, which OpenVINO wraps, OpenVINO's own, and CUDA where PyTorch's allocator is not asked.
_TOLD: Final = (
    "can't allocate memory",
    "bad_alloc",
    "Could not allocate",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


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
        if not any(text in str(error) for text in _TOLD):
            raise
        raise OutOfMemory from error
