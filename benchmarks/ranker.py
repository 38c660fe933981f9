"""``make bench-ranker``: the match graph, the leaderboard, the image index and pruning.

Each part is a module of its own whose ``measure()`` gives the entries and the charts.
``ONLY=graph`` runs one of them, ``ONLY=graph,arena`` two; ``QUICK=1`` takes small sizes, which hold
to few bounds.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks import ranker_arena, ranker_graph, ranker_index, ranker_pruning
from benchmarks.report import Chart, Entry, parts_asked, publish

NAME: Final = "ranker"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one part found."""

    entries: list[Entry]
    charts: list[Chart]


PARTS: Final[dict[str, Callable[[], tuple[list[Entry], list[Chart]]]]] = {
    "graph": ranker_graph.measure,
    "arena": ranker_arena.measure,
    "index": ranker_index.measure,
    "pruning": ranker_pruning.measure,
}


def measured(names: list[str]) -> Measured:
    found = Measured([], [])
    for name in names:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        entries, charts = PARTS[name]()
        found.entries.extend(entries)
        found.charts.extend(charts)
        gc.collect()
    return found


def main() -> int:
    found = measured(parts_asked(PARTS))
    return publish(NAME, found.entries, {"charts": [asdict(chart) for chart in found.charts]})


if __name__ == "__main__":
    raise SystemExit(main())
