"""What the engine itself costs, measured with a model whose step does nothing.

``measure`` is row-steps a second of wall time, many-step rows under steady load;
``measure_submit`` is microseconds of processor time a one-step row, submitted and awaited one at a
time by many callers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from services.core.engine import Engine, EngineLimits, EngineMetrics, Stage

ROWS = 256
STEPS = 200
CALLERS = 128
CALLS = 100

LIMITS = EngineLimits(max_rows=4096)


@dataclass(slots=True)
class Countdown:
    """A work that only counts its steps."""

    left: int


@dataclass(frozen=True, slots=True)
class NullModel:
    """Rows of ``steps`` steps that do nothing; the last one puts the work out."""

    steps: int

    def load(self) -> None:
        """Nothing to load."""

    def warm_up(self) -> Iterable[Sequence[Countdown]]:
        return [[Countdown(self.steps) for _ in range(rows)] for rows in (1, 4, 16, 64)]

    def plan(self, work: Countdown) -> Sequence[Stage]:
        return (Stage("null", "null", steps=work.left),)

    def step(self, stage: Stage, works: Sequence[Countdown]) -> Sequence[Countdown | None]:
        del stage
        return [_count_down(work) for work in works]

    def close(self) -> None:
        """Nothing to free."""


def _count_down(work: Countdown) -> Countdown | None:
    work.left -= 1
    return None if work.left else work


def measure(rows: int = ROWS, steps: int = STEPS) -> float:
    """Row-steps a second over ``rows`` rows of ``steps`` steps."""
    return asyncio.run(_row_steps(rows, steps))


def measure_submit(callers: int = CALLERS, calls: int = CALLS) -> float:
    """Processor microseconds a one-step row, with ``callers`` of them in flight."""
    return asyncio.run(_submits(callers, calls))


async def _row_steps(rows: int, steps: int) -> float:
    engine = await _started(NullModel(steps))
    began = time.perf_counter()
    tickets = [engine.submit(Countdown(steps), tenant=str(i % 4)) for i in range(rows)]
    for ticket in tickets:
        await ticket.result()
    seconds = time.perf_counter() - began
    await engine.close()
    return rows * steps / seconds


async def _submits(callers: int, calls: int) -> float:
    engine = await _started(NullModel(1))

    async def caller() -> None:
        for _ in range(calls):
            await engine.submit(Countdown(1)).result()

    began = time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    seconds = time.process_time() - began
    await engine.close()
    return seconds / (callers * calls) * 1e6


async def _started(model: NullModel) -> Engine[Countdown, Countdown]:
    metrics = EngineMetrics(CollectorRegistry(), "null")
    engine: Engine[Countdown, Countdown] = Engine(model, limits=LIMITS, metrics=metrics)
    await asyncio.to_thread(engine.load)
    await engine.start()
    return engine


def main() -> None:
    print(f"{measure():,.0f} row-steps/s (bound: at least 20,000)")
    print(f"{measure_submit():.1f} us of processor time a one-step row (bound: at most 60)")


if __name__ == "__main__":
    main()
