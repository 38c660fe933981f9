"""PyTorch modules as OpenVINO models of dynamic batch and size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from services import openvino as runtime
from services.generator.network import Look
from services.generator.plain import PlainDecoder, PlainEncoder, PlainUnet

UNET: Final = "unet"
DECODER: Final = "vae_decoder"
ENCODER: Final = "vae_encoder"
PARTS: Final = (UNET, DECODER, ENCODER)


class _Gated(torch.nn.Module):
    """A ``GEGLU`` as two products, for the halves of one are copied out of it."""

    def __init__(self, joint: GEGLU) -> None:
        super().__init__()
        weights, biases = joint.proj.weight.chunk(2), joint.proj.bias.chunk(2)
        self.value, self.gate = map(_linear, weights, biases)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.value(given) * torch.nn.functional.gelu(self.gate(given))
        return value


def unet_model(unet: Any, *, sizes: int) -> Any:
    """Of a ``diffusers`` UNet2DConditionModel in float32, whose layers are arranged in place for
    it; inputs named as ``Look``'s fields.

    ``sizes``: how many numbers ``time_ids`` has, where the U-Net takes them.
    """
    _arrange(unet)
    example = unet_example(unet.config, sizes=sizes)
    return _converted(PlainUnet(unet), example, free={"latents": (0, 2, 3), "context": (0, 1)})


def unet_example(config: Any, *, sizes: int) -> dict[str, torch.Tensor]:
    """What a U-Net may be given: two rows, of which the deepest level sees 2 x 4 places or more."""
    side = 2 ** len(config.block_out_channels)
    example = {
        "latents": torch.randn(2, config.in_channels, side, 2 * side),
        "timesteps": torch.tensor([3.0, 7.0]),
        "context": torch.randn(2, 9, _context_width(config)),
    }
    if config.addition_embed_type == "text_time":
        joined, each = config.projection_class_embeddings_input_dim, config.addition_time_embed_dim
        example["pooled"] = torch.randn(2, joined - sizes * each)
        example["time_ids"] = torch.ones(2, sizes)
    return example


def decoder_model(vae: Any) -> Any:
    """Of a ``diffusers`` AutoencoderKL in float32: latents in its own scale to pixels."""
    example = {"latents": torch.randn(2, vae.config.latent_channels, 8, 16)}
    return _converted(PlainDecoder(vae), example, free={"latents": (0, 2, 3)})


def encoder_model(vae: Any) -> Any:
    """Pixels to the moments (mean and log variance) in the autoencoder's own scale."""
    side = 8 * 2 ** (len(vae.config.block_out_channels) - 1)
    example = {"pixels": torch.randn(2, vae.config.in_channels, side, 2 * side)}
    return _converted(PlainEncoder(vae), example, free={"pixels": (0, 2, 3)})


def inputs_of(look: Look) -> dict[str, torch.Tensor]:
    """What a converted U-Net is given of a look, by its inputs' names."""
    given = {
        "latents": look.latents,
        "timesteps": look.timesteps,
        "context": look.context,
        "pooled": look.pooled,
        "time_ids": look.time_ids,
    }
    return {name: value for name, value in given.items() if value is not None}


def array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    """Of any floating dtype; shares the memory of a contiguous one in float32."""
    numbers: npt.NDArray[np.float32] = tensor.float().contiguous().numpy()
    return numbers


def path_of(directory: Path, part: str) -> Path:
    return directory / f"{part}.xml"


def _arrange(unet: Any) -> None:
    """The same numbers by layers that leave OpenVINO less to copy between them."""
    for layer in list(unet.modules()):
        if isinstance(layer, FeedForward) and isinstance(layer.net[0], GEGLU):
            layer.net[0] = _Gated(layer.net[0])
        elif isinstance(layer, Transformer2DModel) and not layer.use_linear_projection:
            # A convolution of 1 x 1 is a product of each place, and the places are rows by then.
            layer.proj_in, layer.proj_out = map(_of_places, (layer.proj_in, layer.proj_out))
            layer.use_linear_projection = True


def _of_places(layer: torch.nn.Conv2d) -> torch.nn.Linear:
    assert layer.bias is not None
    return _linear(layer.weight.flatten(1), layer.bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> torch.nn.Linear:
    """Shares their memory."""
    with torch.device("meta"):
        made = torch.nn.Linear(weight.shape[1], weight.shape[0])
    made.weight, made.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    return made


def _converted(
    module: torch.nn.Module,
    example: Mapping[str, torch.Tensor],
    free: Mapping[str, tuple[int, ...]],
) -> Any:
    shapes = {
        name: [
            -1 if axis in free.get(name, (0,)) else size for axis, size in enumerate(value.shape)
        ]
        for name, value in example.items()
    }
    return runtime.converted(module, dict(example), shapes)


def _context_width(config: Any) -> int:
    width = config.cross_attention_dim
    return int(width if isinstance(width, int) else width[-1])
