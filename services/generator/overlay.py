"""What is painted, laid over the picture it was painted on; the rest stays as it is, to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from services.generator.network import Pixels

Marks = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

# Sides are multiples of the network's already: nothing is to be rounded here.
PICTURES: Final = VaeImageProcessor(vae_scale_factor=1)


@dataclass(frozen=True, slots=True)
class Overlay:
    """``original``: RGB, or RGBA where the given picture has alpha. ``box`` is what of it was
    painted, ``weights`` float32 (height, width) of the box: 0 keeps the original, 1 shows what was
    painted. ``filled``: the box was fitted into the painting, and what was left of that filled.
    """

    original: Image.Image
    box: Box
    weights: Weights
    filled: bool

    def apply(self, painted: Pixels) -> Image.Image:
        """uint8 (H, W, 3) of any size, over the original. Blocking."""
        left, top, right, bottom = self.box
        sheet, size = Image.fromarray(painted), (right - left, bottom - top)
        part = _middle(sheet, size) if self.filled else (0, 0, *sheet.size)
        fitted = sheet.resize(size, Image.Resampling.LANCZOS, box=part)
        under = np.asarray(self.original.crop(self.box))
        over = np.asarray(fitted)
        blend = _blended_opaque if self.original.mode == "RGB" else _blended
        weights = self.weights[..., None]
        levels = np.rint(blend(over, under, weights)).astype(np.uint8)
        whole = self.original.copy()
        whole.paste(Image.fromarray(np.where(weights > 0, levels, under)), (left, top))
        return whole


def soft_weights(marks: Marks, feather_px: int) -> Weights:
    """1 inside the marks, falling off towards their edge over ``feather_px`` pixels; 0 outside.

    A pixel at distance d from the nearest one outside weighs d / (feather_px + 1), in the octagonal
    metric (squares and diamonds in turn; Rosenfeld & Pfaltz, 1968). The border of the picture is
    no edge.
    """
    rows, columns = _bounds(marks)
    # One more on each side, where there is one, is all that the edge depends on.
    near = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in (rows, columns))
    inside = marks[near]
    depth = inside.astype(np.uint16)
    for index in range(feather_px):
        inside = _eroded(inside, square=index % 2 == 0)
        depth += inside
    weights = np.zeros(marks.shape, np.float32)
    weights[near] = depth / np.float32(feather_px + 1)
    return weights


def _middle(sheet: Image.Image, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of ``sheet`` that ``VaeImageProcessor`` leaves when it resizes to ``size`` in its
    mode "crop"; that makes the whole as large as its part asks, which can be beyond any memory.
    """
    width, height = size
    wide = width * sheet.height > height * sheet.width
    whole_width = width if wide else sheet.width * height // sheet.height
    whole_height = sheet.height * width // sheet.width if wide else height
    left = (whole_width // 2 - width // 2) * sheet.width / whole_width
    top = (whole_height // 2 - height // 2) * sheet.height / whole_height
    right = left + width * sheet.width / whole_width
    bottom = top + height * sheet.height / whole_height
    return max(left, 0.0), max(top, 0.0), min(right, sheet.width), min(bottom, sheet.height)


def _bounds(marks: Marks) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(marks.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _eroded(marks: Marks, *, square: bool) -> Marks:
    wide = np.pad(marks, 1, mode="edge")
    across = wide[:, :-2] & wide[:, 1:-1] & wide[:, 2:]
    if square:
        found: Marks = across[:-2] & across[1:-1] & across[2:]
        return found
    down = wide[:-2, 1:-1] & wide[2:, 1:-1]
    return across[1:-1] & down


def _blended_opaque(over: Pixels, under: Pixels, weights: Weights) -> Weights:
    return over * weights + under * (1 - weights)


def _blended(over: Pixels, under: Pixels, weights: Weights) -> Weights:
    """An opaque RGB over RGBA of straight alpha (Porter & Duff, 1984)."""
    shown = under[..., 3:] / np.float32(255) * (1 - weights)
    alpha = weights + shown
    colours = (over * weights + under[..., :3] * shown) / np.where(alpha > 0, alpha, 1)
    return np.concatenate([colours, alpha * 255], axis=-1)
