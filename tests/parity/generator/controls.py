"""ControlNets of random weights, which steer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch

_NET: Any = diffusers.ControlNetModel


@torch.no_grad()
def save_random_control(folder: Path, unet: Any, seed: int, *, factor: int, **config: Any) -> Any:
    """A net for the U-Net, with its first layers. Untrained, its last ones would all be zeros."""
    channels = tuple(8 * 2**index for index in range(factor.bit_length()))
    if config:
        net = _NET.from_config(
            _NET.from_unet(unet, conditioning_embedding_out_channels=channels).config, **config
        )
    else:
        net = _NET.from_unet(unet, conditioning_embedding_out_channels=channels)
    generator = torch.Generator().manual_seed(seed)
    for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        _draw(layer, generator)
    _draw(net.controlnet_cond_embedding.conv_out, generator)
    net.save_pretrained(folder)
    return net.eval()


def _draw(layer: Any, generator: torch.Generator) -> None:
    layer.weight.normal_(0.0, layer.weight[0].numel() ** -0.5, generator=generator)
    layer.bias.normal_(0.0, 0.1, generator=generator)
