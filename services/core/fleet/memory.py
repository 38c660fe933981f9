"""Which models make room for a new one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.core.errors import FailedPrecondition, InvalidInput

_MAX_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that takes ``bytes`` of memory, last used at ``used_at``.

    ``stays`` says why it cannot go, and is empty where it can.
    """

    name: str
    version: str
    bytes: int
    used_at: float
    stays: str = ""


def to_evict(
    residents: Iterable[Resident], needed_bytes: int, budget_bytes: int
) -> tuple[Resident, ...]:
    """The least recently used ones that have to go for ``needed_bytes`` more; none if it fits.

    Raises ``InvalidInput`` where it would not fit alone, and ``FailedPrecondition`` naming what is
    in the way where too much cannot go.
    """
    if needed_bytes > budget_bytes:
        raise InvalidInput(
            "reference",
            "The model is larger than this server's memory budget.",
            f"{budget_bytes} bytes",
            f"{needed_bytes} bytes",
            reason="OVER_MEMORY_BUDGET",
        )
    residents = sorted(residents, key=lambda resident: resident.used_at)
    missing = needed_bytes + sum(resident.bytes for resident in residents) - budget_bytes
    going: list[Resident] = []
    for resident in residents:
        if missing > 0 and not resident.stays and resident.bytes > 0:
            going.append(resident)
            missing -= resident.bytes
    if missing > 0:
        raise _in_the_way(residents, needed_bytes, budget_bytes)
    return tuple(going)


def _in_the_way(
    residents: list[Resident], needed_bytes: int, budget_bytes: int
) -> FailedPrecondition:
    staying = [resident for resident in residents if resident.stays]
    named = [
        f"{resident.name}/{resident.version} ({resident.bytes} bytes, {resident.stays})"
        for resident in staying[:_MAX_NAMED]
    ]
    more = len(staying) - len(named)
    return FailedPrecondition(
        f"The model needs {needed_bytes} bytes of a budget of {budget_bytes}, and what is in "
        f"memory cannot go: {', '.join(named)}{f' and {more} more' if more > 0 else ''}.",
        reason="MODELS_IN_USE",
    )
