"""What the match graph counts for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from ranker.graph.outcome import Outcome


class GraphMetrics:
    """``easel_match_*`` in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "easel_match_answers",
            "Answers of Resolve, by whether anything was found.",
            ["found"],
            registry=registry,
        )
        self._outcomes = Counter(
            "easel_match_outcomes",
            "Outcomes that were recorded, repetitions left out.",
            ["outcome"],
            registry=registry,
        )
        self._capabilities = Gauge(
            "easel_match_capabilities",
            "Capabilities that are searched.",
            registry=registry,
        )
        for found in ("yes", "no"):
            self._answers.labels(found)
        for outcome in Outcome:
            self._outcomes.labels(outcome.value)

    def answered(self, matches: int) -> None:
        self._answers.labels("yes" if matches else "no").inc()

    def recorded(self, outcome: Outcome) -> None:
        self._outcomes.labels(outcome.value).inc()

    def indexed(self, capabilities: int) -> None:
        self._capabilities.set(capabilities)
