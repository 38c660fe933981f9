from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from ranker.arena.picture import anonymous
from services.core.errors import InvalidInput


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_text_exif_and_profiles_go_and_pixels_stay() -> None:
    image = Image.new("RGB", (6, 4), (10, 200, 30))
    image.putpixel((2, 1), (255, 0, 0))
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "made by somebody")
    exif = Image.Exif()
    exif[0x010E] = "made by somebody"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kept = anonymous(
        encoded(image, "PNG", pnginfo=info, exif=exif, icc_profile=profile, dpi=(72, 72)),
        field="image",
    )
    assert b"somebody" not in kept
    again = Image.open(io.BytesIO(kept))
    assert (again.format, again.info) == ("PNG", {})
    assert again.tobytes() == image.tobytes()


def test_files_of_every_kind_become_alike() -> None:
    image = Image.new("RGB", (8, 8), (90, 90, 90))
    kept = {anonymous(encoded(image, kind), field="image")[:33] for kind in ("PNG", "JPEG", "WEBP")}
    assert len(kept) == 1


def test_what_is_no_picture_is_refused_by_its_field() -> None:
    with pytest.raises(InvalidInput) as raised:
        anonymous(b"nothing", field="image.encoded")
    assert raised.value.field == "image.encoded"
