"""Whether to take a row on, and when it would be done: pure functions over what is admitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from services.core.engine.limits import EngineLimits

UNREACHABLE = "DEADLINE_UNREACHABLE"

MIN_RETRY_SECONDS = 0.05
"""No caller is told to come back sooner: the answer itself takes that long."""


class Load(Protocol):
    """What a forecast must know of a key."""

    @property
    def cap_cost(self) -> float: ...
    def seconds(self, remaining: float, width: float, rows: int) -> float: ...


class Leg(NamedTuple):
    """Work left on one key: ``steps`` steps of ``cost`` each."""

    load: Load
    cost: float
    steps: int


class Standing(NamedTuple):
    """One admitted row, or one that asks to be. ``deadline`` is inf without one."""

    priority: int
    tenant: str
    due: float
    arrival: int
    started: bool
    legs: tuple[Leg, ...]
    deadline: float = math.inf

    @property
    def opens(self) -> bool:
        """Whether its next step is one by itself, before it joins others."""
        return not self.started and len(self.legs) > 1 and self.legs[0].steps == 1


@dataclass(frozen=True, slots=True)
class Forecast:
    """``position``: rows not started that go before; ``seconds`` until the row is done."""

    position: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """``reason`` is QUEUE_FULL, BACKLOG_FULL or DEADLINE_UNREACHABLE."""

    reason: str
    retry_after_seconds: float


@dataclass(slots=True)
class _Amount:
    remaining: float = 0.0
    width: float = 0.0
    rows: int = 0

    def add(self, remaining: float, width: float, rows: int) -> None:
        self.remaining += remaining
        self.width += width
        self.rows += rows


@dataclass(slots=True)
class _Work:
    """Work by key."""

    amounts: dict[Load, _Amount] = field(default_factory=dict)

    def add(self, legs: Iterable[Leg]) -> None:
        for leg in legs:
            amount = self.amounts.setdefault(leg.load, _Amount())
            amount.add(leg.cost * leg.steps, leg.cost, 1)

    def add_share(self, other: _Work, share: float) -> None:
        for load, more in other.amounts.items():
            amount = self.amounts.setdefault(load, _Amount())
            amount.add(more.remaining * share, more.width, more.rows)

    def seconds(self) -> float:
        return sum(
            load.seconds(amount.remaining, amount.width, amount.rows)
            for load, amount in self.amounts.items()
        )


def seconds_of(rows: Iterable[Standing]) -> float:
    """Predicted seconds of the rows' own work."""
    work = _Work()
    for row in rows:
        work.add(row.legs)
    return work.seconds()


def goes_before(other: Standing, row: Standing) -> bool:
    """Whether ``other`` is served before ``row``, tenants aside."""
    if other.priority != row.priority:
        return other.priority > row.priority
    return (other.due, other.arrival) < (row.due, row.arrival)


def forecast(row: Standing, admitted: Iterable[Standing]) -> Forecast:
    """When ``row`` is done if nothing more is admitted; ``admitted`` may contain it.

    Before it go higher priorities, and its own tenant's rows with less slack. Each other tenant of
    its priority is served level with its own, so takes at most as long. A key whose rows all fit
    in one batch is stepped for all of them at once; else its queue comes first, then this row's
    own steps in full batches.
    """
    position = 0
    ahead, others = _Work(), dict[str, _Work]()
    ahead.add(row.legs)
    for other in admitted:
        if other.arrival == row.arrival or not goes_before(other, row):
            continue
        position += not other.started
        if other.priority > row.priority or other.tenant == row.tenant:
            ahead.add(other.legs)
        else:
            others.setdefault(other.tenant, _Work()).add(other.legs)
    level = ahead.seconds()
    for work in others.values():
        seconds = work.seconds()
        ahead.add_share(work, min(1.0, level / seconds) if seconds > 0.0 else 1.0)
    _share_batches(ahead, row)
    return Forecast(position, ahead.seconds())


def _share_batches(work: _Work, row: Standing) -> None:
    # A row takes one step a batch, however short the queue: Graham's bound on list scheduling
    # ("Bounds for Certain Multiprocessing Anomalies", 1966), with a batch's places as processors.
    for leg in row.legs:
        amount, cap = work.amounts[leg.load], leg.load.cap_cost
        if amount.width <= cap:
            amount.remaining = min(amount.remaining, amount.width * leg.steps)
        else:
            amount.remaining += max(0.0, cap - leg.cost) * leg.steps


def decide(
    *,
    rows: int,
    adding: int,
    backlog_seconds: float,
    own_seconds: float,
    company_seconds: float,
    spare_seconds: float | None,
    leeway_seconds: float,
    wait_seconds: Callable[[], float],
    limits: EngineLimits,
) -> Refusal | None:
    """None to admit ``adding`` rows of ``own_seconds`` together to the ``rows`` already there.

    ``company_seconds`` is what theirs would take in full batches. ``spare_seconds`` is the time to
    their deadline, None without one; ``leeway_seconds`` for how long those that are there can wait.
    ``wait_seconds`` is how long they should wait, 0 if not at all (``promises``); it is asked only
    when the whole backlog and they do not fit into both.
    """
    excess = rows + adding - limits.max_rows
    if excess > 0:
        seconds = backlog_seconds * min(1.0, excess / rows) if rows else 0.0
        return _refusal("QUEUE_FULL", seconds or limits.max_step_seconds)
    total = backlog_seconds + own_seconds
    if backlog_seconds > 0.0 and total > limits.max_backlog_seconds:
        return _refusal("BACKLOG_FULL", min(backlog_seconds, total - limits.max_backlog_seconds))
    if spare_seconds is None:
        return None
    if backlog_seconds + company_seconds <= spare_seconds and total <= leeway_seconds:
        return None
    wait = wait_seconds()
    return _refusal(UNREACHABLE, wait) if wait > 0.0 else None


def _refusal(reason: str, seconds: float) -> Refusal:
    return Refusal(reason, max(seconds, MIN_RETRY_SECONDS))
