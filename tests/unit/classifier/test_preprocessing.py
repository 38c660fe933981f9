import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.classifier.preprocessing import (
    CONFIG_FILE,
    GREY,
    Fit,
    Preprocessing,
    Size,
    parse_preprocessing,
    read_preprocessing,
)
from services.core.errors import FailedPrecondition

VIT = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 6, "width": 8},
}


def test_a_vit_is_stretched_to_the_exact_size() -> None:
    preprocessing = parse_preprocessing(VIT)
    assert preprocessing == Preprocessing(
        input=Size(6, 8), resize=Size(6, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    assert preprocessing.prepare(Image.new("RGB", (31, 7))).shape == (6, 8, 3)


def test_an_old_file_gives_one_number() -> None:
    assert parse_preprocessing({"size": 384}).input == Size(384, 384)


def test_shorter_side_and_centre_crop() -> None:
    config = VIT | {"size": {"shortest_edge": 4}, "do_center_crop": True, "crop_size": 4}
    preprocessing = parse_preprocessing(config)
    image = Image.new("RGB", (12, 4), "red")
    image.paste("blue", (4, 0, 8, 4))
    assert (preprocessing.prepare(image) == (0, 0, 255)).all()


CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.5}


@pytest.mark.parametrize("size", [200, {"shortest_edge": 200}])
def test_a_small_convnext_cuts_the_centre_out(size: object) -> None:
    preprocessing = parse_preprocessing(CONVNEXT | {"size": size})
    assert preprocessing.input == Size(200, 200)
    assert (preprocessing.shortest_edge, preprocessing.crop) == (400, True)


def test_a_convnext_without_a_share_has_the_processors_own() -> None:
    config = {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224}
    assert parse_preprocessing(config).shortest_edge == 256


@pytest.mark.parametrize(("side", "stretches"), [(383, False), (384, True), (385, True)])
def test_a_large_convnext_stretches(side: int, stretches: bool) -> None:
    preprocessing = parse_preprocessing(CONVNEXT | {"size": {"shortest_edge": side}})
    assert (preprocessing.resize == Size(side, side)) is stretches
    assert preprocessing.crop is not stretches


def test_another_size_of_what_is_stretched() -> None:
    preprocessing = parse_preprocessing(VIT).at(16)
    assert (preprocessing.input, preprocessing.resize) == (Size(16, 16), Size(16, 16))
    assert preprocessing.prepare(Image.new("RGB", (31, 7))).shape == (16, 16, 3)


def test_another_size_sees_the_same_share_of_the_picture() -> None:
    edge = VIT | {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}
    assert parse_preprocessing(edge).at(448).shortest_edge == 512
    square = VIT | {"size": 256, "do_center_crop": True, "crop_size": 224}
    assert parse_preprocessing(square).at(112).resize == Size(128, 128)


def test_the_models_own_size_changes_nothing() -> None:
    preprocessing = parse_preprocessing(VIT | {"size": 32})
    assert preprocessing.at(32) == preprocessing


def test_steps_switched_off() -> None:
    config = VIT | {"do_rescale": False, "do_normalize": False}
    preprocessing = parse_preprocessing(config)
    assert (preprocessing.scale, preprocessing.mean, preprocessing.std) == (
        1.0,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
    )


@pytest.mark.parametrize(
    "config",
    [
        VIT | {"do_pad": True},
        VIT | {"do_resize": False},
        VIT | {"size": {"shortest_edge": 4}},
    ],
)
def test_what_is_not_done_here_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(FailedPrecondition):
        parse_preprocessing(config)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"size": {}}', '{"size": 8, "resample": 99}'])
def test_a_missing_or_broken_file(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(FailedPrecondition, match=CONFIG_FILE):
        read_preprocessing(tmp_path)


def test_read(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps(VIT))
    assert read_preprocessing(tmp_path) == parse_preprocessing(VIT)


def test_pad_keeps_all_of_the_picture_on_grey() -> None:
    pixels = parse_preprocessing(VIT).prepare(Image.new("RGB", (4, 12), "red"), Fit.PAD)
    assert (pixels[:, 3:5] == (255, 0, 0)).all()
    assert (pixels[:, :3] == GREY).all()
    assert (pixels[:, 5:] == GREY).all()


def test_center_crop_keeps_the_middle() -> None:
    image = Image.new("RGB", (80, 20), "red")
    image.paste("blue", (20, 0, 60, 20))
    pixels = parse_preprocessing(VIT).prepare(image, Fit.CENTER_CROP)
    assert np.array_equal(np.unique(pixels.reshape(-1, 3), axis=0), [(0, 0, 255)])


def test_transparency_is_dropped_or_put_on_white() -> None:
    clear = Image.new("RGBA", (5, 5), (10, 20, 30, 0))
    assert (parse_preprocessing(VIT).prepare(clear) == (10, 20, 30)).all()
    white = parse_preprocessing(VIT | {"do_convert_rgb": True})
    assert (white.prepare(clear) == 255).all()


def visible(preprocessing: Preprocessing, image: Image.Image, fit: Fit) -> tuple[float, ...]:
    """Where the input's corners lie in a picture whose red and green tell their place in it."""
    size = preprocessing.input
    pixels = preprocessing.prepare(image, fit).astype(np.float64)
    across = np.polyfit(np.arange(size.width) + 0.5, pixels[size.height // 2, :, 0], 1)
    down = np.polyfit(np.arange(size.height) + 0.5, pixels[:, size.width // 2, 1], 1)
    corners = (across[1], down[1], np.polyval(across, size.width), np.polyval(down, size.height))
    return tuple(float(corner) for corner in corners)


@pytest.mark.parametrize("shape", [(240, 160), (150, 200), (200, 200)])
@pytest.mark.parametrize(
    ("config", "fit"),
    [
        (VIT | {"size": {"height": 48, "width": 64}}, Fit.MODEL),
        (VIT | {"size": {"height": 48, "width": 64}}, Fit.CENTER_CROP),
        (VIT | {"size": 80, "do_center_crop": True, "crop_size": 48}, Fit.MODEL),
        (
            VIT | {"size": {"shortest_edge": 60}, "do_center_crop": True, "crop_size": 40},
            Fit.MODEL,
        ),
        (VIT | {"do_resize": False, "do_center_crop": True, "crop_size": 100}, Fit.MODEL),
    ],
)
def test_the_window_is_what_the_input_shows(
    config: dict[str, object], fit: Fit, shape: tuple[int, int]
) -> None:
    """Against the pixels themselves: a picture of two ramps, one level a pixel."""
    height, width = shape
    rows, columns = np.mgrid[0:height, 0:width]
    ramps = np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    preprocessing = parse_preprocessing(config)
    window = preprocessing.window(Size(height, width), fit)
    seen = visible(preprocessing, Image.fromarray(ramps), fit)
    # A ramp's pixel is its left edge; a resized picture is a pixel off at the most.
    expected = (window.left, window.top, window.right, window.bottom)
    assert np.allclose(np.add(seen, 0.5), expected, atol=2.5)


def test_a_window_around_the_whole_picture_with_its_padding() -> None:
    preprocessing = parse_preprocessing(VIT)
    window = preprocessing.window(Size(12, 4), Fit.PAD)
    assert (window.left, window.top, window.right, window.bottom) == (-6, 0, 10, 12)
    half = window.scaled(0.5, 0.25)
    assert (half.left, half.top, half.right, half.bottom) == (-3, 0, 5, 3)
