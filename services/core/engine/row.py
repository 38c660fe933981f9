"""A row: one piece of work on its way through its stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from services.core.engine.admission import Leg, Standing
from services.core.engine.backlog import KeyLoad
from services.core.engine.policy import Candidate, Lane
from services.core.engine.stage import Stage
from services.core.engine.ticket import RowOwner, Ticket
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


class Row(Generic[Work, Out]):
    """``index`` and ``left``: the current stage and the steps to go in it; ``steps_left`` in all.

    ``due`` is the latest start as it was at admission. ``dropped`` is why the row was given up, at
    ``dropped_at``; while its step is on the device it stays until the step's end. ``group`` has
    those that keep in step with each other.
    """

    __slots__ = (
        "admitted_at",
        "candidate",
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
        owner: RowOwner,
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
        self.ticket: Ticket[Out] = Ticket(owner, self, row_id, tenant)
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
        for index in range(self.index, len(self.stages)):
            load, cost = self.loads[index], self.stages[index].cost
            if load.fit is not None:
                seconds += self.steps_to_go(index) * load.fit.seconds(max(cost, load.cap_cost))
        return seconds

    def share_seconds(self) -> float:
        """Predicted seconds that it takes from the device in full batches."""
        seconds = 0.0
        for index in range(self.index, len(self.stages)):
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
        return Candidate(
            self.due,
            self.arrival,
            self.latest_start(),
            self.stages[self.index].cost,
            self.steps_left,
            -math.inf if self.started else self.admitted_at,
            0.0 if self.deadline is None else self.share_seconds(),
            self.index == 0 and len(self.stages) > 1 and self.stages[0].steps == 1,
            self,
        )

    def standing(self) -> Standing:
        """Admission's view of the row."""
        legs = tuple(
            Leg(self.loads[index], self.stages[index].cost, self.steps_to_go(index))
            for index in range(self.index, len(self.stages))
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
