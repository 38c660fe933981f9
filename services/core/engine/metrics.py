"""The engine's Prometheus metrics; every one has the label ``engine``, the model's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from services.core.histogram import Histogram

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
OUTCOMES: Final = ("ok", "cancelled", "deadline", "failed")


class _StageNumbers:
    __slots__ = ("rows", "seconds")

    def __init__(self) -> None:
        self.rows = 0
        self.seconds = Histogram(SECONDS)


class _Numbers:
    """What is counted of one engine, for every row or step of it."""

    __slots__ = ("batch", "finished", "queue", "release", "stages")

    def __init__(self) -> None:
        self.queue = Histogram(SECONDS)
        self.batch = Histogram(ROWS)
        self.release = Histogram(SECONDS)
        self.finished = dict.fromkeys(OUTCOMES, 0)
        self.stages: dict[str, _StageNumbers] = {}

    def step(self, stage: str, rows: int, seconds: float) -> None:
        taken = self.stages.get(stage)
        if taken is None:
            taken = self.stages[stage] = _StageNumbers()
        taken.rows += rows
        taken.seconds.observe(seconds)


class _Families(Collector):
    """The metric families of one registry, shared by its engines."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.numbers: dict[str, _Numbers] = {}
        registry.register(self)
        engine = ("engine",)
        self.rows = Gauge(
            "easel_rows", "Rows admitted and not finished.", (*engine, "state"), registry=registry
        )
        self.backlog = Gauge(
            "easel_backlog_seconds",
            "Predicted device seconds of the admitted work.",
            engine,
            registry=registry,
        )
        self.refused = Counter(
            "easel_admission_refused", "Rows not admitted.", (*engine, "reason"), registry=registry
        )

    def describe(self) -> Iterable[Metric]:
        return self._empty().values()

    def collect(self) -> Iterable[Metric]:
        families = self._empty()
        for engine, numbers in list(self.numbers.items()):
            _add(families, engine, numbers)
        return families.values()

    def _empty(self) -> dict[str, Any]:
        engine, stage = ("engine",), ("engine", "stage")
        histogram, counter = HistogramMetricFamily, CounterMetricFamily
        return {
            "queue": histogram(
                "easel_queue_seconds", "From a row's admission to its first step.", labels=engine
            ),
            "batch": histogram("easel_batch_rows", "Rows in one step.", labels=engine),
            "release": histogram(
                "easel_cancel_to_release_seconds",
                "From a row's cancel to its release.",
                labels=engine,
            ),
            "step": histogram("easel_step_seconds", "Time of one step.", labels=stage),
            "steps": counter("easel_row_steps", "Steps taken, one a row.", labels=stage),
            "finished": counter(
                "easel_rows_finished", "Rows that ended.", labels=("engine", "outcome")
            ),
        }


def _add(families: dict[str, Any], engine: str, numbers: _Numbers) -> None:
    for name in ("queue", "batch", "release"):
        histogram: Histogram = getattr(numbers, name)
        families[name].add_metric((engine,), histogram.buckets(), histogram.sum)
    for stage, taken in list(numbers.stages.items()):
        families["step"].add_metric((engine, stage), taken.seconds.buckets(), taken.seconds.sum)
        families["steps"].add_metric((engine, stage), taken.rows)
    for outcome, rows in numbers.finished.items():
        families["finished"].add_metric((engine, outcome), rows)


_families: WeakKeyDictionary[CollectorRegistry, _Families] = WeakKeyDictionary()


class EngineMetrics:
    """The metrics of the engine named ``engine`` in ``registry``; several may share a registry.

    ``easel_queue_seconds``, ``easel_batch_rows``, ``easel_step_seconds{stage}``,
    ``easel_cancel_to_release_seconds`` (histograms), ``easel_rows{state=waiting|active}``,
    ``easel_backlog_seconds`` (gauges), ``easel_rows_finished_total{outcome=ok|cancelled|deadline|
    failed}``, ``easel_row_steps_total{stage}``, ``easel_admission_refused_total{reason}``.
    """

    def __init__(self, registry: CollectorRegistry, engine: str) -> None:
        families = _families.get(registry)
        if families is None:
            families = _families[registry] = _Families(registry)
        self._families = families
        self._engine = engine
        numbers = self._numbers = families.numbers.setdefault(engine, _Numbers())
        self.queue_seconds = numbers.queue
        self.release_seconds = numbers.release

    def watch(
        self,
        waiting: Callable[[], float],
        active: Callable[[], float],
        backlog_seconds: Callable[[], float],
    ) -> None:
        """Has the gauges read these whenever the registry is collected, from any thread."""
        self._families.rows.labels(self._engine, "waiting").set_function(waiting)
        self._families.rows.labels(self._engine, "active").set_function(active)
        self._families.backlog.labels(self._engine).set_function(backlog_seconds)

    def unwatch(self) -> None:
        """Leaves the gauges at 0, holding on to nothing."""
        self.watch(_zero, _zero, _zero)

    def remove(self) -> None:
        """Takes the engine's series out of the registry; nothing more is counted of it."""
        families, labels = self._families, {"engine": self._engine}
        families.numbers.pop(self._engine, None)
        for family in (families.rows, families.backlog, families.refused):
            family.remove_by_labels(labels)

    def stepped(self, stage: str, rows: int, seconds: float) -> None:
        """Counts one step of a batch."""
        self._numbers.step(stage, rows, seconds)
        self._numbers.batch.observe(rows)

    def stepped_at_once(self, stage: str, seconds: float, ok: bool) -> None:
        """Counts a row that did not wait, took one step alone, and ended."""
        numbers = self._numbers
        numbers.step(stage, 1, seconds)
        # The least of either: both histograms have it in their first bucket.
        numbers.queue.counts[0] += 1
        numbers.batch.counts[0] += 1
        numbers.batch.sum += 1.0
        numbers.finished["ok" if ok else "failed"] += 1

    def finished(self, outcome: str, rows: int = 1) -> None:
        """Counts rows that ended as ``ok``, ``cancelled``, ``deadline`` or ``failed``."""
        self._numbers.finished[outcome] += rows

    def refused(self, reason: str, rows: int) -> None:
        """Counts rows that were not admitted."""
        self._families.refused.labels(self._engine, reason.lower()).inc(rows)


def _zero() -> float:
    return 0.0
