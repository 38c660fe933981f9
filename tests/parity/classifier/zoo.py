"""A small model of each family, with random weights that all matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    BeitImageProcessorPil,
    BitImageProcessorPil,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessorPil,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    DeiTImageProcessorPil,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    Swinv2Config,
    Swinv2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTMSNConfig,
    ViTMSNForImageClassification,
)

from tests.parity.classifier.models import SMALL

SIDE: Final = 32
STAGED: Final[dict[str, Any]] = {
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "image_size": SIDE,
    "patch_size": 2,
    "num_labels": 11,
}
CONVOLUTIONS: Final[dict[str, Any]] = {
    "hidden_sizes": [16, 24, 40],
    "depths": [1, 2, 1],
    "num_stages": 3,
    "patch_size": 4,
    "image_size": SIDE,
    "num_labels": 11,
}
# The hub's models were trained on larger pictures than their processors make.
DINO: Final[dict[str, Any]] = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 8,
    "num_labels": 11,
}
BEIT: Final[dict[str, Any]] = SMALL | {"num_hidden_layers": 3, "initializer_range": 0.08}


def stretched() -> Any:
    return ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})


def cropped() -> Any:
    return BitImageProcessorPil(size={"shortest_edge": 40}, crop_size=SIDE, do_convert_rgb=True)


Maker = Callable[[], tuple[Any, Any]]

ZOO: Final[dict[str, Maker]] = {
    "vit": lambda: (
        ViTForImageClassification(ViTConfig(**SMALL, initializer_range=0.08)),
        stretched(),
    ),
    "vit_msn": lambda: (
        ViTMSNForImageClassification(ViTMSNConfig(**SMALL, initializer_range=0.08)),
        stretched(),
    ),
    "deit": lambda: (
        DeiTForImageClassification(DeiTConfig(**SMALL, initializer_range=0.08)),
        DeiTImageProcessorPil(size=40, crop_size=SIDE),
    ),
    "deit distilled": lambda: (
        DeiTForImageClassificationWithTeacher(DeiTConfig(**SMALL, initializer_range=0.08)),
        DeiTImageProcessorPil(size=40, crop_size=SIDE),
    ),
    "beit": lambda: (
        BeitForImageClassification(BeitConfig(**BEIT, use_relative_position_bias=True)),
        BeitImageProcessorPil(size={"height": SIDE, "width": SIDE}),
    ),
    "beit shared": lambda: (
        BeitForImageClassification(
            BeitConfig(
                **BEIT,
                use_shared_relative_position_bias=True,
                use_absolute_position_embeddings=True,
                use_mean_pooling=False,
            )
        ),
        BeitImageProcessorPil(size={"height": SIDE, "width": SIDE}),
    ),
    "dinov2": lambda: (
        Dinov2ForImageClassification(Dinov2Config(**DINO, initializer_range=0.08)),
        cropped(),
    ),
    "dinov2 swiglu": lambda: (
        Dinov2ForImageClassification(
            Dinov2Config(**DINO, initializer_range=0.08, use_swiglu_ffn=True)
        ),
        cropped(),
    ),
    "dinov2 registers": lambda: (
        Dinov2WithRegistersForImageClassification(
            Dinov2WithRegistersConfig(**DINO, initializer_range=0.08, num_register_tokens=3)
        ),
        cropped(),
    ),
    "swin": lambda: (
        SwinForImageClassification(SwinConfig(**STAGED, initializer_range=0.08)),
        stretched(),
    ),
    "swin absolute": lambda: (
        SwinForImageClassification(
            SwinConfig(**STAGED, initializer_range=0.08, use_absolute_embeddings=True)
        ),
        stretched(),
    ),
    "swinv2": lambda: (
        Swinv2ForImageClassification(Swinv2Config(**STAGED, initializer_range=0.08)),
        stretched(),
    ),
    "convnext": lambda: (
        ConvNextForImageClassification(
            ConvNextConfig(**CONVOLUTIONS, initializer_range=0.08, layer_scale_init_value=0.5)
        ),
        ConvNextImageProcessorPil(size={"shortest_edge": SIDE}),
    ),
    "convnextv2": lambda: (
        ConvNextV2ForImageClassification(ConvNextV2Config(**CONVOLUTIONS, initializer_range=0.08)),
        ConvNextImageProcessorPil(size={"shortest_edge": SIDE}),
    ),
}


def save(directory: Path, make: Maker, seed: int = 0) -> None:
    """As transformers writes it. What starts as zeros (tokens, biases, positions) is random too:
    whatever is left out must show.
    """
    torch.manual_seed(seed)
    model, processor = make()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
