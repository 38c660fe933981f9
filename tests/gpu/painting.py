"""Generators on a device, beside the same ones on the processor in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from models import DEMO_GENERATOR
from services.core.reference import ModelFiles
from services.generator import pytorch
from services.generator.diffusion import Picture
from services.generator.model import (
    AdapterFolder,
    Bounds,
    ControlFolder,
    Defaults,
    GeneratorModel,
)
from services.generator.network import Pixels
from services.generator.pytorch import TorchNetwork
from services.generator.request import Wish
from tests.parity.generator.adapters import random_lora, save_peft
from tests.parity.generator.company import works
from tests.parity.generator.controls import save_random_control
from tests.parity.generator.models import SMALL, SMALL_2, SMALL_XL, save_random_pipeline
from tests.unit.generator.drive import drive

LAYOUTS: Final[dict[str, dict[str, Any] | None]] = {
    "demo": None,
    "1.x": SMALL,
    "2.x": SMALL_2,
    "XL": SMALL_XL,
}
LEAST_PSNR: Final = {"float32": 54.0, "float16": 48.0, "bfloat16": 36.0}
"""In dB against float32 on the processor; on a processor the worst picture of these tests has 57 in
float16 and 43 in bfloat16."""
MOST_LEVELS: Final = 2
"""Of 255: how far apart two pictures are that are to be the same."""


@dataclass(frozen=True)
class Gallery:
    """Models of all layouts under ``root``, each saved once, with an adapter ``worn`` and a control
    ``edges`` in the folders beside it.
    """

    root: Path

    def model(self, layout: str, device: torch.device, precision: str) -> GeneratorModel:
        model = self.unloaded(
            layout, partial(pytorch.load, device=str(device), precision=precision)
        )
        model.load()
        return model

    def unloaded(
        self, layout: str, load: Callable[[Path], TorchNetwork], *, most_pixels: int | None = None
    ) -> GeneratorModel:
        folder = self._saved(layout)
        return GeneratorModel(
            lambda: ModelFiles(layout, "1", self._directory(layout), "sha256:00"),
            load,
            defaults=Defaults(20, 3.0),
            bounds=Bounds(max_pixels=most_pixels),
            adapters=AdapterFolder(folder / "adapters"),
            controls=ControlFolder(folder / "controls"),
            warm_up_seconds=0.0,
        )

    def _directory(self, layout: str) -> Path:
        return DEMO_GENERATOR if LAYOUTS[layout] is None else self.root / layout / "model"

    def _saved(self, layout: str) -> Path:
        folder, sizes = self.root / layout, LAYOUTS[layout]
        if not folder.exists():
            (folder / "adapters").mkdir(parents=True)
            if sizes is not None:
                save_random_pipeline(folder / "model", sizes)
            network = pytorch.load(self._directory(layout), device="cpu", precision="float32")
            control = folder / "controls" / "edges"
            save_random_control(control, network.unet, 1, factor=network.vae_factor)
            lora = random_lora(network.unet, 1, 4)
            save_peft(folder / "adapters" / "worn", lora, {"r": 4, "lora_alpha": 4})
        return folder


def network_of(model: GeneratorModel) -> TorchNetwork:
    found = model.loaded.network
    assert isinstance(found, TorchNetwork)
    return found


def painted(model: GeneratorModel, *wishes: Wish) -> list[list[Picture]]:
    """All that each wish puts out, in one company, the final picture last."""
    return drive(model, works(model, *wishes))


def finals(model: GeneratorModel, *wishes: Wish) -> list[Pixels]:
    return [shown[-1].pixels for shown in painted(model, *wishes)]


def psnr(one: Pixels, other: Pixels) -> float:
    """In dB; infinite for equal pictures."""
    squares = (one.astype(np.float64) - other) ** 2
    with np.errstate(divide="ignore"):
        return float(10.0 * np.log10(255.0**2 / squares.mean()))


def levels_apart(one: Pixels, other: Pixels) -> int:
    """The largest of any channel of any pixel."""
    return int(np.abs(one.astype(int) - other).max())


def assert_alike(ours: Sequence[Pixels], theirs: Sequence[Pixels], least: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert other.std() > 1, "nothing is painted, so nothing is compared"
        assert psnr(one, other) >= least
