"""Pictures made from given pictures, against diffusers' pipelines with the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
)

from models import DEMO_GENERATOR
from services.generator.modes import TEXT_TO_IMAGE, ImageToImage, Inpaint, MaskPolarity
from services.generator.network import Pixels
from services.generator.request import Wish
from services.generator.samplers import Sampler, scheduler_for
from tests.parity.generator.models import SMALL, SMALL_XL, save_random_pipeline, seeing_the_mask
from tests.parity.generator.pair import TOLERANCE, Pair, difference, pair
from tests.unit.generator.pictures import given, mask, picture

STRENGTHS = (0.3, 0.55, 0.8, 1.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(save_random_pipeline(tmp_path_factory.mktemp("small"), SMALL))


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(save_random_pipeline(tmp_path_factory.mktemp("nine"), seeing_the_mask(SMALL)))


@pytest.fixture(scope="module")
def nine_xl(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(save_random_pipeline(tmp_path_factory.mktemp("nine"), seeing_the_mask(SMALL_XL)))


@pytest.fixture(scope="module")
def demo() -> Pair:
    return pair(DEMO_GENERATOR)


def from_picture(side: int, index: int, sampler: Sampler) -> Wish:
    mode = ImageToImage(given(picture(side, side, seed=index)), STRENGTHS[index % 4])
    return Wish(
        mode=mode,
        prompt="a red star on a white background",
        negative_prompt="a blue circle" if index % 2 else "",
        steps=6 + index % 4,
        guidance_scale=1.0 if index % 3 == 0 else 3.0,
        sampler=sampler,
        seed=60 + index,
    )


def wishes(side: int) -> dict[Sampler, Wish]:
    return {sampler: from_picture(side, index, sampler) for index, sampler in enumerate(Sampler)}


def inpainting(side: int, index: int, sampler: Sampler, **options: Any) -> Wish:
    marks = mask(side, side, (side // 4, side // 8, side * 3 // 4, side * 7 // 8))
    mode = Inpaint(
        given(picture(side, side, seed=index)),
        given(marks, "mask"),
        MaskPolarity.WHITE,
        strength=options.pop("strength", STRENGTHS[(index + 3) % 4]),
        **options,
    )
    return replace(from_picture(side, index, sampler), mode=mode)


_LARGE: dict[Any, Any] = {
    StableDiffusionImg2ImgPipeline: StableDiffusionXLImg2ImgPipeline,
    StableDiffusionInpaintPipeline: StableDiffusionXLInpaintPipeline,
}


def theirs(both: Pair, wish: Wish) -> Pixels:
    order = both.order(wish)
    kind: Any = StableDiffusionImg2ImgPipeline
    options: dict[str, Any] = {}
    assert isinstance(wish.mode, ImageToImage | Inpaint)
    image = wish.mode.image.load()
    if isinstance(wish.mode, Inpaint):
        kind = StableDiffusionInpaintPipeline
        width, height = order.width or image.width, order.height or image.height
        options = {"mask_image": wish.mode.mask.load(), "width": width, "height": height}
        options["padding_mask_crop"] = wish.mode.padding_px
    safety: dict[str, Any] = {"requires_safety_checker": False}
    if both.model.loaded.network.layout.xl:
        kind, safety = _LARGE[kind], {"add_watermarker": False}
    pipeline = kind(**both.pipeline.components, **safety)
    pipeline.scheduler = scheduler_for(order.sampler, both.scheduler_config)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        order.prompt,
        image=image,
        strength=wish.mode.strength,
        negative_prompt=order.negative_prompt or None,
        num_inference_steps=order.steps,
        guidance_scale=order.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(order.seeds[0])],
        **options,
    )
    return np.asarray(made.images[0])


@pytest.mark.parametrize("sampler", Sampler)
def test_image_to_image_of_a_small_random_model(small: Pair, sampler: Sampler) -> None:
    wish = wishes(16)[sampler]
    assert difference(small.ours(wish)[0], theirs(small, wish)) <= TOLERANCE


@pytest.mark.parametrize("sampler", Sampler)
def test_image_to_image_of_the_demo_model(demo: Pair, sampler: Sampler) -> None:
    wish = wishes(64)[sampler]
    assert difference(demo.ours(wish)[0], theirs(demo, wish)) <= TOLERANCE


@pytest.mark.parametrize("sampler", Sampler)
def test_inpainting_of_a_small_random_model(small: Pair, sampler: Sampler) -> None:
    wish = inpainting(16, list(Sampler).index(sampler), sampler)
    assert difference(small.ours(wish)[0], theirs(small, wish)) <= TOLERANCE


@pytest.mark.parametrize("sampler", Sampler)
def test_inpainting_of_the_demo_model(demo: Pair, sampler: Sampler) -> None:
    wish = inpainting(64, list(Sampler).index(sampler), sampler)
    assert difference(demo.ours(wish)[0], theirs(demo, wish)) <= TOLERANCE


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("sampler", Sampler)
def test_inpainting_of_a_unet_that_sees_the_mask(
    nine: Pair, sampler: Sampler, strength: float
) -> None:
    wish = inpainting(16, list(Sampler).index(sampler), sampler, strength=strength)
    assert difference(nine.ours(wish)[0], theirs(nine, wish)) <= TOLERANCE


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("sampler", [Sampler.EULER, Sampler.DDIM, Sampler.DPMPP_2M_KARRAS])
def test_inpainting_of_an_xl_unet_that_sees_the_mask(
    nine_xl: Pair, sampler: Sampler, strength: float
) -> None:
    wish = inpainting(16, list(Sampler).index(sampler), sampler, strength=strength)
    assert difference(nine_xl.ours(wish)[0], theirs(nine_xl, wish)) <= TOLERANCE


@pytest.mark.parametrize("fixture", ["small", "demo", "nine", "nine_xl"])
def test_one_mixed_batch_of_all_modes(fixture: str, request: pytest.FixtureRequest) -> None:
    both: Pair = request.getfixturevalue(fixture)
    side = both.model.limits.default_width
    every = [
        wish
        for index, sampler in list(enumerate(Sampler))[::3]
        for wish in (
            from_picture(side, index, sampler),
            inpainting(side, index, sampler),
            replace(from_picture(side, index, sampler), mode=TEXT_TO_IMAGE),
        )
    ]
    for wish, mixed in zip(every, both.ours(*every), strict=True):
        assert difference(mixed, both.ours(wish)[0]) <= TOLERANCE


@pytest.mark.parametrize("padding_px", [0, 6])
@pytest.mark.parametrize("box", [(20, 14, 50, 44), (3, 2, 12, 40), (60, 30, 96, 34)])
def test_zoomed_inpainting_in_its_place(
    demo: Pair, box: tuple[int, int, int, int], padding_px: int
) -> None:
    marks, image = mask(97, 61, box), picture(97, 61, seed=5)
    mode = Inpaint(given(image), given(marks, "mask"), MaskPolarity.WHITE, padding_px=padding_px)
    wish = replace(from_picture(64, 1, Sampler.DDIM), mode=mode, width=64, height=64)
    assert difference(demo.placed(wish), theirs(demo, wish)) <= TOLERANCE


def test_tiles_are_close_to_the_whole(demo: Pair) -> None:
    """Each tile is normalised by itself, so that they cannot be equal; AutoencoderKL's own cannot
    either, and ours lie no farther from the whole.
    """
    wide = replace(wishes(64)[Sampler.DDIM], mode=TEXT_TO_IMAGE, width=128, height=96)
    whole = demo.ours(wide)[0].astype(int)
    tiled = demo.ours(replace(wide, tiled=True))[0].astype(int)
    vae = demo.pipeline.vae
    vae.enable_tiling()
    try:
        theirs_tiled = demo.theirs(wide).astype(int)
    finally:
        vae.disable_tiling()
    assert not np.array_equal(tiled, whole)
    assert np.abs(tiled - whole).mean() <= np.abs(theirs_tiled - whole).mean()


def test_one_tile_that_covers_all_is_the_whole(demo: Pair) -> None:
    wish = wishes(64)[Sampler.EULER]
    assert np.array_equal(demo.ours(wish)[0], demo.ours(replace(wish, tiled=True))[0])


def test_the_large_layout_begins_from_pictures_too(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    both = pair(save_random_pipeline(tmp_path_factory.mktemp("xl"), SMALL_XL))
    side = both.model.limits.default_width
    for index, sampler in enumerate((Sampler.EULER, Sampler.DPMPP_2M_SDE)):
        for wish in (from_picture(side, index, sampler), inpainting(side, index, sampler)):
            assert difference(both.ours(wish)[0], theirs(both, wish)) <= TOLERANCE
