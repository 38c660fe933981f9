"""Whether a device computes in bfloat16, and whether that pays; asked by both model services."""

from __future__ import annotations

import platform
import time
from functools import lru_cache
from typing import Final

import torch

_LEAST_GAIN: Final = 1.3


def computes(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bfloat16; emulating it is slower than float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # of which there may be several kinds
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@lru_cache
def pays(device: torch.device) -> bool:
    """Whether ``device`` computes in bfloat16, and a processor clearly faster than in float32.

    Some have the instructions at no more than the rate of float32 (or have AMX, which a virtual
    machine then hides), so matrices are multiplied in both: some 50 ms, in processor time, which
    what else runs on the machine does not change.
    """
    if not computes(device):
        return False
    if device.type == "cuda":
        return True
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _multiply_seconds(torch.float32) > _LEAST_GAIN * _multiply_seconds(torch.bfloat16)
    finally:
        torch.set_num_threads(threads)


def _multiply_seconds(dtype: torch.dtype) -> float:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn((512, 512), generator=generator).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(8):
        began = time.thread_time()
        torch.matmul(left, right)
        seconds.append(time.thread_time() - began)
    return min(seconds)
