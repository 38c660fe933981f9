"""The device that is chosen, and the way there."""

from __future__ import annotations

import pytest
import torch

from services.accelerator import chosen_device, finish, keep_digits, placed, watched
from services.core.engine import DeviceLost
from services.core.errors import FailedPrecondition
from tests.crossings import DEVICE, Crossings

CPU = torch.device("cpu")


def test_auto_is_a_device_that_is_here() -> None:
    assert chosen_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert chosen_device("cpu") == CPU


def test_a_gpu_that_is_not_here_is_told() -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(
        FailedPrecondition, match=rf"no device cuda:{count}: it has {count or 'no'} "
    ):
        chosen_device(f"cuda:{count}")


def test_what_is_placed_is_the_same_and_keeps_nobody_waiting() -> None:
    given = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(placed(given, CPU), given)
    crossings = Crossings()
    with crossings.watched():
        assert placed(given, DEVICE).shape == given.shape
    assert (crossings.copies, crossings.waited) == (1, [])


@pytest.mark.parametrize(
    ("device", "dtype", "rounded"),
    [
        ("cpu", torch.float32, True),
        ("cuda:0", torch.bfloat16, True),
        ("cuda:0", torch.float32, False),
    ],
)
def test_float32_on_a_gpu_is_float32(device: str, dtype: torch.dtype, rounded: bool) -> None:
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, True
    try:
        keep_digits(torch.device(device), dtype)
        assert cudnn.allow_tf32 is rounded
    finally:
        cudnn.allow_tf32 = before


def test_a_processor_has_finished() -> None:
    finish(CPU)


def refused() -> None:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def test_a_device_that_fails_again_is_lost() -> None:
    with pytest.raises(DeviceLost, match="illegal memory access"), watched(refused):
        refused()


def test_a_fault_that_a_device_recovers_from_is_that_of_the_call() -> None:
    with pytest.raises(torch.AcceleratorError), watched(lambda: finish(CPU)):
        refused()
