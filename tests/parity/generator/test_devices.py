"""The networks on a device that is not the processor: nothing is left behind on the other side, and
a step does not wait for the device in its middle. No GPU is needed: see ``tests/crossings.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.core.reference import ModelFiles
from services.generator import pytorch
from services.generator.adapters import AdapterUse
from services.generator.controls import ControlUse
from services.generator.diffusion import DECODE, PictureWork
from services.generator.image_adapter import ImageAdapterFolder, with_image_adapter
from services.generator.latents import LatentScale
from services.generator.model import AdapterFolder, ControlFolder, Defaults, GeneratorModel
from services.generator.modes import ImageToImage, Inpaint, MaskPolarity, Stylize
from services.generator.network import Pixels
from services.generator.pytorch import TorchNetwork
from services.generator.request import LongPrompt, Wish, resolve
from services.generator.samplers import Sampler
from tests.crossings import DEVICE, Crossings
from tests.parity.generator.adapters import random_lora, save_peft
from tests.parity.generator.controls import save_random_control
from tests.parity.generator.image_adapters import save_image_adapter
from tests.parity.generator.models import SMALL, SMALL_XL, save_random_pipeline
from tests.unit.generator.drive import rider
from tests.unit.generator.pictures import given, mask, picture

SIDE = 16
PLAIN = Wish(
    prompt="a (red:1.3) star",
    negative_prompt="blue",
    prompt_weighting=True,
    steps=3,
    guidance_scale=3.0,
    guidance_rescale=0.7,
    sampler=Sampler.EULER_ANCESTRAL,
    seed=3,
    width=SIDE,
    height=SIDE,
)
LARGE = given(picture(2 * SIDE, 2 * SIDE), "stylize.content")
WISHES = {
    "text": PLAIN,
    "windows": replace(PLAIN, prompt="star " * 80, long_prompt=LongPrompt.CHUNK),
    "image": replace(PLAIN, mode=ImageToImage(given(picture()), 0.7)),
    "inpaint": replace(
        PLAIN, mode=Inpaint(given(picture()), given(mask(), "mask"), MaskPolarity.WHITE, 0.7)
    ),
    "tiled": replace(
        PLAIN, mode=ImageToImage(given(picture()), 0.7), width=32, height=24, tiled=True
    ),
    "stylized": replace(PLAIN, mode=Stylize(LARGE, LARGE, 0.2, 0.9)),
    "adapted": replace(PLAIN, adapters=(AdapterUse("worn", 0.5),)),
    "steered": replace(
        PLAIN, controls=(ControlUse("edges", given(picture(), "controls[0].image")),)
    ),
    "cached": replace(PLAIN, steps=4, cache_interval=2),
}


@dataclass(frozen=True, kw_only=True)
class Unreadable(TorchNetwork):
    """On the device that nothing comes back from: pictures are black."""

    def decode(self, latents: torch.Tensor) -> Pixels:
        image = self.vae.decode(LatentScale.of(self.vae.config).to_decoder(latents)).sample
        assert image.device == DEVICE
        return np.zeros((len(image), *image.shape[2:], 3), np.uint8)


@dataclass(frozen=True)
class Elsewhere:
    root: Path
    sizes: dict[str, Any]

    def __post_init__(self) -> None:
        here = pytorch.load(
            save_random_pipeline(self.root / "model", self.sizes), device="cpu", precision="float32"
        )
        control = self.root / "controls" / "edges"
        save_random_control(control, here.unet, 1, factor=here.vae_factor)
        save_image_adapter(self.root / "pictured", here.unet)
        (self.root / "adapters").mkdir()
        lora = random_lora(here.unet, 1, 4)
        save_peft(self.root / "adapters" / "worn", lora, {"r": 4, "lora_alpha": 4})

    def model(self, *, pictured: bool = False) -> GeneratorModel:
        files = ModelFiles("elsewhere", "1", self.root / "model", "sha256:00")

        def load(directory: Path) -> TorchNetwork:
            network = pytorch.load(directory, device=DEVICE.type, precision="float32")
            if pictured:
                folder = ImageAdapterFolder(self.root / "pictured", ("all",))
                network = with_image_adapter(network, folder)
            return Unreadable(
                **{part.name: getattr(network, part.name) for part in fields(network)}
            )

        model = GeneratorModel(
            lambda: files,
            load,
            defaults=Defaults(20, 3.0),
            adapters=AdapterFolder(self.root / "adapters"),
            controls=ControlFolder(self.root / "controls"),
        )
        model.load()
        return model


# XL goes through all that 1.x goes through, and has more inputs.
@pytest.fixture(scope="module", params=[pytest.param("1.x", marks=pytest.mark.slow), "XL"])
def elsewhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Elsewhere:
    sizes = SMALL if request.param == "1.x" else SMALL_XL
    return Elsewhere(tmp_path_factory.mktemp("elsewhere"), sizes)


def denoised(model: GeneratorModel, works: Sequence[PictureWork]) -> Crossings:
    """What crossed on the way from prompts to clean latents, rows of one key together."""
    crossings = Crossings()
    riders = [rider(model, work) for work in works]
    while going := [each for each in riders if each.ahead[0].name != DECODE]:
        stage = going[0].ahead[0]
        batch = [each for each in going if each.ahead[0].key == stage.key]
        with crossings.watched():
            answers = model.step(stage, [each.work for each in batch])
        for each, answer in zip(batch, answers, strict=True):
            each.take(answer)
    return crossings


def works(model: GeneratorModel, *wishes: Wish) -> list[PictureWork]:
    orders = [resolve(wish, model.limits, draw_seed=int) for wish in wishes]
    return [work for order in orders for work in model.works(order)]


def check(crossings: Crossings) -> None:
    assert not crossings.mixed
    assert not crossings.waited
    assert crossings.copies > 0, "nothing was looked at"


def test_what_waits_and_what_mixes_is_noticed() -> None:
    here, there = torch.ones(3, 3), torch.empty(3, 3, device=DEVICE)
    crossings = Crossings()
    with crossings.watched():
        here.to(DEVICE)
        there[0] = here[0]
        torch.tensor([1, 2], device=DEVICE)
        there @ here
        here.to(DEVICE, non_blocking=True)
        there + here.sum()
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):
            there.cpu()
        with pytest.raises(RuntimeError, match="cannot be called on meta"):
            bool(there.isfinite().all())
    assert len(crossings.waited) == 3
    assert len(crossings.mixed) == 1
    assert crossings.copies == 4


@pytest.mark.parametrize("name", WISHES)
def test_a_picture_is_made_on_the_device_alone(elsewhere: Elsewhere, name: str) -> None:
    model = elsewhere.model()
    check(denoised(model, works(model, WISHES[name])))


def test_pictures_of_all_kinds_are_made_together_on_the_device(elsewhere: Elsewhere) -> None:
    model = elsewhere.model()
    check(denoised(model, works(model, *WISHES.values())))


def test_a_style_is_read_on_the_device(elsewhere: Elsewhere) -> None:
    model = elsewhere.model(pictured=True)
    check(denoised(model, works(model, WISHES["stylized"], WISHES["text"])))
