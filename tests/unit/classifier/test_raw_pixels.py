"""Raw pixels are prepared like the picture they are, with and without Pillow's help."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from services.classifier.preprocessing import Fit, Preprocessing, Size

INPUT = Size(6, 8)
NOISE = np.random.default_rng(3).integers(0, 256, (20, 20, 3), np.uint8)


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(INPUT, INPUT),
        Preprocessing(INPUT, None),
        Preprocessing(INPUT, INPUT, crop=True, whiten=True),
        Preprocessing(INPUT, Size(9, 9), crop=True),
        Preprocessing(INPUT, None, shortest_edge=9, crop=True),
    ],
)
@pytest.mark.parametrize("size", [INPUT, Size(8, 6), Size(20, 13)])
def test_pixels_and_the_picture_of_them_give_the_same(
    preprocessing: Preprocessing, fit: Fit, size: Size
) -> None:
    pixels = np.ascontiguousarray(NOISE[: size.height, : size.width])
    expected = preprocessing.prepare(Image.fromarray(pixels), fit)
    assert np.array_equal(preprocessing.prepare(pixels, fit), expected)


def test_pixels_of_the_inputs_size_are_taken_as_they_are() -> None:
    pixels = np.ascontiguousarray(NOISE[: INPUT.height, : INPUT.width])
    assert Preprocessing(INPUT, INPUT).prepare(pixels) is pixels
