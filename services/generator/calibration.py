"""What a U-Net is really shown: the looks of a few pictures on their way, to read ranges off.

Ranges of activations follow the timestep, the text and guidance (Q-Diffusion: Li et al., 2023,
arXiv 2302.04304), so the looks are those of whole runs from noise to picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch

from services.core.reference import ModelFiles
from services.generator.diffusion import DENOISE, ENCODE
from services.generator.model import GeneratorModel
from services.generator.network import Look, Network
from services.generator.request import LongPrompt, Wish, resolve

# Whoever changes what is asked below counts this up: what was made by another is not found then.
RECIPE: Final = "1"
STEPS: Final = 8
_ASKED: Final = (
    ("a red star on a blue background", 5.0),
    ("a photograph of an old sailor with a pipe, sharp, in evening light", 5.0),
    ("a green circle", 5.0),
    ("a watercolour of mountains behind a lake", 5.0),
    ("a yellow heart on a black background", 1.0),
    ("", 1.0),
)
WISHES: Final = tuple(
    Wish(
        prompt=prompt,
        guidance_scale=guidance_scale,
        steps=STEPS,
        seed=seed,
        long_prompt=LongPrompt.TRUNCATE,
    )
    for seed, (prompt, guidance_scale) in enumerate(_ASKED)
)


class _Watched:
    """A network whose looks are written down."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.looks: list[Look] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def predict(self, look: Look) -> torch.Tensor:
        self.looks.append(look)
        return self._network.predict(look)


def looks(network: Network, wishes: Sequence[Wish] = WISHES) -> list[Look]:
    """Every look at the pictures of ``wishes``, in the network's own size: of two rows where there
    is guidance, else of one. Blocking.
    """
    watched = _Watched(network)
    model = GeneratorModel(
        lambda: ModelFiles("calibration", "1", Path(), "sha256:00"),
        lambda _directory: cast(Network, watched),
    )
    model.load()
    for wish in wishes:
        _paint(model, wish)
    model.close()
    return watched.looks


def _paint(model: GeneratorModel, wish: Wish) -> None:
    [work] = model.works(resolve(wish, model.limits, draw_seed=int))
    for stage in model.plan(work):
        if stage.name in (ENCODE, DENOISE):
            for _ in range(stage.steps):
                model.step(stage, [work])
