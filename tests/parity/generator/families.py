"""Tiny pipelines of random weights, of families that the step engine does not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tests.parity.generator.models import random_parts, tokenizer

library: Any = diffusers
VAE: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "sample_size": 32,
}


def save_sd3(directory: Path) -> Path:
    """Stable Diffusion 3: flow matching, two CLIP towers and T5, ``callback_on_step_end``."""
    torch.manual_seed(0)
    transformer = library.SD3Transformer2DModel(
        sample_size=16, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=32,
        pooled_projection_dim=64, out_channels=4,
    )  # fmt: skip
    library.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=library.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=library.AutoencoderKL(
            **VAE, latent_channels=4, scaling_factor=1.5, shift_factor=0.06,
            use_quant_conv=False, use_post_quant_conv=False,
        ),
        text_encoder=_clip(), tokenizer=tokenizer(),
        text_encoder_2=_clip(), tokenizer_2=tokenizer(pad_token="!"),
        text_encoder_3=_t5(), tokenizer_3=_t5_tokenizer(),
    ).save_pretrained(directory)  # fmt: skip
    return directory


def save_pixart(directory: Path) -> Path:
    """PixArt-Sigma: T5, DPM-Solver++, the older ``callback``."""
    torch.manual_seed(0)
    transformer = library.PixArtTransformer2DModel(
        sample_size=16, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=3,
        caption_channels=32, in_channels=4, out_channels=8, cross_attention_dim=24,
        use_additional_conditions=False,
    )  # fmt: skip
    library.PixArtSigmaPipeline(
        transformer=transformer,
        scheduler=library.DPMSolverMultistepScheduler(),
        vae=library.AutoencoderKL(**VAE, latent_channels=4),
        text_encoder=_t5(),
        tokenizer=_t5_tokenizer(),
    ).save_pretrained(directory)
    return directory


def save_flux(directory: Path) -> Path:
    """Flux as Schnell: rotary positions, packed latents, guidance only by a negative prompt."""
    torch.manual_seed(0)
    transformer = library.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8], guidance_embeds=False,
    )  # fmt: skip
    torch.manual_seed(3)
    library.FluxPipeline(
        transformer=transformer,
        scheduler=library.FlowMatchEulerDiscreteScheduler(),
        vae=library.AutoencoderKL(
            **VAE, latent_channels=4, scaling_factor=1.5, shift_factor=0.06,
            use_quant_conv=False, use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(_clip().config), tokenizer=tokenizer(),
        text_encoder_2=_t5(), tokenizer_2=_t5_tokenizer(),
    ).save_pretrained(directory)  # fmt: skip
    return directory


def save_distilled(directory: Path, sizes: dict[str, Any]) -> Path:
    """LCM (Luo et al., 2023): a U-Net that takes the guidance scale as an input."""
    parts = random_parts({**sizes, "unet": {**sizes["unet"], "time_cond_proj_dim": 16}})
    parts["scheduler"] = library.LCMScheduler.from_config(parts["scheduler"].config)
    library.LatentConsistencyModelPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(directory)
    return directory


def _clip() -> Any:
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer()), hidden_size=32, intermediate_size=37, projection_dim=32,
        num_attention_heads=4, num_hidden_layers=2, bos_token_id=53, eos_token_id=54,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config)


def _t5() -> Any:
    torch.manual_seed(2)
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    return T5EncoderModel(config)


def _t5_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter."""
    letters = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=64,
    )  # fmt: skip
