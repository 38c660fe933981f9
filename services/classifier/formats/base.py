"""What a format is to the export, whichever runtime reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import torch

from services.classifier.network import Floats

INPUT: Final = "pixel_values"
OUTPUT: Final = "logits"

# pixel_values [batch, 3, height, width] -> logits [batch, labels]
Run: TypeAlias = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Exportable:
    """``module``: normalised pictures, float32 [batch, 3, ``height``, ``width``], to logits,
    float32 [batch, ``labels``], on the processor. ``parameters``: how many numbers it has.
    """

    module: torch.nn.Module
    height: int
    width: int
    labels: int
    parameters: int

    def example(self, rows: int) -> torch.Tensor:
        return torch.randn(rows, 3, self.height, self.width, generator=torch.Generator())


@dataclass(frozen=True, slots=True)
class Opened:
    """A file as its runtime sees it. ``run`` is None where that runtime is not to be had on this
    system; then ``structure`` is all there is to go by, and ``runtime`` says why.
    """

    runtime: str
    run: Run | None
    structure: Mapping[str, str | int] = field(default_factory=dict)


class Format(Protocol):
    """One module's way to write a network and to read it back."""

    def write(self, network: Exportable, path: Path) -> None:
        """Write ``network`` to ``path``, and to files beside it where the format has several."""

    def open(self, path: Path, network: Exportable) -> Opened:
        """Read what was written. Raises ``ModelFault`` where its structure is not ``network``'s."""
