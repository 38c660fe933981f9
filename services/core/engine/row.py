"""A row: one piece of work on its way through its stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import takewhile
from typing import Any, Generic, TypeVar

from services.core.engine.admission import Leg, Standing
from services.core.engine.backlog import KeyLoad
from services.core.engine.policy import Candidate, Lane
from services.core.engine.stage import Stage
from services.core.engine.ticket import Ticket
from services.core.errors import EaselError

Work = TypeVar("Work")
Out = TypeVar("Out")


class State(IntEnum):
    """Where a row is."""

    READY = 0
    """In a lane; may be chosen."""
    RUNNING = 1
    """In the batch on the device."""
    HELD = 2
    """Waits for its reader to catch up."""
    RELEASED = 3
    """Out of the engine."""
    FOLLOWING = 4
    """Waits for the steps that another row takes for it."""


@dataclass(frozen=True, slots=True)
class Group:
    """``size`` rows with ids from ``first``, of which each has ``steps`` to take, or fewer."""

    first: int
    size: int
    steps: int

    def place(self, row_id: int, steps_left: int) -> float:
        """Those with more steps to go first; all between ``first`` and the next row's id."""
        turn = (self.steps - steps_left) * self.size + row_id - self.first
        return self.first + turn / (self.steps + 1)


@dataclass(slots=True, eq=False)
class Convoy:
    """Rows that go through their first ``stages`` stages as one: the first of them takes the steps
    and is charged for them; the others follow it.
    """

    rows: list[Row[Any, Any]]
    stages: int


class Row(Generic[Work, Out]):
    """``index`` and ``left``: the current stage and the steps to go in it; ``steps_left`` in all.

    ``due`` is the latest start as it was at admission. ``dropped`` is why the row was given up, at
    ``dropped_at``; while its step is on the device it stays until the step's end. ``group`` has
    those that keep in step with each other; ``convoy`` those that go through its stage as one.
    It has a ``ticket`` from its admission on.
    """

    __slots__ = (
        "admitted_at",
        "candidate",
        "convoy",
        "deadline",
        "dropped",
        "dropped_at",
        "due",
        "group",
        "id",
        "index",
        "lane",
        "left",
        "loads",
        "priority",
        "stages",
        "started",
        "state",
        "steps_left",
        "tenant",
        "ticket",
        "waiting_since",
        "work",
    )

    def __init__(
        self,
        row_id: int,
        work: Work,
        stages: Sequence[Stage],
        loads: list[KeyLoad],
        tenant: str,
        priority: int,
        deadline: float | None,
    ) -> None:
        self.id = row_id
        self.work = work
        self.stages = stages
        self.loads = loads
        self.tenant = tenant
        self.priority = priority
        self.deadline = deadline
        self.ticket: Ticket[Out]
        self.index = 0
        self.left = stages[0].steps
        self.steps_left = self.left if len(stages) == 1 else sum(s.steps for s in stages)
        self.state = State.READY
        self.started = False
        self.admitted_at = self.waiting_since = 0.0
        self.lane: Lane[Row[Work, Out]]
        self.candidate: Candidate[Row[Work, Out]]
        self.due = self.latest_start()
        self.dropped: EaselError | None = None
        self.dropped_at = 0.0
        self.group: Group | None = None
        self.convoy: Convoy | None = None

    def release(self) -> None:
        """Lets go of the work, and of the ticket, so that no cycle keeps either alive."""
        self.state = State.RELEASED
        del self.work, self.ticket

    @property
    def arrival(self) -> float:
        """Its place among rows that are alike; the id, unless it keeps in step with others."""
        return self.id if self.group is None else self.group.place(self.id, self.steps_left)

    @property
    def stage(self) -> Stage:
        return self.stages[self.index]

    @property
    def follows(self) -> bool:
        """Whether another row takes its steps for it."""
        return self.convoy is not None and self.convoy.rows[0] is not self

    @property
    def followers(self) -> list[Row[Any, Any]]:
        """Those for which it takes its steps."""
        if self.convoy is None or self.convoy.rows[0] is not self:
            return []
        return self.convoy.rows[1:]

    @property
    def first_own(self) -> int:
        """Index of the first stage, from where it is, whose steps it takes itself."""
        convoy = self.convoy
        return self.index if convoy is None or convoy.rows[0] is self else convoy.stages

    def leave_convoy(self) -> Row[Any, Any] | None:
        """Leaves the others to go on; the one that leads them now, if it led them."""
        convoy = self.convoy
        if convoy is None:
            return None
        led, self.convoy = convoy.rows[0] is self, None
        convoy.rows.remove(self)
        return convoy.rows[0] if led and convoy.rows else None

    def took_step(self, seconds: float, batch_rows: int) -> None:
        """Counts a step of its stage, in a batch of so many rows; its caller is not told of one
        that it no longer waits for.
        """
        self.left -= 1
        self.steps_left -= 1
        if self.dropped is None:
            timing = self.ticket.timing
            timing.steps += 1
            timing.compute_seconds += seconds
            if timing.batch_rows < batch_rows:
                timing.batch_rows = batch_rows

    def steps_to_go(self, index: int) -> int:
        """Steps not yet taken in the stage at ``index``."""
        if index == self.index:
            return self.left
        return self.stages[index].steps if index > self.index else 0

    def remaining_seconds(self) -> float:
        """Predicted seconds if it ran alone and without a pause; untimed keys count 0."""
        seconds = 0.0
        for index in range(self.index, len(self.stages)):
            fit = self.loads[index].fit
            if fit is not None:
                seconds += self.steps_to_go(index) * fit.seconds(self.stages[index].cost)
        return seconds

    def company_seconds(self) -> float:
        """Predicted seconds if it ran without a pause in full batches."""
        seconds = 0.0
        for index in range(self.first_own, len(self.stages)):
            load, cost = self.loads[index], self.stages[index].cost
            if load.fit is not None:
                seconds += self.steps_to_go(index) * load.fit.seconds(max(cost, load.cap_cost))
        return seconds

    def share_seconds(self) -> float:
        """Predicted seconds that it takes from the device in full batches."""
        seconds = 0.0
        for index in range(self.first_own, len(self.stages)):
            load, cost = self.loads[index], self.stages[index].cost
            seconds += load.seconds(
                self.steps_to_go(index) * cost, max(load.width, cost), max(load.rows, 1)
            )
        return seconds

    def latest_start(self) -> float:
        """When it must run on without a pause to meet its deadline; inf without one."""
        return math.inf if self.deadline is None else self.deadline - self.remaining_seconds()

    def as_candidate(self) -> Candidate[Row[Work, Out]]:
        """The policy's view of the row's next step."""
        latest_start, share = math.inf, 0.0
        if self.deadline is not None:
            # Its followers stand behind it, unseen, with the same deadline.
            shares = [row.share_seconds() for row in (self, *self.followers)]
            share = sum(shares)
            latest_start = self.latest_start() - (share - shares[-1])
        return Candidate(
            self.due,
            self.arrival,
            latest_start,
            self.stages[self.index].cost,
            self.steps_left,
            -math.inf if self.started else self.admitted_at,
            share,
            self.index == 0 and len(self.stages) > 1 and self.stages[0].steps == 1,
            self,
        )

    def standing(self) -> Standing:
        """Admission's view of the row."""
        legs = tuple(
            Leg(self.loads[index], self.stages[index].cost, self.steps_to_go(index))
            for index in range(self.first_own, len(self.stages))
        )
        deadline = math.inf if self.deadline is None else self.deadline
        return Standing(self.priority, self.tenant, self.due, self.id, self.started, legs, deadline)

    def progress(self) -> tuple[str, int, int]:
        """Name of the stage last stepped, and steps done and in all under that name."""
        fresh = self.left == self.stages[self.index].steps and self.index > 0
        name = self.stages[self.index - fresh].name
        total = to_go = 0
        for index, stage in enumerate(self.stages):
            if stage.name == name:
                total += stage.steps
                to_go += self.steps_to_go(index)
        return name, total - to_go, total


def leave_convoys(rows: Sequence[Row[Any, Any]]) -> None:
    """Has each of ``rows``, none of which was admitted, go alone, so that no cycle keeps them."""
    for row in rows:
        row.convoy = None


def form_convoys(rows: Sequence[Row[Any, Any]]) -> None:
    """Has those of ``rows``, submitted together, whose plans begin with equal shared stages go
    through them as one.
    """
    if len(rows) < 2:
        return
    alike: dict[tuple[Stage, ...], list[Row[Any, Any]]] = {}
    for row in rows:
        shared = tuple(takewhile(lambda stage: stage.shared is not None, row.stages[:-1]))
        if shared:
            alike.setdefault(shared, []).append(row)
    for shared, members in alike.items():
        if len(members) > 1:
            convoy = Convoy(members, len(shared))
            for row in members:
                row.convoy = convoy
