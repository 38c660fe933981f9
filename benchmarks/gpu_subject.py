"""What is measured on a GPU: models of random weights, on the device that ``DEVICE`` names."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any, Final

import diffusers
import torch
import transformers

from models import DEMO_GENERATOR
from services import accelerator

COMMAND: Final = "make bench-gpu"
_TOKENS: Final = 77


class NoGpuError(Exception):
    """There is nothing to measure on; says what to do."""


@dataclass(frozen=True, slots=True)
class Size:
    """``side``: of a picture, in pixels. ``batch``: pictures that the classifier has at a time.
    ``matrix``: rows of the matrices that are multiplied. ``rounds``: how often all is measured.
    """

    name: str
    text: Mapping[str, Any]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    side: int
    steps: int
    callers: tuple[int, ...]
    rows: tuple[int, ...]
    batch: int
    matrix: int
    rounds: int


# CreativeML Stable Diffusion 1.5; the U-Net is diffusers' default but for what is said.
FULL: Final = Size(
    name="SD 1.5",
    text={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    unet={"sample_size": 64, "cross_attention_dim": 768},
    vae={
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 512,
    },
    side=512,
    steps=30,
    callers=(1, 4, 8, 16, 32),
    rows=(1, 8, 32),
    batch=64,
    matrix=8192,
    rounds=2,
)
TINY: Final = Size(
    name="a tiny model",
    text={
        "vocab_size": 1024,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    unet={
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    vae={
        "block_out_channels": (16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "sample_size": 16,
    },
    side=16,
    steps=2,
    callers=(1, 2),
    rows=(1, 2),
    batch=4,
    matrix=256,
    rounds=1,
)


def chosen_size(*, quick: bool) -> Size:
    return TINY if quick else FULL


def chosen_device(environ: Mapping[str, str], *, quick: bool) -> torch.device:
    """What ``DEVICE`` says, or the first GPU. Raises ``NoGpuError`` where there is none, and for a
    processor unless ``QUICK=1`` is set.
    """
    name = environ.get("DEVICE", "")
    if name == "cpu" and not quick:
        raise NoGpuError("DEVICE=cpu only shows that the measurement runs: it takes QUICK=1 too.")
    if not name and not torch.cuda.is_available():
        raise NoGpuError(
            f"{COMMAND} measures a GPU, and there is none here: torch.cuda.is_available() is "
            f"false with PyTorch {torch.__version__}. DEVICE=cpu QUICK=1 runs all of it on the "
            "processor with tiny models, for a look at the code and not for figures."
        )
    return accelerator.chosen_device(name or "auto")


def described(device: torch.device) -> str:
    """Its name and memory, and the CUDA that PyTorch was built with."""
    if device.type != "cuda":
        return "no GPU"
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB, CUDA {torch.version.cuda}"


def saved(directory: Path, size: Size) -> Path:
    """A model of random weights that both hands read, with the demo's tokenizer and schedule."""
    parts = ("unet", "vae", "text_encoder", "easel.json")
    copytree(DEMO_GENERATOR, directory, ignore=ignore_patterns(*parts))
    path = directory / "tokenizer" / "tokenizer_config.json"
    lengths = {"model_max_length": _TOKENS, "max_length": _TOKENS}
    path.write_text(json.dumps(json.loads(path.read_text()) | lengths))
    library: Any = diffusers
    ends = json.loads((DEMO_GENERATOR / "text_encoder" / "config.json").read_text())
    told = {name: ends[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with torch.device("meta"):
        networks: dict[str, Any] = {
            "text_encoder": transformers.CLIPTextModel(
                transformers.CLIPTextConfig(**size.text, **told, max_position_embeddings=_TOKENS)
            ),
            "unet": library.UNet2DConditionModel(**size.unet),
            "vae": library.AutoencoderKL(**size.vae, latent_channels=4),
        }
    generator = torch.Generator().manual_seed(0)
    for name, network in networks.items():
        _draw(network, generator)
        # As any module is: diffusers' own warns of parts that are to stay in float32, without any.
        torch.nn.Module.to(network, torch.bfloat16)
        network.save_pretrained(directory / name)
    return directory


@torch.no_grad()
def _draw(network: Any, generator: torch.Generator) -> None:
    network.to_empty(device="cpu")
    for name, buffer in network.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1])[None])
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
        else:
            weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)


def seconds_of(device: torch.device, run: Callable[[], object], calls: int) -> float:
    """Of one of ``calls`` calls, to their end on the device."""
    accelerator.finish(device)
    began = time.perf_counter()
    for _ in range(calls):
        run()
    accelerator.finish(device)
    return (time.perf_counter() - began) / calls
