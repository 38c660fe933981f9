"""Good and bad files."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image

from services.core.images import encode


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(colour: str = "lime", size: tuple[int, int] = (9, 7)) -> bytes:
    return encode(Image.new("RGB", size, colour))


def animation(format: str) -> bytes:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    return file_of(frames[0], format, save_all=True, append_images=frames[1:])


def png_bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A header that declares a picture which was never there."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + struct.pack(">I", 0)
        + b"IEND"
        + struct.pack(">I", zlib.crc32(b"IEND"))
    )


TEXTURE = Image.effect_noise((64, 64), 80).convert("RGB")
BAD_FILES: dict[str, bytes] = {
    "empty": b"",
    "truncated jpeg": file_of(TEXTURE, "JPEG")[:700],
    "truncated png": file_of(TEXTURE, "PNG")[:700],
    "truncated webp": file_of(TEXTURE, "WEBP", lossless=True)[:700],
    "png bomb": png_bomb(),
    "unknown format": b"this is no picture at all",
    "bmp": file_of(TEXTURE, "BMP"),
    "animated gif": animation("GIF"),
    "animated webp": animation("WEBP"),
    "animated png": animation("PNG"),
}
