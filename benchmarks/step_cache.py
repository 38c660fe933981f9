"""What step caching saves and what it costs: the demo model's pictures with and without it.

Speed is a ratio of one run, both sides stepping the same batch; quality is the PSNR against the
uncached picture of the same prompt and seed, and whether the judge sees in it what was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.report import Entry, quick
from models import DEMO_GENERATOR
from models.recipe import captions
from services.core.engine import RowFailed
from services.core.reference import resolve as find
from services.generator import pytorch
from services.generator.diffusion import Picture, PictureWork
from services.generator.model import GeneratorModel
from services.generator.network import Pixels
from services.generator.request import Wish, resolve

COMMAND = "make bench-generator"
PROMPT_SEED = 74
PROMPTS = 24 if quick() else 240
STEPS = 20
BATCH = 8
INTERVALS = (2, 3, 5)

Judge = Callable[[list[Pixels]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Painted:
    pictures: list[Pixels]
    seconds: float


def entries(judge: Judge) -> list[Entry]:
    """``judge``: pictures to logits over the labels of ``captions.prompts``."""
    model = GeneratorModel(
        partial(find, str(DEMO_GENERATOR)),
        partial(pytorch.load, device="cpu", precision="float32"),
    )
    model.load()
    asked = captions.prompts(PROMPT_SEED)[:: 240 // PROMPTS]
    prompts, wanted = [prompt for prompt, _ in asked], np.array([label for _, label in asked])
    plain = painted(model, prompts, 1)
    found = [rate("without step caching", judge(plain.pictures), wanted)]
    for interval in INTERVALS:
        # The uncached side once more beside each, so that the ratio is of one moment.
        base = painted(model, prompts[: 2 * BATCH], 1).seconds
        beside = painted(model, prompts[: 2 * BATCH], interval).seconds
        cached = painted(model, prompts, interval)
        quality = [psnr(*pair) for pair in zip(plain.pictures, cached.pictures, strict=True)]
        name = f"cache_interval {interval}"
        found += [
            Entry(f"{name}, uncached / cached seconds", base / beside, "ratio", COMMAND),
            Entry(f"{name}, mean PSNR against uncached", float(np.mean(quality)), "dB", COMMAND),
            Entry(f"{name}, worst PSNR of {PROMPTS}", min(quality), "dB", COMMAND),
            rate(name, judge(cached.pictures), wanted),
        ]
    return found


def painted(model: GeneratorModel, prompts: Sequence[str], interval: int = 1) -> Painted:
    """One picture of each prompt; equal seeds at every call."""
    pictures: list[Pixels] = []
    started = time.perf_counter()
    for start in range(0, len(prompts), BATCH):
        wishes = [
            Wish(prompt=prompt, steps=STEPS, seed=start + index, cache_interval=interval)
            for index, prompt in enumerate(prompts[start : start + BATCH])
        ]
        works: list[PictureWork] = []
        for wish in wishes:
            works += model.works(resolve(wish, model.limits, draw_seed=int))
        pictures += _together(model, works)
    return Painted(pictures, time.perf_counter() - started)


def _together(model: GeneratorModel, works: Sequence[PictureWork]) -> list[Pixels]:
    """All of them by the first one's plan, which is everyone's."""
    answers: Sequence[object] = ()
    for stage in model.plan(works[0]):
        for _ in range(stage.steps):
            answers = model.step(stage, works)
    return [_pixels(answer) for answer in answers]


def _pixels(answer: object) -> Pixels:
    if isinstance(answer, RowFailed):
        raise answer.cause
    assert isinstance(answer, Picture), answer
    return answer.pixels


def psnr(one: Pixels, other: Pixels) -> float:
    """In dB; 100 where they are equal."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return min(100.0, 10.0 * float(np.log10(255.0**2 / error))) if error else 100.0


def rate(name: str, logits: np.ndarray, wanted: np.ndarray) -> Entry:
    share = float((logits.argmax(1) == wanted).mean())
    return Entry(f"{name}, the judge sees what was asked for", share, "share", COMMAND)
