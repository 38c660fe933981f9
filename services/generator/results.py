"""Orders that were made before, or are being made: kept, found again and shared.

Only what its key alone determines is kept: orders with given seeds, of which every picture was
finished.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.core.caller import Caller
from services.core.engine import Timing
from services.core.errors import Cancelled, EaselError, ModelFault
from services.generator.events import (
    MAX_UNREAD_EVENTS,
    Admitted,
    Event,
    Finished,
    Previewed,
    Put,
    Stepped,
)
from services.generator.modes import Given
from services.generator.request import Order

_EVENT_BYTES: Final = 512  # about what an event takes beside its picture
_OUTCOMES: Final = ("hit", "join", "miss")

log = logging.getLogger("easel.generator")


def fingerprint(order: Order, *maker: str) -> bytes:
    """SHA-256 of all that determines what is made of ``order``, and of ``maker``: who makes it.

    Blocking where pictures were given. Raises ``TypeError`` for an order that holds what cannot be
    told by its value.
    """
    told = replace(order, id="", omit_steps=False, in_step=False, given=())
    return hashlib.sha256(repr((maker, _plain(told))).encode()).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, Given):
        return value.field, value.sha256()
    if isinstance(value, Enum):
        return type(value).__name__, value.name
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if is_dataclass(value):
        named = ((each.name, _plain(getattr(value, each.name))) for each in fields(value))
        return type(value).__name__, *named
    raise TypeError(f"{type(value).__name__} has no value to tell it by")


@dataclass(frozen=True, slots=True)
class Kept:
    """An order as it was made, and what is told of it."""

    order: Order
    events: tuple[Event, ...]

    @property
    def bytes(self) -> int:
        return sum(map(_event_bytes, self.events))


class Making(Protocol):
    """An order being made; ``Job`` is one."""

    @property
    def order(self) -> Order: ...

    async def run(self, put: Put) -> None: ...

    def cancel(self, indices: Collection[int] = ()) -> None: ...


class Flight:
    """One order on its way to all that want it.

    The quickest follower sets the pace. Once its events take more than ``max_bytes`` it is neither
    joined nor kept, and holds no more of them than its followers have yet to read.
    """

    def __init__(
        self,
        job: Making,
        caller: Caller,
        max_bytes: int,
        landed: Callable[[Flight], None],
    ) -> None:
        self.job = job
        self.error: EaselError | None = None
        self.ended = False
        self.open = True
        self._caller = caller
        self._room = max_bytes
        self._landed = landed
        self._events: list[Event] = []
        self._let_go = 0
        self._followers: set[Follower] = set()
        self._was_read = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def told(self) -> int:
        """Events so far."""
        return self._let_go + len(self._events)

    def event(self, number: int) -> Event:
        """One that some follower has yet to read."""
        self._was_read.set()
        return self._events[number - self._let_go]

    def serves(self, caller: Caller) -> bool:
        """Whether ``caller`` gets its pictures no later than from a flight of its own."""
        own, others = caller.deadline, self._caller.deadline
        in_time = others is None or (own is not None and own <= others)
        return self.open and in_time and caller.priority <= self._caller.priority

    def join(self) -> Follower:
        follower = Follower(self, range(len(self.job.order.seeds)))
        self._followers.add(follower)
        return follower

    def stop_unwanted(self, indices: Collection[int]) -> None:
        """Those that no follower wants any more."""
        wanted: set[int] = set().union(*(each.wanted for each in self._followers))
        unwanted = set(indices) - wanted
        if unwanted and not self.ended:
            self.open = False
            self.job.cancel(unwanted)

    def quit(self, follower: Follower) -> None:
        self._followers.discard(follower)
        self.stop_unwanted(range(len(self.job.order.seeds)))
        self._was_read.set()

    def kept(self) -> Kept | None:
        """What is worth keeping, once it has ended."""
        finished = sum(isinstance(event, Finished) for event in self._events)
        if self.error is not None or self._let_go or finished < len(self.job.order.seeds):
            return None
        lasting = (each for each in self._events if not isinstance(each, Stepped))
        return Kept(self.job.order, tuple(map(_as_kept, lasting)))

    async def _run(self) -> None:
        self.error = Cancelled()
        try:
            await self.job.run(self._put)
            self.error = None
        except EaselError as error:
            self.error = error.with_traceback(None)
        except Exception:
            log.exception("a shared request failed")
            self.error = ModelFault()
        finally:
            self.ended, self.open = True, False
            self._landed(self)
            self._tell()

    async def _put(self, event: Event) -> None:
        self._events.append(event)
        self._room -= _event_bytes(event)
        if self._room < 0:
            self.open = False
        self._tell()
        while self._followers and self._ahead() > MAX_UNREAD_EVENTS:
            self._was_read.clear()
            await self._was_read.wait()
        if self._room < 0:
            self._trim()

    def _tell(self) -> None:
        for follower in self._followers:
            follower.news.set()

    def _ahead(self) -> int:
        return self.told - max(each.read for each in self._followers)

    def _trim(self) -> None:
        first = min((each.read for each in self._followers), default=self._let_go)
        del self._events[: first - self._let_go]
        self._let_go = first


class Follower:
    """One that wants some of a flight's pictures, and has read its events up to ``read``."""

    def __init__(self, flight: Flight, wanted: Collection[int]) -> None:
        self.wanted = set(wanted)
        self.read = 0
        self.news = asyncio.Event()
        self._flight = flight

    @property
    def order(self) -> Order:
        return self._flight.job.order

    @property
    def behind(self) -> bool:
        return self.read < self._flight.told

    def unread(self) -> Iterator[Event]:
        while self.behind:
            event = self._flight.event(self.read)
            self.read += 1
            yield event

    def leave(self, indices: Collection[int]) -> None:
        """Want them no more; they go on for those that do."""
        self.wanted -= set(indices)
        self._flight.stop_unwanted(indices)
        self.news.set()

    def check(self) -> None:
        """Raises the ``EaselError`` that the flight ended with, once nothing more will come."""
        if self._flight.ended:
            raise self._flight.error or ModelFault()


class Results:
    """At most ``max_bytes`` of finished orders, the least recently used let go first, and the
    flights of those under way. Belongs to one event loop.
    """

    def __init__(self, max_bytes: int, registry: CollectorRegistry) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._flights: dict[bytes, Flight] = {}
        self._under_way: set[Flight] = set()
        self._bytes = 0
        self._asked = Counter(
            "easel_result_cache_requests",
            "Requests with given seeds: found, joined while being made, or made.",
            ["outcome"],
            registry=registry,
        )
        self._held = Gauge(
            "easel_result_cache_bytes", "Bytes of finished pictures kept.", registry=registry
        )
        for outcome in _OUTCOMES:
            self._asked.labels(outcome)

    def find(self, key: bytes) -> Kept | None:
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            self._asked.labels("hit").inc()
        return kept

    @contextmanager
    def following(
        self, key: bytes, caller: Caller, make: Callable[[], Making]
    ) -> Iterator[Follower]:
        """A follower of the key's flight; what ``make`` answers departs where none serves
        ``caller``.
        """
        flight = self._flights.get(key)
        if flight is not None and flight.serves(caller):
            self._asked.labels("join").inc()
        else:
            flight = Flight(make(), caller, self._max_bytes, partial(self._land, key))
            self._flights[key] = flight
            self._under_way.add(flight)
            self._asked.labels("miss").inc()
        follower = flight.join()
        try:
            yield follower
        finally:
            flight.quit(follower)

    def _land(self, key: bytes, flight: Flight) -> None:
        self._under_way.discard(flight)
        if self._flights.get(key) is flight:
            del self._flights[key]
        kept = flight.kept()
        if kept is None or kept.bytes > self._max_bytes or key in self._kept:
            return
        self._kept[key] = kept
        self._bytes += kept.bytes
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.bytes
        self._held.set(self._bytes)


def _event_bytes(event: Event) -> int:
    match event:
        case Previewed():
            return _EVENT_BYTES + len(event.data)
        case Finished():
            return _EVENT_BYTES + len(event.data) + len(event.record)
        case _:
            return _EVENT_BYTES


def _as_kept(event: Event) -> Event:
    match event:
        case Admitted():
            return replace(event, position=0, eta_seconds=0.0)
        case Finished():
            return replace(event, timing=Timing(), cached=True)
        case _:
            return event
