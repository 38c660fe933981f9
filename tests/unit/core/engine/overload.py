"""More work than the device can do, with deadlines of all lengths, on a clock that only moves when
told: what becomes of the rows that were taken on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.core.engine import EngineLimits, Stage, Ticket
from services.core.errors import DeadlineExceeded, Overloaded
from tests.unit.core.engine.fake_model import Bench, FakeWork, bench


@dataclass(frozen=True, slots=True)
class Arrival:
    """A picture asked for at ``at``, with ``patience`` seconds to its deadline, None for ever."""

    at: float
    patience: float | None
    size: float
    steps: int
    tenant: str = ""
    priority: int = 0

    @property
    def stages(self) -> list[Stage]:
        key = f"{self.size:g}"
        return [
            Stage("encode", "encode", 0.5),
            Stage("denoise", f"denoise {key}", self.size, self.steps),
            Stage("decode", f"decode {key}", self.size),
        ]


@dataclass(slots=True)
class Outcome:
    """``work``: cost of all that was finished in time."""

    asked: int = 0
    refused: int = 0
    accepted: int = 0
    missed: int = 0
    in_time: int = 0
    work: float = 0.0
    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)


def arrivals(
    seed: int,
    *,
    count: int,
    per_second: float,
    sizes: Sequence[float] = (1.0,),
    patience: tuple[float, float] | None = (1.0, 7.0),
    steps: tuple[int, int] = (10, 30),
    tenants: Sequence[str] = ("",),
    priority: int = 0,
) -> list[Arrival]:
    """A Poisson process, the same for the same seed."""
    chance, at, made = random.Random(seed), 0.0, []
    for _ in range(count):
        at += chance.expovariate(per_second)
        made.append(
            Arrival(
                at=at,
                patience=None if patience is None else chance.uniform(*patience),
                size=chance.choice(sizes),
                steps=chance.randint(*steps),
                tenant=chance.choice(tenants),
                priority=priority,
            )
        )
    return made


async def overload(
    asked: Sequence[Arrival], *, fixed: float, per_cost: float, limits: EngineLimits
) -> Outcome:
    """Submits each as it arrives, at the end of the step that is running then, and steps on."""
    made = bench(limits, fixed=fixed, per_cost=per_cost)
    await _learn(made, asked)
    began, outcome = made.clock.now, Outcome()
    tickets: list[tuple[Arrival, Ticket[str]]] = []
    coming = iter(sorted(asked, key=lambda one: one.at))
    following = next(coming, None)
    while True:
        while following is not None and began + following.at <= made.clock.now:
            _submit(made, following, began, outcome, tickets)
            following = next(coming, None)
        if await made.engine.tick():
            continue
        if following is None:
            break
        made.clock.now = max(made.clock.now, began + following.at)
    outcome.seconds = made.clock.now - began
    for arrival, ticket in tickets:
        try:
            await ticket.result()
        except DeadlineExceeded:
            outcome.missed += 1
        else:
            outcome.in_time += 1
            outcome.work += arrival.size * arrival.steps
    assert made.engine.report().rows == 0
    return outcome


def _submit(
    made: Bench,
    arrival: Arrival,
    began: float,
    outcome: Outcome,
    tickets: list[tuple[Arrival, Ticket[str]]],
) -> None:
    deadline = None if arrival.patience is None else began + arrival.at + arrival.patience
    outcome.asked += 1
    try:
        ticket = made.engine.submit(
            FakeWork("row", arrival.stages),
            tenant=arrival.tenant,
            priority=arrival.priority,
            deadline=deadline,
        )
    except Overloaded as refusal:
        outcome.refused += 1
        outcome.waits.append(refusal.retry_after_seconds)
    except DeadlineExceeded:
        outcome.refused += 1
    else:
        outcome.accepted += 1
        tickets.append((arrival, ticket))


async def _learn(made: Bench, asked: Sequence[Arrival]) -> None:
    """What a warm-up would teach, and some traffic after it."""
    for size in sorted({one.size for one in asked}):
        for count in (1, 2, 4, 8, 16, 32):
            for _ in range(count):
                made.engine.submit(FakeWork("warm", Arrival(0.0, None, size, 3).stages))
            await made.run()
