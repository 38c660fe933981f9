"""Fast previews by a small decoder: their stage, what they show, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from services.core.errors import FailedPrecondition
from services.generator.diffusion import (
    DECODE,
    DENOISE,
    PREVIEW,
    TINY_PREVIEW,
    Picture,
    PictureWork,
)
from services.generator.model import GeneratorModel
from services.generator.modes import Inpaint, MaskPolarity
from services.generator.request import (
    PreviewMethod,
    PreviewWish,
    Reproducibility,
    Wish,
    resolve,
)
from services.generator.tiny_decoder import TinyDecoder, load_tiny
from tests.unit.generator.drive import drive
from tests.unit.generator.fakes import SIDE, FakeChecker, FakeNetwork, loaded_model
from tests.unit.generator.pictures import given, mask, picture
from tests.unit.generator.tiny import save_tiny

FAST = PreviewWish(every=3, at_steps=(6,), method=PreviewMethod.FAST)
WISH = Wish(prompt="a star", steps=6, seed=5, preview=FAST)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny")


@pytest.fixture
def model(directory: Path) -> GeneratorModel:
    return loaded_model(tiny=directory)


def works(model: GeneratorModel, wish: Wish) -> list[PictureWork]:
    return model.works(resolve(wish, model.limits, draw_seed=int))


def shown(model: GeneratorModel, *wishes: Wish) -> list[list[Picture]]:
    return drive(model, [work for wish in wishes for work in works(model, wish)])


def names(model: GeneratorModel, wish: Wish) -> list[tuple[str, int]]:
    return [(stage.name, stage.steps) for stage in model.plan(works(model, wish)[0])[1:]]


def test_they_are_stages_of_their_own(model: GeneratorModel) -> None:
    assert names(model, WISH) == [
        (DENOISE, 3),
        (TINY_PREVIEW, 1),
        (DENOISE, 3),
        (TINY_PREVIEW, 1),
        (DECODE, 1),
    ]
    decoded = Wish(steps=6, preview=PreviewWish(at_steps=(6,), method=PreviewMethod.DECODED))
    assert names(model, decoded) == [(DENOISE, 6), (PREVIEW, 1), (DECODE, 1)]
    assert names(model, Wish(steps=6)) == [(DENOISE, 6), (DECODE, 1)]


def test_without_one_they_are_made_within_the_steps() -> None:
    assert names(loaded_model(), WISH) == [(DENOISE, 6), (DECODE, 1)]


def test_they_have_the_decoders_size_and_change_no_picture(model: GeneratorModel) -> None:
    [previewed], [plain] = shown(model, WISH), shown(model, Wish(prompt="a star", steps=6, seed=5))
    assert [(each.step, each.final) for each in previewed] == [(3, False), (6, False), (6, True)]
    assert [each.pixels.shape for each in previewed[:2]] == [(SIDE // 2, SIDE // 2, 3)] * 2
    assert np.array_equal(previewed[-1].pixels, plain[-1].pixels)


def test_one_alone_equals_one_in_company(model: GeneratorModel) -> None:
    others = [Wish(prompt="a ring", steps=6, seed=seed, preview=FAST) for seed in range(4)]
    [alone], [together, *_] = shown(model, WISH), shown(model, WISH, *others)
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


def test_rows_that_are_due_are_decoded_at_once(model: GeneratorModel) -> None:
    pair = [works(model, wish)[0] for wish in (WISH, Wish(steps=9, seed=1, preview=FAST))]
    for work in pair:
        for stage in list(model.plan(work))[:2]:
            for _ in range(stage.steps):
                model.step(stage, [work])
    stages = [next(s for s in model.plan(work) if s.name == TINY_PREVIEW) for work in pair]
    assert stages[0].key == stages[1].key
    answers = model.step(stages[0], pair)
    assert [answer.step for answer in answers if isinstance(answer, Picture)] == [3, 3]


def test_they_cost_by_their_area(model: GeneratorModel) -> None:
    wish = Wish(steps=6, width=2 * SIDE, height=SIDE // 2 * 3, preview=FAST)
    previews = [s for s in model.plan(works(model, wish)[0]) if s.name == TINY_PREVIEW]
    assert [stage.cost for stage in previews] == [3.0, 3.0]


def test_a_large_one_goes_in_tiles(model: GeneratorModel) -> None:
    wish = Wish(prompt="a star", steps=6, seed=5, width=64, height=64, preview=FAST)
    [whole], [tiled] = shown(model, wish), shown(model, replace(wish, tiled=True))
    plan = model.plan(works(model, replace(wish, tiled=True))[0])
    assert [stage.steps > 1 for stage in plan if stage.name == TINY_PREVIEW] == [True, True]
    assert tiled[0].pixels.shape == whole[0].pixels.shape == (32, 32, 3)
    corner = slice(0, 2)  # as far from the other tiles as the decoder sees
    difference = tiled[0].pixels[corner, corner].astype(int) - whole[0].pixels[corner, corner]
    assert np.abs(difference).max() <= 1


def test_they_show_what_is_painted_alone(model: GeneratorModel) -> None:
    mode = Inpaint(given(picture()), given(mask()), MaskPolarity.WHITE)
    [told] = shown(model, Wish(mode=mode, steps=6, seed=5, preview=FAST))
    assert told[0].overlay is None
    assert told[-1].overlay is not None


def test_a_flagged_one_is_not_shown(directory: Path) -> None:
    [seen] = shown(loaded_model(tiny=directory), WISH)
    checker = FakeChecker({seen[0].pixels.tobytes()})
    [told] = shown(loaded_model(checker=checker, tiny=directory), WISH)
    assert [(each.step, each.final) for each in told] == [(6, False), (6, True)]


def test_an_exact_picture_has_them_too(model: GeneratorModel) -> None:
    exact = Wish(
        prompt="a star", steps=6, seed=5, preview=FAST, reproducibility=Reproducibility.EXACT
    )
    one, other = shown(model, exact, exact)
    for each, same in zip(one, other, strict=True):
        assert np.array_equal(each.pixels, same.pixels)


def test_the_warm_up_times_them(model: GeneratorModel) -> None:
    batches = [[{s.name for s in model.plan(work)} for work in batch] for batch in model.warm_up()]
    assert sum(all(TINY_PREVIEW in stages for stages in batch) for batch in batches) == 2
    without = loaded_model()
    assert len(list(without.warm_up())) == len(batches) - 2


def test_which_one_is_told(model: GeneratorModel) -> None:
    assert model.loaded.diffusion.fast_preview == (
        "tiny decoder 'tiny', 2 pixels to a latent's side"
    )
    assert "linear projection" in loaded_model().loaded.diffusion.fast_preview


def test_half_precision_weights_are_read_where_there_are_no_others(directory: Path) -> None:
    plain = directory / "diffusion_pytorch_model.safetensors"
    halves = {key: value.half() for key, value in load_file(plain).items()}
    save_file(halves, directory / "diffusion_pytorch_model.fp16.safetensors")
    plain.unlink()
    found = TinyDecoder.load(directory, FakeNetwork())
    assert {weight.dtype for weight in found.decoder.parameters()} == {torch.float32}


def edited(directory: Path, **values: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _without_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def _spoilt_config(directory: Path) -> None:
    (directory / "config.json").write_text("{")


def _listed_config(directory: Path) -> None:
    (directory / "config.json").write_text("[]")


def _another_kind(directory: Path) -> None:
    edited(directory, _class_name="AutoencoderKL")


def _wrong_blocks(directory: Path) -> None:
    edited(directory, num_decoder_blocks=[1])


def _no_such_function(directory: Path) -> None:
    edited(directory, act_fn="nonsense")


def _no_such_enlargement(directory: Path) -> None:
    edited(directory, upsample_fn="nonsense")


def _too_wide(directory: Path) -> None:
    edited(directory, decoder_block_out_channels=[16, 16])


def _too_few(directory: Path) -> None:
    edited(directory, num_decoder_blocks=[1, 2])


def _too_many(directory: Path) -> None:
    edited(directory, num_decoder_blocks=[1, 0])


def _weights(directory: Path) -> Path:
    return directory / "diffusion_pytorch_model.safetensors"


def _no_weights(directory: Path) -> None:
    _weights(directory).unlink()


def _spoilt_weights(directory: Path) -> None:
    _weights(directory).write_bytes(b"no tensors")


def _no_numbers(directory: Path) -> None:
    tensors = load_file(_weights(directory))
    tensors["decoder.layers.0.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, _weights(directory))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_without_config, "has no config.json"),
        (_spoilt_config, "has a config.json that cannot be read"),
        (_listed_config, "is None, not AutoencoderTiny"),
        (_another_kind, "is AutoencoderKL, not AutoencoderTiny"),
        (_wrong_blocks, "has a config.json that makes no decoder"),
        (_no_such_function, "has a config.json that makes no decoder"),
        (_no_such_enlargement, "has a config.json that makes no decoder"),
        (_too_wide, "of shape (8,), not (16,)"),
        (_too_few, "has weights that its config.json does not: decoder.layers.6.bias"),
        (_too_many, "lacks the weights decoder.layers.5.bias"),
        (_no_weights, "has no diffusion_pytorch_model.safetensors; nothing but"),
        (_spoilt_weights, "has a diffusion_pytorch_model.safetensors that is not safetensors"),
        (_no_numbers, "has weights that are no numbers"),
    ],
)
def test_what_cannot_be_used(directory: Path, spoil: Callable[[Path], None], told: str) -> None:
    spoil(directory)
    with pytest.raises(FailedPrecondition) as refused:
        TinyDecoder.load(directory, FakeNetwork())
    assert refused.value.message.startswith("The preview decoder 'tiny' ")
    assert told in refused.value.message


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    save_tiny(tmp_path / "old", safetensors=False)
    with pytest.raises(FailedPrecondition, match=r"only diffusion_pytorch_model\.bin; nothing"):
        load_tiny(tmp_path / "old", FakeNetwork())


@pytest.mark.parametrize(("channels", "taken"), [(3, False), (4, True), (5, False)])
def test_the_latents_channels_are_the_models(tmp_path: Path, channels: int, taken: bool) -> None:
    save_tiny(tmp_path / "tiny", latent_channels=channels)
    if taken:
        assert load_tiny(tmp_path / "tiny", FakeNetwork()) is not None
        return
    with pytest.raises(FailedPrecondition, match=f"of {channels} channels, the model's have 4"):
        load_tiny(tmp_path / "tiny", FakeNetwork())


@pytest.mark.parametrize(("scale", "taken"), [(3, True), (4, True), (5, False)])
def test_it_is_no_larger_than_the_models_own(tmp_path: Path, scale: int, taken: bool) -> None:
    save_tiny(tmp_path / "tiny", upsampling_scaling_factor=scale)
    if taken:
        found = load_tiny(tmp_path / "tiny", FakeNetwork())
        assert found is not None
        assert found.decode(torch.zeros(2, 4, 3, 2)).shape == (2, 3 * scale, 2 * scale, 3)
        return
    with pytest.raises(FailedPrecondition, match=r"makes 5\^1 pixels .* the model itself makes 4"):
        load_tiny(tmp_path / "tiny", FakeNetwork())


def test_pictures_of_three_colours_alone(tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny", out_channels=4)
    with pytest.raises(FailedPrecondition, match="pictures of 4 channels, not 3"):
        load_tiny(tmp_path / "tiny", FakeNetwork())


def test_none_is_configured() -> None:
    assert load_tiny(None, FakeNetwork()) is None
