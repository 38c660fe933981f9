"""Which low-rank adapters a picture is made with, and how strongly: what a request may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from services.core.errors import FailedPrecondition, InvalidInput

MAX_ADAPTERS: Final = 8
MAX_SCALE: Final = 10.0
MAX_NAME_BYTES: Final = 128
VERSION: Final = "adapter "
"""What an adapter's name has in front of it among a record's versions."""


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """An adapter by its name here, and the factor its change is added with.

    ``digest``: ``sha256:...`` of its file; empty while any will do.
    """

    name: str
    scale: float = 1.0
    digest: str = ""

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
    # As decimals: 0.7, 0.1 and -0.8 add up to nothing, in binary to a little less.
    total = float(sum(Decimal(str(use.scale)) for use in uses))
    if total < 0.0:
        raise InvalidInput("adapters", "The scales add up to less than 0.", 0, f"{total:g}")
    return tuple(uses)


def pinned(use: AdapterUse, digest: str) -> AdapterUse:
    """``use`` of the file of this digest. Raises ``FailedPrecondition`` if it must be another."""
    if use.digest not in ("", digest):
        raise FailedPrecondition(
            f"Adapter '{use.name}' is {digest} here, where {use.digest[:80]} is wanted.",
            reason="OTHER_VERSION",
        )
    return replace(use, digest=digest)


def versions(uses: Sequence[AdapterUse]) -> dict[str, str]:
    """Digests of the files, as a record of a picture has them."""
    return {f"{VERSION}{use.name}": use.digest for use in uses}


def as_recorded(uses: Sequence[AdapterUse], recorded: Mapping[str, str]) -> tuple[AdapterUse, ...]:
    """``uses``, of the files that the record names."""
    return tuple(replace(use, digest=recorded.get(f"{VERSION}{use.name}", "")) for use in uses)


def _check_name(field: str, name: str, before: Sequence[str]) -> None:
    if not name:
        limit = f"1 to {MAX_NAME_BYTES} bytes"
        raise InvalidInput(field, "An adapter needs a name.", limit, "0 bytes")
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise InvalidInput(
            field, "The name is too long.", f"{MAX_NAME_BYTES} bytes", f"{size} bytes"
        )
    if name in before:
        raise InvalidInput(field, "The adapter is named twice.", "once", name[:80])
