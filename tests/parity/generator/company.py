"""One request in many companies of others, with all that they may bring."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from services.generator.adapters import AdapterUse
from services.generator.diffusion import PictureWork
from services.generator.model import GeneratorModel
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


def assert_close(model: GeneratorModel, wish: Wish, tolerance: int = TOLERANCE) -> None:
    expected = alone(model, wish)
    assert expected[-1].std() > 1, "a picture of one colour is close to any"
    for company in range(COMPANIES):
        for one, near in zip(expected, in_company(model, wish, company), strict=True):
            assert np.abs(one.astype(int) - near.astype(int)).max() <= tolerance
