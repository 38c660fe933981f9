"""The outermost layers by themselves against the whole U-Net of ``diffusers``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models import DEMO_GENERATOR
from services.generator.modes import ImageToImage, Stylize
from services.generator.network import Look
from services.generator.outer import Deep
from services.generator.request import Wish
from tests.parity.generator.models import SMALL, SMALL_XL, save_random_pipeline
from tests.parity.generator.pair import TOLERANCE, Pair, difference, pair
from tests.unit.generator.pictures import given, picture

WISH = Wish(prompt="a red star", negative_prompt="blue", steps=8, guidance_scale=3.0, seed=3)


@pytest.fixture(scope="module", params=["small", "small XL", "demo"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    if request.param == "demo":
        return pair(DEMO_GENERATOR)
    sizes = SMALL if request.param == "small" else SMALL_XL
    return pair(save_random_pipeline(tmp_path_factory.mktemp("model"), sizes))


def look(both: Pair, **more: Any) -> Look:
    network: Any = both.model.loaded.network
    draw = torch.Generator().manual_seed(0)
    xl = network.layout.xl
    width, height = network.default_size
    side = height // network.vae_factor, width // network.vae_factor
    ids = network.layout.size_ids(width, height, guided=False)
    return Look(
        latents=torch.randn((3, network.unet_channels, *side), generator=draw),
        timesteps=torch.tensor([900.0, 500.0, 20.0]),
        context=torch.randn((3, 77, network.unet.config.cross_attention_dim), generator=draw),
        pooled=torch.randn((3, network.text_encoders[-1].config.projection_dim)) if xl else None,
        time_ids=torch.tensor(ids).expand(3, -1) if xl else None,
        **more,
    )


@torch.inference_mode()
def test_with_a_feature_of_the_same_step_nothing_changes(both: Pair) -> None:
    network, deep = both.model.loaded.network, Deep()
    asked = look(both)
    plain = network.predict(asked)
    whole = network.predict(replace(asked, deep=deep))
    assert torch.equal(whole, plain)
    assert deep.feature is not None
    outer = network.predict(replace(asked, deep=Deep(deep.feature.clone())))
    torch.testing.assert_close(outer, plain, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_feature_of_another_step_changes_something(both: Pair) -> None:
    network, deep = both.model.loaded.network, Deep()
    asked = look(both)
    network.predict(replace(asked, timesteps=asked.timesteps + 60, deep=deep))
    outer = network.predict(replace(asked, deep=deep))
    assert not torch.allclose(outer, network.predict(asked), atol=1e-4)


def test_interval_1_is_the_pipelines_own_picture(both: Pair) -> None:
    wish = replace(WISH, cache_interval=1)
    [ours] = both.ours(wish)
    assert np.array_equal(ours, both.ours(WISH)[0])
    assert difference(ours, both.theirs(WISH)) <= TOLERANCE


def test_alone_and_among_rows_of_other_intervals(both: Pair) -> None:
    wishes = [replace(WISH, cache_interval=n, seed=n, steps=4 + n) for n in (1, 2, 3, 5)]
    for wish, mixed in zip(wishes, both.ours(*wishes), strict=True):
        assert difference(mixed, both.ours(wish)[0]) <= TOLERANCE


def test_every_mode_runs_with_it(both: Pair) -> None:
    width, height = both.model.loaded.network.default_size
    image = given(picture(width, height, seed=1), "image")
    modes = (Stylize(image, image, 0.2, 0.5), ImageToImage(image, 0.9))
    wishes = [replace(WISH, mode=mode, cache_interval=3, seed=8) for mode in modes]
    for wish, mixed in zip(wishes, both.ours(*wishes, WISH), strict=False):
        assert difference(mixed, both.ours(wish)[0]) <= TOLERANCE
        assert difference(mixed, both.ours(replace(wish, cache_interval=1))[0]) > TOLERANCE
