"""Which ControlNets steer a picture, by what, how strongly and when: what a request may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.core.errors import FailedPrecondition, InvalidInput
from services.generator.modes import Given

MAX_CONTROLS: Final = 4
MAX_CONTROL_SCALE: Final = 2.0
MAX_NAME_BYTES: Final = 128
VERSION: Final = "controlnet "
"""What a net's name has in front of it among a record's versions."""


@dataclass(frozen=True, slots=True)
class ControlUse:
    """A net by its name here and the picture that it reads.

    It acts with ``scale`` from the share ``start`` of the steps to the share ``end``. ``digest``:
    ``sha256:...`` of its files; empty while any will do.
    """

    name: str
    image: Given
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    digest: str = ""

    def __str__(self) -> str:
        share = "" if (self.start, self.end) == (0.0, 1.0) else f"@{self.start:g}-{self.end:g}"
        return f"{self.name}:{self.scale:g}{share}"


def checked_controls(uses: Sequence[ControlUse]) -> tuple[ControlUse, ...]:
    """``uses`` as they are.

    Raises ``InvalidInput`` for more than ``MAX_CONTROLS``, a name that is empty, too long or given
    twice, a scale beyond 0 to ``MAX_CONTROL_SCALE``, a share beyond 0 to 1, an end that is not
    after its start, and whatever of these is no number.
    """
    if len(uses) > MAX_CONTROLS:
        raise InvalidInput("controls", "There are too many controls.", MAX_CONTROLS, len(uses))
    for index, use in enumerate(uses):
        at = f"controls[{index}]"
        _check_name(f"{at}.name", use.name, [other.name for other in uses[:index]])
        _check(f"{at}.scale", use.scale, MAX_CONTROL_SCALE)
        _check(f"{at}.start", use.start, 1.0)
        _check(f"{at}.end", use.end, 1.0)
        if use.start >= use.end:
            raise InvalidInput(
                f"{at}.end",
                "A control must end after it starts.",
                f"above {use.start:g}",
                f"{use.end:g}",
            )
    return tuple(uses)


def pinned(use: ControlUse, digest: str) -> ControlUse:
    """``use`` of the files of this digest. Raises ``FailedPrecondition`` if it must be others."""
    if use.digest not in ("", digest):
        raise FailedPrecondition(
            f"ControlNet '{use.name}' is {digest} here, where {use.digest[:80]} is wanted.",
            reason="OTHER_VERSION",
        )
    return replace(use, digest=digest)


def versions(uses: Sequence[ControlUse]) -> dict[str, str]:
    """Digests of the nets, as a record of a picture has them."""
    return {f"{VERSION}{use.name}": use.digest for use in uses}


def as_recorded(uses: Sequence[ControlUse], recorded: Mapping[str, str]) -> tuple[ControlUse, ...]:
    """``uses``, of the nets that the record names."""
    return tuple(replace(use, digest=recorded.get(f"{VERSION}{use.name}", "")) for use in uses)


def _check(field: str, value: float, most: float) -> None:
    # Written so that NaN fails it too.
    if not 0.0 <= value <= most:
        raise InvalidInput(field, f"{field} is out of range.", f"0 to {most:g}", f"{value:g}")


def _check_name(field: str, name: str, before: Sequence[str]) -> None:
    if not name:
        limit = f"1 to {MAX_NAME_BYTES} bytes"
        raise InvalidInput(field, "A control needs the name of a ControlNet.", limit, "0 bytes")
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise InvalidInput(
            field, "The name is too long.", f"{MAX_NAME_BYTES} bytes", f"{size} bytes"
        )
    if name in before:
        raise InvalidInput(field, "The ControlNet is named twice.", "once", name[:80])
