from dataclasses import replace
from typing import Any

from services.generator.modes import ImageToImage, Inpaint, MaskPolarity
from services.generator.parameters import ModelName, parameters_text
from services.generator.request import Order, Wish, resolve
from tests.unit.generator.pictures import given, mask, picture
from tests.unit.generator.test_request import LIMITS

MODEL = ModelName("demo", "1", "sha256:0123456789abcdef")


def order(**asked: Any) -> Order:
    return resolve(Wish(steps=8, seed=3, guidance_scale=3.0, **asked), LIMITS, draw_seed=int)


def test_the_customary_form() -> None:
    lines = parameters_text(order(prompt="a star", negative_prompt="blue"), 3, MODEL).split("\n")
    assert lines[:2] == ["a star", "Negative prompt: blue"]
    assert lines[2].startswith(
        "Steps: 8, Sampler: Euler, CFG scale: 3, Seed: 3, Size: 64x48, "
        "Model hash: 0123456789, Model: demo, Version: easel"
    )


def test_strength_has_its_customary_name() -> None:
    mode = ImageToImage(given(picture()), 0.6)
    text = parameters_text(order(mode=mode), 3, MODEL)
    assert "Steps: 8, " in text
    assert ", Denoising strength: 0.6, " in text


def test_masks_have_their_customary_names() -> None:
    mode = Inpaint(given(picture()), given(mask()), MaskPolarity.WHITE, feather_px=4)
    text = parameters_text(order(mode=mode), 3, MODEL)
    assert ", Denoising strength: 1, Mask blur: 4, Version" in text
    text = parameters_text(order(mode=replace(mode, padding_px=32)), 3, MODEL)
    assert "Mask blur: 4, Inpaint area: Only masked, Masked area padding: 32, " in text


def test_no_line_for_no_negative_prompt() -> None:
    assert len(parameters_text(order(prompt="a star"), 3, MODEL).split("\n")) == 2


def test_names_that_would_split_the_settings_are_quoted() -> None:
    text = parameters_text(order(), 3, ModelName('a, "b"', "1", "sha256:00"))
    assert 'Model: "a, \\"b\\"", Version' in text


def test_clip_skip_is_told_as_it_is_counted_there() -> None:
    limits = replace(LIMITS, max_clip_skip=4)
    skipping = resolve(Wish(seed=3, clip_skip=1), limits, draw_seed=int)
    assert ", Clip skip: 2, " in parameters_text(skipping, 3, MODEL)
    assert "Clip skip" not in parameters_text(order(), 3, MODEL)
