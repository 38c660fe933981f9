"""Pictures from the device: those of the processor, alone and in company."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from services.core.reference import ModelFiles
from services.generator import pytorch
from services.generator.adapters import AdapterUse
from services.generator.controls import ControlUse
from services.generator.diffusion import Picture
from services.generator.model import Defaults, GeneratorModel
from services.generator.modes import ImageToImage, Inpaint, MaskPolarity, Stylize
from services.generator.pipelines import PipelineModel, load_pipeline
from services.generator.request import PreviewMethod, PreviewWish, Wish, resolve
from services.generator.samplers import Sampler
from tests.gpu.painting import (
    LAYOUTS,
    LEAST_PSNR,
    MOST_LEVELS,
    Gallery,
    assert_alike,
    finals,
    levels_apart,
    painted,
    psnr,
)
from tests.parity.generator.company import SUBJECT, assert_close, assert_exact, works
from tests.parity.generator.families import save_sd3
from tests.parity.generator.models import SMALL_XL, save_random_pipeline
from tests.unit.generator.pictures import given, mask, picture

CPU = torch.device("cpu")
PLAIN = Wish(prompt="a red star", steps=4, guidance_scale=3.0, seed=3)
SAMPLERS = (Sampler.DDIM, Sampler.EULER_ANCESTRAL, Sampler.DPMPP_2M, Sampler.HEUN)
STYLE = given(picture(seed=5), "stylize.style")
WISHES = [
    *(
        replace(
            PLAIN,
            negative_prompt="a blue circle" if index % 2 else "",
            guidance_scale=3.0 if index % 2 else 1.0,
            steps=4 + index % 3,
            sampler=sampler,
            seed=index,
        )
        for index, sampler in enumerate(SAMPLERS)
    ),
    replace(PLAIN, mode=ImageToImage(given(picture()), 0.7), seed=4),
    replace(
        PLAIN,
        mode=Inpaint(given(picture()), given(mask(), "mask"), MaskPolarity.WHITE, 0.9),
        seed=5,
    ),
    replace(PLAIN, mode=Stylize(given(picture(), "stylize.content"), STYLE, 0.2, 0.9), seed=6),
    replace(PLAIN, adapters=(AdapterUse("worn", 0.8),), seed=7),
    replace(PLAIN, controls=(ControlUse("edges", given(picture(), "controls[0].image")),), seed=8),
    replace(PLAIN, cache_interval=2, seed=9),
    replace(PLAIN, prompt="a (red:1.3) [star]", prompt_weighting=True, seed=10),
]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("gallery"))


def cases(*quick: tuple[str, str]) -> list[Any]:
    """Device, layout and precision: on the processor those of ``quick``, the rest takes long."""
    every = list(itertools.product(LAYOUTS, LEAST_PSNR))
    slow = {each: () if each in quick else pytest.mark.slow for each in every}
    return [
        *(pytest.param("cpu", *each, marks=slow[each]) for each in every),
        *(pytest.param("cuda:0", *each, marks=pytest.mark.gpu) for each in every),
    ]


def on(*quick: tuple[str, str]) -> pytest.MarkDecorator:
    names = ("device", "layout", "precision")
    return pytest.mark.parametrize(names, cases(*quick), indirect=["device"])


@on(("1.x", "bfloat16"), ("XL", "float32"))
def test_a_mixed_company_is_painted_as_on_the_processor(
    gallery: Gallery, device: torch.device, layout: str, precision: str
) -> None:
    expected = finals(gallery.model(layout, CPU, "float32"), *WISHES)
    found = finals(gallery.model(layout, device, precision), *WISHES)
    assert_alike(found, expected, LEAST_PSNR[precision])
    if precision == "float32":
        apart = [levels_apart(*each) for each in zip(found, expected, strict=True)]
        assert max(apart) <= MOST_LEVELS


@on()
def test_a_picture_alone_is_the_one_in_a_mixed_company(
    gallery: Gallery, device: torch.device, layout: str, precision: str
) -> None:
    model = gallery.model(layout, device, precision)
    together = finals(model, *WISHES)
    for wish, mixed in zip(WISHES, together, strict=True):
        [alone] = finals(model, wish)
        if device.type == "cuda" and precision == "bfloat16":
            assert psnr(alone, mixed) >= LEAST_PSNR[precision]
        else:
            assert levels_apart(alone, mixed) <= MOST_LEVELS


# On the processor these are tests/parity/generator/test_reproducible.py.
@pytest.mark.parametrize("layout", ["1.x", "demo"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_close_pictures_stay_close_in_any_company(
    gallery: Gallery, gpu: torch.device, layout: str, precision: str
) -> None:
    assert_close(gallery.model(layout, gpu, precision), SUBJECT)


@pytest.mark.parametrize("layout", ["1.x", "demo"])
@pytest.mark.parametrize("precision", LEAST_PSNR)
def test_exact_pictures_keep_every_byte_in_any_company(
    gallery: Gallery, gpu: torch.device, layout: str, precision: str
) -> None:
    assert_exact(gallery.model(layout, gpu, precision), SUBJECT)


def test_noise_is_the_processors(gallery: Gallery, device: torch.device) -> None:
    model = gallery.model("1.x", device, "bfloat16")
    wish = replace(PLAIN, sampler=Sampler.EULER_ANCESTRAL)
    there, here = (works(model, wish)[0] for _ in range(2))
    there.begin(device)
    here.begin(CPU)
    for _ in range(2):
        assert there.basis is not None
        assert here.basis is not None
        assert there.basis.device == device
        assert torch.equal(there.basis[0].cpu(), here.basis[0])
        # A GPU's sums of products differ from a processor's in the last digit.
        assert torch.allclose(there.view().cpu(), here.view(), rtol=1e-5, atol=1e-6)
        for work, side in ((there, device), (here, CPU)):
            work.advance(torch.zeros(work.latent_shape, dtype=torch.float32, device=side))


@pytest.mark.parametrize("method", PreviewMethod)
def test_previews_are_the_processors(
    gallery: Gallery, device: torch.device, method: PreviewMethod
) -> None:
    preview = PreviewWish(at_steps=(1, 3), method=method)
    wishes = [replace(PLAIN, seed=seed, preview=preview) for seed in range(3)]
    expected = painted(gallery.model("demo", CPU, "float32"), *wishes)
    found = painted(gallery.model("demo", device, "float32"), *wishes)
    for ours, theirs in zip(found, expected, strict=True):
        assert [each.step for each in ours] == [1, 3, 4]
        for one, other in zip(ours, theirs, strict=True):
            assert levels_apart(one.pixels, other.pixels) <= MOST_LEVELS


def test_tiles_are_the_processors(gallery: Gallery, device: torch.device) -> None:
    wish = replace(PLAIN, width=32, height=24, tiled=True)
    expected = finals(gallery.model("1.x", CPU, "float32"), wish)
    [found] = finals(gallery.model("1.x", device, "float32"), wish)
    assert levels_apart(found, expected[0]) <= MOST_LEVELS


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_an_autoencoder_beyond_float16_paints_all_the_same(
    device: torch.device, told: bool, tmp_path: Path
) -> None:
    directory = save_random_pipeline(tmp_path / "model", SMALL_XL)
    config = directory / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": told}))
    file = directory / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    # What the first layer makes is beyond 65504, its weights are not; norms behind it take it back.
    first = weights["decoder.conv_in.weight"]
    first *= 6e4 / first.abs().max()
    save_file(weights, file, {"format": "pt"})

    def model(where: torch.device, precision: str) -> GeneratorModel:
        made = GeneratorModel(
            lambda: ModelFiles("overflows", "1", directory, "sha256:00"),
            lambda found: pytorch.load(found, device=str(where), precision=precision),
            defaults=Defaults(20, 3.0),
        )
        made.load()
        return made

    [expected] = finals(model(CPU, "float32"), PLAIN)
    [found] = finals(model(device, "float16"), PLAIN)
    assert expected.std() > 1
    assert psnr(found, expected) >= LEAST_PSNR["float16"]


def test_a_whole_pipeline_paints_as_on_the_processor(device: torch.device, tmp_path: Path) -> None:
    directory = save_sd3(tmp_path / "sd3")

    def one(where: torch.device) -> Picture:
        model = PipelineModel(
            lambda: ModelFiles("sd3", "1", directory, "sha256:00"),
            lambda found: load_pipeline(found, device=str(where), precision="float32"),
        )
        model.load()
        [work] = model.works(resolve(PLAIN, model.limits, draw_seed=int))
        for stage in model.plan(work):
            for _ in range(stage.steps):
                [answer] = model.step(stage, [work])
        assert isinstance(answer, Picture)
        return answer

    found, expected = one(device), one(CPU)
    assert np.std(expected.pixels) > 1
    assert levels_apart(found.pixels, expected.pixels) <= MOST_LEVELS
