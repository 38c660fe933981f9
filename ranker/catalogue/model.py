"""What is known of a model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """Something said of a capability, and what is true of it.

    ``measured`` is what a measurement or the source gives, empty where nobody measured; ``source``
    is where that stands. ``verified`` says that the claim, as made, was found to hold: one that is
    measured and not verified is wrong, one that is not measured is unproven. ``claimed`` is empty
    for a measurement that nobody claimed otherwise.
    """

    name: str
    claimed: str = ""
    measured: str = ""
    source: str = ""
    measured_at: datetime | None = None
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a model can do. ``id`` is ``<model's id>/<own name>``."""

    id: str
    name: str
    description: str = ""
    intents: tuple[str, ...] = ()
    best_for: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    input_types: tuple[str, ...] = ()
    output_types: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """How often it was counted to be used: downloads, likes, stars. ``source`` is where that
    stands."""

    name: str
    count: int
    source: str = ""
    measured_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model, or with ``same_as`` (a model's id) another record of one, that only has names.

    ``released`` is the day from which it could be had, None where that is not known.
    ``updated_at`` and ``revision`` are the store's: when it last changed, and the catalogue's
    number then.
    """

    id: str
    name: str
    type: str = ""
    licence: str = ""
    price: str = ""
    provenance: str = ""
    aliases: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    same_as: str = ""
    released: date | None = None
    usage: tuple[Usage, ...] = ()
    updated_at: datetime | None = None
    revision: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """All that it can be found by: id, name, aliases."""
        return (self.id, self.name, *self.aliases)

    def capability(self, id: str) -> Capability | None:
        return next((each for each in self.capabilities if each.id == id), None)


def parse_day(text: str) -> date:
    """YYYY-MM-DD alone. Raises ``ValueError``."""
    day = date.fromisoformat(text)
    if day.isoformat() != text:
        raise ValueError(f"{text!r} is no day")
    return day


CAPABILITY_TEXTS = ("intents", "best_for", "limitations", "requires", "input_types", "output_types")
"""The fields of a ``Capability`` that are lists of texts."""
