"""Our rows against ``StableDiffusionPipeline`` run alone: same inputs, seed and sampler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from models import DEMO_GENERATOR
from services.core.reference import ModelFiles
from services.generator import pytorch
from services.generator.model import Defaults, GeneratorModel
from services.generator.network import Pixels
from services.generator.request import Order, Wish, resolve
from services.generator.samplers import Sampler, scheduler_for
from tests.parity.generator.models import FULL, SMALL, save_random_pipeline
from tests.unit.generator.drive import drive

TOLERANCE = 2
WISHES = {
    sampler: Wish(
        prompt="a red star on a white background",
        negative_prompt="a blue circle" if index % 2 else "",
        steps=5 + index % 4,
        guidance_scale=1.0 if index % 3 == 0 else 3.0,
        guidance_rescale=0.7 if index % 4 == 2 else 0.0,
        sampler=sampler,
        seed=40 + index,
    )
    for index, sampler in enumerate(Sampler)
}


@dataclass(frozen=True)
class Pair:
    """One model, in both hands."""

    model: GeneratorModel
    pipeline: Any
    scheduler_config: dict[str, Any]

    def order(self, wish: Wish) -> Order:
        return resolve(wish, self.model.limits, draw_seed=int)

    def ours(self, *wishes: Wish) -> list[Pixels]:
        works = [work for wish in wishes for work in self.model.works(self.order(wish))]
        return [shown[-1].pixels for shown in drive(self.model, works)]

    def theirs(self, wish: Wish) -> Pixels:
        order = self.order(wish)
        self.pipeline.scheduler = scheduler_for(order.sampler, self.scheduler_config)
        made = self.pipeline(
            order.prompt,
            negative_prompt=order.negative_prompt,
            width=order.width,
            height=order.height,
            num_inference_steps=order.steps,
            guidance_scale=order.guidance_scale,
            guidance_rescale=order.guidance_rescale,
            generator=[torch.Generator("cpu").manual_seed(order.seeds[0])],
        )
        return np.asarray(made.images[0])


def pair(directory: Path) -> Pair:
    files = ModelFiles("parity", "1", directory, "sha256:00")
    load = partial(pytorch.load, device="cpu", precision="float32")
    model = GeneratorModel(lambda: files, load, defaults=Defaults(20, 3.0))
    model.load()
    kind: Any = StableDiffusionPipeline
    pipeline = kind.from_pretrained(
        directory, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return Pair(model, pipeline, dict(pipeline.scheduler.config))


def difference(ours: Pixels, theirs: Pixels) -> int:
    assert ours.shape == theirs.shape
    assert theirs.std() > 1, "nothing is painted, so nothing is compared"
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())


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


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(save_random_pipeline(tmp_path_factory.mktemp("full"), FULL))


@pytest.mark.parametrize("sampler", Sampler)
def test_small_random_model(small: Pair, sampler: Sampler) -> None:
    wish = WISHES[sampler]
    assert difference(small.ours(wish)[0], small.theirs(wish)) <= TOLERANCE


def test_small_random_model_in_one_mixed_batch(small: Pair) -> None:
    for wish, ours in zip(WISHES.values(), small.ours(*WISHES.values()), strict=True):
        assert difference(ours, small.theirs(wish)) <= TOLERANCE


def test_the_weights_are_counted_once(small: Pair) -> None:
    network = small.model.loaded.network
    assert network.effective is network.effective
    parts = (small.pipeline.unet, small.pipeline.vae, small.pipeline.text_encoder)
    assert network.effective.parameters == sum(part.num_parameters() for part in parts)


def test_another_size(small: Pair) -> None:
    wish = replace(WISHES[Sampler.UNIPC], width=24, height=16)
    assert difference(small.ours(wish)[0], small.theirs(wish)) <= TOLERANCE


@pytest.mark.parametrize("sampler", Sampler)
def test_demo_model(demo: Pair, sampler: Sampler) -> None:
    wish = WISHES[sampler]
    assert difference(demo.ours(wish)[0], demo.theirs(wish)) <= TOLERANCE


def test_demo_model_in_one_mixed_batch(demo: Pair) -> None:
    alone = [demo.ours(wish)[0] for wish in WISHES.values()]
    for one, mixed in zip(alone, demo.ours(*WISHES.values()), strict=True):
        assert difference(mixed, one) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_full_architecture(full: Pair) -> None:
    wishes = [replace(wish, steps=3) for wish in WISHES.values()]
    for wish, ours in zip(wishes, full.ours(*wishes), strict=True):
        assert difference(ours, full.theirs(wish)) <= TOLERANCE
