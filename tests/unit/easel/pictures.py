"""Small pictures to test with."""

from __future__ import annotations

from io import BytesIO

from PIL import Image


def png(colour: str = "red", size: tuple[int, int] = (8, 8), format: str = "PNG") -> bytes:
    """Return a picture file of one colour."""
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, format=format)
    return file.getvalue()
