"""The auto-encoder: 64x64 pictures to 4x16x16 latents and back (a small AutoencoderKL).

The loss is L1 on pixels and on their differences between neighbours, with a faint
Kullback-Leibler term. Half of the run sees crops, which cost a quarter, the rest whole pictures.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from models.recipe import dataset, training
from models.recipe.plan import VaePlan

LATENT_CHANNELS = 4
CROP_PX = 32
SEED = 11


def build() -> AutoencoderKL:
    """An untrained auto-encoder; GroupNorm has two groups, as more of them erase the colour."""
    return AutoencoderKL(
        3,
        3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def train(work: Path, plan: VaePlan) -> dict[str, float]:
    """Trains the auto-encoder and saves it in `work/vae/model`; returns what was measured."""
    torch.manual_seed(SEED)
    model = build().to(memory_format=torch.channels_last)
    pictures = dataset.load(work / "data", "train").images
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.98), weight_decay=1e-3)
    run = training.Run(
        name="vae",
        checkpoint=work / "vae" / "checkpoint.pt",
        modules={"model": model},
        optimizer=optimizer,
        steps=plan.steps,
        rate=lambda step: training.cosine(step, plan.steps, warm=100),
    )
    run.train(lambda step: _loss(model, pictures, step, plan))
    model.eval()
    whiten(model, dataset.pixels(pictures[:4000]))
    model.save_pretrained(work / "vae" / "model")
    held_out = dataset.pixels(dataset.load(work / "data", "held_out").images[:1000])
    return {"seconds": run.seconds, "steps": plan.steps, "psnr_db": psnr(model, held_out)}


def encode(work: Path) -> int:
    """Writes the mean latents (n, 4, 16, 16) float16 of the training pictures; says how many."""
    model = AutoencoderKL.from_pretrained(work / "vae" / "model").eval()
    model.to(memory_format=torch.channels_last)
    images = dataset.load(work / "data", "train").images
    parts = (dataset.pixels(images[i : i + 100]) for i in range(0, len(images), 100))
    latents = [_latents(model, part) for part in parts]
    np.save(work / "encode" / "latents.npy", torch.cat(latents).half().numpy())
    return len(images)


@torch.no_grad()
def whiten(model: AutoencoderKL, pictures: Tensor) -> None:
    """Folds a shift and a scale into the model, so that each latent channel has mean 0, std 1.

    The latents then need no scaling factor. `pictures` is (n, 3, 64, 64) in [-1, 1].
    """
    latents = torch.cat([_latents(model, part) for part in torch.split(pictures, 200)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    encoded, decoded = model.quant_conv, model.post_quant_conv
    scale = std[:, None, None, None]
    encoded.weight[:LATENT_CHANNELS] /= scale
    encoded.bias[:LATENT_CHANNELS] = (encoded.bias[:LATENT_CHANNELS] - mean) / std
    encoded.bias[LATENT_CHANNELS:] -= 2 * std.log()
    decoded.bias += decoded.weight[:, :, 0, 0] @ mean
    decoded.weight *= std[None, :, None, None]


@torch.no_grad()
def psnr(model: AutoencoderKL, pictures: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of the pictures, encoded and decoded again."""
    ratios = []
    for part in torch.split(pictures, 200):
        again = model.decode(_latents(model, part)).sample.clamp(-1, 1)
        ratios.append(-10 * torch.log10(((again - part) ** 2).mean((1, 2, 3)) / 4))
    return float(torch.cat(ratios).mean())


def _loss(model: AutoencoderKL, pictures: np.ndarray, step: int, plan: VaePlan) -> Tensor:
    draw, _ = training.randomness(SEED, step)
    crops = step < plan.crop_steps
    rows = torch.randint(len(pictures), (plan.crop_batch if crops else plan.batch,), generator=draw)
    x = _varied(dataset.pixels(pictures[rows.sort().values.numpy()]), draw)
    if crops:
        top, left = (4 * torch.randint(9, (2,), generator=draw)).tolist()
        x = x[:, :, top : top + CROP_PX, left : left + CROP_PX]
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(x).latent_dist
        y = model.decode(posterior.sample(draw)).sample
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    loss: Tensor = _difference(x, y.float()) + 1e-3 * kl
    return loss


def _varied(x: Tensor, draw: torch.Generator) -> Tensor:
    """Recolours and blends a part of the batch, so that more than the recipe's colours survive."""
    some = len(x) // 4
    order = torch.randperm(3, generator=draw)
    partners = torch.randperm(len(x), generator=draw)[: some // 2]
    x[:some] = x[:some][:, order]
    x[: some // 2] = 0.5 * x[: some // 2] + 0.5 * x[partners]
    return x


def _difference(x: Tensor, y: Tensor) -> Tensor:
    error = y - x
    across, down = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.25 * (across + down)


@torch.no_grad()
def _latents(model: AutoencoderKL, x: Tensor) -> Tensor:
    mean: Tensor = model.encode(x).latent_dist.mean
    return mean
