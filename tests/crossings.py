"""What goes between the processor and a device, told without one: PyTorch's meta device stands for
it. Nothing on it can be read back, so that whatever waits for it fails.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
_COPIES = ("aten::_to_copy", "aten::copy_", "aten::to")


@dataclass
class Crossings:
    """``waited`` are the copies to the device that wait until it has done all that came before,
    of ``copies`` in all; ``mixed`` the operations on numbers of both sides, which a GPU refuses.

    Single numbers may be of either side, as they may on a GPU.
    """

    waited: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    copies: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        with ExitStack() as watching:
            kinds: Any = (_Operations, _Numbers)
            for kind in kinds:
                mode = kind()
                mode.crossings = self
                watching.enter_context(mode)
            yield


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    crossings: Crossings

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        answer = func(*args, **named)
        tensors = list(_tensors((*args, named)))
        if func.name().partition(".")[0] in _COPIES:
            if _side(answer) == DEVICE.type and "cpu" in map(_side, tensors):
                self.crossings.copies += 1
                if not _waits_for_nobody(func, args, named):
                    self.crossings.waited.append(f"{func.name()} in {_place()}")
        elif len({_side(each) for each in tensors if each.ndim}) > 1:
            self.crossings.mixed.append(f"{func.name()} in {_place()}")
        return answer


class _Numbers(TorchFunctionMode):
    """Numbers of Python's that are made on the device at once are a copy that waits."""

    crossings: Crossings

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        device = named.get("device")
        if func is torch.tensor and device is not None and torch.device(device) == DEVICE:
            self.crossings.copies += 1
            self.crossings.waited.append(f"torch.tensor in {_place()}")
        return func(*args, **named)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    return (each for each in tree_leaves(values) if isinstance(each, torch.Tensor))


def _place() -> str:
    """The line of ours that is being run."""
    ours = [frame for frame in traceback.extract_stack() if "/services/" in frame.filename]
    return f"{ours[-1].filename.rpartition('/')[2]}: {ours[-1].line}" if ours else "no line of ours"


def _side(tensor: torch.Tensor) -> str:
    return tensor.device.type


def _waits_for_nobody(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> bool:
    given = {
        argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)
    }
    return bool({**given, **named}.get("non_blocking", False))
