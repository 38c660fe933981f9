"""``diffusers`` networks written as one file in Stable Diffusion's original layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Weights = dict[str, torch.Tensor]

_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
_ENDS = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("mid_block.resnets.0", "middle_block.0"),
    ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
)
_VAE = (
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.resnets.1", "mid.block_2"),
    ("mid_block.attentions.0", "mid.attn_1"),
    ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"),
    ("downsamplers.0", "downsample"),
    ("upsamplers.0", "upsample"),
    ("group_norm", "norm"),
    ("to_q.", "q."),
    ("to_k.", "k."),
    ("to_v.", "v."),
    ("to_out.0", "proj_out"),
)
_OPEN_CLIP = (
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
)
_OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def save_original(file: Path, parts: Mapping[str, Any], **extra: torch.Tensor) -> Path:
    """``parts``: as ``random_parts`` answers."""
    weights: Weights = dict(extra)
    unet = parts["unet"]
    for key, weight in unet.state_dict().items():
        weights["model.diffusion_model." + _unet_key(key, unet.config)] = weight
    levels = len(parts["vae"].config.block_out_channels)
    for key, weight in parts["vae"].state_dict().items():
        name = _vae_key(key, levels)
        linear = ".attn_1." in name and weight.ndim == 2
        weights["first_stage_model." + name] = weight[..., None, None] if linear else weight
    weights |= _texts(parts)
    save_file({key: weight.contiguous() for key, weight in weights.items()}, file)
    return file


def _texts(parts: Mapping[str, Any]) -> Weights:
    first, second = parts.get("text_encoder"), parts.get("text_encoder_2")
    if second is None:
        assert first is not None
        if first.config.hidden_act == "gelu":
            return _open_clip(first, "cond_stage_model.model.")
        return _clip(first, "cond_stage_model.transformer.")
    if first is None:
        return _open_clip(second, "conditioner.embedders.0.model.")
    return {
        **_clip(first, "conditioner.embedders.0.transformer."),
        **_open_clip(second, "conditioner.embedders.1.model."),
    }


def _clip(encoder: Any, prefix: str) -> Weights:
    states = encoder.state_dict().items()
    named = {f"text_model.{key.removeprefix('text_model.')}": weight for key, weight in states}
    return {prefix + key: weight for key, weight in named.items()}


def _open_clip(encoder: Any, prefix: str) -> Weights:
    states = {key.removeprefix("text_model."): each for key, each in encoder.state_dict().items()}
    made: Weights = {}
    for key, weight in states.items():
        if key in _OPEN_CLIP_ENDS:
            made[prefix + _OPEN_CLIP_ENDS[key]] = weight
        elif key == "text_projection.weight":
            made[prefix + "text_projection"] = weight.T
        elif ".q_proj." in key:
            joined = [states[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            layer, _, kind = key.partition(".self_attn.q_proj.")
            name = layer.replace("encoder.layers.", "transformer.resblocks.")
            made[f"{prefix}{name}.attn.in_proj_{kind}"] = torch.cat(joined)
        elif ".k_proj." not in key and ".v_proj." not in key:
            name = key.replace("encoder.layers.", "transformer.resblocks.")
            made[prefix + _renamed(name, _OPEN_CLIP)] = weight
    return made


def _unet_key(key: str, config: Any) -> str:
    for ours, theirs in _ENDS:
        if key.startswith(f"{ours}."):
            rest = key.removeprefix(ours)
            return theirs + (_renamed(rest, _RESNET) if "resnets" in ours else rest)
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key)
    assert match, key
    way, block, part, index = match[1], int(match[2]), match[3], int(match[4])
    layers = config.layers_per_block
    rest = _renamed(match[5], _RESNET) if part == "resnets" else match[5]
    if way == "down":
        place = (layers + 1) * block + index + 1
        if part == "downsamplers":
            return f"input_blocks.{(layers + 1) * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{place}.{int(part == 'attentions')}.{rest}"
    place = (layers + 1) * block + index
    if part == "upsamplers":
        crossed = config.up_block_types[block].startswith("CrossAttn")
        return f"output_blocks.{place + layers}.{1 + crossed}.{rest}"
    return f"output_blocks.{place}.{int(part == 'attentions')}.{rest}"


def _vae_key(key: str, levels: int) -> str:
    key = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", key)
    key = re.sub(
        r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", key
    )
    key = re.sub(r"up_blocks\.(\d+)\.", lambda m: f"up.{levels - 1 - int(m[1])}.", key)
    return _renamed(key, _VAE)


def _renamed(key: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in pairs:
        key = key.replace(ours, theirs)
    return key
