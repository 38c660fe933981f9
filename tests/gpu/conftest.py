"""The devices that these tests run on: a GPU with ``make test-gpu``, and the processor by default,
so that what they ask is known to hold where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

NONE_HERE = "there is no CUDA device here: torch.cuda.is_available() is false"
GPU = pytest.param("cuda:0", id="cuda", marks=pytest.mark.gpu)


def _device(name: str) -> torch.device:
    if name != "cpu" and not torch.cuda.is_available():
        pytest.skip(NONE_HERE)
    return torch.device(name)


@pytest.fixture(scope="session", params=[pytest.param("cpu", id="cpu"), GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    return _device(request.param)


@pytest.fixture(scope="session", params=[GPU])
def gpu(request: pytest.FixtureRequest) -> torch.device:
    """For what a processor cannot show."""
    return _device(request.param)


@pytest.fixture(scope="module", autouse=True)
def plain_numbers() -> Iterator[None]:
    """One thread, and float32 as it is written: other tests' settings are theirs."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    rounded = cudnn.allow_tf32
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    cudnn.allow_tf32 = rounded
