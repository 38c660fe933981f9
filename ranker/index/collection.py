"""A collection, and what its vectors were made by."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Final, Self

from services.core.errors import FailedPrecondition, InvalidInput

MAX_NAME_CHARS: Final = 64
POOLINGS: Final = ("cls", "mean")
FITS: Final = ("model", "pad", "center_crop")

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_CHARS - 1}}}")
# What a collection is held to; a name and a version are what it is asked for by.
_SAME: Final = ("digest", "layer", "pooling", "fit", "dimensions")


@dataclass(frozen=True, slots=True)
class Origin:
    """What made a collection's vectors; only those of one origin compare.

    ``layer`` is 0 to the model's depth, ``pooling`` and ``fit`` are of ``POOLINGS`` and ``FITS``.
    The model's final norm is applied to its last layer.
    """

    model: str
    version: str
    digest: str
    layer: int
    pooling: str
    fit: str
    dimensions: int

    def check_same(self, other: Origin, collection: str) -> None:
        """Raises ``FailedPrecondition`` unless vectors of ``other`` may join those of this one."""
        differing = self._differing(other)
        if not differing:
            return
        had = ", ".join(f"{name} {getattr(self, name)}" for name in differing)
        given = ", ".join(f"{name} {getattr(other, name)}" for name in differing)
        raise FailedPrecondition(
            f"The vectors of collection {collection!r} are of {self.model} with {had}; the "
            f"classifier's are of {other.model} with {given}. Such vectors do not compare: index "
            "into another collection, or have the classifier load that model again.",
            reason="MODEL_DIFFERS",
        )

    def is_same(self, other: Origin) -> bool:
        return not self._differing(other)

    def _differing(self, other: Origin) -> list[str]:
        return [name for name in _SAME if getattr(self, name) != getattr(other, name)]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ``ValueError`` where ``text`` is none."""
        found: Any = json.loads(text)
        names = [field.name for field in fields(cls)]
        if not isinstance(found, dict) or sorted(found) != sorted(names):
            raise ValueError(f"not what vectors were made by: {text[:200]!r}")
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Collection:
    """``size`` is the number of pictures in it."""

    name: str
    origin: Origin
    size: int
    created_at: datetime


def check_name(name: str, *, field: str) -> None:
    """Raises ``InvalidInput`` unless it may be a collection's name."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            field,
            "A name is of letters, digits, `.`, `_` and `-`, and begins with a letter or digit.",
            f"1 to {MAX_NAME_CHARS} characters",
            name[: MAX_NAME_CHARS + 1] or "nothing",
        )
