"""Models to compare on, written to disk as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 11,
}
# google/vit-large-patch16-384
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 384,
    "patch_size": 16,
    "num_labels": 1000,
}


def save_random_vit(directory: Path, shape: dict[str, Any], seed: int = 0) -> None:
    """A ViT whose random weights make layers matter and logits differ."""
    torch.manual_seed(seed)
    model = ViTForImageClassification(ViTConfig(**shape, initializer_range=0.08))
    model.save_pretrained(directory)
    size = {"height": shape["image_size"], "width": shape["image_size"]}
    mean = [0.5, 0.5, 0.5]
    ViTImageProcessor(size=size, image_mean=mean, image_std=mean).save_pretrained(directory)


def own_processor(directory: Path) -> Any:
    """The model's own image processor; the torchvision one resizes differently."""
    load: Any = AutoImageProcessor.from_pretrained
    return load(directory, backend="pil")


def save_random_deit(directory: Path, shape: dict[str, Any], seed: int = 0) -> None:
    """A second kind of the family: two tokens before the patches, a crop before the network."""
    torch.manual_seed(seed)
    model = DeiTForImageClassification(DeiTConfig(**shape, initializer_range=0.08))
    for tokens in ("cls_token", "distillation_token", "position_embeddings"):
        torch.nn.init.normal_(getattr(model.deit.embeddings, tokens))  # zero at first
    model.save_pretrained(directory)
    DeiTImageProcessor(size=40, crop_size=shape["image_size"]).save_pretrained(directory)


class Reference:
    """transformers alone, with the model's own image processor and in float32."""

    def __init__(self, directory: Path) -> None:
        self.processor = own_processor(directory)
        self.model = AutoModelForImageClassification.from_pretrained(
            directory, dtype=torch.float32
        ).eval()

    @torch.no_grad()
    def run(self, image: Image.Image) -> Any:
        batch = self.processor(image, return_tensors="pt")
        return self.model(**batch, output_hidden_states=True)

    @torch.no_grad()
    def base(self, image: Image.Image) -> Any:
        """What the head reads is in its ``last_hidden_state`` or ``pooler_output``."""
        return self.model.base_model(**self.processor(image, return_tensors="pt"))

    @torch.no_grad()
    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        last: torch.Tensor = self.model.base_model.layernorm(hidden)
        return last


def textures(count: int, seed: int = 0) -> list[Image.Image]:
    """RGB pictures of odd sizes, smooth enough for every filter to matter."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        width, height = (int(side) for side in random.integers(17, 200, 2))
        coarse = random.integers(0, 256, (7, 9, 3), np.uint8)
        fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        noise = random.integers(-20, 21, (height, width, 3))
        pictures.append(Image.fromarray(np.clip(np.asarray(fine) + noise, 0, 255).astype(np.uint8)))
    return pictures
