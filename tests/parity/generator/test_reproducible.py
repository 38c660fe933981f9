"""One request in many companies: the same bytes where that is promised, nearly so elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from models import DEMO_GENERATOR
from services.core.artifacts import ArtifactStore
from services.core.reference import ModelFiles
from services.generator import backends, pytorch
from services.generator.adapters import AdapterUse
from services.generator.backends import Host, Wanted
from services.generator.model import AdapterFolder, Defaults, GeneratorModel
from services.generator.modes import ImageToImage
from services.generator.network import Network
from services.generator.request import PreviewWish, Reproducibility, Wish
from services.generator.samplers import Sampler
from tests.parity.generator.adapters import random_lora, save_peft
from tests.parity.generator.company import (
    STYLIZED,
    SUBJECT,
    TOLERANCE,
    alone,
    assert_close,
    assert_exact,
    begun,
    works,
)
from tests.parity.generator.models import SMALL, save_random_pipeline

# In OpenVINO the default tests take one precision: the one that is harder to keep, where there is
# it. PyTorch has both everywhere, but takes long for one that the processor does not compute in.
HALF = Host.here().bfloat16
IN_PYTORCH = ["float32", pytest.param("bfloat16", marks=[] if HALF else [pytest.mark.slow])]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def loaded(directory: Path, folder: Path, load: Callable[[Path], Network]) -> GeneratorModel:
    """With one adapter, ``worn``, that it finds in ``folder``."""
    files = ModelFiles("reproducible", "1", directory, "sha256:00")
    unet = UNet2DConditionModel.from_pretrained(directory, subfolder="unet")
    save_peft(folder / "worn", random_lora(unet, 1, 4), {"r": 4, "lora_alpha": 4})
    adapters = AdapterFolder(folder)
    model = GeneratorModel(lambda: files, load, defaults=Defaults(20, 3.0), adapters=adapters)
    model.load()
    return model


@pytest.fixture(scope="module", params=IN_PYTORCH)
def small(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> GeneratorModel:
    directory = save_random_pipeline(tmp_path_factory.mktemp("small"), SMALL)
    load = partial(pytorch.load, device="cpu", precision=request.param)
    return loaded(directory, tmp_path_factory.mktemp("adapters"), load)


@pytest.fixture(scope="module", params=IN_PYTORCH)
def demo(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> GeneratorModel:
    load = partial(pytorch.load, device="cpu", precision=request.param)
    return loaded(DEMO_GENERATOR, tmp_path_factory.mktemp("adapters"), load)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("float32", marks=[pytest.mark.slow] if HALF else []),
        pytest.param("bfloat16", marks=pytest.mark.skipif(not HALF, reason="not computed in here")),
    ],
)
def openvino(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> GeneratorModel:
    wanted = Wanted(backend="openvino", device="cpu", precision=request.param)
    store = ArtifactStore(tmp_path_factory.mktemp("artifacts"))
    load = partial(backends.load, wanted=wanted, store=store, threads=1)
    return loaded(DEMO_GENERATOR, tmp_path_factory.mktemp("adapters"), load)


def test_exact_pictures_of_a_small_model_keep_every_byte(small: GeneratorModel) -> None:
    assert_exact(small, SUBJECT)


@pytest.mark.slow
def test_exact_pictures_without_guidance(small: GeneratorModel) -> None:
    assert_exact(small, replace(SUBJECT, guidance_scale=1.0, sampler=Sampler.DPMPP_2M))


@pytest.mark.slow
def test_exact_pictures_of_the_demo_keep_every_byte(demo: GeneratorModel) -> None:
    assert_exact(demo, replace(SUBJECT, preview=PreviewWish()))


def test_exact_pictures_in_openvino_keep_every_byte(openvino: GeneratorModel) -> None:
    assert openvino.loaded.network.effective.backend == "openvino"
    assert_exact(openvino, SUBJECT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wish",
    [
        pytest.param(replace(SUBJECT, mode=STYLIZED, steps=4), id="stylized"),
        pytest.param(replace(SUBJECT, steps=5, cache_interval=2), id="cached"),
        pytest.param(replace(SUBJECT, tiled=True, width=32, height=24), id="tiled"),
    ],
)
def test_exact_pictures_with_more_state_keep_every_byte(small: GeneratorModel, wish: Wish) -> None:
    assert_exact(small, wish)


def test_exact_pictures_from_given_ones_keep_every_byte(small: GeneratorModel) -> None:
    assert_exact(small, replace(SUBJECT, mode=ImageToImage(begun(), 1.0)))


def test_exact_pictures_in_openvino_from_given_ones_keep_every_byte(
    openvino: GeneratorModel,
) -> None:
    assert_exact(openvino, replace(SUBJECT, mode=ImageToImage(begun(), 1.0)))


def test_exact_pictures_in_openvino_with_an_adapter_keep_every_byte(
    openvino: GeneratorModel,
) -> None:
    wish = replace(SUBJECT, adapters=(AdapterUse("worn", 0.8),))
    [work] = works(openvino, wish)
    assert openvino.in_force(work).backend == "openvino"
    assert_exact(openvino, wish)


def test_close_pictures_stay_close(small: GeneratorModel) -> None:
    assert_close(small, SUBJECT)


def test_close_pictures_in_openvino_stay_close(openvino: GeneratorModel) -> None:
    assert_close(openvino, SUBJECT)


def test_an_exact_picture_is_close_to_the_close_one(small: GeneratorModel) -> None:
    exact = replace(SUBJECT, reproducibility=Reproducibility.EXACT)
    one, other = alone(small, SUBJECT)[-1], alone(small, exact)[-1]
    assert np.abs(one.astype(int) - other.astype(int)).max() <= TOLERANCE
