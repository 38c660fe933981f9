"""IP-Adapters of random weights, in the layout that the published ones have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.parity.generator.models import SMALL

EMBEDDING = 24
TOKENS = 4
FILE = "ip-adapter_test.safetensors"


def random_image_adapter(unet: Any, embedding: int = EMBEDDING) -> dict[str, torch.Tensor]:
    """Of the U-Net's own widths; its values are large enough that a picture is seen to change."""
    source = torch.Generator().manual_seed(11)
    layers = [layer for name, layer in unet.named_modules() if name.endswith(".attn2")]
    width = int(layers[0].to_k.in_features)
    tensors = {
        "image_proj.proj.weight": torch.randn((TOKENS * width, embedding), generator=source) * 8,
        "image_proj.proj.bias": torch.randn(TOKENS * width, generator=source),
        "image_proj.norm.weight": 1 + torch.randn(width, generator=source) / 10,
        "image_proj.norm.bias": torch.randn(width, generator=source) / 10,
    }
    for number, layer in enumerate(layers):
        for side in ("k", "v"):
            drawn = torch.randn(layer.to_k.weight.shape, generator=source) / width**0.5
            tensors[f"ip_adapter.{2 * number + 1}.to_{side}_ip.weight"] = drawn * 2
    return tensors


def save_image_encoder(folder: Path, embedding: int = EMBEDDING) -> None:
    """CLIP's vision tower, a very small one."""
    torch.manual_seed(12)
    config = CLIPVisionConfig(
        **SMALL["text"], image_size=20, patch_size=5, projection_dim=embedding
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")


def save_image_adapter(folder: Path, unet: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(random_image_adapter(unet), folder / FILE)
    save_image_encoder(folder)
    return folder
