"""Trials with a known truth: scores come out of noise as the steps go on."""

from __future__ import annotations

import numpy as np

from ranker.pictures.pruning.trials import Trials

STEPS = 20
CHECKPOINTS = (4, 8, 12, 16)
# Standard deviation of a score about the final one, whose own is 1.
NOISE = (30.0, 2.0, 0.7, 0.2)


def drawn(prompts: int = 40, candidates: int = 8, seed: int = 0) -> Trials:
    draw = np.random.default_rng(seed)
    final = draw.standard_normal((prompts, candidates))
    noise = draw.standard_normal((prompts, candidates, len(CHECKPOINTS))) * NOISE
    return Trials(STEPS, CHECKPOINTS, final[:, :, None] + noise, final, final)
