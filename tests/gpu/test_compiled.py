"""Networks that were compiled for a GPU paint as those that were not, and keep the tiers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from services.generator import compiled
from services.generator.model import GeneratorModel
from services.generator.request import LongPrompt, Reproducibility
from services.generator.toolchain import Toolchain
from tests.gpu.painting import LEAST_PSNR, Gallery, assert_alike, finals, painted
from tests.parity.generator.company import SUBJECT, assert_close, assert_exact, works

CPU = torch.device("cpu")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module", params=["1.x", "XL"])
def layout(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def model(gallery: Gallery, gpu: torch.device, layout: str) -> GeneratorModel:
    lacking = Toolchain.here().lacking(gpu=True)
    if lacking is not None:
        pytest.skip(f"nothing can be compiled for a GPU here: it needs {lacking}")
    load = partial(compiled.load, device=str(gpu), precision="auto", versions={})
    made = gallery.unloaded(layout, load)
    made.load()
    return made


def test_they_paint_as_the_processor_does(
    gallery: Gallery, model: GeneratorModel, layout: str
) -> None:
    wishes = [
        replace(SUBJECT, seed=seed, guidance_scale=1.0 + 2.0 * (seed % 2)) for seed in range(5)
    ]
    long = replace(SUBJECT, prompt="a red star " * 60, long_prompt=LongPrompt.CHUNK)
    [work] = works(model, wishes[0])
    assert model.in_force(work).backend == compiled.BACKEND
    expected = finals(gallery.model(layout, CPU, "float32"), *wishes, long)
    assert_alike(finals(model, *wishes, long), expected, LEAST_PSNR["float16"])


def test_close_pictures_stay_close(model: GeneratorModel) -> None:
    assert_close(model, SUBJECT)


def test_exact_pictures_keep_every_byte(model: GeneratorModel) -> None:
    assert_exact(model, SUBJECT)


def test_they_are_the_same_after_another_start(
    gallery: Gallery, model: GeneratorModel, gpu: torch.device, layout: str
) -> None:
    wish = replace(SUBJECT, reproducibility=Reproducibility.EXACT)
    load = partial(compiled.load, device=str(gpu), precision="auto", versions={})
    again = gallery.unloaded(layout, load)
    again.load()
    [first], [second] = painted(model, wish), painted(again, wish)
    assert [each.pixels.tobytes() for each in first] == [each.pixels.tobytes() for each in second]
