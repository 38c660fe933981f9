from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.core.errors import InvalidInput
from services.generator.canvas import Canvas
from services.generator.diffusion import PictureWork
from services.generator.model import GeneratorModel
from services.generator.modes import Given, Inpaint, MaskPolarity
from services.generator.request import ImageFormat, PreviewMethod, PreviewWish, Wish, resolve
from tests.unit.generator.drive import drive
from tests.unit.generator.fakes import SIDE, FakeNetwork, loaded_model
from tests.unit.generator.pictures import given, mask, picture


def inpaint(image: Image.Image, marks: Image.Image, **options: Any) -> Inpaint:
    options.setdefault("polarity", MaskPolarity.WHITE)
    return Inpaint(given(image, "inpaint.image"), given(marks, "inpaint.mask"), **options)


def work_of(mode: Inpaint, model: GeneratorModel | None = None, **asked: Any) -> PictureWork:
    model = model or loaded_model()
    [work] = model.works(resolve(Wish(mode=mode, steps=4, **asked), model.limits, draw_seed=int))
    return work


def canvas_of(work: PictureWork) -> Canvas:
    assert work.canvas is not None
    return work.canvas


@pytest.mark.parametrize("polarity", MaskPolarity)
def test_polarities_name_the_same_region(polarity: MaskPolarity) -> None:
    marks = mask()
    if polarity is MaskPolarity.TRANSPARENT:
        opaque = picture(mode="RGBA", seed=2)
        opaque.putalpha(marks.point(lambda level: 255 - level))
        marks = opaque
    found = canvas_of(work_of(inpaint(picture(), marks, polarity=polarity))).overlay
    assert found is not None
    assert np.array_equal(found.weights, np.asarray(mask()) / 255)


def test_transparent_pixels_are_not_white() -> None:
    marks = Image.new("RGBA", (32, 32), (255, 255, 255, 0))
    marks.paste((255, 255, 255, 255), (0, 0, 16, 16))
    found = canvas_of(work_of(inpaint(picture(), marks))).overlay
    assert found is not None
    assert found.weights.sum() == 256


def even(polarity: MaskPolarity, level: int) -> Inpaint:
    """With a mask of one level, of what its polarity is about."""
    marks = Image.new("L", (32, 32), level)
    if polarity is MaskPolarity.TRANSPARENT:
        opaque = picture(mode="RGBA", seed=2)
        opaque.putalpha(marks)
        marks = opaque
    return inpaint(picture(), marks, polarity=polarity)


@pytest.mark.parametrize(
    ("polarity", "levels"),
    [(MaskPolarity.WHITE, (128, 129)), (MaskPolarity.TRANSPARENT, (127, 126))],
)
def test_a_pixel_is_marked_from_half_on(polarity: MaskPolarity, levels: tuple[int, ...]) -> None:
    for level in levels:
        found = canvas_of(work_of(even(polarity, level))).mask
        assert found is not None
        assert found.all()


@pytest.mark.parametrize(
    ("polarity", "levels", "why", "limit", "given"),
    [
        (MaskPolarity.WHITE, (127, 0), "white", "a pixel of level 128 or more", "none above"),
        (
            MaskPolarity.TRANSPARENT,
            (128, 255),
            "transparent",
            "a pixel of alpha 127 or less",
            "none below",
        ),
    ],
)
def test_a_mask_without_any_region(
    polarity: MaskPolarity, levels: tuple[int, ...], why: str, limit: str, given: str
) -> None:
    for level in levels:
        with pytest.raises(InvalidInput, match=f"nothing to repaint: no pixel .*{why}") as caught:
            work_of(even(polarity, level))
        error = caught.value
        assert (error.field, error.limit) == ("inpaint.mask", limit)
        assert error.given == f"{given} {level}"


def test_the_nearest_pixel_is_told() -> None:
    dim = mask().point(lambda level: level and 96)
    with pytest.raises(InvalidInput) as caught:
        work_of(inpaint(picture(), dim))
    assert caught.value.given == "none above 96"


@pytest.mark.parametrize("size", [(31, 32), (32, 33), (64, 64)])
def test_a_mask_of_another_size(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput) as caught:
        work_of(inpaint(picture(), mask(*size)))
    error = caught.value
    assert (error.field, error.limit) == ("inpaint.mask", "32x32")
    assert error.given == "{}x{}".format(*size)


def test_a_mask_must_have_what_its_polarity_is_about() -> None:
    opaque = inpaint(picture(), mask(), polarity=MaskPolarity.TRANSPARENT)
    with pytest.raises(InvalidInput, match="no transparency") as caught:
        work_of(opaque)
    error = caught.value
    assert (error.field, error.limit) == ("inpaint.mask", "a picture with transparency")
    assert error.given == "L without any"


def test_the_smallest_region_is_painted() -> None:
    marks = Image.new("L", (33, 35))
    marks.putpixel((6, 7), 255)
    found = canvas_of(work_of(inpaint(picture(33, 35), marks))).mask
    assert found is not None
    assert found.sum() == 1.0


def test_the_answer_has_the_pictures_size() -> None:
    model = loaded_model()
    work = work_of(inpaint(picture(37, 45), mask(37, 45)), model)
    assert (work.order.width, work.order.height) == (32, 40)
    assert work.order.picture_size == (37, 45)
    overlay = canvas_of(work).overlay
    assert overlay is not None
    assert overlay.apply(drive(model, [work])[0][-1].pixels).size == (37, 45)


def test_zooming_paints_the_region_at_the_models_size() -> None:
    marks = mask(400, 300, (200, 100, 220, 110))
    work = work_of(inpaint(picture(400, 300), marks, padding_px=10))
    assert (work.order.width, work.order.height) == (SIDE, SIDE)
    overlay = canvas_of(work).overlay
    assert overlay is not None
    left, top, right, bottom = overlay.box
    # The corner of the mask is cut out; as square as what is painted.
    assert (left, right) == (190, 230)
    assert top <= 90
    assert bottom - top == right - left
    assert overlay.weights.shape == (bottom - top, right - left)


def test_a_picture_too_large_for_its_file() -> None:
    wide = Image.new("RGB", (16_384, 8))
    marks = Image.new("L", wide.size, 255)
    assert work_of(inpaint(wide, marks, padding_px=0)).order.picture_size == (16_384, 8)
    for output in (
        {"output": ImageFormat("WEBP")},
        {"preview": PreviewWish(output=ImageFormat("WEBP"))},
    ):
        with pytest.raises(InvalidInput) as caught:
            work_of(inpaint(wide, marks, padding_px=0), **output)
        assert (caught.value.field, caught.value.limit) == ("inpaint.image", "16383 pixels")


def test_what_is_kept_does_not_depend_on_what_is_painted() -> None:
    model = loaded_model()
    preview = PreviewWish(at_steps=(1, 3), method=PreviewMethod.DECODED)
    mode = inpaint(picture(), mask(box=(0, 0, 16, 32)), strength=0.9)
    wishes = [
        Wish(mode=mode, prompt=prompt, steps=4, seed=3, preview=preview)
        for prompt in ("a star", "something else altogether")
    ]
    works = [
        work for wish in wishes for work in model.works(resolve(wish, model.limits, draw_seed=int))
    ]
    for one, other in zip(*drive(model, works), strict=True):
        assert np.array_equal(one.pixels[:, 16:], other.pixels[:, 16:])
        assert not np.array_equal(one.pixels[:, :16], other.pixels[:, :16])


def test_a_unet_that_sees_masks_gets_them_in_every_mode() -> None:
    network = FakeNetwork(unet_channels=9)
    model = loaded_model(network)
    some = work_of(inpaint(picture(), mask()), model)
    plain = model.works(resolve(Wish(steps=4), model.limits, draw_seed=int))[0]
    for work in (some, plain):
        assert [stage.name for stage in model.plan(work)][:2] == ["encode", "canvas"]
    drive(model, [some, plain])
    assert network.seen_channels == {9}
    assert plain.seen is not None
    assert plain.seen[0].min() == 1.0
    assert some.seen is not None
    assert 0 < some.seen[0].mean() < 1
    assert some.kept is plain.kept is None


def test_pictures_are_recorded_in_order() -> None:
    work = work_of(inpaint(picture(), mask()))
    assert [record.field for record in work.order.given] == ["inpaint.image", "inpaint.mask"]
    assert len({record.sha256 for record in work.order.given}) == 2


def test_a_picture_that_cannot_be_read_names_its_field() -> None:
    def broken() -> Image.Image:
        raise InvalidInput("inpaint.mask", "The PNG image is truncated or corrupt.")

    mode = replace(inpaint(picture(), mask()), mask=Given("inpaint.mask", broken, lambda: "00"))
    with pytest.raises(InvalidInput, match="corrupt"):
        work_of(mode)
