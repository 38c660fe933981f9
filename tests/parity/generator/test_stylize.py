"""Stylization on real networks: what is shared, and what must not be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models import DEMO_GENERATOR
from services.generator.attention import Sharing
from services.generator.modes import ImageToImage, Stylize
from services.generator.network import Look
from services.generator.pytorch import TorchNetwork
from services.generator.request import Reproducibility, Wish
from services.generator.samplers import Sampler
from tests.parity.generator.models import SMALL, save_random_pipeline
from tests.parity.generator.pair import TOLERANCE, Pair, difference, pair
from tests.unit.generator.pictures import given, picture


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


def stylize(index: int, side: int, **strengths: float) -> Wish:
    mode = Stylize(
        given(picture(side, side, seed=index), "stylize.content"),
        given(picture(side * 2, side, seed=index + 50), "stylize.style"),
        **strengths,
    )
    return Wish(mode=mode, steps=6, seed=index, sampler=list(Sampler)[index % len(Sampler)])


def look(network: TorchNetwork, sharing: Sharing | None = None) -> Look:
    source = torch.Generator().manual_seed(0)
    width = int(network.unet.config.cross_attention_dim)
    return Look(
        latents=torch.randn((4, network.latent_channels, 8, 8), generator=source),
        timesteps=torch.tensor([100.0, 300.0, 300.0, 900.0]),
        context=torch.randn((4, 7, width), generator=source),
        style=sharing,
    )


def sharing(weight: float) -> Sharing:
    return Sharing(torch.tensor([1]), torch.tensor([2]), torch.tensor([weight]))


def network(both: Pair) -> TorchNetwork:
    found = both.model.loaded.network
    assert isinstance(found, TorchNetwork)
    return found


@torch.inference_mode()
def test_only_borrowers_see_their_lenders(small: Pair) -> None:
    served = network(small)
    plain, shared = served.predict(look(served)), served.predict(look(served, sharing(0.5)))
    kept = [0, 2, 3]
    torch.testing.assert_close(shared[kept], plain[kept], atol=1e-5, rtol=1e-5)
    assert (shared[1] - plain[1]).abs().max() > 1e-3
    torch.testing.assert_close(served.predict(look(served)), plain, atol=1e-6, rtol=1e-6)


@torch.inference_mode()
def test_no_weight_shares_nothing(small: Pair) -> None:
    served = network(small)
    plain, shared = served.predict(look(served)), served.predict(look(served, sharing(0.0)))
    torch.testing.assert_close(shared, plain, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("weight", [0.2, 0.5, 1.0])
def test_shared_attention_is_what_it_says(small: Pair, weight: float) -> None:
    served = network(small)
    layer: Any = next(
        module for name, module in served.unet.named_modules() if name.endswith(".attn1")
    )
    states = torch.randn((3, 9, layer.to_q.in_features), generator=torch.Generator().manual_seed(3))
    with served.attention.styled(sharing(weight)):
        seen = layer(states)
    query, key, value = (project(states) for project in (layer.to_q, layer.to_k, layer.to_v))
    parts = []
    for head in torch.arange(query.shape[-1]).chunk(layer.heads):
        own, other = (
            (query[1][:, head] @ key[row][:, head].T / math.sqrt(len(head))).exp() for row in (1, 2)
        )
        odds = torch.cat([own * (1 - weight), other * weight], dim=1)
        values = torch.cat([value[1][:, head], value[2][:, head]])
        parts.append(odds / odds.sum(1, keepdim=True) @ values)
    expected = layer.to_out[0](torch.cat(parts, dim=1))
    torch.testing.assert_close(seen[1], expected, atol=1e-4, rtol=1e-4)


def test_alone_and_in_a_mixed_batch(demo: Pair) -> None:
    asked = [
        stylize(index, 64, content_strength=index / 8, style_strength=1 - index / 8)
        for index in range(0, 8, 2)
    ]
    asked += [
        replace(stylize(6, 64, content_strength=0.2), cache_interval=2),
        replace(stylize(7, 64), prompt="a green heart", guidance_scale=3.0),
        Wish(prompt="a red star", negative_prompt="a blue circle", steps=4, seed=5),
        Wish(mode=ImageToImage(given(picture(64, 64)), 0.5), steps=6, guidance_scale=1.0),
    ]
    for mixed, wish in zip(demo.ours(*asked), asked, strict=True):
        assert difference(mixed, demo.ours(wish)[0]) <= TOLERANCE


def test_exact_stylizations(demo: Pair) -> None:
    mode = stylize(3, 64).mode
    wish = Wish(mode=mode, steps=6, seed=2, reproducibility=Reproducibility.EXACT)
    [alone] = demo.ours(wish)
    mixed, *_ = demo.ours(wish, stylize(4, 64), Wish(prompt="a red star", steps=3))
    assert np.array_equal(alone, mixed)


def test_no_style_is_image_to_image(demo: Pair) -> None:
    image = given(picture(64, 64, seed=7))
    unstyled = Wish(mode=Stylize(image, image, 0.5, 0.0), steps=8, seed=1)
    plain = Wish(mode=ImageToImage(image, 0.25), steps=8, seed=1, guidance_scale=1.0)
    assert np.array_equal(demo.ours(unstyled)[0], demo.ours(plain)[0])
