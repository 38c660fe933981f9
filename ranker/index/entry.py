"""Pictures as an index keeps them, and what a search finds of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InvalidInput

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Label:
    """A label of the classifier; ``score`` is its probability, 0 to 1."""

    index: int
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Image:
    """What is known of a picture beside its vector. ``labels`` are best first."""

    id: str
    labels: tuple[Label, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    indexed_at: datetime | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A picture with its vector: float32 [dimensions], of length 1."""

    image: Image
    vector: Vector


@dataclass(frozen=True, slots=True)
class Match:
    """``similarity`` is the cosine, -1 to 1; 0 where no vector was looked for."""

    image: Image
    similarity: float = 0.0


@dataclass(frozen=True, slots=True)
class Filter:
    """Pictures with at least one of ``labels``, where there are any, and all ``attributes``."""

    labels: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.labels or self.attributes)

    def passes(self, image: Image) -> bool:
        """The definition; a store answers the same by its own means."""
        named = not self.labels or any(label.name in self.labels for label in image.labels)
        given = image.attributes
        return named and all(given.get(name) == value for name, value in self.attributes.items())


def unit(values: Vector, *, field: str) -> Vector:
    """``values`` (float32 [dimensions]) divided by their length.

    Raises ``InvalidInput`` on ``field`` where they are not finite, or all are 0.
    """
    wide = values.astype(np.float64)
    length = float(np.linalg.norm(wide))
    if not np.isfinite(length):
        raise InvalidInput(field, "The numbers of a vector must be finite.")
    if length == 0.0:
        raise InvalidInput(field, "A vector of zeros points nowhere; its length must not be 0.")
    return (wide / length).astype(np.float32)
