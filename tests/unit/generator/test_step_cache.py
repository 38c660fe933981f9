"""Step caching: which evaluations are whole, and that a row's feature is its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from services.core.errors import FailedPrecondition, InvalidInput
from services.generator.diffusion import DENOISE, DENOISE_OUTER, Picture, PictureWork
from services.generator.model import GeneratorModel
from services.generator.network import Feature, Look
from services.generator.request import PreviewMethod, PreviewWish, Wish, resolve
from services.generator.samplers import Sampler
from services.generator.step_cache import MAX_INTERVAL, Leg, checked_interval, legs
from tests.unit.generator.drive import drive
from tests.unit.generator.fakes import FakeNetwork, loaded_model


@pytest.mark.parametrize(("given", "taken"), [(0, 1), (1, 1), (2, 2), (MAX_INTERVAL, MAX_INTERVAL)])
def test_intervals(given: int, taken: int) -> None:
    assert checked_interval(given) == taken


@pytest.mark.parametrize("given", [-1, MAX_INTERVAL + 1, 2**32 - 1])
def test_intervals_out_of_range(given: int) -> None:
    with pytest.raises(InvalidInput) as raised:
        checked_interval(given)
    assert (raised.value.field, raised.value.limit) == ("cache_interval", "1 to 10")
    assert raised.value.given == str(given)


@pytest.mark.parametrize("end", [1, 2, 7, 20])
@pytest.mark.parametrize("interval", [1, 2, 3, 10])
@pytest.mark.parametrize("begin", [0, 1, 4])
def test_legs_cover_every_evaluation(begin: int, end: int, interval: int) -> None:
    kinds = [leg.whole for leg in legs(begin, end, interval) for _ in range(leg.evaluations)]
    assert kinds == [index % interval == 0 for index in range(begin, end)]


def test_legs_are_as_long_as_they_can_be() -> None:
    assert list(legs(0, 7, 3)) == [
        Leg(True, 1),
        Leg(False, 2),
        Leg(True, 1),
        Leg(False, 2),
        Leg(True, 1),
    ]
    assert list(legs(0, 7, 1)) == [Leg(True, 7)]


class Layered(FakeNetwork):
    """Its deep feature is half its answer; the other half is made anew in every look."""

    def __init__(self) -> None:
        super().__init__(features=frozenset({Feature.DEEP}))
        self.looks: list[tuple[str, int]] = []

    def route(self, needs: frozenset[Feature], size: tuple[int, int]) -> str:
        return "fake"

    def predict(self, look: Look) -> torch.Tensor:
        answer = super().predict(look)
        outer = look.deep is not None and look.deep.feature is not None
        self.looks.append(("outer" if outer else "whole", len(answer)))
        if look.deep is None:
            return answer
        if look.deep.feature is None:
            look.deep.feature = answer / 2
        return answer / 2 + look.deep.feature


def works(model: GeneratorModel, *wishes: Wish) -> list[PictureWork]:
    return [
        work for wish in wishes for work in model.works(resolve(wish, model.limits, draw_seed=int))
    ]


def pixels(shown: list[list[Picture]]) -> list[np.ndarray]:
    return [pictures[-1].pixels for pictures in shown]


WISH = Wish(prompt="a star", steps=7, guidance_scale=3.0, seed=5)


def test_a_plan_alternates() -> None:
    model = loaded_model(Layered())
    [work] = works(model, replace(WISH, steps=5, cache_interval=3))
    denoising = [(stage.name, stage.steps) for stage in model.plan(work)[1:-1]]
    assert denoising == [(DENOISE, 1), (DENOISE_OUTER, 2), (DENOISE, 1), (DENOISE_OUTER, 1)]


def test_decoded_previews_do_not_move_the_whole_evaluations() -> None:
    model = loaded_model(Layered())
    preview = PreviewWish(at_steps=(2,), method=PreviewMethod.DECODED)
    [work] = works(model, replace(WISH, steps=5, cache_interval=3, preview=preview))
    names = [stage.name for stage in model.plan(work) for _ in range(stage.steps)]
    whole = [name == DENOISE for name in names if name in (DENOISE, DENOISE_OUTER)]
    assert whole == [True, False, False, True, False]


def test_interval_1_is_no_step_caching_at_all() -> None:
    network = Layered()
    model = loaded_model(network)
    plain, one = works(model, WISH, replace(WISH, cache_interval=1))
    plans = [[replace(stage, shared=None) for stage in model.plan(work)] for work in (plain, one)]
    assert plans[0] == plans[1]
    first, second = pixels(drive(model, [plain])), pixels(drive(model, [one]))
    assert np.array_equal(first[0], second[0])
    assert {kind for kind, _ in network.looks} == {"whole"}


MIXED = [
    WISH,
    replace(WISH, cache_interval=2, seed=6),
    replace(WISH, cache_interval=3, seed=7, steps=9, guidance_scale=1.0),
    replace(WISH, cache_interval=2, seed=8, sampler=Sampler.HEUN),
    replace(WISH, cache_interval=10, seed=9, sampler=Sampler.EULER_ANCESTRAL),
]


def test_a_picture_alone_equals_itself_among_rows_of_other_phases() -> None:
    network = Layered()
    model = loaded_model(network)
    alone = [pixels(drive(model, works(model, wish)))[0] for wish in MIXED]
    network.looks.clear()
    mixed = pixels(drive(model, works(model, *MIXED)))
    for one, same in zip(alone, mixed, strict=True):
        assert np.array_equal(one, same)
    assert network.looks[:2] == [("whole", 9), ("whole", 2)], "whole steps share their batches"
    assert max(size for kind, size in network.looks if kind == "outer") == 7


def test_step_caching_changes_the_picture() -> None:
    model = loaded_model(Layered())
    plain, cached = pixels(drive(model, works(model, WISH, replace(WISH, cache_interval=7))))
    assert not np.array_equal(plain, cached)


def test_no_feature_is_kept_that_is_not_used() -> None:
    model = loaded_model(Layered())
    [work] = works(model, replace(WISH, steps=3, cache_interval=2))
    encode, whole, outer, last, _ = model.plan(work)
    model.step(encode, [work])
    model.step(whole, [work])
    assert work.deep is not None
    assert work.deep.shape == (2, *work.latent_shape)
    model.step(outer, [work])
    model.step(last, [work])
    assert work.deep is None


def test_a_network_without_it_says_so() -> None:
    model = loaded_model()
    [work] = works(model, replace(WISH, cache_interval=2))
    with pytest.raises(FailedPrecondition, match="does not take deep"):
        model.plan(work)
