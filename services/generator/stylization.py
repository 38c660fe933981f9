"""The style of one picture on the content of another, without training.

The content's latents take the style's statistics by channel (AdaIN: Huang & Belongie, 2017,
arXiv 1703.06868, on latents as in StyleID: Chung et al., 2024, arXiv 2312.09008), are made noisy
and denoised again (SDEdit: Meng et al., 2022, arXiv 2108.01073). Meanwhile the style's latents,
equally noisy, go through the U-Net in the same batch and lend their keys and values (StyleAligned:
Hertz et al., 2024, arXiv 2312.02133). Inverting both pictures by DDIM instead was tried on the demo
pair: it costs as many steps again, and kept fewer of the contents' shapes at equal style.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from services.generator.modes import Stylize

MIN_STYLE_SIDE_PX: Final = 16


@dataclass(frozen=True, slots=True)
class Company:
    """The style on its way beside the picture: ``latents`` and ``noise``, each (C, h, w)."""

    latents: torch.Tensor
    noise: torch.Tensor

    def look(self, of_latents: float, of_noise: float) -> torch.Tensor:
        return of_latents * self.latents + of_noise * self.noise


def share_of_steps(content_strength: float) -> float:
    """Of a run from noise: all at 0, none at 1, a quarter at the default of 0.5."""
    return (1.0 - content_strength) ** 2


def match_weight(mode: Stylize) -> float:
    """How far the content's statistics move to the style's: two thirds of the way at the defaults,
    all of it at a style strength of 1 and no content strength.
    """
    held_back = mode.content_strength**2 / 2.0
    return (1.0 - (1.0 - mode.style_strength) ** 2) * (1.0 - held_back)


def matched(content: torch.Tensor, style: torch.Tensor, weight: float) -> torch.Tensor:
    """(C, h, w): ``content`` with its means and deviations by channel moved by ``weight`` of the
    way to those of ``style`` (Huang & Belongie, 2017, eq. 8 and 14).
    """
    deviation, mean = torch.std_mean(content, dim=(1, 2), keepdim=True)
    wanted, middle = torch.std_mean(style, dim=(1, 2), keepdim=True)
    moved = (content - mean) / deviation.clamp(min=1e-5) * wanted + middle
    return torch.lerp(content, moved, weight)
