import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as given_values
from hypothesis import strategies as st

from services.core.errors import InvalidInput
from services.generator.modes import ImageToImage, Inpaint, MaskPolarity, Record
from services.generator.request import (
    ImageFormat,
    Order,
    PreviewWish,
    RequestLimits,
    Wish,
    check_indices,
    resolve,
    settle,
)
from services.generator.samplers import Sampler
from tests.unit.generator.pictures import given, mask, picture

LIMITS = RequestLimits(
    samplers=(Sampler.DDIM, Sampler.EULER),
    default_sampler=Sampler.EULER,
    default_width=64,
    default_height=48,
    size_multiple=16,
    max_pixels=128 * 128,
    default_steps=20,
    default_guidance_scale=7.5,
    max_steps=150,
    max_count=4,
    max_prompt_bytes=100,
)


def order(**asked: Any) -> Order:
    return resolve(Wish(**asked), LIMITS, draw_seed=lambda: 77)


def test_defaults() -> None:
    made = order(prompt="a star")
    assert (made.width, made.height, made.steps) == (64, 48, 20)
    assert (made.sampler, made.guidance_scale, made.seeds) == (Sampler.EULER, 7.5, (77,))
    assert made.preview_steps == ()


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("id", {"id": "x" * 129}),
        ("id", {"id": "é" * 65}),
        ("width", {"width": 65}),
        ("height", {"height": 8}),
        ("width", {"width": 2**31}),
        ("height", {"width": 128, "height": 144}),
        ("steps", {"steps": 0}),
        ("steps", {"steps": 151}),
        ("steps", {"steps": 10**9}),
        ("guidance_scale", {"guidance_scale": -0.5}),
        ("guidance_scale", {"guidance_scale": math.nan}),
        ("guidance_scale", {"guidance_scale": math.inf}),
        ("guidance_scale", {"guidance_scale": 100.5}),
        ("guidance_rescale", {"guidance_rescale": 1.5}),
        ("guidance_rescale", {"guidance_rescale": math.nan}),
        ("sampler", {"sampler": Sampler.LCM}),
        ("count", {"count": 5}),
        ("count", {"count": 2**32 - 1}),
        ("seeds", {"seeds": (1, 2, 3, 4, 5)}),
        ("output.quality", {"output": ImageFormat("JPEG", 101)}),
        ("preview.output.quality", {"preview": PreviewWish(output=ImageFormat("WEBP", 0))}),
    ],
)
def test_limits_name_the_field(field: str, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        order(**asked)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": "x" * 100},
        {"negative_prompt": "é" * 50},
        {"preview": PreviewWish(every=20)},
        {"preview": PreviewWish(at_steps=(20,))},
        {"preview": PreviewWish(at_steps=(1,) * 20)},
    ],
)
def test_what_is_at_the_limit_is_taken(asked: dict[str, Any]) -> None:
    assert order(**asked).steps == 20


@pytest.mark.parametrize(
    ("asked", "field", "limit", "given"),
    [
        ({"prompt": "x" * 101}, "prompt", "100 bytes", "101 bytes"),
        ({"prompt": "x" * 2**20}, "prompt", "100 bytes", "1048576 bytes"),
        ({"negative_prompt": "é" * 51}, "negative_prompt", "100 bytes", "102 bytes"),
        ({"preview": PreviewWish(every=21)}, "preview.every", "1 to 20", "21"),
        ({"preview": PreviewWish(at_steps=(0,))}, "preview.at_steps", "1 to 20", "0"),
        ({"preview": PreviewWish(at_steps=(21,))}, "preview.at_steps", "1 to 20", "21"),
        ({"preview": PreviewWish(at_steps=(1,) * 21)}, "preview.at_steps", "20", "21"),
        ({"seeds": (1,), "seed": 1}, "seeds", "one of them", "both"),
        ({"output": ImageFormat("GIF")}, "output.format", "PNG, JPEG, WEBP", "GIF"),
        ({"output": ImageFormat("x" * 81)}, "output.format", "PNG, JPEG, WEBP", "x" * 80),
        ({"output": ImageFormat("PNG", 90)}, "output.quality", "unset", "90"),
        (
            {"preview": PreviewWish(output=ImageFormat("PNG", 0))},
            "preview.output.quality",
            "unset",
            "0",
        ),
    ],
)
def test_what_is_over_the_limit_is_told_with_it(
    asked: dict[str, Any], field: str, limit: str, given: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        order(**asked)
    error = caught.value
    assert (error.field, error.limit, error.given) == (field, limit, given)


@pytest.mark.parametrize(
    ("asked", "seeds"),
    [
        ({"seed": 5}, (5,)),
        ({"seed": 5, "count": 3}, (5, 6, 7)),
        ({"count": 2}, (77, 78)),
        ({"seeds": (9, 3)}, (9, 3)),
        ({"seeds": (9, 3), "count": 4}, (9, 3, 4, 5)),
        ({"seeds": (9, 3), "count": 1}, (9, 3)),
        ({"seed": 2**64 - 1, "count": 2}, (2**64 - 1, 0)),
    ],
)
def test_seeds(asked: dict[str, Any], seeds: tuple[int, ...]) -> None:
    assert order(**asked).seeds == seeds


def test_previews_rise_and_are_told_once() -> None:
    preview = PreviewWish(every=6, at_steps=(12, 20, 1))
    assert order(preview=preview).preview_steps == (1, 6, 12, 18, 20)


def test_no_regular_preview_at_the_last_step() -> None:
    assert order(steps=12, preview=PreviewWish(every=6)).preview_steps == (6,)


@pytest.mark.parametrize(("scale", "guided"), [(0.0, False), (1.0, False), (1.01, True)])
def test_guidance_is_off_up_to_one(scale: float, guided: bool) -> None:
    assert order(guidance_scale=scale).guided is guided


@given_values(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.floats(width=32),
)
def test_an_order_holds_every_limit(width: int, height: int, steps: int, scale: float) -> None:
    wish = Wish(width=width, height=height, steps=steps, guidance_scale=scale)
    try:
        made = resolve(wish, LIMITS, draw_seed=int)
    except InvalidInput:
        return
    assert made.width * made.height <= LIMITS.max_pixels
    assert made.width % 16 == made.height % 16 == 0
    assert 1 <= made.steps <= LIMITS.max_steps
    assert 0 <= made.guidance_scale <= 100


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize(
    ("name", "fits", "longest"), [("WEBP", 16_368, 16_383), ("JPEG", 65_488, 65_500)]
)
@pytest.mark.parametrize("of", ["output", "preview"])
def test_a_side_must_fit_into_its_file(
    side: str, name: str, fits: int, longest: int, of: str
) -> None:
    wide = replace(LIMITS, max_pixels=2**24)
    output = ImageFormat(name)
    asked: dict[str, Any] = {
        "width": 16,
        "height": 16,
        of: output if of == "output" else PreviewWish(output=output),
    }
    assert resolve(Wish(**{**asked, side: fits}), wide, draw_seed=int)
    with pytest.raises(InvalidInput) as caught:
        resolve(Wish(**{**asked, side: fits + 16}), wide, draw_seed=int)
    error = caught.value
    assert (error.field, error.limit) == (side, f"{longest} pixels")
    assert error.given == str(fits + 16)


def picture_order(strength: float = 0.5, **asked: Any) -> Order:
    return order(mode=ImageToImage(given(picture()), strength), **asked)


@pytest.mark.parametrize(
    ("steps", "strength", "taken"), [(20, 0.5, 10), (10, 0.7, 7), (3, 0.99, 2), (8, 1.0, 8)]
)
def test_strength_leaves_steps_out(steps: int, strength: float, taken: int) -> None:
    made = picture_order(strength, steps=steps)
    assert (made.steps, made.steps_taken, made.begin) == (steps, taken, steps - taken)


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, math.nan, math.inf])
def test_strength_is_a_share(strength: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        picture_order(strength)
    assert caught.value.field == "image_to_image.strength"
    assert caught.value.limit == "above 0, up to 1"


def test_an_inpainting_starts_from_noise_unless_told() -> None:
    mode = Inpaint(given(picture()), given(mask()), MaskPolarity.WHITE)
    assert order(mode=mode).steps_taken == 20
    for strength in (0.01, 1.1):
        with pytest.raises(InvalidInput) as caught:
            order(mode=replace(mode, strength=strength))
        assert caught.value.field == "inpaint.strength"


@pytest.mark.parametrize(("feather_px", "fits"), [(0, True), (128, True), (129, False)])
def test_feathers_have_a_limit(feather_px: int, *, fits: bool) -> None:
    mode = Inpaint(given(picture()), given(mask()), MaskPolarity.WHITE, feather_px=feather_px)
    if fits:
        assert order(mode=mode).mode == mode
        return
    with pytest.raises(InvalidInput) as caught:
        order(mode=mode)
    assert (caught.value.field, caught.value.limit) == ("inpaint.feather_px", "0 to 128")


def test_strength_must_leave_a_step() -> None:
    assert picture_order(0.25, steps=4).steps_taken == 1
    with pytest.raises(InvalidInput) as caught:
        picture_order(0.24, steps=4)
    assert caught.value.field == "image_to_image.strength"
    assert (caught.value.limit, caught.value.given) == ("at least 0.25 with 4 steps", "0.24")


def test_previews_are_of_the_steps_taken() -> None:
    assert picture_order(0.5, preview=PreviewWish(at_steps=(10,))).preview_steps == (10,)
    with pytest.raises(InvalidInput, match="out of range"):
        picture_order(0.5, preview=PreviewWish(at_steps=(11,)))


@pytest.mark.parametrize(
    ("asked", "size", "settled"),
    [
        ({}, (64, 48), (64, 48)),
        ({}, (79, 50), (64, 48)),
        ({}, (5, 3), (16, 16)),
        ({}, (128, 128), (128, 128)),
        ({}, (1000, 1000), (128, 128)),
        ({}, (4000, 1000), (256, 64)),
        ({}, (16_000, 1), (1024, 16)),
        ({"width": 32}, (1000, 1000), (32, 32)),
        ({"width": 32}, (1000, 500), (32, 16)),
        ({"height": 48}, (100, 50), (96, 48)),
        ({"width": 64, "height": 16}, (10, 10), (64, 16)),
    ],
)
def test_the_size_follows_the_picture(
    asked: dict[str, Any], size: tuple[int, int], settled: tuple[int, int]
) -> None:
    open_order = picture_order(**asked)
    made = settle(open_order, (Record("image", "00", *size),), LIMITS)
    assert (made.width, made.height) == settled


@pytest.mark.parametrize(
    ("field", "asked", "size"),
    [
        ("height", {"width": 64}, (10, 1000)),
        ("width", {"height": 128}, (160, 100)),
        ("height", {"width": 128}, (100, 130)),
    ],
)
def test_a_side_in_proportion_holds_the_limits(
    field: str, asked: dict[str, Any], size: tuple[int, int]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        settle(picture_order(**asked), (Record("image", "00", *size),), LIMITS)
    assert caught.value.field == field


@given_values(st.integers(1, 20_000), st.integers(1, 20_000))
def test_every_picture_has_a_size(width: int, height: int) -> None:
    made = settle(picture_order(), (Record("image", "00", width, height),), LIMITS)
    assert 0 < made.width * made.height <= LIMITS.max_pixels
    assert made.width % 16 == made.height % 16 == 0


def test_indices() -> None:
    check_indices("cancel.indices", (0, 3), 4)
    with pytest.raises(InvalidInput, match="out of range"):
        check_indices("cancel.indices", (4,), 4)


def test_limits_are_the_models() -> None:
    wide = replace(LIMITS, max_steps=1000)
    assert resolve(Wish(steps=1000), wide, draw_seed=int).steps == 1000
