"""Pictures that do not say who made them."""

from __future__ import annotations

from services.core.images import DEFAULT_LIMITS, ImageLimits, decode, encode, to_rgb


def anonymous(data: bytes, *, field: str, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The picture as a PNG of nothing but its pixels: text, EXIF, profiles and credentials go.

    Raises ``InvalidInput`` as ``decode`` does.
    """
    image = to_rgb(decode(data, field=field, limits=limits))
    image.info = {}
    return encode(image, "PNG")
