"""What best-of-N counts: candidates by how they ended, and the compute they took and spared."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from ranker.pictures.contest import Phase
from ranker.pictures.events import Result

_OUTCOMES = {Phase.FINISHED: "finished", Phase.PRUNED: "pruned", Phase.FAILED: "failed"}
_SECONDS_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)


class BestOfMetrics:
    """``easel_best_of_*`` in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._candidates = Counter(
            "easel_best_of_candidates",
            "Candidates of best-of-N that ended, by how.",
            ["outcome"],
            registry=registry,
        )
        self._spent = Counter(
            "easel_best_of_row_steps_spent",
            "Denoising steps that candidates took.",
            registry=registry,
        )
        self._saved = Counter(
            "easel_best_of_row_steps_saved",
            "Denoising steps that stopped candidates did not take.",
            registry=registry,
        )
        self._seconds = Histogram(
            "easel_best_of_seconds",
            "Time from a best-of-N request to its end.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        for outcome in _OUTCOMES.values():
            self._candidates.labels(outcome)

    def ended(self, outcomes: Iterable[Phase], spent: int, seconds: float) -> None:
        """One contest ended, in whatever way; candidates still under way are not counted."""
        for phase in outcomes:
            if phase in _OUTCOMES:
                self._candidates.labels(_OUTCOMES[phase]).inc()
        self._spent.inc(spent)
        self._seconds.observe(seconds)

    def ranked(self, result: Result) -> None:
        self._saved.inc(result.row_steps_saved)
