"""What is told of an order's pictures, from their admission to their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.core.engine import Timing
from services.core.errors import EaselError

MAX_UNREAD_EVENTS: Final = 16


@dataclass(frozen=True, slots=True)
class Admitted:
    index: int
    position: int
    eta_seconds: float
    seed: int
    steps: int


@dataclass(frozen=True, slots=True)
class Stepped:
    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Previewed:
    """``data``: an image file."""

    index: int
    data: bytes
    step: int
    steps: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Finished:
    """``data``: an image file; ``record``: how it was made, as ``Scribe`` writes it;
    ``pixel_sha256``: hex, of its RGB or RGBA pixels before they were encoded, row-major.
    ``cached``: it was made for an earlier order.
    """

    index: int
    data: bytes
    seed: int
    timing: Timing
    pixel_sha256: str
    record: str
    width: int
    height: int
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """Cancelled after ``step`` steps."""

    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """The model's safety checker withheld the picture."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    index: int
    error: EaselError


@dataclass(frozen=True, slots=True)
class Refused:
    """An action on a request that is under way was not taken; its pictures go on."""

    error: EaselError
    index: int = 0


Event = Admitted | Stepped | Previewed | Finished | Stopped | Blocked | Failed | Refused
Put = Callable[[Event], Awaitable[None]]
