"""A small CLIP of random weights, written in the layout of published ONNX exports."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from models import DEMO_GENERATOR

SIDE = 32
PREPARATION = {
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": SIDE},
}


class _Told(torch.nn.Module):
    """One output of a model, told by its name."""

    def __init__(self, model: torch.nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = getattr(self.model(given), self.output)
        return found


def write_clip(directory: Path, seed: int = 0) -> CLIPModel:
    """Writes it to ``directory`` and returns the whole model, whose tokenizer is the demo
    generator's."""
    torch.manual_seed(seed)
    tokenizer = DEMO_GENERATOR / "tokenizer"
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"]
    end = vocabulary["<|endoftext|>"]
    text: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "projection_dim": 16,
        "eos_token_id": end,
        "bos_token_id": vocabulary["<|startoftext|>"],
        "pad_token_id": end,
    }
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "projection_dim": 16,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    model = CLIPModel(config).eval()
    (directory / "onnx").mkdir(parents=True)
    texts = CLIPTextModelWithProjection(CLIPTextConfig(**text)).eval()
    texts.load_state_dict(_half(model, "text"))
    pictures = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision)).eval()
    pictures.load_state_dict(_half(model, "visual", "vision"))
    _export(_Told(texts, "text_embeds"), torch.zeros(1, 5, dtype=torch.int64),
            directory / "onnx" / "text_model.onnx", "input_ids", "text_embeds",
            {0: "batch", 1: "length"})  # fmt: skip
    _export(_Told(pictures, "image_embeds"), torch.zeros(1, 3, SIDE, SIDE),
            directory / "onnx" / "vision_model.onnx", "pixel_values", "image_embeds",
            {0: "batch"})  # fmt: skip
    config.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(PREPARATION))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, directory)
    return model


def _half(model: CLIPModel, *kinds: str) -> dict[str, torch.Tensor]:
    starts = tuple(f"{kind}_{part}" for kind in kinds for part in ("model", "projection"))
    return {name: value for name, value in model.state_dict().items() if name.startswith(starts)}


def _export(
    model: torch.nn.Module,
    example: torch.Tensor,
    path: Path,
    given: str,
    told: str,
    free: dict[int, str],
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            str(path),
            input_names=[given],
            output_names=[told],
            dynamic_axes={given: free, told: {0: "batch"}},
            dynamo=False,
        )
