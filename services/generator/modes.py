"""What a picture is made from: a prompt alone, or pictures of the caller's too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from PIL import Image


@dataclass(frozen=True, slots=True)
class Given:
    """A picture of the caller's, not decoded yet.

    ``field`` is its dotted path in the request. ``load`` and ``sha256`` block: they belong in a
    worker pool. ``load`` answers it upright, in its own mode, and raises ``InvalidInput``;
    ``sha256`` is in hex, of the file as it was sent (of raw pixels, their shape and data).
    """

    field: str
    load: Callable[[], Image.Image]
    sha256: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Record:
    """A given picture as it is remembered: enough to tell it again, not the picture itself."""

    field: str
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class TextToImage:
    pass


@dataclass(frozen=True, slots=True)
class ImageToImage:
    """``strength``: above 0, up to 1, the share of the steps that are run (Meng et al., 2022)."""

    image: Given
    strength: float


class MaskPolarity(Enum):
    """Which part of a mask is repainted."""

    WHITE = "white"
    TRANSPARENT = "transparent"


@dataclass(frozen=True, slots=True)
class Inpaint:
    """``feather_px``: pixels of soft edge inside the mask. ``padding_px``: zooms on the masked
    region with so many pixels around it; the whole picture when None.
    """

    image: Given
    mask: Given
    polarity: MaskPolarity
    strength: float = 1.0
    feather_px: int = 0
    padding_px: int | None = None


@dataclass(frozen=True, slots=True)
class Stylize:
    """Strengths from 0 to 1."""

    content: Given
    style: Given
    content_strength: float = 0.5
    style_strength: float = 0.5


TEXT_TO_IMAGE: Final = TextToImage()

Mode = TextToImage | ImageToImage | Inpaint | Stylize
