"""The scale of latents: what the U-Net works on against what the autoencoder makes and reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class LatentScale:
    """latents = (encoded - shift) * factor; ``factor`` and ``shift`` are a number or (1, C, 1, 1).

    An autoencoder says either ``scaling_factor`` and ``shift_factor``, or, with the first, means
    and deviations by channel (``latents_mean``, ``latents_std``).
    """

    factor: float | torch.Tensor
    shift: float | torch.Tensor

    @classmethod
    def of(cls, config: Any) -> LatentScale:
        """``config``: of a ``diffusers`` autoencoder."""
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return cls(float(config.scaling_factor), float(config.get("shift_factor") or 0.0))
        by_channel = torch.tensor([std, mean], dtype=torch.float32)[:, None, :, None, None]
        return cls(config.scaling_factor / by_channel[0], by_channel[1])

    def to_decoder(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), as the U-Net works on them, to what the decoder reads."""
        return latents / self._on(self.factor, latents) + self._on(self.shift, latents)

    def from_encoder(self, encoded: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) of the encoder to what the U-Net works on."""
        return (encoded - self._on(self.shift, encoded)) * self._on(self.factor, encoded)

    def spread(self, encoded: torch.Tensor) -> torch.Tensor:
        """As ``from_encoder``, of standard deviations."""
        return encoded * self._on(self.factor, encoded)

    @staticmethod
    def _on(value: float | torch.Tensor, beside: torch.Tensor) -> float | torch.Tensor:
        return value.to(beside) if isinstance(value, torch.Tensor) else value
