"""How far apart one picture is alone and in a batch, by the precision that a GPU computes in.

Libraries choose their kernels by the shape of a batch, and with them the order of their sums; what
comes of it after all steps is what the tier ``close`` promises to be within 2 of 255.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.gpu_steps import model_of, works_of
from benchmarks.gpu_subject import COMMAND, Size
from benchmarks.report import Entry
from services.generator import pytorch
from services.generator.diffusion import Picture
from services.generator.model import GeneratorModel
from services.generator.network import Pixels

PRECISIONS: Final = ("float16", "bfloat16")
_OTHERS: Final = 7


def entries(directory: Path, size: Size, device: torch.device) -> list[Entry]:
    found: list[Entry] = []
    for precision in PRECISIONS:
        network = pytorch.load(directory, device=str(device), precision=precision)
        model = model_of(directory, network)
        alone = painted(model, size, 0).astype(int)
        apart = np.abs(painted(model, size, _OTHERS) - alone)
        what = f"{size.name}, {precision}, one picture alone and among {_OTHERS + 1}"
        found += [
            Entry(f"{what}, largest difference", float(apart.max()), "of 255", COMMAND),
            Entry(f"{what}, mean difference", float(apart.mean()), "of 255", COMMAND),
        ]
    return found


def painted(model: GeneratorModel, size: Size, others: int) -> Pixels:
    """The first picture of a batch."""
    works = [
        work for seed in range(1 + others) for work in works_of(model, seed=seed, steps=size.steps)
    ]
    for stage in model.plan(works[0]):
        for _ in range(stage.steps):
            [answer, *_] = model.step(stage, works)
    assert isinstance(answer, Picture)
    assert answer.pixels.std() > 1, "nothing is painted, so nothing is compared"
    return answer.pixels
