"""A small decoder in place of the projection: fast previews that show shapes.

``diffusers``' AutoencoderTiny, as TAESD (Bohan, 2023, github.com/madebyollin/taesd) is published:
``config.json`` and safetensors. Its decoder alone is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from services.core.errors import FailedPrecondition
from services.generator.latents import LatentScale
from services.generator.network import Network, Pixels
from services.generator.pytorch import dtype_of, levels

_KIND: Final = "AutoencoderTiny"
_WEIGHTS: Final = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
)
_PREFIX: Final = "decoder."
_CHANNELS: Final = 3


@dataclass(frozen=True, slots=True)
class TinyDecoder:
    """``factor``: pixels to a side of one latent, at most as many as the model's own makes."""

    name: str
    decoder: Any
    scale: LatentScale
    factor: int
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def load(cls, directory: Path, network: Network) -> TinyDecoder:
        """On ``network``'s device and in its precision. Blocking.

        Raises ``FailedPrecondition`` for a directory of another kind, weights that are no
        safetensors or do not fit their ``config.json``, and other latents than the network's.
        """
        config = _config(directory)
        _check_channels(directory, config, network.latent_channels)
        autoencoder = _outline(directory, config)
        decoder = autoencoder.decoder
        factor = _factor(directory, autoencoder.config, network.vae_factor)
        _fill(directory, decoder)
        dtype = dtype_of(network.effective.precision)
        decoder.eval().requires_grad_(False).to(network.device, dtype)
        decoder.to(memory_format=torch.channels_last)
        scale = LatentScale.of(autoencoder.config)
        made = cls(directory.name, decoder, scale, factor, network.device, dtype)
        _try_out(directory, made, network.latent_channels)
        return made

    @property
    def bytes_in_memory(self) -> int:
        """Of its weights."""
        return sum(weight.nbytes for weight in self.decoder.parameters())

    def decode(self, latents: torch.Tensor) -> Pixels:
        """float32 (B, C, h, w), in the U-Net's scale, to uint8 (B, H, W, 3)."""
        scaled = self.scale.to_decoder(latents)
        return levels(self.decoder(scaled.to(self.device, self.dtype)))


def load_tiny(directory: Path | None, network: Network) -> TinyDecoder | None:
    """None where none is configured; raises as ``TinyDecoder.load`` does."""
    return None if directory is None else TinyDecoder.load(directory, network)


def _config(directory: Path) -> Mapping[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise _fault(directory, "has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _fault(directory, "has a config.json that cannot be read") from error
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != _KIND:
        raise _fault(directory, f"is {kind}, not {_KIND}")
    return dict(config)


def _check_channels(directory: Path, config: Mapping[str, Any], latents: int) -> None:
    given = config.get("latent_channels", 4)
    if given != latents:
        raise _fault(directory, f"reads latents of {given} channels, the model's have {latents}")
    colours = config.get("out_channels", _CHANNELS)
    if colours != _CHANNELS:
        raise _fault(directory, f"makes pictures of {colours} channels, not {_CHANNELS}")


def _outline(directory: Path, config: Mapping[str, Any]) -> Any:
    kind: Any = diffusers.AutoencoderTiny
    try:
        with torch.device("meta"):
            # Which diffusers writes by itself, and does not know when it reads it.
            known = {key: value for key, value in config.items() if key != "block_out_channels"}
            return kind.from_config(known)
    # Whatever a wrong value makes the constructor raise.
    except Exception as error:
        raise _fault(directory, "has a config.json that makes no decoder") from error


def _factor(directory: Path, config: Any, most: int) -> int:
    scale, times = config.upsampling_scaling_factor, len(config.num_decoder_blocks) - 1
    if not isinstance(scale, int) or not 1 <= scale**times <= most:
        why = f"makes {scale}^{times} pixels to a latent's side, the model itself makes {most}"
        raise _fault(directory, why)
    return int(scale**times)


def _fill(directory: Path, decoder: Any) -> None:
    tensors = _tensors(directory)
    given = {
        key.removeprefix(_PREFIX): value
        for key, value in tensors.items()
        if key.startswith(_PREFIX)
    }
    expected = {key: tuple(value.shape) for key, value in decoder.state_dict().items()}
    for key in sorted(expected.keys() | given.keys()):
        if key not in given:
            raise _fault(directory, f"lacks the weights {_PREFIX}{key}")
        if key not in expected:
            raise _fault(directory, f"has weights that its config.json does not: {_PREFIX}{key}")
        if tuple(given[key].shape) != expected[key]:
            shapes = f"{tuple(given[key].shape)}, not {expected[key]}"
            raise _fault(directory, f"has weights {_PREFIX}{key} of shape {shapes}")
    if not all(bool(value.isfinite().all()) for value in given.values()):
        raise _fault(directory, "has weights that are no numbers")
    decoder.load_state_dict(given, assign=True)


@torch.inference_mode()
def _try_out(directory: Path, tiny: TinyDecoder, channels: int) -> None:
    """Some values of a configuration are read only when something is decoded."""
    try:
        made = tiny.decode(torch.zeros((1, channels, 2, 2)))
    except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        raise _fault(directory, "has a config.json that makes no decoder") from error
    assert made.shape == (1, 2 * tiny.factor, 2 * tiny.factor, _CHANNELS)


def _tensors(directory: Path) -> dict[str, torch.Tensor]:
    path = next((directory / name for name in _WEIGHTS if (directory / name).is_file()), None)
    if path is None:
        others = [each.name for each in directory.glob("diffusion_pytorch_model*")]
        found = f", only {sorted(others)[0]}" if others else ""
        raise _fault(directory, f"has no {_WEIGHTS[0]}{found}; nothing but safetensors is read")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _fault(directory, f"has a {path.name} that is not safetensors") from error


def _fault(directory: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(f"The preview decoder '{directory.name}' {why}.")
