"""Stable Diffusion directories of random weights, small or of the full 1.5 architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SMALL: dict[str, Any] = {
    "text": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "unet": {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    "vae": {
        "block_out_channels": (16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "latent_channels": 4,
    },
}
# CreativeML Stable Diffusion 1.5: ViT-L/14's text tower, the 860 M U-Net, the f8 autoencoder.
FULL: dict[str, Any] = {
    "text": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "unet": {
        "sample_size": 8,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    },
}


def save_random_pipeline(directory: Path, sizes: dict[str, Any]) -> Path:
    """Write a model of random weights that ``StableDiffusionPipeline.from_pretrained`` reads."""
    library: Any = diffusers
    tokenizer = _tokenizer()
    with torch.device("meta"):  # drawing 860 million numbers twice takes minutes
        text: Any = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **sizes["text"]))
        unet = library.UNet2DConditionModel(in_channels=4, out_channels=4, **sizes["unet"])
        vae = library.AutoencoderKL(**sizes["vae"], sample_size=64)
    for network in (text, unet, vae):
        network.to_empty(device="cpu")
    positions = text.get_buffer("embeddings.position_ids")
    positions.copy_(torch.arange(positions.shape[-1])[None])
    generator = torch.Generator().manual_seed(0)
    for network in (text, unet, vae):
        _fill(network, generator)
    scheduler = library.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    library.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(directory)
    # As the published 1.5 has it; the class itself does not know the option.
    path = directory / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"clip_sample": False}
    path.write_text(json.dumps(config))
    return directory


@torch.no_grad()
def _fill(network: torch.nn.Module, generator: torch.Generator) -> None:
    for name, weight in network.named_parameters():
        if "norm" in name:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
        elif weight.ndim < 2:
            weight.zero_()
        else:
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)


def _tokenizer() -> CLIPTokenizer:
    specials = ("<|startoftext|>", "<|endoftext|>")
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz"))
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate((*pieces, *specials))}

    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
