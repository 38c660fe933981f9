"""A contact sheet: some prompts, one a row, each drawn from several seeds."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

SEEDS = 6
PROMPTS = (
    "a red circle",
    "a yellow square on a purple background",
    "a blue triangle on a white striped background",
    "an orange star",
    "a green heart on a pink gradient background",
    "a red cross on a gray striped background",
    "a black ring on an orange background",
    "a white crescent on a blue background",
    "a purple arrow on a yellow striped background",
    "a green diamond",
)


def save(
    pipeline: StableDiffusionPipeline,
    path: Path,
    seeds: int = SEEDS,
    steps: int = 20,
    guidance: float = 3.0,
) -> None:
    """Draws every prompt from the seeds 0, 1, ... and saves the sheet as a PNG."""
    rows = [draw(pipeline, prompt, range(seeds), steps, guidance) for prompt in PROMPTS]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(sheet).save(path, optimize=True)


def draw(
    pipeline: StableDiffusionPipeline, prompt: str, seeds: range, steps: int, guidance: float
) -> np.ndarray:
    """Images (n, 64, 64, 3) uint8 of one prompt, one for each seed."""
    result = pipeline(
        [prompt] * len(seeds),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
    )
    images: np.ndarray = (result.images * 255).round().astype(np.uint8)
    return images
