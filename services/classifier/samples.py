"""Pictures to calibrate and to compare on: those of a folder, or drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from services.classifier.network import Floats
from services.classifier.preprocessing import Pixels, Preprocessing
from services.core import images
from services.core.errors import InvalidInput

SUFFIXES: Final = (".jpeg", ".jpg", ".png", ".webp")
_COARSE: Final = (6, 7, 3)
_NOISE: Final = 20


@dataclass(frozen=True, slots=True)
class Samples:
    """Pictures that are read and prepared each time they are asked for, so that a folder may hold
    more than memory does. ``origin``: "folder" or "drawn".
    """

    origin: str
    read: Sequence[Callable[[], Pixels]]

    def __len__(self) -> int:
        return len(self.read)

    def __getitem__(self, index: int) -> Pixels:
        """uint8 [height, width, 3]; raises ``InvalidInput`` for a file that is no picture."""
        return self.read[index]()

    def batches(self, rows: int) -> Iterator[list[Pixels]]:
        for first in range(0, len(self), rows):
            yield [read() for read in self.read[first : first + rows]]

    def some(self, places: Iterable[int]) -> Samples:
        return Samples(self.origin, [self.read[place] for place in places])


def of_folder(folder: Path, preprocessing: Preprocessing, *, field: str) -> Samples:
    """Every JPEG, PNG and WebP file below ``folder``, sorted by path.

    Raises ``InvalidInput`` on ``field`` where there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InvalidInput(field, f"There is no folder {folder}.", given=folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InvalidInput(
            field, f"The folder {folder} has no JPEG, PNG or WebP file.", "1 picture or more", 0
        )
    return Samples("folder", [partial(_prepared, path, preprocessing, field) for path in files])


def drawn(count: int, preprocessing: Preprocessing, *, seed: int = 0) -> Samples:
    """Smooth patches of colour with some noise, the same for the same ``seed``."""
    return Samples("drawn", [partial(_drawn, seed + i, preprocessing) for i in range(count)])


def pixel_values(pixels: Sequence[Pixels], preprocessing: Preprocessing) -> Floats:
    """float32 [batch, 3, height, width], as transformers' processors make them."""
    batch = np.stack(pixels).astype(np.float32).transpose(0, 3, 1, 2)
    mean = np.array(preprocessing.mean, np.float32).reshape(1, 3, 1, 1)
    std = np.array(preprocessing.std, np.float32).reshape(1, 3, 1, 1)
    return np.ascontiguousarray((batch * np.float32(preprocessing.scale) - mean) / std)


def _prepared(path: Path, preprocessing: Preprocessing, field: str) -> Pixels:
    try:
        picture = images.decode(path.read_bytes(), field=field)
    except InvalidInput as error:
        raise InvalidInput(field, f"{path}: {error.message}", error.limit, error.given) from error
    return preprocessing.prepare(picture)


def _drawn(seed: int, preprocessing: Preprocessing) -> Pixels:
    random = np.random.default_rng(seed)
    size = (preprocessing.input.width, preprocessing.input.height)
    patches = Image.fromarray(random.integers(0, 256, _COARSE, np.uint8))
    smooth = np.asarray(patches.resize(size, Image.Resampling.BICUBIC), np.int16)
    noise = random.integers(-_NOISE, _NOISE + 1, smooth.shape)
    pixels: Pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    return pixels
