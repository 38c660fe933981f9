"""What came by this protocol since the start, by model and version."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.core.engine import Timing
from services.inference.model import Inference, ModelDescription

MAX_MODELS: Final = 256
"""Models come and go; of more than so many, those not asked for longest are forgotten."""


@dataclass(slots=True)
class Total:
    """``count`` may be a fraction: of an execution that was shared."""

    count: float = 0.0
    seconds: float = 0.0

    def add(self, seconds: float, count: float = 1.0) -> None:
        self.count += count
        self.seconds += seconds * count


@dataclass(slots=True)
class Steps:
    """Where the time of an execution, or of a request, went."""

    prepare: Total = field(default_factory=Total)
    compute: Total = field(default_factory=Total)
    finish: Total = field(default_factory=Total)


@dataclass(slots=True)
class ModelCounts:
    """``by_batch`` counts executions by the rows they had; ``last_at`` is in seconds since the
    epoch, 0 before the first request.
    """

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    steps: Steps = field(default_factory=Steps)
    by_batch: dict[int, Steps] = field(default_factory=dict)
    items: int = 0
    last_at: float = 0.0

    @property
    def executions(self) -> int:
        return whole(sum(steps.compute.count for steps in self.by_batch.values()))


class Statistics:
    """Counts requests as they end. ``now`` is in seconds since the epoch."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._counts: dict[tuple[str, str], ModelCounts] = {}

    def of(self, model: ModelDescription) -> ModelCounts:
        return self._counts.get((model.name, model.version)) or ModelCounts()

    def succeeded(self, inference: Inference, seconds: float) -> None:
        counts = self._of(inference.model, inference.version)
        counts.success.add(seconds)
        counts.items += len(inference.timings)
        counts.queue.add(max(timing.queue_seconds for timing in inference.timings))
        _add(counts.steps, inference.timings)
        for timing in inference.timings:
            share = 1.0 / max(1, timing.batch_rows)
            steps = counts.by_batch.setdefault(timing.batch_rows, Steps())
            _add(steps, (timing,), share)

    def failed(self, model: ModelDescription, seconds: float) -> None:
        self._of(model.name, model.version).fail.add(seconds)

    def _of(self, name: str, version: str) -> ModelCounts:
        counts = self._counts.get((name, version))
        if counts is None:
            if len(self._counts) >= MAX_MODELS:
                del self._counts[min(self._counts, key=lambda key: self._counts[key].last_at)]
            counts = self._counts[name, version] = ModelCounts()
        counts.last_at = self._now()
        return counts


def whole(count: float) -> int:
    """A count with its fraction as one more; sums of shares fall short of it by rounding alone."""
    return math.ceil(count - 1e-6)


def _add(steps: Steps, timings: Sequence[Timing], share: float = 1.0) -> None:
    steps.prepare.add(max(timing.prepare_seconds for timing in timings), share)
    steps.compute.add(max(timing.compute_seconds for timing in timings), share)
    steps.finish.add(max(timing.finish_seconds for timing in timings), share)
