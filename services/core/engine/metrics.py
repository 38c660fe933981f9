"""The engine's Prometheus metrics; every one has the label ``engine``, the model's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class _Families:
    """The metric families of one registry, shared by its engines."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.queue = self._histogram(
            "easel_queue_seconds", "From a row's admission to its first step.", SECONDS
        )
        self.batch = self._histogram("easel_batch_rows", "Rows in one step.", ROWS)
        self.step = self._histogram("easel_step_seconds", "Time of one step.", SECONDS, "stage")
        self.release = self._histogram(
            "easel_cancel_to_release_seconds", "From a row's cancel to its release.", SECONDS
        )
        self.rows = self._gauge("easel_rows", "Rows admitted and not finished.", "state")
        self.backlog = self._gauge(
            "easel_backlog_seconds", "Predicted device seconds of the admitted work."
        )
        self.finished = self._counter("easel_rows_finished", "Rows that ended.", "outcome")
        self.steps = self._counter("easel_row_steps", "Steps taken, one a row.", "stage")
        self.refused = self._counter("easel_admission_refused", "Rows not admitted.", "reason")

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, ("engine", *labels), buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, ("engine", *labels), registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ("engine", *labels), registry=self._registry)


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
        self.queue_seconds = families.queue.labels(engine)
        self.batch_rows = families.batch.labels(engine)
        self.release_seconds = families.release.labels(engine)
        self._finished = {
            outcome: families.finished.labels(engine, outcome)
            for outcome in ("ok", "cancelled", "deadline", "failed")
        }
        self._stages: dict[str, tuple[Histogram, Counter]] = {}

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

    def stepped(self, stage: str, rows: int, seconds: float) -> None:
        """Counts one step of a batch."""
        children = self._stages.get(stage)
        if children is None:
            children = self._stages[stage] = (
                self._families.step.labels(self._engine, stage),
                self._families.steps.labels(self._engine, stage),
            )
        children[0].observe(seconds)
        children[1].inc(rows)
        self.batch_rows.observe(rows)

    def finished(self, outcome: str, rows: int = 1) -> None:
        """Counts rows that ended as ``ok``, ``cancelled``, ``deadline`` or ``failed``."""
        self._finished[outcome].inc(rows)

    def refused(self, reason: str, rows: int) -> None:
        """Counts rows that were not admitted."""
        self._families.refused.labels(self._engine, reason.lower()).inc(rows)


def _zero() -> float:
    return 0.0
