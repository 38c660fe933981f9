"""Low-rank adapters as they are stored, by diffusers, PEFT or Kohya; safetensors only."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from diffusers.utils.state_dict_utils import StateDictType
from safetensors import SafetensorError, safe_open

SUFFIX: Final = ".safetensors"
PICKLES: Final = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
PARTS: Final = ("unet", "text_encoder_2", "text_encoder")
_IN_FOLDER: Final = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_CONFIG: Final = "adapter_config.json"
# Where diffusers keeps PEFT's configuration, in the file's own metadata.
_METADATA: Final = "lora_adapter_metadata"
_KOHYA: Final = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
_KOHYA_KEYS: Final = (".lora_down.weight", ".lora_up.weight", ".alpha")
_MATRIX: Final = re.compile(r"(.+)\.lora_([AB])\.weight")
_PLAIN_NAME: Final = re.compile(r"[\w.]+")
_LARGEST: Final = torch.finfo(torch.float32).max


class UnfitAdapterError(Exception):
    """What is wrong with the file, in words for the caller; without its name."""


@dataclass(frozen=True, slots=True)
class Matrices:
    """``down`` and ``up`` of one layer, and the factor that was trained with them."""

    down: torch.Tensor
    up: torch.Tensor
    factor: float


def weights_file(path: Path) -> Path:
    """The file of weights that an adapter's file or folder stands for.

    Raises ``UnfitAdapterError`` when there is none, or none that can be told.
    """
    if path.is_file():
        if path.suffix != SUFFIX:
            raise UnfitAdapterError(f"it is a {path.suffix} file, and only {SUFFIX} is read")
        return path
    for name in _IN_FOLDER:
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        raise UnfitAdapterError(f"its folder has {len(found)} {SUFFIX} files and not one")
    return found[0]


def read(path: Path, unet_config: Any = None) -> dict[str, Matrices]:
    """The matrices in a file, by part and layer: ``"unet.mid_block.attentions.0.proj_in"``.

    ``unet_config``: of the model it is for; names Kohya's blocks of Stable Diffusion XL.

    Raises ``UnfitAdapterError`` for anything that is not two whole matrices a layer.
    """
    tensors, metadata = _tensors(path)
    config = _config(path, metadata)
    if tensors and all(key.startswith(_KOHYA) for key in tensors):
        tensors = _from_kohya(tensors, unet_config)
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        layer, side = _layer_and_side(key)
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise UnfitAdapterError(f"'{key}' has values that are no finite numbers")
        pairs.setdefault(layer, {})[side] = tensor
    if not pairs:
        raise UnfitAdapterError("it has no low-rank matrices")
    return {layer: _matrices(layer, sides, config) for layer, sides in pairs.items()}


def _tensors(path: Path) -> tuple[dict[str, torch.Tensor], Mapping[str, str]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as cause:
        raise UnfitAdapterError("its file is not in the safetensors format") from cause


def _config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's options by part, ``{"unet.lora_alpha": 8}``; empty when the file brings none."""
    beside = path.parent / _CONFIG
    try:
        if _METADATA in metadata:
            found = json.loads(metadata[_METADATA])
        elif path.name == _IN_FOLDER[1] and beside.is_file():
            found = json.loads(beside.read_text(encoding="utf-8"))
            found = {f"unet.{name}": value for name, value in found.items()}
        else:
            return {}
    except ValueError as cause:
        raise UnfitAdapterError("its configuration is not JSON") from cause
    if not isinstance(found, dict):
        raise UnfitAdapterError("its configuration is not a JSON object")
    return found


def _from_kohya(tensors: dict[str, torch.Tensor], unet_config: Any) -> dict[str, torch.Tensor]:
    scaled = {}
    for key, tensor in tensors.items():
        if not key.endswith(_KOHYA_KEYS):
            raise UnfitAdapterError(f"'{key}' is not a key of a plain LoRA")
        if key.endswith(_KOHYA_KEYS[0]):
            scaled[key] = tensor.float() * _kohya_factor(key, tensors)
            if f"{key.split('.')[0]}{_KOHYA_KEYS[1]}" not in tensors:
                raise UnfitAdapterError(f"'{key}' has no counterpart")
        elif key.endswith(_KOHYA_KEYS[1]):
            scaled[key] = tensor
    kind: Any = StableDiffusionLoraLoaderMixin
    try:
        converted: dict[str, torch.Tensor] = kind.lora_state_dict(scaled, unet_config=unet_config)[
            0
        ]
    except (ValueError, KeyError, IndexError) as cause:
        first = next(iter(tensors))
        raise UnfitAdapterError(f"'{first}' and its like name no layers that are known") from cause
    return converted


def _kohya_factor(key: str, tensors: Mapping[str, torch.Tensor]) -> float:
    """alpha / r of the layer whose lora_down is at ``key``; 1 where the file has no alpha of it."""
    down, name = tensors[key], f"{key.split('.')[0]}{_KOHYA_KEYS[2]}"
    if down.ndim == 0 or len(down) == 0:
        raise UnfitAdapterError(f"'{key}' is of rank 0: its shape is {tuple(down.shape)}")
    alpha = tensors.get(name)
    if alpha is None:
        return 1.0
    if alpha.numel() != 1 or alpha.is_complex() or not math.isfinite(float(alpha)):
        shape = tuple(alpha.shape)
        raise UnfitAdapterError(f"'{name}' is not one finite number: its shape is {shape}")
    return float(alpha) / len(down)


def _layer_and_side(key: str) -> tuple[str, str]:
    """``"unet.mid_block....to_q"`` and ``"A"`` (down) or ``"B"`` (up)."""
    name = key.removeprefix("base_model.model.")
    part = next((part for part in PARTS if name.startswith(f"{part}.")), "")
    # The older layouts name the U-Net's layers without saying so.
    name = name.removeprefix(f"{part}.") if part else name
    part = part or "unet"
    if part == "unet":
        [name] = convert_unet_state_dict_to_peft({name: None})
    else:
        old = StateDictType.DIFFUSERS_OLD
        [name] = convert_state_dict_to_peft({name: None}, original_type=old)
        name = name.removeprefix("text_model.")
    found = _MATRIX.fullmatch(name)
    if found is None:
        raise UnfitAdapterError(f"'{key}' is not a key of a plain LoRA")
    return f"{part}.{found[1]}", found[2]


def _matrices(layer: str, sides: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Matrices:
    missing = {"A", "B"} - sides.keys()
    if missing:
        raise UnfitAdapterError(f"'{layer}' lacks its lora_{missing.pop()}.weight")
    down, up = sides["A"], sides["B"]
    if down.ndim != up.ndim or down.ndim not in (2, 4) or down.shape[0] != up.shape[1]:
        shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
        raise UnfitAdapterError(f"the matrices of '{layer}' do not fit together: {shapes}")
    if len(down) == 0:
        raise UnfitAdapterError(f"the matrices of '{layer}' are of rank 0")
    return Matrices(down, up, _factor(layer, len(down), config))


def _factor(layer: str, rank: int, config: Mapping[str, Any]) -> float:
    """alpha / r, as PEFT has it; 1 where the file says nothing of alpha."""
    part, _, name = layer.partition(".")
    options = {
        key.removeprefix(f"{part}."): value
        for key, value in config.items()
        if key.startswith(f"{part}.")
    }
    if options.get("use_dora"):
        raise UnfitAdapterError("it is a DoRA, which is not a plain LoRA")
    alpha = options.get("lora_alpha")
    patterns = options.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        kind = type(patterns).__name__
        raise UnfitAdapterError(f"its alpha_pattern is not numbers by layer, but a {kind}")
    for pattern, value in patterns.items():
        if not _PLAIN_NAME.fullmatch(pattern):
            raise UnfitAdapterError(f"its alpha_pattern '{pattern}' is not the name of a layer")
        if f".{name}".endswith(f".{pattern}"):
            alpha = value
            break
    if alpha is None:
        return 1.0
    # Written so that NaN fails it too; JSON knows whole numbers that no float holds.
    if not isinstance(alpha, int | float) or not abs(alpha) <= _LARGEST:
        raise UnfitAdapterError(f"the alpha of '{layer}' is not a finite number")
    return float(alpha / rank**0.5 if options.get("use_rslora") else alpha / rank)
