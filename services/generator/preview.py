"""A cheap look at unfinished pictures: latents to colours by one small matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from services.generator.network import Network, Pixels

_SAMPLES = 8
_SIDE = 8  # latents; colour hardly depends on more context than that


@dataclass(frozen=True, slots=True)
class LatentProjection:
    """``weights``: float32 (C + 1, 3), from one latent's channels and 1 to RGB levels 0..1.

    Fitted by least squares to what the model's own decoder makes of smooth random latents, so it
    fits every model, as the hand-made tables for Stable Diffusion 1.5 do not.
    """

    weights: torch.Tensor

    @classmethod
    def fit(cls, network: Network) -> LatentProjection:
        generator = torch.Generator("cpu").manual_seed(0)
        coarse = torch.randn((_SAMPLES, network.latent_channels, 2, 2), generator=generator)
        latents = F.interpolate(coarse, (_SIDE, _SIDE), mode="bilinear")
        decoded = network.decode(latents.to(network.device))
        levels = torch.from_numpy(decoded).permute(0, 3, 1, 2).float() / 255
        colours = F.adaptive_avg_pool2d(levels, _SIDE).permute(0, 2, 3, 1).reshape(-1, 3)
        known = _with_one(latents.permute(0, 2, 3, 1).reshape(colours.shape[0], -1))
        return cls(torch.linalg.lstsq(known, colours).solution)

    def apply(self, latents: Sequence[torch.Tensor]) -> list[Pixels]:
        """float32 (C, h, w) each to uint8 (h, w, 3). They come from the device in one copy,
        and are each of memory of its own: one that waits for its reader holds on to no other.
        """
        if not latents:
            return []
        sizes = [each.shape[1:] for each in latents]
        known = _with_one(torch.cat([each.flatten(1) for each in latents], dim=1).float().cpu().T)
        levels = (known @ self.weights).clamp(0, 1).mul(255).round().to(torch.uint8)
        parts = torch.split(levels, [size.numel() for size in sizes])
        return [part.view(*size, 3).numpy().copy() for part, size in zip(parts, sizes, strict=True)]


def _with_one(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values, torch.ones((*values.shape[:-1], 1), dtype=torch.float32)], dim=-1)
