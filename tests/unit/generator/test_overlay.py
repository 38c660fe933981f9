import numpy as np
import pytest
from PIL import Image

from services.generator.overlay import PICTURES, Overlay, soft_weights
from tests.unit.generator.pictures import picture


def marks(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = box
    made = np.zeros((height, width), bool)
    made[top:bottom, left:right] = True
    return made


def test_without_feather_the_marks_are_the_weights() -> None:
    made = marks(20, 12, (3, 2, 9, 11))
    assert np.array_equal(soft_weights(made, 0), made.astype(np.float32))


def test_weights_rise_from_the_edge_by_distance() -> None:
    made = marks(40, 40, (10, 0, 30, 40))
    weights = soft_weights(made, 3)[20]
    assert weights[9] == weights[30] == 0.0
    assert weights[10:14].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert weights[26:30].tolist() == [1.0, 0.75, 0.5, 0.25]


def test_the_border_of_the_picture_is_no_edge() -> None:
    weights = soft_weights(marks(16, 16, (0, 0, 8, 16)), 4)
    assert np.array_equal(weights[0], weights[8])
    assert weights[:, 0].min() == 1.0


def test_a_thin_stroke_is_still_seen() -> None:
    weights = soft_weights(marks(30, 30, (10, 5, 11, 25)), 8)
    assert weights[15, 10] == pytest.approx(1 / 9)


def test_distance_is_nearly_euclidean() -> None:
    made = np.zeros((65, 65), bool)
    rows, columns = np.mgrid[-32:33, -32:33]
    made[np.hypot(rows, columns) < 30] = True
    weights = soft_weights(made, 20)
    # On the circle halfway up the ramp.
    ring = weights[np.abs(np.hypot(rows, columns) - 20) < 0.5]
    assert ring.min() > 0.4
    assert ring.max() < 0.65


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("feather_px", [0, 5])
def test_outside_the_weights_nothing_changes(mode: str, feather_px: int) -> None:
    original = picture(37, 23, mode)
    if mode == "RGBA":
        original.putalpha(picture(37, 23, "L", seed=3))
    whole = soft_weights(marks(37, 23, (8, 4, 30, 21)), feather_px)
    box = (5, 2, 33, 22)
    overlay = Overlay(original, box, whole[2:22, 5:33], filled=False)
    painted = np.full((16, 16, 3), 200, np.uint8)
    made = overlay.apply(painted)
    assert (made.mode, made.size) == (mode, original.size)
    before, after = np.asarray(original), np.asarray(made)
    assert np.array_equal(before[whole == 0], after[whole == 0])
    assert (after[whole == 1][:, :3] == 200).all()
    if mode == "RGBA":
        assert (after[whole == 1][:, 3] == 255).all()


@pytest.mark.parametrize("box", [(0, 0, 40, 40), (3, 1, 43, 18), (10, 0, 17, 40), (5, 5, 8, 39)])
@pytest.mark.parametrize("size", [(32, 32), (48, 32), (32, 64)])
def test_a_fitted_box_goes_back_as_it_came(
    box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    left, top, right, bottom = box
    across, down = right - left, bottom - top
    sheet = picture(*size)
    theirs = PICTURES.resize(sheet, down, across, resize_mode="crop")
    original = Image.new("RGB", (50, 50))
    overlay = Overlay(original, box, np.ones((down, across), np.float32), filled=True)
    ours = overlay.apply(np.asarray(sheet)).crop(box)
    gap = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int))
    assert gap.max() <= 2


def test_soft_edges_mix_as_light_does() -> None:
    weights = np.full((1, 1), 0.5, np.float32)
    black = np.zeros((1, 1, 3), np.uint8)

    def over(*pixel: int) -> list[int]:
        original = Image.fromarray(np.array([[pixel]], np.uint8))
        made = Overlay(original, (0, 0, 1, 1), weights, filled=False).apply(black)
        return [int(level) for level in np.asarray(made)[0, 0]]

    assert over(200, 100, 50) == [100, 50, 25]
    assert over(200, 100, 50, 255) == [100, 50, 25, 255]
    # Colours that cannot be seen do not bleed in.
    assert over(200, 100, 50, 0) == [0, 0, 0, 128]
