"""Our rows against ``StableDiffusionPipeline`` run alone: same inputs, seed and sampler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from models import DEMO_GENERATOR
from services.generator.samplers import Sampler
from tests.parity.generator.models import FULL, SMALL, save_random_pipeline
from tests.parity.generator.pair import TOLERANCE, WISHES, Pair, difference, pair


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
