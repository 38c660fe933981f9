"""What bfloat16 and int8 cost in quality: the demo model's pictures against those in float32, and
int8's against bfloat16's.

The U-Net's error is that of looks at pictures which int8 was not calibrated on; pictures are
compared by PSNR, same prompt and seed, and by whether the judge sees what was asked for.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import Entry, quick
from benchmarks.step_cache import Judge, painted, psnr, rate
from models import DEMO_GENERATOR
from models.recipe import captions
from services.core.artifacts import ArtifactStore
from services.core.reference import resolve as find
from services.generator import backends, calibration
from services.generator.backends import Host, Wanted
from services.generator.model import GeneratorModel
from services.generator.network import Look, Network, Pixels
from services.generator.request import Wish

COMMAND = "make bench-generator"
PROMPT_SEED = 75
PROMPTS = 24 if quick() else 240
LOOKED_AT = 4
FIRST_SEED = 9000


def entries(judge: Judge) -> list[Entry]:
    """``judge``: pictures to logits over the labels of ``captions.prompts``."""
    asked = captions.prompts(PROMPT_SEED)[:: 240 // PROMPTS]
    prompts, wanted = [prompt for prompt, _ in asked], np.array([label for _, label in asked])
    with tempfile.TemporaryDirectory() as scratch:
        store = ArtifactStore(Path(scratch))
        reference = _model("float32", store)
        looks = calibration.looks(reference.loaded.network, _held_out(prompts))
        plain = painted(reference, prompts).pictures
        found = [rate("demo in float32", judge(plain), wanted)]
        # What int8 is compared with too, where the processor computes in it.
        half: list[Pixels] = []
        for precision in ("bfloat16", "int8"):
            if precision == "bfloat16" and not Host.here().bfloat16:
                continue
            model = _model(precision, store)
            pictures = painted(model, prompts).pictures
            name = f"demo in {precision}"
            error = _error(model.loaded.network, reference.loaded.network, looks)
            found += [
                Entry(f"{name}, relative error of the U-Net", error, "ratio", COMMAND),
                *_near(name, "float32", pictures, plain),
                *(_near(name, "bfloat16", pictures, half) if half else []),
                rate(name, judge(pictures), wanted),
            ]
            if precision == "bfloat16":
                half = pictures
    return found


def _near(
    name: str, other: str, pictures: Sequence[Pixels], others: Sequence[Pixels]
) -> list[Entry]:
    near = [psnr(*pair) for pair in zip(others, pictures, strict=True)]
    mean, worst = float(np.mean(near)), min(near)
    return [
        Entry(f"{name}, mean PSNR against {other}", mean, "dB", COMMAND),
        Entry(f"{name}, worst PSNR of {PROMPTS} against {other}", worst, "dB", COMMAND),
    ]


def _model(precision: str, store: ArtifactStore) -> GeneratorModel:
    wanted = Wanted(backend="openvino", device="cpu", precision=precision)
    model = GeneratorModel(
        partial(find, str(DEMO_GENERATOR)), partial(backends.load, wanted=wanted, store=store)
    )
    model.load()
    return model


def _held_out(prompts: list[str]) -> list[Wish]:
    chosen = prompts[:: len(prompts) // LOOKED_AT][:LOOKED_AT]
    return [
        Wish(prompt=prompt, steps=20, seed=FIRST_SEED + index)
        for index, prompt in enumerate(chosen)
    ]


def _error(network: Network, reference: Network, looks: list[Look]) -> float:
    with torch.inference_mode():
        pairs = [(network.predict(look), reference.predict(look)) for look in looks]
    return statistics.mean(float((ours - exact).norm() / exact.norm()) for ours, exact in pairs)
