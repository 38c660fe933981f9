"""Which low-rank adapters a picture is made with, and how strongly: what a request may ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.core.errors import InvalidInput

MAX_ADAPTERS: Final = 8
MAX_SCALE: Final = 10.0
MAX_NAME_BYTES: Final = 128


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """An adapter by its name here, and the factor its change is added with."""

    name: str
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}:{self.scale:g}"


def checked(uses: Sequence[AdapterUse]) -> tuple[AdapterUse, ...]:
    """``uses`` as they are.

    One scale may be negative, as those of sliders are; all of them together may not: such a
    request takes away more than it adds, and asks for a picture that no adapter was made for.

    Raises ``InvalidInput`` for more than ``MAX_ADAPTERS``, a name that is empty, too long or given
    twice, a scale beyond ``MAX_SCALE`` or that is no number, and scales with a negative sum.
    """
    if len(uses) > MAX_ADAPTERS:
        raise InvalidInput("adapters", "There are too many adapters.", MAX_ADAPTERS, len(uses))
    for index, use in enumerate(uses):
        _check_name(f"adapters[{index}].name", use.name, [other.name for other in uses[:index]])
        # Written so that NaN fails it too.
        if not -MAX_SCALE <= use.scale <= MAX_SCALE:
            raise InvalidInput(
                f"adapters[{index}].scale",
                "The scale is out of range.",
                f"{-MAX_SCALE:g} to {MAX_SCALE:g}",
                use.scale,
            )
    total = sum(use.scale for use in uses)
    if total < 0.0:
        raise InvalidInput("adapters", "The scales add up to less than 0.", 0, f"{total:g}")
    return tuple(uses)


def _check_name(field: str, name: str, before: Sequence[str]) -> None:
    if not name:
        raise InvalidInput(field, "An adapter needs a name.")
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise InvalidInput(
            field, "The name is too long.", f"{MAX_NAME_BYTES} bytes", f"{size} bytes"
        )
    if name in before:
        raise InvalidInput(field, "The adapter is named twice.", given=name)
