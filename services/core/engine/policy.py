"""Which rows step next: pure functions over views of the ready rows.

Order of precedence: rows out of patience; higher priority; rows with deadlines by their slack,
whatever their tenants and keys, once there is little time left for all of them; among tenants of
one priority by virtual time; among the keys of one tenant by virtual time; among rows of one key
by the slack to the deadline they came with, then by arrival. The first row fixes the batch's key,
and the batch is filled from that key in the same order up to a cap.

A deadline that was accepted is a promise. How little time is left is counted over all promises one
after another, since ten rows due at the same moment cannot all wait until one of them must start.

Slack is taken once, at admission. Taken anew before each step it would put every row behind those
not yet stepped, so that all of a burst finishes at its end: too late, if the end is late.

Sharing is start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996)
and not deficit round robin (Shreedhar, Varghese, SIGCOMM 1995): it needs no quantum fitted to the
size of a step, charges what a step really took once that is known, and stays fair where the
device's rate varies, which it does with every batch.

Keys take turns inside a tenant because a strict order of rows would keep a new picture's encoding,
or an old one's decoding, behind every remaining step of the picture that is first.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from itertools import chain
from typing import Generic, NamedTuple, Protocol, TypeVar

from services.core.engine.cost import Fit
from services.core.engine.limits import EngineLimits

Entry = TypeVar("Entry")

TIGHT_STEPS = 2.0
"""With so many longest steps to spare, or less, promises go before all else of their priority."""

HOPELESS = 0.25
"""A row late by more than this share of its remaining time no longer holds its batch small."""

CAN_WAIT = 4.0
"""Rows are kept out of an urgent row's batch only with slack for so many times its remaining time:
were they urgent themselves, ever smaller batches would make everybody late."""

FINITE = sys.float_info.max
"""Any moment at all, but not never."""

MAX_FLOWS = 1024
"""Flows remembered by a virtual clock before those it has passed are forgotten."""


class Candidate(NamedTuple, Generic[Entry]):
    """A ready row as the policy sees it; sorts by slack, then arrival.

    ``latest_start``: moment on the clock by which it must run without a pause to meet its
    deadline, inf without one; ``due`` is what that was at admission. ``cost`` of its next step,
    ``steps_left`` in all its stages. ``wait_since``: from when it may be made to wait for company,
    -inf once it has started. ``arrival``: its place among rows that are alike, no two at one; rows
    that keep in step with each other take turns in it. ``share``: seconds of the device that its
    remaining steps take in full batches, 0 without a deadline. ``opens``: the step is one by
    itself, before a stage in which it will share the steps of others.
    """

    due: float
    arrival: float
    latest_start: float
    cost: float
    steps_left: int
    wait_since: float
    share: float
    opens: bool
    row: Entry


class Lane(Generic[Entry]):
    """The ready rows of one priority, tenant and key, in order."""

    __slots__ = ("key", "members", "priority", "ready", "tenant")

    def __init__(self, priority: int, tenant: str, key: Hashable) -> None:
        self.priority = priority
        self.tenant = tenant
        self.key = key
        self.ready: list[Candidate[Entry]] = []
        self.members = 0


class KeyCost(Protocol):
    """What the policy must know of a key."""

    @property
    def fit(self) -> Fit | None: ...
    @property
    def cap_cost(self) -> float: ...


class VirtualClock:
    """Start-time fair queueing over flows: the flow with the least start tag goes next."""

    __slots__ = ("_finish", "_prune_at", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._finish: dict[Hashable, float] = {}
        self._prune_at = MAX_FLOWS

    def start(self, flow: Hashable) -> float:
        """The start tag of the flow's next step; one that was idle starts level with the rest."""
        return max(self.now, self._finish.get(flow, 0.0))

    def charge(self, flow: Hashable, seconds: float) -> None:
        """The flow took ``seconds`` of the device."""
        self._finish[flow] = self.start(flow) + seconds
        if len(self._finish) > self._prune_at:
            self._finish = {f: tag for f, tag in self._finish.items() if tag > self.now}
            self._prune_at = MAX_FLOWS + 2 * len(self._finish)


@dataclass(slots=True)
class Shares:
    """The virtual clocks: tenants share a priority, keys share a tenant."""

    tenants: dict[int, VirtualClock] = field(default_factory=dict)
    keys: dict[tuple[int, str], VirtualClock] = field(default_factory=dict)

    def tenant_start(self, priority: int, tenant: str) -> float:
        clock = self.tenants.get(priority)
        return 0.0 if clock is None else clock.start(tenant)

    def key_start(self, priority: int, tenant: str, key: Hashable) -> float:
        clock = self.keys.get((priority, tenant))
        return 0.0 if clock is None else clock.start(key)

    def serve(self, priority: int, tenant: str, key: Hashable) -> None:
        """Sets both clocks to the start tags of the flow that goes next in its turn."""
        tenants = self.tenants.get(priority)
        if tenants is not None:
            tenants.now = tenants.start(tenant)
        keys = self.keys.get((priority, tenant))
        if keys is not None:
            keys.now = keys.start(key)

    def charge(self, priority: int, tenant: str, key: Hashable, seconds: float) -> None:
        tenants, keys = self._clocks(priority, tenant)
        tenants.charge(tenant, seconds)
        keys.charge(key, seconds)
        if len(self.keys) > MAX_FLOWS:
            self._forget_level()

    def clear(self) -> None:
        """Nobody is owed anything once everybody has been served."""
        self.tenants.clear()
        self.keys.clear()

    def _clocks(self, priority: int, tenant: str) -> tuple[VirtualClock, VirtualClock]:
        tenants = self.tenants.get(priority)
        if tenants is None:
            tenants = self.tenants[priority] = VirtualClock()
        keys = self.keys.get((priority, tenant))
        if keys is None:
            keys = self.keys[priority, tenant] = VirtualClock()
        return tenants, keys

    def _forget_level(self) -> None:
        self.keys = {
            (priority, tenant): clock
            for (priority, tenant), clock in self.keys.items()
            if self.tenants[priority].start(tenant) > self.tenants[priority].now
        }


class Choice(NamedTuple, Generic[Entry]):
    """The next batch, never empty; ``lane`` is its first row's.

    ``in_turn`` is false when patience put that row first.
    """

    lane: Lane[Entry]
    rows: list[Candidate[Entry]]
    in_turn: bool


def choose(
    lanes: Sequence[Lane[Entry]],
    now: float,
    shares: Shares,
    costs: Callable[[Hashable], KeyCost],
    limits: EngineLimits,
    impatient: tuple[Lane[Entry], Candidate[Entry]] | None = None,
) -> Choice[Entry]:
    """The next batch out of non-empty ``lanes``; at least one of them.

    ``impatient`` is the row whose patience ran out and whose turn to go before all others it is.
    """
    if len(lanes) == 1 and len(lanes[0].ready) == 1:
        return Choice(lanes[0], lanes[0].ready[:1], in_turn=impatient is None)
    promises = _promises(lanes)
    critical = _critical(promises)
    tight = bool(promises) and (
        critical.moment - now <= TIGHT_STEPS * _longest_step(lanes, costs, limits)
    )
    if impatient is not None:
        lane, first = impatient
    elif tight:
        first, lane = min(promises, key=_opens_then_slack)
    else:
        lane, first = _lead(lanes, shares)
    cost = costs(lane.key)
    if tight and first.due == math.inf:
        company = Company(first.cost, FINITE, first.cost, FINITE)
    else:
        company = company_of(first, cost.fit, now, critical)
    order = _order(lane.key, lanes, promises if tight else (), shares, cost.fit, limits)
    rows = _fill(first, order, cost.cap_cost, company, limits.max_batch_rows)
    return Choice(lane, rows, in_turn=impatient is None)


@dataclass(frozen=True, slots=True)
class Company:
    """A batch may cost more than ``cost`` only for rows whose latest start is up to ``until``;
    for those due after ``critical_due``, more than ``spare``.
    """

    cost: float
    until: float
    spare: float
    critical_due: float


ANY_COMPANY = Company(math.inf, math.inf, math.inf, math.inf)


class Critical(NamedTuple):
    """``moment`` by which the promises due up to ``due`` must be served one after another."""

    moment: float
    due: float


NOTHING_CRITICAL = Critical(math.inf, math.inf)


def company_of(
    first: Candidate[Entry], fit: Fit | None, now: float, critical: Critical = NOTHING_CRITICAL
) -> Company:
    """The company that leaves ``first`` in time over its remaining steps, and those after it.

    Each unit of cost makes each remaining step ``per_cost`` longer, and all of that must fit in
    its slack. A row that would be late all alone gains nothing from an emptier batch.

    Rows that must be served by the critical moment come along as far as that: their work is ahead
    in any case, and takes less in fuller batches. What is due later takes of their slack too.
    """
    if fit is None or fit.per_cost == 0.0 or math.isinf(first.latest_start):
        return ANY_COMPANY
    slack = first.latest_start - now
    remaining = first.steps_left * fit.seconds(first.cost)
    if slack < -HOPELESS * remaining:
        return ANY_COMPANY
    rate = fit.per_cost * first.steps_left
    cost = first.cost + max(slack, 0.0) / rate
    spare = first.cost + max(min(slack, critical.moment - now), 0.0) / rate
    return Company(cost, now + CAN_WAIT * remaining, spare, critical.due)


def ripe_at(
    lanes: Sequence[Lane[Entry]], costs: Callable[[Hashable], KeyCost], limits: EngineLimits
) -> dict[Hashable, float]:
    """When each key stops waiting for company: -inf at once, for it is full or under way."""
    ready: dict[Hashable, list[Candidate[Entry]]] = {}
    for lane in lanes:
        ready.setdefault(lane.key, []).extend(lane.ready)
    return {key: _ripe(rows, costs(key).cap_cost, limits) for key, rows in ready.items()}


def _ripe(rows: list[Candidate[Entry]], cap: float, limits: EngineLimits) -> float:
    if len(rows) >= limits.max_batch_rows or sum(row.cost for row in rows) >= cap > 0.0:
        return -math.inf
    return min(row.wait_since for row in rows) + limits.batch_wait_seconds


Promise = tuple[Candidate[Entry], Lane[Entry]]


def _promises(lanes: Sequence[Lane[Entry]]) -> list[Promise[Entry]]:
    """The rows with deadlines of the highest priority, in the order of their slack."""
    top = max(lane.priority for lane in lanes)
    found: list[Promise[Entry]] = []
    for lane in lanes:
        if lane.priority == top:
            for row in lane.ready:
                if row.due == math.inf:
                    break
                found.append((row, lane))
    if len(lanes) > 1:
        found.sort(key=_by_slack)
    return found


def _by_slack(promise: Promise[Entry]) -> tuple[float, float]:
    return promise[0].due, promise[0].arrival


def _critical(promises: Sequence[Promise[Entry]]) -> Critical:
    """When the promises are most in need of being served, and which of them."""
    ahead, moment, due = 0.0, math.inf, math.inf
    for row, _ in promises:
        start = row.latest_start - ahead
        if start <= moment:
            moment, due = start, row.due
        ahead += row.share
    return Critical(moment, due)


def _opens_then_slack(promise: Promise[Entry]) -> tuple[bool, float, float]:
    # A row that has not begun its long stage cannot share the steps of those that have.
    row, _ = promise
    return not row.opens, row.due, row.arrival


def _lead(lanes: Sequence[Lane[Entry]], shares: Shares) -> tuple[Lane[Entry], Candidate[Entry]]:
    if len(lanes) == 1:
        return lanes[0], lanes[0].ready[0]
    top = max(lane.priority for lane in lanes)
    lanes = [lane for lane in lanes if lane.priority == top]
    tenant = min(lanes, key=lambda lane: (_tenant_start(lane, shares), _arrival(lane))).tenant
    lane = min(
        (lane for lane in lanes if lane.tenant == tenant),
        key=lambda lane: (shares.key_start(top, tenant, lane.key), _arrival(lane)),
    )
    return lane, lane.ready[0]


def _longest_step(
    lanes: Sequence[Lane[Entry]], costs: Callable[[Hashable], KeyCost], limits: EngineLimits
) -> float:
    longest = limits.max_step_seconds
    for lane in lanes:
        fit = costs(lane.key).fit
        if fit is not None:
            longest = max(longest, fit.seconds(lane.ready[0].cost))
    return longest


def _fill(
    first: Candidate[Entry],
    order: Iterable[Candidate[Entry]],
    cap: float,
    company: Company,
    max_rows: int,
) -> list[Candidate[Entry]]:
    rows = [first]
    taken = {first.arrival}
    spent = first.cost
    for row in order:
        if row.arrival in taken:
            continue
        cost = spent + row.cost
        if cost > cap or len(rows) >= max_rows:
            break
        allowed = company.cost if row.due <= company.critical_due else company.spare
        if cost > allowed and row.latest_start > company.until:
            continue
        spent = cost
        taken.add(row.arrival)
        rows.append(row)
    return rows


def _order(
    key: Hashable,
    lanes: Sequence[Lane[Entry]],
    promises: Sequence[Promise[Entry]],
    shares: Shares,
    fit: Fit | None,
    limits: EngineLimits,
) -> Iterable[Candidate[Entry]]:
    """The rows of one key as they come along; those with ``promises`` before others."""
    same = [lane for lane in lanes if lane.key == key]
    if len(same) == 1:
        return same[0].ready
    promised = (row for row, lane in promises if lane.key == key)
    return chain(promised, _interleave(same, shares, fit, limits))


def _interleave(
    lanes: Sequence[Lane[Entry]], shares: Shares, fit: Fit | None, limits: EngineLimits
) -> Iterator[Candidate[Entry]]:
    """The rows of one key: by priority, then fairly between tenants, each lane in its order."""
    unit = _seconds_per_cost(lanes[0].ready[0].cost, fit, limits)
    heap = [
        (-lane.priority, _tenant_start(lane, shares), _arrival(lane), lane.ready[0], lane, 0)
        for lane in lanes
    ]
    heapify(heap)
    while heap:
        negated, start, _, row, lane, index = heap[0]
        yield row
        index += 1
        if index == len(lane.ready):
            heappop(heap)
            continue
        following = lane.ready[index]
        start += row.cost * unit
        heapreplace(heap, (negated, start, following.arrival, following, lane, index))


def _seconds_per_cost(cost: float, fit: Fit | None, limits: EngineLimits) -> float:
    # A key never timed: as if a full batch took the longest step. Only the order inside this one
    # batch hangs on it; what is charged afterwards is measured.
    seconds = limits.max_step_seconds / limits.max_batch_rows if fit is None else fit.seconds(cost)
    return seconds / cost


def _tenant_start(lane: Lane[Entry], shares: Shares) -> float:
    return shares.tenant_start(lane.priority, lane.tenant)


def _arrival(lane: Lane[Entry]) -> float:
    return lane.ready[0].arrival
