"""Pictures made from given pictures, against diffusers' pipelines with the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline

from models import DEMO_GENERATOR
from services.generator.modes import ImageToImage
from services.generator.network import Pixels
from services.generator.request import Wish
from services.generator.samplers import Sampler, scheduler_for
from tests.parity.generator.models import SMALL, save_random_pipeline
from tests.parity.generator.pair import TOLERANCE, Pair, difference, pair
from tests.unit.generator.pictures import given, picture

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


def theirs(both: Pair, wish: Wish) -> Pixels:
    assert isinstance(wish.mode, ImageToImage)
    order = both.order(wish)
    kind: Any = StableDiffusionImg2ImgPipeline
    pipeline = kind(**both.pipeline.components, requires_safety_checker=False)
    pipeline.scheduler = scheduler_for(order.sampler, both.scheduler_config)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        order.prompt,
        image=wish.mode.image.load(),
        strength=wish.mode.strength,
        negative_prompt=order.negative_prompt,
        num_inference_steps=order.steps,
        guidance_scale=order.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(order.seeds[0])],
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
