"""Adapters of random weights, in the layouts that people have them in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
MORE = (*ATTENTION, "proj_in", "ff.net.0.proj", "conv1", "conv_in", "time_emb_proj")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1")
STRENGTH = 0.6


def random_lora(
    network: Any, seed: int, rank: int, targets: tuple[str, ...] = ATTENTION
) -> Tensors:
    """PEFT's own keys, ``"mid_block....to_q.lora_A.weight"``, of the layers that it would adapt."""
    network.add_adapter(LoraConfig(r=rank, target_modules=list(targets)), adapter_name="made")
    state = get_peft_model_state_dict(network, adapter_name="made")
    generator = torch.Generator().manual_seed(seed)
    drawn = {key: _drawn(tensor, generator) for key, tensor in sorted(state.items())}
    delete = getattr(network, "delete_adapters", None) or network.delete_adapter
    delete("made")
    return drawn


def save_diffusers(
    pipeline: Any,
    path: Path,
    unet: Tensors,
    text: Tensors | None = None,
    *,
    options: Mapping[str, Any] | None = None,
) -> None:
    """A file as ``save_lora_weights`` writes it; PEFT's options in its metadata where given."""
    told = None if options is None else dict(options) | {"target_modules": list(ATTENTION)}
    pipeline.save_lora_weights(
        path.parent,
        unet_lora_layers=unet,
        text_encoder_lora_layers=text,
        weight_name=path.name,
        unet_lora_adapter_metadata=told,
    )


def save_peft(folder: Path, lora: Tensors, options: Mapping[str, Any]) -> None:
    """A folder as ``PeftModel.save_pretrained`` writes it."""
    folder.mkdir()
    named = {f"base_model.model.{key}": tensor for key, tensor in lora.items()}
    save_file(named, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(dict(options)))


def save_kohya(path: Path, lora: Tensors, text: Tensors, *, alpha: float) -> None:
    """A file as Kohya's scripts write it: every layer with its alpha."""
    written: Tensors = {}
    for prefix, part in (("lora_unet_", lora), ("lora_te_", text)):
        for key, tensor in part.items():
            layer, side = key.removesuffix(".weight").rsplit(".", 1)
            # Kohya's scripts know the text encoder by its older names.
            layer = layer if part is lora else f"text_model.{layer}"
            name = prefix + layer.replace(".", "_")
            written[f"{name}.lora_{'down' if side == 'lora_A' else 'up'}.weight"] = tensor
            written[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(written, path)


def _drawn(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    scale = STRENGTH * tensor[0].numel() ** -0.5
    drawn: torch.Tensor = torch.randn(tensor.shape, generator=generator) * scale
    return drawn
