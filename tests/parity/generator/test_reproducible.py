"""One request in many companies: the same bytes where that is promised, nearly so elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from models import DEMO_GENERATOR
from services.core.artifacts import ArtifactStore
from services.core.reference import ModelFiles
from services.generator import backends, pytorch
from services.generator.adapters import AdapterUse
from services.generator.backends import Wanted
from services.generator.diffusion import PictureWork
from services.generator.model import AdapterFolder, Defaults, GeneratorModel
from services.generator.modes import (
    Given,
    ImageToImage,
    Inpaint,
    MaskPolarity,
    Mode,
    Stylize,
    TextToImage,
)
from services.generator.network import Pixels
from services.generator.request import (
    PreviewMethod,
    PreviewWish,
    Reproducibility,
    Wish,
    resolve,
)
from services.generator.samplers import Sampler
from tests.parity.generator.adapters import random_lora, save_peft
from tests.parity.generator.models import SMALL, save_random_pipeline
from tests.unit.generator.drive import Rider, drive, rider

COMPANIES = 30
TOLERANCE = 2
SUBJECT = Wish(
    prompt="a red star on a white background",
    negative_prompt="a blue circle",
    steps=2,
    guidance_scale=3.0,
    sampler=Sampler.EULER_ANCESTRAL,
    seed=7,
    preview=PreviewWish(at_steps=(1,), method=PreviewMethod.DECODED),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def loaded(directory: Path, precision: str, folder: Path) -> GeneratorModel:
    """With one adapter, ``worn``, that it finds in ``folder``."""
    files = ModelFiles("reproducible", "1", directory, "sha256:00")
    load = partial(pytorch.load, device="cpu", precision=precision)
    unet = UNet2DConditionModel.from_pretrained(directory, subfolder="unet")
    save_peft(folder / "worn", random_lora(unet, 1, 4), {"r": 4, "lora_alpha": 4})
    adapters = AdapterFolder(folder)
    model = GeneratorModel(lambda: files, load, defaults=Defaults(20, 3.0), adapters=adapters)
    model.load()
    return model


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def small(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> GeneratorModel:
    directory = save_random_pipeline(tmp_path_factory.mktemp("small"), SMALL)
    return loaded(directory, request.param, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def demo(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> GeneratorModel:
    return loaded(DEMO_GENERATOR, request.param, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(
    scope="module", params=[pytest.param("float32", marks=pytest.mark.slow), "bfloat16"]
)
def openvino(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> GeneratorModel:
    files = ModelFiles("reproducible", "1", DEMO_GENERATOR, "sha256:00")
    wanted = Wanted(backend="openvino", device="cpu", precision=request.param)
    store = ArtifactStore(tmp_path_factory.mktemp("artifacts"))
    load = partial(backends.load, wanted=wanted, store=store, threads=1)
    model = GeneratorModel(lambda: files, load, defaults=Defaults(20, 3.0))
    model.load()
    return model


def works(model: GeneratorModel, *wishes: Wish) -> list[PictureWork]:
    orders = [resolve(wish, model.limits, draw_seed=int) for wish in wishes]
    return [work for order in orders for work in model.works(order)]


def neighbour(chance: random.Random, adapters: Sequence[str]) -> Wish:
    worn = chance.choice(["", *adapters])
    return Wish(
        mode=chance.choice(MODES),
        adapters=(AdapterUse(worn, chance.choice([0.5, 1.0])),) if worn else (),
        cache_interval=chance.choice([1, 2]),
        prompt=chance.choice(["a blue circle", "two green squares", ""]),
        steps=chance.randint(1, 3),
        guidance_scale=chance.choice([1.0, 2.5, 7.5]),
        guidance_rescale=chance.choice([0.0, 0.7]),
        sampler=chance.choice(list(Sampler)),
        seed=chance.randrange(2**32),
        preview=PreviewWish(at_steps=(1,), method=chance.choice(list(PreviewMethod))),
        reproducibility=chance.choice(list(Reproducibility)),
    )


def wander(model: GeneratorModel, riders: Sequence[Rider], chance: random.Random) -> None:
    """Step them to their ends as no engine would: any that may share a step, in any order, while
    others have yet to arrive.
    """
    coming = list(riders)
    chance.shuffle(coming)
    here = [coming.pop()]
    while here or coming:
        while coming and (not here or chance.random() < 0.4):
            here.append(coming.pop())
        key = chance.choice(here).ahead[0].key
        able = [each for each in here if each.ahead[0].key == key]
        batch = chance.sample(able, chance.randint(1, len(able)))
        for each, answer in zip(
            batch, model.step(batch[0].ahead[0], [r.work for r in batch]), strict=True
        ):
            each.take(answer)
        here = [each for each in here if each.ahead]


def in_company(model: GeneratorModel, wish: Wish, seed: int) -> list[Pixels]:
    chance = random.Random(seed)
    adapters = model.loaded.adapters.names
    neighbours = [neighbour(chance, adapters) for _ in range(chance.randint(1, 3))]
    riders = [rider(model, work) for work in works(model, wish, *neighbours)]
    wander(model, riders, chance)
    return [picture.pixels for picture in riders[0].shown]


def alone(model: GeneratorModel, wish: Wish) -> list[Pixels]:
    return [picture.pixels for picture in drive(model, works(model, wish))[0]]


def assert_exact(model: GeneratorModel, wish: Wish) -> None:
    wish = replace(wish, reproducibility=Reproducibility.EXACT)
    expected = alone(model, wish)
    assert expected[-1].std() > 1
    for company in range(COMPANIES):
        for one, same in zip(expected, in_company(model, wish, company), strict=True):
            assert one.tobytes() == same.tobytes(), f"company {company}"


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


def begun(name: str = "image") -> Given:
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    return Given(name, lambda: Image.fromarray(pixels), lambda: "")


def masked() -> Given:
    marks = np.zeros((16, 16), np.uint8)
    marks[2:12, 4:16] = 255
    return Given("mask", lambda: Image.fromarray(marks), lambda: "")


STYLIZED = Stylize(begun("stylize.content"), begun("stylize.style"), 0.2, 0.9)
MODES: list[Mode] = [
    TextToImage(),
    ImageToImage(begun(), 1.0),
    Inpaint(begun(), masked(), MaskPolarity.WHITE),
    STYLIZED,
]


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


def test_close_pictures_stay_close(small: GeneratorModel) -> None:
    expected = alone(small, SUBJECT)
    for company in range(COMPANIES):
        for one, near in zip(expected, in_company(small, SUBJECT, company), strict=True):
            assert np.abs(one.astype(int) - near.astype(int)).max() <= TOLERANCE


def test_an_exact_picture_is_close_to_the_close_one(small: GeneratorModel) -> None:
    exact = replace(SUBJECT, reproducibility=Reproducibility.EXACT)
    one, other = alone(small, SUBJECT)[-1], alone(small, exact)[-1]
    assert np.abs(one.astype(int) - other.astype(int)).max() <= TOLERANCE
