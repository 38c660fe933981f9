"""A tiny decoder of random weights, as diffusers saves one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch

SMALL: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
}


def save_tiny(directory: Path, *, safetensors: bool = True, **config: Any) -> Path:
    """Two pixels to a side of a latent, of which there are four channels, unless said otherwise."""
    kind: Any = diffusers.AutoencoderTiny
    autoencoder = kind(**{**SMALL, **config})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in autoencoder.parameters():
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
    autoencoder.save_pretrained(directory, safe_serialization=safetensors)
    return directory
