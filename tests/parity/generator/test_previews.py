"""The fast previews' projection against what the decoder really makes of the same latents."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from models import DEMO_GENERATOR
from models.recipe.dataset import FIRST_SEED, render
from services.generator.preview import LatentProjection
from tests.parity.generator.pair import REFERENCE

PICTURES = 16
EXPLAINED = 0.85
"""Of the decoder's colours. A matrix that was fitted to these very latents explains 0.90."""


@torch.inference_mode()
def test_the_projection_tells_the_colours_that_the_decoder_makes() -> None:
    network = REFERENCE(DEMO_GENERATOR)
    first = FIRST_SEED["held_out"]
    scenes = np.stack(list(render(range(first, first + PICTURES))[0]))
    levels = torch.from_numpy(scenes).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = network.posterior(levels).mean

    shown = np.stack(LatentProjection.fit(network).apply(list(latents))).astype(float)

    height, width = latents.shape[2:]
    decoded = torch.from_numpy(network.decode(latents)).permute(0, 3, 1, 2).float()
    colours = adaptive_avg_pool2d(decoded, (height, width)).permute(0, 2, 3, 1).numpy()
    missed = ((shown - colours) ** 2).sum()
    assert 1 - missed / ((colours - colours.mean((0, 1, 2))) ** 2).sum() > EXPLAINED
