"""Steps a model's sample batches to their end, before the first caller has to wait for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from services.core.engine.backlog import Backlog
from services.core.engine.stage import Model, RowFailed, Stage
from services.core.errors import OutOfMemory

log = logging.getLogger(__name__)

Work = TypeVar("Work")


@dataclass(slots=True)
class _Sample:
    """A work and the stages of its steps to go, the next one last."""

    work: Any
    stages: list[Stage]


def warm_up(model: Model[Any, Any], backlog: Backlog, clock: Callable[[], float]) -> None:
    """Teaches ``backlog`` what steps cost. Raises what a step raises, for a model that fails on
    its own samples serves nobody; a batch out of memory only lowers its key's cap.
    """
    for works in model.warm_up():
        samples = [_Sample(work, _steps(model.plan(work))) for work in works]
        while samples:
            key = samples[0].stages[-1].key
            batch = [sample for sample in samples if sample.stages[-1].key == key]
            if not _step(model, batch, backlog, clock):
                break
            samples = [sample for sample in samples if sample.stages]


def _steps(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in reversed(stages) for _ in range(stage.steps)]


def _step(
    model: Model[Any, Any], batch: list[_Sample], backlog: Backlog, clock: Callable[[], float]
) -> bool:
    stages = [sample.stages.pop() for sample in batch]
    load, cost = backlog.load(stages[0].key, stages[0].name), sum(stage.cost for stage in stages)
    started = clock()
    try:
        outputs = model.step(stages[0], [sample.work for sample in batch])
    except (OutOfMemory, MemoryError):
        if len(batch) == 1:
            raise
        log.warning("out of memory warming up %s with %d rows", stages[0].name, len(batch))
        load.out_of_memory(cost)
        return False
    load.observe(cost, clock() - started)
    for output in outputs:
        if isinstance(output, RowFailed):
            raise output.cause
    return True
