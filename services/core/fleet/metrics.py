"""What a fleet tells of itself; the engines of its models have metrics of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


class FleetMetrics(Collector):
    """``easel_model_bytes{engine}``, ``easel_model_budget_bytes`` (gauges),
    ``easel_model_loads_total{outcome=ok|failed}``, ``easel_model_evictions_total``.

    ``bytes_by_model`` is asked whenever the registry is collected, from any thread.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        bytes_by_model: Callable[[], Mapping[str, int]],
        budget_bytes: int | None,
    ) -> None:
        self.loads = {"ok": 0, "failed": 0}
        self.evictions = 0
        self._bytes_by_model = bytes_by_model
        self._budget_bytes = budget_bytes
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        return self._families()

    def collect(self) -> Iterable[Metric]:
        return self._families()

    def _families(self) -> list[Metric]:
        sizes = GaugeMetricFamily(
            "easel_model_bytes", "Bytes of a loaded model's weights.", labels=("engine",)
        )
        for model, size in self._bytes_by_model().items():
            sizes.add_metric((model,), size)
        loads = CounterMetricFamily(
            "easel_model_loads", "Models loaded, or failed to.", labels=("outcome",)
        )
        for outcome, count in self.loads.items():
            loads.add_metric((outcome,), count)
        evictions = CounterMetricFamily(
            "easel_model_evictions", "Models unloaded to make room.", value=self.evictions
        )
        families: list[Metric] = [sizes, loads, evictions]
        if self._budget_bytes is not None:
            families.append(
                GaugeMetricFamily(
                    "easel_model_budget_bytes",
                    "Most bytes of weights in memory.",
                    value=self._budget_bytes,
                )
            )
        return families
