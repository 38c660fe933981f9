import numpy as np
import pytest
from PIL import Image

from services.classifier.heat_map import MAX_SIDE_PX, canvas, drawn
from services.classifier.preprocessing import Size, Window

GREY = (120, 120, 120)


def heat(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def over_grey(relevance: np.ndarray, seen: Window, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(drawn(Image.new("RGB", size, GREY), seen, relevance), np.int64)


def whole(size: Size) -> Window:
    return Window(0, 0, size.width, size.height)


def test_the_hottest_patch_is_where_it_is_in_the_picture() -> None:
    pixels = over_grey(heat([0, 0, 0], [0, 0, 1]), Window(0, 0, 60, 40), (60, 40))
    brightness = pixels.sum(axis=2)
    top, left = np.unravel_index(brightness.argmax(), brightness.shape)
    assert 20 <= top < 40
    assert 40 <= left < 60
    # Heat ends about the middles of the patches around.
    assert np.abs(pixels[10, [10, 30]] - 120).max() <= 4
    assert (pixels[30, 10] == GREY).all()


def test_the_least_relevant_patch_is_clear_however_much_it_has() -> None:
    pixels = over_grey(heat([0.4, 0.6]), Window(0, 0, 40, 20), (40, 20))
    assert (pixels[:, 0] == GREY).all()
    assert (pixels[:, -1] != GREY).all()


def test_more_relevance_is_brighter() -> None:
    ramp = heat([0, 1, 2, 3, 4, 5])
    pixels = over_grey(ramp, Window(0, 0, 600, 100), (600, 100))
    middles = pixels[50, 50::100].sum(axis=1)
    assert (np.diff(middles[1:]) > 0).all()  # the first is the picture itself


def test_equal_relevances_leave_the_picture_as_it_is() -> None:
    pixels = over_grey(np.full((2, 2), 0.25, np.float32), Window(0, 0, 10, 10), (10, 10))
    assert (pixels == GREY).all()


def test_what_the_network_was_not_shown_is_dark() -> None:
    pixels = over_grey(heat([1, 1]), Window(10, 0, 30, 10), (40, 10))
    assert (pixels[:, 10:30] == GREY).all()
    assert (pixels[:, :10] == 48).all()
    assert (pixels[:, 30:] == 48).all()


def test_patches_of_padding_lie_outside_of_the_picture() -> None:
    """A wide picture on a square input: what is hot is above it."""
    pixels = over_grey(heat([1, 1], [0, 0], [0, 0], [0, 0]), Window(0, -30, 40, 50), (40, 20))
    assert (pixels == GREY).all()


def test_colours_of_the_picture_are_washed_out() -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    pixels = np.asarray(drawn(red, whole(Size(4, 4)), heat([1, 1])))
    assert int(np.ptp(pixels[0, 0])) < 70


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ((MAX_SIDE_PX, 10), (MAX_SIDE_PX, 10)),
        ((MAX_SIDE_PX + 1, 10), (MAX_SIDE_PX, 10)),
        ((MAX_SIDE_PX * 4, MAX_SIDE_PX * 2), (MAX_SIDE_PX, MAX_SIDE_PX // 2)),
        ((3, MAX_SIDE_PX * 4), (1, MAX_SIDE_PX)),
    ],
)
def test_a_canvas_is_bounded(given: tuple[int, int], made: tuple[int, int]) -> None:
    assert canvas(Image.new("L", given)).size == made


def test_a_canvas_of_pixels() -> None:
    pixels = np.full((2, 3, 3), (1, 2, 3), np.uint8)
    assert canvas(pixels).size == (3, 2)
    assert canvas(pixels).getpixel((0, 0)) == (1, 2, 3)
