"""The device that a model computes on, where it is not the processor; both model services use it.

A GPU computes after a call has returned: it is given work, and does it in order. A plain copy to it
waits until it has done all that came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from services.core.engine import DeviceLost
from services.core.errors import FailedPrecondition


def chosen_device(name: str) -> torch.device:
    """``auto`` is the first GPU, where there is one; else cpu, cuda or cuda:N.

    Raises ``FailedPrecondition`` for a device that is not here.
    """
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if here else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= here:
        raise FailedPrecondition(
            f"This server has no device {name}: it has {here or 'no'} CUDA device"
            f"{'' if here == 1 else 's'}."
        )
    return device


def keep_digits(device: torch.device, dtype: torch.dtype) -> None:
    """Where ``device`` is a GPU and ``dtype`` float32, that is what convolutions are in, in the
    whole process: unless told so, cuDNN rounds what they multiply to 10 bits (TF32).
    """
    if device.type == "cuda" and dtype is torch.float32:
        torch.backends.cudnn.allow_tf32 = False


def placed(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor`` on ``device``; nobody waits for the copy, which the device makes in its turn."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # Only from memory that stays where it is. PyTorch keeps it until the copy is made.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def finish(device: torch.device) -> None:
    """Wait until ``device`` has done all that it was given. A processor has when a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def watched(finish: Callable[[], None]) -> Iterator[None]:
    """Raises ``DeviceLost`` for a fault of the device after which ``finish``, which waits for it,
    fails too: after an access beyond memory, say, a GPU refuses all that the process asks.
    """
    try:
        yield
    except torch.AcceleratorError as error:
        try:
            finish()
        except torch.AcceleratorError:
            raise DeviceLost(str(error)) from error
        raise
