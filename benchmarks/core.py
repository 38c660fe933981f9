"""``make bench-core``: what engine, service and gateway cost, and how soon a cancel frees rows."""

from __future__ import annotations

import asyncio

from benchmarks import cancel, engine_overhead, overhead
from benchmarks.report import Bound, Entry, publish

COMMAND = "make bench-core"


def engine_entries() -> list[Entry]:
    return [
        Entry(
            "engine, row-steps of a null model",
            engine_overhead.measure(),
            "row-steps/s",
            COMMAND,
            Bound(">=", 20_000),
        ),
        Entry("engine, a one-step row", engine_overhead.measure_submit(), "µs", COMMAND),
    ]


def measure() -> list[Entry]:
    """Each part on an event loop of its own."""
    return [
        *engine_entries(),
        *asyncio.run(overhead.entries()),
        *asyncio.run(cancel.entries()),
    ]


if __name__ == "__main__":
    raise SystemExit(publish("core", measure()))
