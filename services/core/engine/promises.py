"""Deadlines that were accepted, and whether one more can be: a pure function over what is admitted.

A row that is admitted with a deadline has a promise. It is kept against whatever comes later at
its own priority: by the policy, which serves promises in the order of their slack before anything
else once their time is short, and here, where a row is refused that would break one. Only a higher
priority breaks a promise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from services.core.engine.admission import Leg, Load, Standing, seconds_of
from services.core.engine.ready import IMPATIENT_EVERY

_OTHERS_TAKE = 1.0 / (IMPATIENT_EVERY - 1)
"""Rows out of patience that have no promise lead one batch in ``IMPATIENT_EVERY``."""

_SAME = 1e-6
"""Seconds that tell no two moments apart: sums of floats are no finer than that after days."""


def wait_seconds(
    asking: Sequence[Standing], admitted: Iterable[Standing], now: float, max_batch_rows: int
) -> float:
    """How long the rows ``asking`` should wait before they ask again; 0 when all can be in time.

    All is in time when those asking are, and no admitted row of their priority becomes late. Rows
    of a higher priority go before, with deadlines or without. A row that is late even alone
    protects nobody. The time told is enough if nothing else is admitted until then, and what asks
    has the same time to its deadline then.
    """
    first, asked = min(asking, key=_order), {row.arrival for row in asking}
    admitted = list(admitted)
    before = sorted((row for row in admitted if _counts(row, first.priority)), key=_order)
    takes = _OTHERS_TAKE if len(before) < len(admitted) else 0.0
    rows = sorted((*before, *asking), key=_order)
    step, ends = _ends(rows, max_batch_rows)
    # The step on the device now may be anybody's.
    lost = step if admitted else 0.0
    late: dict[int, float] = {}
    for row, end in zip(rows, ends, strict=True):
        seconds = now + end + max(lost, end * takes) - row.deadline
        if seconds > _SAME and (row.arrival in asked or _protected(row, first.priority, now)):
            late[row.arrival] = seconds
    if not late:
        return 0.0
    own = seconds_of(asking)
    spare = min(row.deadline for row in asking) - now
    if own > spare or not before:
        return max(late.get(arrival, 0.0) for arrival in asked)
    _, without = _ends(before, max_batch_rows)
    slots = list(zip(before, without, strict=True))
    added = ends[-1] - without[-1]
    blocked = [row.deadline - now if row.arrival in late else 0.0 for row in before]
    return _earliest(slots, blocked, first, spare - added - lost) or step


def _earliest(
    slots: Sequence[tuple[Standing, float]],
    blocked: Sequence[float],
    first: Standing,
    spare: float,
) -> float:
    """The least wait with which a place in the queue is found; at the latest when it is empty.

    ``slots``: the rows that are there, and the seconds in which each is done. ``blocked``: for how
    long each must not be put off. ``spare``: seconds that may pass before what asks begins. What
    waits gains as much time to its deadline: it moves to a later place, while others are done.
    """
    found = max(end for _, end in slots)
    # What goes before and becomes late does so by the opening, wherever the rest goes.
    until = max(
        (
            wait
            for (row, _), wait in zip(slots, blocked, strict=True)
            if _order(row) < _order(first)
        ),
        default=0.0,
    )
    for index in reversed(range(len(slots))):
        row, end = slots[index]
        passes = row.due - first.due if row.priority == first.priority else 0.0
        wait = max(passes, end - spare, until)
        following = slots[index + 1][0].due - first.due if index + 1 < len(slots) else math.inf
        if 0.0 <= wait <= following:
            found = min(found, wait)
        until = max(until, blocked[index])
    return found


def _counts(row: Standing, priority: int) -> bool:
    return row.priority > priority or (row.priority == priority and row.deadline < math.inf)


def _protected(row: Standing, priority: int, now: float) -> bool:
    return row.priority == priority and now + seconds_of((row,)) <= row.deadline


def _order(row: Standing) -> tuple[int, float, int]:
    return -row.priority, row.due, row.arrival


def _ends(rows: Sequence[Standing], max_batch_rows: int) -> tuple[float, list[float]]:
    """Seconds of the longest step, and until each of ``rows``, in their order, is done."""
    queues: dict[Load, _Queue] = {}
    openings: dict[Load, _Queue] = {}
    for row in rows:
        for leg in row.legs:
            _join(queues, leg)
        if row.opens:
            _join(openings, row.legs[0])
    for queue in queues.values():
        queue.settle(max_batch_rows)
    # Openings go first, whoever's they are.
    seconds = sum(queue.all_at_once() for queue in openings.values())
    ends = []
    for row in rows:
        for index, leg in enumerate(row.legs):
            if index > 0 or not row.opens:
                seconds += queues[leg.load].add(leg, there=index == 0)
        ends.append(seconds)
    return max(queue.step for queue in queues.values()), ends


def _join(queues: dict[Load, _Queue], leg: Leg) -> None:
    queue = queues.get(leg.load)
    if queue is None:
        queue = queues[leg.load] = _Queue(leg.load)
    queue.join(leg)


class _Queue:
    """The work ahead on one key, and when it is done: a bound on list scheduling in batches.

    Rows that all fit in one batch are stepped together. Else the queue is worked off in full
    batches, and the row with most steps may then have some left: Graham's bound ("Bounds for
    Certain Multiprocessing Anomalies", 1966), with a batch's places as processors.
    """

    __slots__ = (
        "alone",
        "drain",
        "fits",
        "load",
        "longest",
        "most",
        "rate",
        "rows",
        "step",
        "width",
    )

    def __init__(self, load: Load) -> None:
        self.load = load
        self.rows = 0
        self.width = self.rate = self.step = 0.0
        self.fits = True
        self.alone = self.drain = self.longest = self.most = 0.0

    def join(self, leg: Leg) -> None:
        self.rows += 1
        self.width += leg.cost

    def settle(self, max_batch_rows: int) -> None:
        """All have joined: how large batches are, and what they take."""
        self.rate = self.load.seconds(1.0, self.width, self.rows)
        self.fits = self.width <= self.load.cap_cost and self.rows <= max_batch_rows
        row = self.width / self.rows
        self.step = self.rate * max(row, min(self.width, self.load.cap_cost, row * max_batch_rows))

    def all_at_once(self) -> float:
        """Seconds for one step of everybody."""
        return self.load.seconds(self.width, self.width, self.rows)

    def add(self, leg: Leg, *, there: bool) -> float:
        """Seconds by which ``leg``, next in order, puts off the end of the queue.

        ``there``: its row is ready for it. Rows rarely come to a single step at the same time.
        """
        before = self._seconds()
        work = leg.cost * leg.steps * self.rate
        if leg.steps == 1 and not there:
            self.alone += self.load.seconds(leg.cost, leg.cost, 1)
        else:
            own = max(leg.steps * self.step, work)
            self.drain += work
            self.longest = max(self.longest, own - work)
            self.most = max(self.most, own)
        return self._seconds() - before

    def _seconds(self) -> float:
        return self.alone + (self.most if self.fits else self.drain + self.longest)
