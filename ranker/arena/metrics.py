"""What arenas count."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

SOURCES: Final = ("person", "judge", "import")
_SECONDS_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)


class ArenaMetrics:
    """``easel_arena_*`` in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pairs = Counter("easel_arena_pairs", "Pairs that were shown.", registry=registry)
        self._votes = Counter(
            "easel_arena_votes", "Votes recorded, by where from.", ["source"], registry=registry
        )
        self._seconds = Histogram(
            "easel_arena_leaderboard_seconds",
            "Time to compute a leaderboard.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        for source in SOURCES:
            self._votes.labels(source)

    def shown(self) -> None:
        self._pairs.inc()

    def voted(self, source: str, votes: int = 1) -> None:
        """``source`` is one of ``SOURCES``."""
        self._votes.labels(source).inc(votes)

    def computed(self, seconds: float) -> None:
        self._seconds.observe(seconds)
