"""Every layout of the step engine against the ``diffusers`` pipeline of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLImg2ImgPipeline

from services.generator import pytorch
from services.generator.layout import Family
from services.generator.modes import ImageToImage
from services.generator.request import Reproducibility
from services.generator.safety import load_checker
from services.generator.samplers import Sampler, scheduler_for
from tests.parity.generator.models import (
    FULL_XL,
    SMALL,
    SMALL_2,
    SMALL_2_ZERO_SNR,
    SMALL_SAMPLE,
    SMALL_XL,
    SMALL_XL_REFINER,
    save_random_checker,
    save_random_pipeline,
)
from tests.parity.generator.pair import TOLERANCE, WISHES, Pair, difference, pair, shared_pair
from tests.unit.generator.pictures import given, picture

LAYOUTS: dict[str, tuple[dict[str, Any], Family]] = {
    "1.x": (SMALL, Family.SD1),
    "2.x": (SMALL_2, Family.SD2),
    "2.x zero-SNR": (SMALL_2_ZERO_SNR, Family.SD2),
    "sample prediction": (SMALL_SAMPLE, Family.SD1),
    "XL": (SMALL_XL, Family.SDXL),
    "XL, v-prediction": ({**SMALL_XL, "scheduler": SMALL_2["scheduler"]}, Family.SDXL),
    "XL zero-SNR": ({**SMALL_XL, "scheduler": SMALL_2_ZERO_SNR["scheduler"]}, Family.SDXL),
    "XL, empty text encoded": (
        {**SMALL_XL, "index": {"force_zeros_for_empty_prompt": False}},
        Family.SDXL,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    sizes, family = LAYOUTS[request.param]
    both = pair(save_random_pipeline(tmp_path_factory.mktemp("layout"), sizes))
    assert both.model.loaded.network.layout.family is family
    return both


def test_each_sampler_in_one_mixed_batch(layout: Pair) -> None:
    usable = layout.model.limits.samplers
    wishes = [wish for sampler, wish in WISHES.items() if sampler in usable]
    assert len(wishes) >= 5
    for wish, ours in zip(wishes, layout.ours(*wishes), strict=True):
        assert difference(ours, layout.theirs(wish)) <= TOLERANCE, wish.sampler


def test_alone(layout: Pair) -> None:
    wish = WISHES[Sampler.DDIM]
    for scale in (1.0, 4.0):
        asked = replace(wish, guidance_scale=scale, width=24, height=32)
        assert difference(layout.ours(asked)[0], layout.theirs(asked)) <= TOLERANCE


@pytest.mark.parametrize("sizes", [SMALL_XL, SMALL_XL_REFINER], ids=["base", "refiner"])
def test_xl_paints_on_given_pictures_as_its_own_pipeline(
    tmp_path: Path, sizes: dict[str, Any]
) -> None:
    directory = save_random_pipeline(tmp_path, sizes)
    both = pair(directory)
    kind: Any = StableDiffusionXLImg2ImgPipeline
    pipeline = kind.from_pretrained(directory, dtype=torch.float32, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    modes = [ImageToImage(given(picture(16, 16, seed=each)), 0.4 + 0.2 * each) for each in range(3)]
    chosen = (Sampler.EULER, Sampler.DDIM, Sampler.DPMPP_2M_KARRAS)
    wishes = [replace(WISHES[each], mode=mode) for each, mode in zip(chosen, modes, strict=True)]
    for wish, mode, ours in zip(wishes, modes, both.ours(*wishes), strict=True):
        pipeline.scheduler = scheduler_for(both.order(wish).sampler, both.scheduler_config)
        made = pipeline(
            wish.prompt,
            image=mode.image.load(),
            strength=mode.strength,
            negative_prompt=wish.negative_prompt or None,
            num_inference_steps=wish.steps,
            guidance_scale=wish.guidance_scale,
            guidance_rescale=wish.guidance_rescale,
            generator=[torch.Generator().manual_seed(wish.seed or 0)],
        )
        assert difference(ours, np.asarray(made.images[0])) <= TOLERANCE


def test_an_exact_picture_of_xl_is_the_same_in_company(tmp_path: Path) -> None:
    both = pair(save_random_pipeline(tmp_path, SMALL_XL))
    exact = replace(WISHES[Sampler.EULER], reproducibility=Reproducibility.EXACT)
    alone = both.ours(exact)[0]
    _, together, _ = both.ours(WISHES[Sampler.DDIM], exact, WISHES[Sampler.UNIPC])
    assert np.array_equal(alone, together)


def test_an_autoencoder_that_overflows_in_float16_runs_in_float32(tmp_path: Path) -> None:
    upcast, plain = SMALL_XL, {**SMALL_XL, "vae": SMALL["vae"] | {"force_upcast": False}}
    for name, sizes, kept in (("upcast", upcast, torch.float32), ("plain", plain, torch.float16)):
        directory = save_random_pipeline(tmp_path / name, sizes)
        network = pytorch.load(directory, device="cpu", precision="float16")
        assert (network.vae.dtype, network.unet.dtype) == (kept, torch.float16)
        assert network.effective.precision == "float16"


def test_what_the_safety_checker_flags_is_what_the_pipeline_flags(tmp_path: Path) -> None:
    directory = save_random_checker(save_random_pipeline(tmp_path, SMALL))
    kind: Any = StableDiffusionPipeline
    pipeline = kind.from_pretrained(directory, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    checker = load_checker(directory, torch.device("cpu"))
    assert checker is not None
    both = pair(directory)
    flags = []
    for wish in WISHES.values():
        pipeline.scheduler = scheduler_for(both.order(wish).sampler, both.scheduler_config)
        _, flagged = pipeline(
            wish.prompt,
            negative_prompt=wish.negative_prompt,
            num_inference_steps=wish.steps,
            guidance_scale=wish.guidance_scale,
            guidance_rescale=wish.guidance_rescale,
            generator=torch.Generator().manual_seed(wish.seed or 0),
            return_dict=False,
        )
        flags += flagged
    ours = [checker.reasons(pixels[None])[0] for pixels in both.ours(*WISHES.values())]
    assert [reason is not None for reason in ours] == flags
    assert set(flags) == {True, False}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_full_xl(tmp_path_factory: pytest.TempPathFactory) -> None:
    both = shared_pair(save_random_pipeline(tmp_path_factory.mktemp("full-xl"), FULL_XL))
    chosen = (Sampler.EULER, Sampler.DPMPP_2M_KARRAS, Sampler.UNIPC)
    wishes = [replace(WISHES[sampler], steps=2) for sampler in chosen]
    for wish, ours in zip(wishes, both.ours(*wishes), strict=True):
        assert difference(ours, both.theirs(wish)) <= TOLERANCE
