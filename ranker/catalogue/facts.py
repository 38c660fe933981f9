"""What the model services tell of their models now: read shortly before, or not told at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from ranker.clock import utc_now
from services.core.errors import DeadlineExceeded, EaselError

KEPT_SECONDS: Final = 5.0
"""How long an answer of a service is given on before it is asked again."""

PATIENCE_SECONDS: Final = 2.0
"""How long a service may take to answer; after that it counts as away."""

_READY: Final = "ready"
Clock = Callable[[], float]
Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Served:
    """A model that a service has: ``facts`` as texts, by name, in the order to show them in."""

    service: str
    name: str
    version: str
    state: str
    traffic_share: float
    facts: Mapping[str, str]

    @property
    def names(self) -> tuple[str, str]:
        """What the catalogue may call it, the more precise first: two services may each have a
        model of one name."""
        return f"{self.service}/{self.name}", self.name


class Source(Protocol):
    """A model service."""

    @property
    def service(self) -> str: ...

    async def served(self) -> Sequence[Served]:
        """Its models now. Raises an ``EaselError`` where it is away."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What one service told at ``at``; nothing where it was away."""

    service: str
    at: datetime
    served: tuple[Served, ...] = ()
    is_away: bool = False


@dataclass(slots=True)
class _Kept:
    """The last reading of a source, and when to ask again, on the clock."""

    source: Source
    reading: Reading | None = None
    until: float = 0.0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class LiveFacts:
    """Asks the model services, not more often than every ``kept_seconds``, and all at once."""

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        kept_seconds: float = KEPT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Clock = time.monotonic,
        now: Now = utc_now,
    ) -> None:
        self._kept = [_Kept(source) for source in sources]
        self._kept_seconds = kept_seconds
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._now = now

    async def read(self) -> list[Reading]:
        """A reading of each service, none older than ``kept_seconds``.

        Raises nothing of theirs; ``DeadlineExceeded`` where the caller has no time to ask, which
        says nothing of a service.
        """
        return list(await asyncio.gather(*(self._read(kept) for kept in self._kept)))

    async def _read(self, kept: _Kept) -> Reading:
        async with kept.asking:  # who comes meanwhile takes the same answer
            if kept.reading is None or self._clock() >= kept.until:
                kept.reading = await self._ask(kept.source)
                kept.until = self._clock() + self._kept_seconds
            return kept.reading

    async def _ask(self, source: Source) -> Reading:
        try:
            async with asyncio.timeout(self._patience_seconds):
                served = await source.served()
        except DeadlineExceeded:
            raise
        except (EaselError, TimeoutError):
            return Reading(source.service, self._now(), is_away=True)
        return Reading(source.service, self._now(), tuple(served))


def facts_of(served: Iterable[tuple[Served, Reading]]) -> dict[str, str]:
    """The facts of one model, from all that serves it, each with its reading.

    The version with most of the traffic has the plain names; those of others end with ``@`` and
    service, slash, version. ``source`` and ``read_at`` say by whom and when it was told.
    """
    ordered = sorted(
        served,
        key=lambda pair: (
            pair[0].state != _READY,
            -pair[0].traffic_share,
            pair[0].service,
            pair[0].version,
        ),
    )
    facts: dict[str, str] = {}
    for position, (model, reading) in enumerate(ordered):
        end = f"@{model.service}/{model.version}" if position else ""
        told = {
            "source": f"ModelService.ListModels of the {model.service}",
            "read_at": reading.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "served_as": model.name,
            "version": model.version,
            "state": model.state,
            **model.facts,
        }
        facts.update({f"{name}{end}": value for name, value in told.items() if value})
    return facts
