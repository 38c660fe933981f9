"""The ready rows of one engine, kept in the order in which the policy looks at them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from services.core.engine.policy import Candidate, Choice, Lane
from services.core.engine.row import Row

AnyRow = Row[Any, Any]

IMPATIENT_EVERY = 4
"""At most one batch in so many is led by a row out of patience, so that a long queue of low
priority never turns the engine into first come, first served."""


class ReadyRows:
    """Lanes by priority, tenant and key; a lane lives while it has members, ready or not."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[int, str, Hashable], Lane[AnyRow]] = {}
        # By the time each row has waited since, longest first: the clock never goes back.
        self._waiting: OrderedDict[AnyRow, None] = OrderedDict()
        self._batches = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def lanes(self) -> list[Lane[AnyRow]]:
        """The lanes that have a ready row."""
        return [lane for lane in self._lanes.values() if lane.ready]

    def join(self, row: AnyRow) -> None:
        """Makes the row a member of the lane of its current stage."""
        name = (row.priority, row.tenant, row.stage.key)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(*name)
        lane.members += 1
        row.lane = lane

    def quit(self, row: AnyRow) -> None:
        """Takes a row that is not ready out of its lane's members."""
        lane = row.lane
        lane.members -= 1
        if lane.members == 0:
            del self._lanes[lane.priority, lane.tenant, lane.key]

    def add(self, row: AnyRow, now: float) -> None:
        """Makes the row ready for its next step."""
        candidate = row.candidate = row.as_candidate()
        row.waiting_since = now
        ready = row.lane.ready
        if not ready or candidate > ready[-1]:
            ready.append(candidate)
        else:
            insort(ready, candidate)
        self._waiting[row] = None

    def remove(self, row: AnyRow) -> None:
        """Makes the row not ready; it stays a member of its lane."""
        ready = row.lane.ready
        del ready[0 if ready[0] is row.candidate else bisect_left(ready, row.candidate)]
        del self._waiting[row], row.candidate

    def take(self, choice: Choice[AnyRow]) -> list[AnyRow]:
        """The chosen rows, no longer ready."""
        self._batches = self._batches + 1 if choice.in_turn else 0
        rows = [candidate.row for candidate in choice.rows]
        for row in rows:
            self.remove(row)
        return rows

    def impatient(self, before: float) -> tuple[Lane[AnyRow], Candidate[AnyRow]] | None:
        """The row waiting longest, if it is since ``before`` and its turn has come."""
        if self._batches < IMPATIENT_EVERY - 1 or not self._waiting:
            return None
        row = next(iter(self._waiting))
        if row.waiting_since > before:
            return None
        return row.lane, row.candidate
