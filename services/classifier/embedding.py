"""From what a pass read out to the vectors of an answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.classifier.network import Floats, Pooling, Reading
from services.classifier.request import Dtype
from services.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Embedding:
    """``data`` is row-major: product(``shape``) little-endian numbers of ``dtype``.

    ``shape`` is [hidden], or [rows, columns, hidden] for ``Pooling.PATCH``. ``normalized`` vectors
    (those along the last axis) have length 1, but for a vector of zeros.
    """

    reading: Reading
    data: bytes
    dtype: Dtype
    shape: tuple[int, ...]
    normalized: bool

    @property
    def pooling(self) -> Pooling:
        return self.reading.pooling


def encode(vector: Floats, reading: Reading, *, normalize: bool, dtype: Dtype) -> Embedding:
    """Raises ``InvalidInput`` where the numbers do not fit ``dtype``."""
    finished = normalized(vector) if normalize else vector
    with np.errstate(over="ignore"):
        typed = finished.astype(dtype.value)
    if dtype is Dtype.FLOAT16 and not np.isfinite(typed).all():
        raise InvalidInput(
            "dtype",
            "The vector does not fit float16; ask for float32, or normalize.",
            f"{np.finfo(np.float16).max:.0f}",
            f"{float(np.abs(finished).max()):.0f}",
        )
    return Embedding(reading, typed.tobytes(), dtype, tuple(vector.shape), normalize)


def normalized(vectors: Floats) -> Floats:
    """``vectors`` divided by their Euclidean length along the last axis; zeros stay zeros."""
    # In float64, where no square of a float32 is lost.
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    return (wide / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)
