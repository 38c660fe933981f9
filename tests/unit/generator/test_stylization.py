from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from services.core.errors import FailedPrecondition, InvalidInput
from services.generator.diffusion import CANVAS, DECODE, DENOISE, ENCODE, STYLE, PictureWork
from services.generator.model import GeneratorModel
from services.generator.modes import ImageToImage, Stylize
from services.generator.network import Feature, Look
from services.generator.request import Order, Reproducibility, Wish, resolve
from services.generator.samplers import Sampler
from services.generator.stylization import (
    MIN_STYLE_SIDE_PX,
    match_weight,
    matched,
    share_of_steps,
)
from tests.unit.generator.drive import drive
from tests.unit.generator.fakes import SIDE, FakeImageReader, FakeNetwork, loaded_model
from tests.unit.generator.pictures import given, picture


@dataclass
class StyledNetwork(FakeNetwork):
    """Takes company, and remembers what it looked at."""

    looks: list[Look] = field(default_factory=list)

    def predict(self, look: Look) -> torch.Tensor:
        self.looks.append(look)
        return FakeNetwork.predict(self, look)

    def route(self, needs: frozenset[Feature], size: tuple[int, int]) -> str:
        return "one"


def stylize(content: float = 0.5, style: float = 0.5, style_side: int = SIDE) -> Stylize:
    return Stylize(
        given(picture(seed=1), "stylize.content"),
        given(picture(style_side, style_side, seed=2), "stylize.style"),
        content,
        style,
    )


def order(model: GeneratorModel, **asked: Any) -> Order:
    return resolve(Wish(**asked), model.limits, draw_seed=int)


def works(model: GeneratorModel, **asked: Any) -> list[PictureWork]:
    return model.works(order(model, **asked))


def test_statistics_are_matched() -> None:
    source = torch.Generator().manual_seed(0)
    content = torch.randn((4, 8, 8), generator=source) * 2 + 1
    style = torch.randn((4, 8, 8), generator=source) * 5 - 3
    whole = matched(content, style, 1.0)
    torch.testing.assert_close(whole.mean((1, 2)), style.mean((1, 2)))
    torch.testing.assert_close(whole.std((1, 2)), style.std((1, 2)))
    assert torch.equal(matched(content, style, 0.0), content)
    torch.testing.assert_close(matched(content, style, 0.5), (content + whole) / 2)


def test_flat_latents_stay_numbers() -> None:
    style = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(0))
    made = matched(torch.ones(4, 8, 8), style, 1.0)
    torch.testing.assert_close(made, style.mean((1, 2), keepdim=True).expand_as(made))
    assert matched(style, torch.ones(4, 8, 8), 1.0).isfinite().all()


def test_strengths_become_steps_and_weights() -> None:
    assert [share_of_steps(each) for each in (0.0, 0.5, 1.0)] == [1.0, 0.25, 0.0]
    assert [match_weight(stylize(0.0, each)) for each in (0.0, 0.5, 1.0)] == [0.0, 0.75, 1.0]
    assert [match_weight(stylize(each, 1.0)) for each in (0.0, 0.5, 1.0)] == [1.0, 0.875, 0.5]
    model = loaded_model()
    taken = [
        order(model, mode=stylize(content), steps=20).steps_taken
        for content in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert taken == [20, 11, 5, 1, 1]


@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan"), float("inf")])
def test_strengths_are_shares(strength: float) -> None:
    for which, mode in (("content", stylize(strength)), ("style", stylize(0.5, strength))):
        with pytest.raises(InvalidInput) as caught:
            order(loaded_model(), mode=mode)
        assert caught.value.field == f"stylize.{which}_strength"
        assert caught.value.limit == "0.0 to 1.0"


def test_a_style_needs_room() -> None:
    model = loaded_model(StyledNetwork())
    assert works(model, mode=stylize(style_side=MIN_STYLE_SIDE_PX))
    for side in (1, MIN_STYLE_SIDE_PX - 1):
        with pytest.raises(InvalidInput) as caught:
            works(model, mode=stylize(style_side=side))
        assert caught.value.field == "stylize.style"
        assert caught.value.limit == "at least 16 pixels a side"
        assert caught.value.given == f"{side}x{side}"


def test_company_brings_a_picture_and_an_entry() -> None:
    model = loaded_model(StyledNetwork())
    asked = {"mode": stylize(), "steps": 8}
    stages = model.plan(works(model, **asked, guidance_scale=3.0)[0])
    assert [(stage.name, stage.steps, stage.cost) for stage in stages] == [
        (ENCODE, 1, 2.0),
        (CANVAS, 1, 2.0),
        (DENOISE, 2, 3.0),
        (DECODE, 1, 1.0),
    ]


def test_without_a_prompt_there_is_nothing_to_guide_with() -> None:
    model = loaded_model(StyledNetwork())
    assert not order(model, mode=stylize()).guided
    assert order(model, mode=stylize(), guidance_scale=2.0).guided
    assert order(model, mode=stylize(), prompt="a star").guided
    assert order(model, mode=stylize(), negative_prompt="a star").guided
    assert not order(model, mode=stylize(), prompt="a star", negative_prompt="a star").guided


def test_no_style_is_image_to_image() -> None:
    model = loaded_model()
    plain = works(model, mode=ImageToImage(given(picture(seed=1)), 0.25), steps=8, seed=3)
    unstyled = works(model, mode=stylize(style=0.0), steps=8, seed=3, guidance_scale=3.0, prompt="")
    (first,), (second,) = drive(model, plain), drive(model, unstyled)
    assert np.array_equal(first[-1].pixels, second[-1].pixels)


def test_a_network_that_takes_no_style_says_so() -> None:
    model = loaded_model(FakeNetwork(features=frozenset()))
    with pytest.raises(FailedPrecondition, match="style"):
        model.plan(works(model, mode=stylize())[0])


def test_every_entry_looks_at_its_own_company() -> None:
    network = StyledNetwork()
    model = loaded_model(network)
    asked: list[dict[str, Any]] = [
        {"mode": stylize(style=0.25), "guidance_scale": 1.0},
        {"guidance_scale": 1.0},
        {"guidance_scale": 2.0},
        {"mode": stylize(style=1.0), "guidance_scale": 2.0},
    ]
    riders = [work for each in asked for work in works(model, steps=4, **each)]
    drive(model, riders)
    sharing = network.looks[0].style
    assert sharing is not None
    assert sharing.borrowers.tolist() == [0, 5, 6]
    assert sharing.lenders.tolist() == [1, 7, 7]
    assert sharing.weights.tolist() == [0.25, 1.0, 1.0]
    assert network.batches[0] == 8
    assert network.looks[-1].style is None, "the stylizations took one of the four steps"


def test_company_is_as_noisy_as_the_picture() -> None:
    network = StyledNetwork()
    model = loaded_model(network)
    [work] = works(model, mode=stylize(content=0.0), steps=10)
    drive(model, [work])
    assert work.company is not None
    latents, noise = work.company.latents, work.company.noise
    for look, (of_latents, of_noise) in zip(network.looks, work.table.kept.tolist(), strict=False):
        torch.testing.assert_close(look.latents[1], of_latents * latents + of_noise * noise)
        assert of_latents**2 + of_noise**2 == pytest.approx(1.0, abs=1e-3)
    assert len(network.looks) == 10


def test_a_stylization_alone_equals_itself_in_a_mixed_batch() -> None:
    model = loaded_model(StyledNetwork())
    asked: list[dict[str, Any]] = [
        {
            "mode": stylize(content=index / 20, style=index / 14),
            "sampler": sampler,
            "seed": index,
            "guidance_scale": 1.0 + index % 2,
            "steps": 6,
        }
        for index, sampler in enumerate(Sampler)
    ]
    asked += [{"seed": 9, "steps": 5}, {"mode": ImageToImage(given(picture()), 0.9), "steps": 5}]
    alone = [drive(model, works(model, **each))[0][-1].pixels for each in asked]
    mixed = drive(model, [work for each in asked for work in works(model, **each)])
    for one, (*_, same) in zip(alone, mixed, strict=True):
        assert np.abs(one.astype(int) - same.pixels.astype(int)).max() <= 2


def test_more_style_strength_brings_the_style_nearer() -> None:
    model = loaded_model(StyledNetwork())
    style = np.asarray(picture(seed=2)).astype(float)

    def distance(strength: float) -> float:
        mode = replace(stylize(content=1.0), style_strength=strength)
        made = drive(model, works(model, mode=mode, steps=20))[0][-1].pixels.astype(float)
        return float(
            np.abs(made.mean((0, 1)) - style.mean((0, 1))).sum()
            + np.abs(made.std((0, 1)) - style.std((0, 1))).sum()
        )

    distances = [distance(strength) for strength in (0.0, 0.5, 1.0)]
    assert distances == sorted(distances, reverse=True)


def prompted() -> tuple[GeneratorModel, StyledNetwork, FakeImageReader]:
    """A model with an IP-Adapter."""
    reader = FakeImageReader()
    network = StyledNetwork(image_adapter=reader)
    return loaded_model(network), network, reader


def test_a_style_that_is_read_costs_a_stage_and_no_company() -> None:
    model, _, _ = prompted()
    asked = {"mode": stylize(), "steps": 8}
    stages = model.plan(works(model, **asked, guidance_scale=3.0)[0])
    assert [(stage.name, stage.steps, stage.cost) for stage in stages] == [
        (ENCODE, 1, 2.0),
        (CANVAS, 1, 1.0),
        (STYLE, 1, 1.0),
        (DENOISE, 2, 2.0),
        (DECODE, 1, 1.0),
    ]
    unstyled = model.plan(works(model, mode=stylize(style=0.0), steps=8)[0])
    assert STYLE not in [stage.name for stage in unstyled]


def test_a_style_is_read_once_a_request_and_together_with_others() -> None:
    model, _, reader = prompted()
    asked: list[dict[str, Any]] = [{"mode": stylize(), "count": 3}, {"mode": stylize()}, {}]
    drive(model, [work for each in asked for work in works(model, steps=4, **each)])
    assert reader.batches == [2]
    exact: dict[str, Any] = {
        "mode": stylize(),
        "reproducibility": Reproducibility.EXACT,
        "steps": 4,
    }
    drive(model, works(model, count=2, **exact) + works(model, **exact))
    assert reader.batches == [2, 1, 1]


def test_every_entry_reads_its_own_style() -> None:
    model, network, reader = prompted()
    asked: list[dict[str, Any]] = [
        {"mode": stylize(style=0.25), "guidance_scale": 1.0},
        {"guidance_scale": 2.0},
        {"mode": stylize(style=1.0, style_side=24), "guidance_scale": 2.0},
    ]
    riders = [work for each in asked for work in works(model, steps=4, **each)]
    drive(model, riders)
    prompt = network.looks[0].image_prompt
    assert prompt is not None
    assert prompt.entries.tolist() == [0, 3, 4]
    assert prompt.scales.tolist() == [0.25, 1.0, 1.0]
    first, _, last = (work.style_prompt for work in riders)
    assert first is not None
    assert last is not None
    assert first.tokens is not None
    assert last.tokens is not None
    assert torch.equal(prompt.tokens, torch.stack([first.tokens, reader.empty, last.tokens]))
    assert network.looks[0].style is None
    assert network.batches[0] == 5
    assert network.looks[-1].image_prompt is None, "the stylizations took one of the four steps"


def test_the_content_begins_as_image_to_image_does() -> None:
    model, network, _ = prompted()
    plain = works(model, mode=ImageToImage(given(picture(seed=1)), 0.25), steps=8, seed=3)
    styled = works(model, mode=stylize(), steps=8, seed=3)
    drive(model, plain), drive(model, styled)
    begun = [look.latents[-1] for look in network.looks]
    assert torch.equal(begun[0], begun[2])
    assert plain[0].table.evaluations == styled[0].table.evaluations == 2


def test_a_style_that_is_read_is_guided_to() -> None:
    model, _, _ = prompted()
    assert order(model, mode=stylize()).guided
    assert not order(model, mode=stylize(style=0.0)).guided
    assert not order(model, mode=stylize(), guidance_scale=1.0).guided


def test_read_styles_alone_and_in_a_mixed_batch() -> None:
    model, _, _ = prompted()
    asked: list[dict[str, Any]] = [
        {
            "mode": stylize(content=index / 20, style=index / 14),
            "sampler": sampler,
            "seed": index,
            "guidance_scale": 1.0 + index % 2,
            "steps": 6,
        }
        for index, sampler in enumerate(Sampler)
    ]
    asked += [{"seed": 9, "steps": 5}, {"mode": ImageToImage(given(picture()), 0.9), "steps": 5}]
    alone = [drive(model, works(model, **each))[0][-1].pixels for each in asked]
    mixed = drive(model, [work for each in asked for work in works(model, **each)])
    for one, (*_, same) in zip(alone, mixed, strict=True):
        assert np.abs(one.astype(int) - same.pixels.astype(int)).max() <= 2
