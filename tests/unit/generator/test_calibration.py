from itertools import groupby

import torch

from services.generator.calibration import STEPS, WISHES, looks
from services.generator.network import Look
from tests.unit.generator.fakes import FakeNetwork


def test_whole_pictures_with_guidance_and_without() -> None:
    network = FakeNetwork()
    seen = looks(network)
    assert network.batches == [len(look.latents) for look in seen]
    guided = [wish.guidance_scale is not None and wish.guidance_scale > 1 for wish in WISHES]
    pictures = list(_pictures(seen))
    assert [len(picture[0].latents) for picture in pictures] == [2 if one else 1 for one in guided]
    for picture in pictures:
        times = [float(look.timesteps[0]) for look in picture]
        assert len(times) >= STEPS
        assert times == sorted(times, reverse=True)
        assert times[0] > 800
        assert times[-1] < 200


def test_always_the_same() -> None:
    for one, other in zip(looks(FakeNetwork()), looks(FakeNetwork()), strict=True):
        assert torch.equal(one.latents, other.latents)
        assert torch.equal(one.context, other.context)


def test_of_other_pictures_when_told() -> None:
    [*mine] = looks(FakeNetwork(), WISHES[:1])
    assert len(mine) == len(looks(FakeNetwork())) // len(WISHES)


def _pictures(seen: list[Look]) -> list[list[Look]]:
    size = len(seen) // len(WISHES)
    return [
        [look for _, look in group]
        for _, group in groupby(enumerate(seen), key=lambda pair: pair[0] // size)
    ]
