"""Measures the assembled pair: what the generator draws, and what ranking by the classifier adds.

Every image is judged by the judge, which took no part in making or choosing it. Intervals are
95 %: bootstrap over prompts for generated images, which are alike within a prompt, and Wilson's
for held-out pictures and where every prompt agrees.
"""

import multiprocessing
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor, nn
from transformers import ViTForImageClassification

from models.recipe import captions, contact_sheet, dataset, judge, vae
from models.recipe.assemble import demo_folder
from models.recipe.classifier import Logits
from models.recipe.generator import GUIDANCE, SAMPLING_STEPS
from models.recipe.intervals import Flags, bootstrap, rate_over, wilson
from models.recipe.plan import EvaluationPlan
from models.recipe.shapes import COLOURS, SHAPES

PROMPT_SEED = 71
# Guidance and steps are compared on other prompts than the ones reported.
TUNING_PROMPT_SEED = 72
TUNING = ((20, 2.0), (20, 5.0), (10, 3.0))
BATCH = 40

Rates = dict[str, Any]


def evaluate(work: Path, plan: EvaluationPlan) -> Rates:
    """Generates, judges and measures; also saves the contact sheet `work/evaluate/sheet.png`."""
    folder, demo = work / "evaluate", demo_folder(work)
    pipeline, critics = load_pipeline(demo), load_critics(demo)
    contact_sheet.save(pipeline, folder / "sheet.png")
    held_out = _held_out(critics, pipeline.vae, dataset.load(work / "data", "held_out"))
    asked = captions.prompts(PROMPT_SEED)[: plan.prompts]
    tuning = random.Random(0).sample(captions.prompts(TUNING_PROMPT_SEED), plan.prompts // 2)
    seeds = [10_000 * (i + 1) for i in range(plan.seeds)]
    guided = [
        Column(asked, seed, SAMPLING_STEPS, GUIDANCE, folder / f"guided-{seed}.npy")
        for seed in seeds
    ]
    # Without guidance images go wrong often enough to see what ranking is worth.
    unguided = [
        Column(asked, seed, SAMPLING_STEPS, 1.0, folder / f"unguided-{seed}.npy") for seed in seeds
    ]
    settings = [
        Column(tuning, 0, steps, guidance, folder / f"steps-{steps}-guidance-{guidance:g}.npy")
        for steps, guidance in TUNING
    ]
    _generate_all([*guided, *unguided, *settings], demo)
    return {
        "sampler": {"name": "DDIM", "steps": SAMPLING_STEPS, "guidance": GUIDANCE},
        "held_out": held_out,
        "generated": _generated(guided, critics),
        "unguided": _generated(unguided, critics),
        "settings": [_setting(column, critics["judge"]) for column in settings],
        "speed": _speed(pipeline),
    }


@dataclass(frozen=True)
class Column:
    """One image of each prompt, all drawn in the same way and kept in a file."""

    asked: list[tuple[str, int]]
    seed: int
    steps: int
    guidance: float
    file: Path

    @property
    def wanted(self) -> Tensor:
        """The labels asked for, (n,)."""
        return torch.tensor([label for _, label in self.asked])

    def images(self) -> Tensor:
        """The images (n, 3, 64, 64) in [-1, 1] that the file holds."""
        return torch.from_numpy(np.load(self.file)).float()


def load_pipeline(demo: Path) -> StableDiffusionPipeline:
    """The generator in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(demo / "generator", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_critics(demo: Path) -> dict[str, nn.Module]:
    """The classifier and the judge, as functions from pictures in [-1, 1] to logits."""
    model = ViTForImageClassification.from_pretrained(demo / "classifier", dtype=torch.float32)
    return {"classifier": Logits(model).eval(), "judge": judge.load(demo / "judge")}


@torch.no_grad()
def generate(
    pipeline: StableDiffusionPipeline, prompts: list[str], seed: int, steps: int, guidance: float
) -> Tensor:
    """One image (n, 3, 64, 64) in [-1, 1] of each prompt; row i starts from noise seed + i."""
    images = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        sources = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        images.append(
            pipeline(
                part,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=sources,
                output_type="pt",
            ).images
        )
    return torch.cat(images) * 2 - 1


@torch.no_grad()
def probabilities(critic: nn.Module, images: Tensor) -> Tensor:
    """Label probabilities (n, 80) of images (n, 3, 64, 64) in [-1, 1]."""
    return torch.cat([critic(part).softmax(1) for part in torch.split(images, 120)])


def _generate_all(columns: list[Column], demo: Path) -> None:
    """Draws the columns whose file is missing, one process a core."""
    missing = [(column, demo) for column in columns if not column.file.exists()]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.starmap(_generate_column, missing, chunksize=1)


def _generate_column(column: Column, demo: Path) -> None:
    torch.set_num_threads(1)
    texts = [text for text, _ in column.asked]
    images = generate(load_pipeline(demo), texts, column.seed, column.steps, column.guidance)
    unfinished = column.file.with_suffix(".tmp.npy")
    np.save(unfinished, images.half().numpy())
    unfinished.rename(column.file)


def _generated(columns: list[Column], critics: dict[str, nn.Module]) -> Rates:
    guesses = {
        name: torch.stack([probabilities(critic, column.images()) for column in columns], 1)
        for name, critic in critics.items()
    }
    wanted = columns[0].wanted[:, None]
    return {"prompts": len(wanted), "seeds": len(columns)} | _rates(guesses, wanted)


def _of_wanted(guesses: Tensor, wanted: Tensor) -> Tensor:
    """The probability (prompts, seeds) of the wanted label."""
    return guesses.gather(2, wanted[..., None].expand(-1, guesses.shape[1], 1))[..., 0]


def _setting(column: Column, critic: nn.Module) -> Rates:
    right = _flags(probabilities(critic, column.images()).argmax(1) == column.wanted)
    return {"steps": column.steps, "guidance": column.guidance, "single": rate_over(right)}


def _rates(guesses: dict[str, Tensor], wanted: Tensor) -> Rates:
    """Rates from label probabilities (prompts, seeds, 80) and wanted labels (prompts, 1).

    Beside right and wrong stands the judge's doubt, the probability it leaves to other labels:
    it still tells images apart when nearly all are right.
    """
    judged, ranked = guesses["judge"].argmax(2), guesses["classifier"]
    right = _flags(judged == wanted)
    best = _of_wanted(ranked, wanted).argmax(1, keepdim=True).numpy()
    best_right = np.take_along_axis(right, best, 1)[:, 0]
    doubt = _flags(1 - _of_wanted(guesses["judge"], wanted))
    best_doubt = np.take_along_axis(doubt, best, 1)[:, 0]
    colours = len(COLOURS)
    shape_right = _flags(judged // colours == wanted // colours)
    asked_shapes = (wanted[:, 0] // colours).numpy()
    return {
        "single": rate_over(right.mean(1)),
        "single_shape": rate_over(shape_right.mean(1)),
        "single_colour": rate_over(_flags(judged % colours == wanted % colours).mean(1)),
        "best": rate_over(best_right),
        "best_less_single": bootstrap(best_right - right.mean(1)),
        "doubt_single": bootstrap(doubt.mean(1)),
        "doubt_best": bootstrap(best_doubt),
        "doubt_single_less_best": bootstrap(doubt.mean(1) - best_doubt),
        "single_by_classifier": rate_over(_flags(ranked.argmax(2) == wanted).mean(1)),
        "critics_agree": round(float((ranked.argmax(2) == judged).float().mean()), 4),
        "single_of_shape": {
            shape: round(float(right[asked_shapes == row].mean()), 4)
            for row, shape in enumerate(SHAPES)
            if (asked_shapes == row).any()
        },
    }


def _held_out(
    critics: dict[str, nn.Module], coder: AutoencoderKL, pictures: dataset.Pictures
) -> Rates:
    count = len(pictures.labels)
    rates: Rates = {"pictures": count}
    for name, critic in critics.items():
        rate = judge.accuracy(critic, pictures)
        rates[name] = {"mean": round(rate, 4), "interval": wilson(rate, count)}
    rates["vae_psnr_db"] = round(vae.psnr(coder, dataset.pixels(pictures.images[:1000])), 2)
    return rates


def _speed(pipeline: StableDiffusionPipeline) -> Rates:
    """Seconds of one warm call, the fastest of five, with the threads PyTorch has."""
    seconds = {}
    for batch in (1, 4):
        trials = [_seconds_of(pipeline, batch) for _ in range(6)]
        seconds[f"batch_{batch}"] = round(min(trials[1:]), 3)
    return {"threads": torch.get_num_threads(), "seconds": seconds}


def _seconds_of(pipeline: StableDiffusionPipeline, batch: int) -> float:
    began = time.perf_counter()
    generate(pipeline, ["a red star"] * batch, 0, SAMPLING_STEPS, GUIDANCE)
    return time.perf_counter() - began


def _flags(values: Tensor) -> Flags:
    return values.double().numpy()
