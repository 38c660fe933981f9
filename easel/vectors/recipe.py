"""How vectors were made, and what they look like."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

ITEM_BYTES: Final = {"float32": 4, "float16": 2}
_LETTERS: Final = {"float32": "f", "float16": "e"}
_NAMES_ALONE: Final = ("model", "version")
"""What may differ: the digest says which model it was."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What vectors are made of; those of different recipes do not compare.

    ``layers`` are 0 to the model's depth, ``pooling`` is "cls", "mean" or "patch", ``dtype``
    "float32" or "float16" (as they are sent), ``fit`` "model", "pad" or "center-crop".
    ``final_norm``: the model's final norm was applied, to its last layer alone.
    """

    model: str
    version: str
    digest: str
    layers: tuple[int, ...]
    pooling: str
    normalize: bool
    dtype: str
    final_norm: bool
    fit: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises ``ValueError`` where ``text`` is no recipe."""
        found = json.loads(text)
        names = [field.name for field in fields(cls)]
        if not isinstance(found, dict) or sorted(found) != sorted(names):
            raise ValueError(f"no recipe of vectors: {text!r}")
        return cls(**{**found, "layers": tuple(found["layers"])})

    def check_same(self, other: Recipe, where: str) -> None:
        """Raises ``ValueError`` that says in what ``other``, asked for now, differs from this one
        that the vectors in ``where`` were made by."""
        for field in fields(self):
            had, asked = getattr(self, field.name), getattr(other, field.name)
            if field.name not in _NAMES_ALONE and had != asked:
                raise ValueError(
                    f"{where} was made with {field.name} {_shown(had)}, this run has "
                    f"{_shown(asked)}: such vectors do not go together"
                )


@dataclass(frozen=True, slots=True)
class Column:
    """One layer's vectors: [hidden], or [rows, columns, hidden] of the pooling "patch"."""

    layer: int
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"layer_{self.layer}"

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    def as_json(self) -> dict[str, Any]:
        return {"layer": self.layer, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Record:
    """One picture's vectors, by column: little-endian, row-major numbers of the recipe's dtype."""

    name: str
    values: tuple[bytes, ...]


def numbers(data: bytes, dtype: str) -> list[float]:
    """The numbers in ``data``."""
    return list(struct.unpack(f"<{len(data) // ITEM_BYTES[dtype]}{_LETTERS[dtype]}", data))


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
