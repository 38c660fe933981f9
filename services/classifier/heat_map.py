"""Relevance drawn over the picture that it is of."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.classifier.network import Floats
from services.classifier.preprocessing import Size, Window
from services.core.images import to_rgb

MAX_SIDE_PX: Final = 1024
_WASHED_OUT: Final = 0.75
"""Share of grey in the picture under the heat, so that its own colours do not read as heat."""
_UNSEEN: Final = 0.4
"""Brightness of what the network was not shown."""
_COVER: Final = 0.8
"""Opacity of the largest heat."""
# Colours of rising heat, RGB, in equal steps: each brighter than the one before, so that the order
# is seen without telling hues apart.
_COLOURS: Final = np.array(
    [(24, 14, 92), (118, 28, 134), (202, 46, 96), (246, 112, 40), (252, 196, 48), (255, 252, 196)],
    np.float32,
)


def canvas(picture: Image.Image | npt.NDArray[np.uint8]) -> Image.Image:
    """``picture`` in RGB, scaled down to sides of at most ``MAX_SIDE_PX`` pixels."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    rgb, scale = to_rgb(image), MAX_SIDE_PX / max(image.size)
    if scale >= 1.0:
        return rgb
    width, height = (max(1, round(side * scale)) for side in image.size)
    return rgb.resize((width, height), Image.Resampling.BOX)


def drawn(under: Image.Image, seen: Window, relevance: Floats) -> Image.Image:
    """``relevance`` [rows, columns] as heat over ``under`` (RGB), from its least number, which is
    clear, to its largest.

    ``seen`` is the part of ``under`` that the patches are of; what lies outside is darkened.
    """
    size = Size(under.height, under.width)
    heat = _spread(_stretched(relevance), size, seen)
    visible = _spread(np.ones_like(relevance), size, seen)
    cover = _COVER * np.sqrt(heat)[..., None]
    mixed = (1.0 - cover) * _washed_out(under) + cover * _colour(heat)
    mixed *= _UNSEEN + (1.0 - _UNSEEN) * visible[..., None]
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _stretched(relevance: Floats) -> Floats:
    """To 0 to 1; all 0 where all are equal."""
    least, largest = relevance.min(), relevance.max()
    if largest == least:
        return np.zeros_like(relevance)
    stretched: Floats = (relevance - least) / (largest - least)
    return stretched


def _spread(patches: Floats, size: Size, seen: Window) -> Floats:
    """``patches`` over a picture of ``size``, float32 [height, width]; 0 outside of ``seen``."""
    rows, columns = patches.shape
    across = columns / (seen.right - seen.left)
    down = rows / (seen.bottom - seen.top)
    smooth = Image.fromarray(patches.astype(np.float32)).transform(
        (size.width, size.height),
        Image.Transform.AFFINE,
        (across, 0.0, -seen.left * across, 0.0, down, -seen.top * down),
        Image.Resampling.BILINEAR,  # a cubic would ring, and show cold where there is none
    )
    clipped: Floats = np.clip(np.asarray(smooth), 0.0, 1.0)
    return clipped


def _washed_out(picture: Image.Image) -> npt.NDArray[np.float32]:
    pixels = np.asarray(picture, np.float32)
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    mixed: npt.NDArray[np.float32] = _WASHED_OUT * grey + (1.0 - _WASHED_OUT) * pixels
    return mixed


def _colour(heat: Floats) -> npt.NDArray[Any]:
    """RGB of each number from 0 to 1: [height, width, 3]."""
    stops = np.linspace(0.0, 1.0, len(_COLOURS))
    channels = [np.interp(heat, stops, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1)
