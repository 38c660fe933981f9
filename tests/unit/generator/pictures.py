"""Pictures as a caller would give them."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from services.generator.modes import Given


def picture(width: int = 32, height: int = 32, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours with some texture."""
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    noise = np.random.default_rng(seed).normal(0, 12, (height, width, 4))
    waves = [np.sin(columns / (5 + seed)), np.cos(rows / 7), np.sin((rows + columns) / 9)]
    planes = np.stack([*waves, np.ones_like(rows)], axis=-1) * 100 + 128
    levels = (planes + noise).clip(0, 255).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


def mask(
    width: int = 32, height: int = 32, box: tuple[int, int, int, int] = (8, 4, 24, 20)
) -> Image.Image:
    """White in a box, but for a corner of it."""
    image = Image.new("L", (width, height))
    image.paste(255, box)
    left, top, right, bottom = box
    image.paste(0, (left, top, (left + right) // 2, (top + bottom) // 2))
    return image


def given(image: Image.Image, field: str = "image") -> Given:
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    return Given(field, lambda: image, lambda: digest)
