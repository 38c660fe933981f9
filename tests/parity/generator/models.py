"""Stable Diffusion directories of random weights, small or of the full architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

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


# 2.x: OpenCLIP's tower, which ends at its penultimate layer, and v-prediction.
SMALL_2: dict[str, Any] = {
    **SMALL,
    "text": {**SMALL["text"], "hidden_act": "gelu"},
    "unet": {**SMALL["unet"], "attention_head_dim": [2, 4], "use_linear_projection": True},
    "scheduler": {"prediction_type": "v_prediction"},
}
SMALL_2_ZERO_SNR: dict[str, Any] = {
    **SMALL_2,
    "scheduler": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}
SMALL_SAMPLE: dict[str, Any] = {**SMALL, "scheduler": {"prediction_type": "sample"}}
SMALL_XL: dict[str, Any] = {
    "text": SMALL["text"],
    "text_2": {**SMALL["text"], "hidden_size": 48, "hidden_act": "gelu", "projection_dim": 24},
    "unet": {
        **SMALL["unet"],
        "cross_attention_dim": 80,
        "use_linear_projection": True,
        "transformer_layers_per_block": (2, 1),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 24,
    },
    "vae": {**SMALL["vae"], "scaling_factor": 0.13025, "force_upcast": True},
}
SMALL_XL_REFINER: dict[str, Any] = {
    "text_2": SMALL_XL["text_2"],
    "unet": {
        **SMALL_XL["unet"],
        "cross_attention_dim": 48,
        "projection_class_embeddings_input_dim": 5 * 8 + 24,
    },
    "vae": SMALL_XL["vae"],
    "index": {"requires_aesthetics_score": True},
}
# Stable Diffusion XL base 1.0.
FULL_XL: dict[str, Any] = {
    "text": FULL["text"],
    "text_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
        "projection_dim": 1280,
    },
    "unet": {
        "sample_size": 8,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {**FULL["vae"], "scaling_factor": 0.13025, "force_upcast": True},
}


def seeing_the_mask(sizes: dict[str, Any]) -> dict[str, Any]:
    """The same with a U-Net for inpainting, of 9 channels."""
    return {**sizes, "unet": {**sizes["unet"], "in_channels": 9}}


def save_random_pipeline(directory: Path, sizes: dict[str, Any]) -> Path:
    """Write a model of random weights that ``StableDiffusionPipeline.from_pretrained`` reads; the
    XL pipelines do where the sizes have a second text encoder.
    """
    parts = random_parts(sizes)
    library: Any = diffusers
    if "text_2" not in sizes:
        kind, others = library.StableDiffusionPipeline, _NO_CHECKER
    elif "text" in sizes:
        kind, others = library.StableDiffusionXLPipeline, {}
    else:
        kind, others = library.StableDiffusionXLImg2ImgPipeline, {}
    kind(**parts, **others, **sizes.get("index", {})).save_pretrained(directory)
    # As the published 1.5 has it; the class itself does not know the option.
    path = directory / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"clip_sample": False} | sizes.get("scheduler", {})
    path.write_text(json.dumps(config))
    return directory


def save_random_checker(directory: Path) -> Path:
    """Give a saved pipeline a safety checker whose 17 thresholds random pictures straddle."""
    vision = {**SMALL["text"], "image_size": 30, "patch_size": 10}
    config = CLIPConfig(vision_config=vision, projection_dim=8)
    checker: Any = StableDiffusionSafetyChecker(config)
    generator = torch.Generator().manual_seed(1)
    _fill(checker, generator)
    with torch.no_grad():
        for name in ("concept_embeds", "special_care_embeds"):
            getattr(checker, name).normal_(generator=generator)
        checker.concept_embeds_weights.fill_(CHECKER_THRESHOLD)
        checker.special_care_embeds_weights.fill_(2.0)
    checker.save_pretrained(directory / "safety_checker")
    size = {"height": 30, "width": 30}
    extractor = CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size=size)
    extractor.save_pretrained(directory / "feature_extractor")
    path = directory / "model_index.json"
    index = json.loads(path.read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessorPil"]
    index["requires_safety_checker"] = True
    path.write_text(json.dumps(index))
    return directory


# The cosine that some of the pictures in test_layouts.py are above, and some below.
CHECKER_THRESHOLD = 0.7

_NO_CHECKER: dict[str, Any] = {
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}


def random_parts(sizes: dict[str, Any]) -> dict[str, Any]:
    """A pipeline's components by name, with random weights."""
    library: Any = diffusers
    channels = {"in_channels": 4, "out_channels": 4, **sizes["unet"]}
    with torch.device("meta"):  # drawing 860 million numbers twice takes minutes
        networks: dict[str, Any] = {
            **_texts(sizes),
            "unet": library.UNet2DConditionModel(**channels),
            "vae": library.AutoencoderKL(**sizes["vae"], sample_size=64),
        }
    generator = torch.Generator().manual_seed(0)
    for network in networks.values():
        network.to_empty(device="cpu")
        for name, positions in network.named_buffers():
            if name.endswith("position_ids"):
                positions.copy_(torch.arange(positions.shape[-1])[None])
        _fill(network, generator)
    scheduler = library.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    first = {"tokenizer": tokenizer()} if "text" in sizes else {}
    second = {"tokenizer_2": tokenizer(pad_token="!")} if "text_2" in sizes else {}
    if "text_2" in sizes and "text" not in sizes:
        first, networks["text_encoder"] = {"tokenizer": None}, None
    return {**first, **second, **networks, "scheduler": scheduler}


def _texts(sizes: dict[str, Any]) -> dict[str, Any]:
    ids = {
        "vocab_size": len(tokenizer()),
        "bos_token_id": tokenizer().bos_token_id,
        "eos_token_id": tokenizer().eos_token_id,
    }
    made: dict[str, Any] = {}
    if "text" in sizes:
        made["text_encoder"] = CLIPTextModel(CLIPTextConfig(**{**ids, **sizes["text"]}))
    if "text_2" in sizes:
        config = CLIPTextConfig(**{**ids, **sizes["text_2"]})
        made["text_encoder_2"] = CLIPTextModelWithProjection(config)
    return made


@torch.no_grad()
def _fill(network: torch.nn.Module, generator: torch.Generator) -> None:
    for name, weight in network.named_parameters():
        if "norm" in name:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
        elif weight.ndim < 2:
            weight.zero_()
        else:
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)


def tokenizer(**options: Any) -> CLIPTokenizer:
    specials = ("<|startoftext|>", "<|endoftext|>")
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz"))
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "!"]
    vocabulary = {piece: index for index, piece in enumerate((*pieces, *specials))}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77, **options)
