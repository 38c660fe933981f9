"""Our pixels against the model's own image processor on files of every odd kind."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from transformers import (
    BitImageProcessorPil,
    ConvNextImageProcessorPil,
    DeiTImageProcessor,
    ViTImageProcessor,
)

from services.classifier.preprocessing import read_preprocessing
from services.core.images import decode
from tests.parity.classifier.models import own_processor, textures

(TEXTURE,) = textures(1, seed=5)
ALPHA = Image.linear_gradient("L").resize(TEXTURE.size)


def rotated(orientation: int) -> tuple[Image.Image, dict[str, Any]]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return TEXTURE, {"format": "JPEG", "exif": exif.tobytes(), "quality": 95}


def palette_with_transparency() -> tuple[Image.Image, dict[str, Any]]:
    return TEXTURE.quantize(64), {"format": "PNG", "transparency": 3}


def with_alpha() -> Image.Image:
    image = TEXTURE.copy()
    image.putalpha(ALPHA)
    return image


PNG = {"format": "PNG"}
KINDS: dict[str, Callable[[], tuple[Image.Image, dict[str, Any]]]] = {
    "rgb png": lambda: (TEXTURE, PNG),
    "rgb jpeg": lambda: (TEXTURE, {"format": "JPEG", "quality": 80}),
    "large jpeg": lambda: (TEXTURE.resize((1201, 803)), {"format": "JPEG"}),
    "progressive jpeg": lambda: (TEXTURE, {"format": "JPEG", "progressive": True}),
    "webp": lambda: (TEXTURE, {"format": "WEBP"}),
    "one pixel": lambda: (TEXTURE.resize((1, 1)), PNG),
    "one row": lambda: (TEXTURE.resize((301, 1)), PNG),
    "alpha": lambda: (with_alpha(), PNG),
    "alpha webp": lambda: (with_alpha(), {"format": "WEBP", "lossless": True}),
    "grey": lambda: (TEXTURE.convert("L"), PNG),
    "grey jpeg": lambda: (TEXTURE.convert("L"), {"format": "JPEG"}),
    "grey alpha": lambda: (with_alpha().convert("LA"), PNG),
    "one bit": lambda: (TEXTURE.convert("1"), PNG),
    "palette": lambda: (TEXTURE.quantize(32), PNG),
    "palette transparency": palette_with_transparency,
    "cmyk": lambda: (TEXTURE.convert("CMYK"), {"format": "JPEG", "quality": 95}),
    **{f"exif {n}": lambda n=n: rotated(n) for n in range(1, 9)},  # type: ignore[misc]
}


def file_of(kind: str) -> bytes:
    image, options = KINDS[kind]()
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def processed(directory: Path, image: Image.Image, **options: Any) -> np.ndarray:
    """The processor's own result, taken back to 0..1: [height, width, 3]."""
    processor = own_processor(directory)
    values = processor(image, return_tensors="np", **options).pixel_values[0].transpose(1, 2, 0)
    restored: np.ndarray = values * np.array(processor.image_std) + np.array(processor.image_mean)
    return restored


def ours(directory: Path, data: bytes) -> np.ndarray:
    return read_preprocessing(directory).prepare(decode(data)) / 255


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    ViTImageProcessor(size={"height": 37, "width": 41}).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file(vit: Path, kind: str) -> None:
    """The processor gets what transformers' own ``load_image`` makes of the file."""
    data = file_of(kind)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.abs(ours(vit, data) - processed(vit, upright)).max() <= 1 / 255


@pytest.mark.parametrize("kind", ["alpha", "grey alpha", "palette transparency", "grey", "cmyk"])
def test_a_processor_that_converts_by_itself(tmp_path: Path, kind: str) -> None:
    """Then transparency goes onto white."""
    ViTImageProcessor(size={"height": 37, "width": 41}, do_convert_rgb=True).save_pretrained(
        tmp_path
    )
    data = file_of(kind)
    theirs = processed(tmp_path, Image.open(io.BytesIO(data)))
    assert np.abs(ours(tmp_path, data) - theirs).max() <= 1 / 255


def test_16_bit_grey_is_scaled_not_clipped(vit: Path) -> None:
    grey = np.asarray(TEXTURE.convert("L"))
    buffer = io.BytesIO()
    Image.fromarray(grey.astype(np.uint16) * 257).save(buffer, "PNG")
    theirs = processed(vit, Image.fromarray(grey).convert("RGB"))
    assert np.abs(ours(vit, buffer.getvalue()) - theirs).max() <= 1 / 255


@pytest.mark.parametrize(
    "options",
    [
        {"resample": 0},
        {"resample": 3},
        {"size": {"shortest_edge": 45}, "do_center_crop": True, "crop_size": 40},
        {"size": {"height": 50, "width": 44}, "do_center_crop": True, "crop_size": 40},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    ],
)
def test_other_steps(tmp_path: Path, options: dict[str, Any]) -> None:
    DeiTImageProcessor(**{"do_center_crop": False, "size": 32, **options}).save_pretrained(tmp_path)
    data = file_of("rgb png")
    assert np.abs(ours(tmp_path, data) - processed(tmp_path, TEXTURE)).max() <= 1 / 255


@pytest.mark.parametrize("side", [61, 384, 390])
def test_convnext_crops_small_pictures_and_stretches_large_ones(tmp_path: Path, side: int) -> None:
    ConvNextImageProcessorPil(size={"shortest_edge": side}, crop_pct=0.8).save_pretrained(tmp_path)
    data = file_of("rgb png")
    assert np.abs(ours(tmp_path, data) - processed(tmp_path, TEXTURE)).max() <= 1 / 255


def test_dinov2_cuts_the_centre_out_of_its_own_shape(tmp_path: Path) -> None:
    BitImageProcessorPil(
        size={"shortest_edge": 64}, crop_size=56, do_convert_rgb=True
    ).save_pretrained(tmp_path)
    data = file_of("alpha")
    theirs = processed(tmp_path, Image.open(io.BytesIO(data)))
    assert np.abs(ours(tmp_path, data) - theirs).max() <= 1 / 255


def test_why_jpegs_are_not_decoded_at_a_smaller_scale(vit: Path) -> None:
    """Decoding at half the size is quicker, and further off than everything else may be."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8))
    buffer = io.BytesIO()
    picture.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    scaled = Image.open(buffer)
    scaled.draft("RGB", (82, 74))
    assert scaled.size == (160, 120)
    exact = ours(vit, buffer.getvalue())
    quick = read_preprocessing(vit).prepare(scaled) / 255
    assert np.abs(exact - quick).max() > 1 / 255
