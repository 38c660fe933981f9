"""How long Resolve takes, and how many outcomes are recorded in a second, as both grow.

The ranker is a process of its own over a SQLite file, asked through gRPC by this one; both share
the cores of the machine. One caller asks Resolve again and again, each time something else; 64
record outcomes of what it answered, each one that was not recorded before.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
from sqlalchemy import Connection

from benchmarks import ranker_graph_data as data
from benchmarks.ranker_graph_data import Size
from benchmarks.report import Bound, Chart, Entry, Line, quick
from easel.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from ranker.config import DATABASE_FILE
from ranker.database import Database
from ranker.graph.catalogue import CatalogueReader

COMMAND: Final = "make bench-ranker"
SIZES: Final = (
    (Size(50, 2_000), Size(500, 20_000))
    if quick()
    else (Size(100, 10_000), Size(1_000, 100_000), Size(10_000, 1_000_000))
)
ROUNDS: Final = 3
ASKED: Final = 30 if quick() else 100
"""Questions of one round."""

CALLERS: Final = 64
RESOLVE_MS: Final = 20.0
OUTCOMES_PER_SECOND: Final = 1_000.0
_READY_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """What one size took. Rounds apart, so that they can be compared."""

    size: Size
    count_seconds: float
    read_seconds: float
    resolve_seconds: list[list[float]]
    outcomes_per_second: list[float]

    @property
    def resolve_ms(self) -> float:
        return 1e3 * statistics.median(each for some in self.resolve_seconds for each in some)


def speed() -> tuple[list[Entry], list[Chart]]:
    runs = [run(size) for size in SIZES]
    return _entries(runs[-1]), _charts(runs)


def run(size: Size) -> Run:
    """Fill a database of this size, serve it, and ask."""
    with tempfile.TemporaryDirectory() as scratch:
        count_seconds, read_seconds, intents = asyncio.run(_filled(Path(scratch), size))
        with _served(Path(scratch)) as target:
            resolved, recorded = asyncio.run(_asked(target, intents))
    return Run(size, count_seconds, read_seconds, resolved, recorded)


async def _filled(directory: Path, size: Size) -> tuple[float, float, list[str]]:
    """Seconds to count the log, seconds to read the catalogue for search, what to ask for."""
    database = Database.open(f"sqlite:///{directory / DATABASE_FILE}")
    intents = await database.write(partial(data.fill, size=size))
    started = time.perf_counter()
    await database.write(data.count)
    count_seconds = time.perf_counter() - started
    read_seconds = await database.read(_read_seconds)
    await database.close()
    return count_seconds, read_seconds, intents


def _read_seconds(connection: Connection) -> float:
    started = time.perf_counter()
    CatalogueReader().read(connection)
    return time.perf_counter() - started


@contextmanager
def _served(directory: Path) -> Iterator[str]:
    """The ranker over the database of ``directory``; gives its target."""
    ready = directory / "ready.json"
    settings = {
        "CLASSIFIER_TARGET": "127.0.0.1:1",
        "GENERATOR_TARGET": "127.0.0.1:1",
        "DATA_DIR": str(directory),
        "READY_FILE": str(ready),
        "EXPLORATION": str(data.EPSILON),
        "EVIDENCE_HALF_LIFE_DAYS": str(data.HALF_LIFE / 86_400),
        "LOG_LEVEL": "ERROR",
    }
    environment = {**os.environ, **{f"EASEL_RANKER_{k}": v for k, v in settings.items()}}
    child = subprocess.Popen([sys.executable, "-m", "ranker"], env=environment)
    try:
        yield f"127.0.0.1:{_ready_port(child, ready)}"
    finally:
        child.terminate()
        child.wait(timeout=30)


def _ready_port(child: subprocess.Popen[bytes], file: Path) -> int:
    for _ in range(round(_READY_SECONDS / _POLL_SECONDS)):
        if file.exists() and (content := file.read_text(encoding="utf-8")):
            return int(json.loads(content)["port"])
        if child.poll() is not None:
            raise RuntimeError(f"the ranker ended with {child.returncode}")
        time.sleep(_POLL_SECONDS)
    raise RuntimeError("the ranker did not become ready")


async def _asked(target: str, intents: Sequence[str]) -> tuple[list[list[float]], list[float]]:
    chance = random.Random(0)
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = ranker_pb2_grpc.RankerServiceStub(channel)
        await _resolved(stub, intents, 10, chance)  # warm
        resolved, recorded = [], []
        for _ in range(ROUNDS):
            seconds, answers = await _resolved(stub, intents, ASKED, chance)
            resolved.append(seconds)
            recorded.append(await _recorded(stub, answers, chance))
    return resolved, recorded


async def _resolved(
    stub: Any, intents: Sequence[str], count: int, chance: random.Random
) -> tuple[list[float], list[Any]]:
    seconds, answers = [], []
    for _ in range(count):
        request = ranker_pb2.ResolveRequest(query=chance.choice(intents))
        started = time.perf_counter()
        answers.append(await stub.Resolve(request))
        seconds.append(time.perf_counter() - started)
    return seconds, answers


async def _recorded(stub: Any, answers: Sequence[Any], chance: random.Random) -> float:
    """Outcomes a second: every match chosen, and succeeded."""
    waiting = [
        ranker_pb2.RecordOutcomeRequest(
            token=answer.token, position=match.position, outcome=outcome
        )
        for answer in answers
        for match in answer.matches
        for outcome in (ranker_pb2.OUTCOME_CHOSEN, ranker_pb2.OUTCOME_SUCCEEDED)
    ]
    chance.shuffle(waiting)
    count = len(waiting)

    async def caller() -> None:
        while waiting:
            await stub.RecordOutcome(waiting.pop())

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return count / (time.perf_counter() - started)


def _entries(largest: Run) -> list[Entry]:
    size = largest.size
    about = (
        f"{size.models:,} models, {size.capabilities:,} capabilities, {size.outcomes:,} outcomes"
    )
    every = sorted(1e3 * each for some in largest.resolve_seconds for each in some)
    medians = [1e3 * statistics.median(some) for some in largest.resolve_seconds]
    rates = largest.outcomes_per_second
    slow, fast = Bound("<=", RESOLVE_MS), Bound(">=", OUTCOMES_PER_SECOND)
    return [
        Entry(
            f"Resolve, median: {about}",
            largest.resolve_ms,
            "ms",
            COMMAND,
            slow,
            _half_range(medians),
        ),
        Entry("Resolve, 95th percentile", every[int(0.95 * len(every))], "ms", COMMAND),
        Entry(
            f"RecordOutcome through gRPC, {CALLERS} callers",
            statistics.median(rates),
            "outcomes/s",
            COMMAND,
            fast,
            _half_range(rates),
        ),
        Entry("its catalogue read for search", largest.read_seconds, "s", COMMAND),
        Entry("its log counted again", largest.count_seconds, "s", COMMAND),
    ]


def _charts(runs: Sequence[Run]) -> list[Chart]:
    capabilities = tuple(float(each.size.capabilities) for each in runs)
    outcomes = tuple(float(each.size.outcomes) for each in runs)
    medians = [[1e3 * statistics.median(some) for some in each.resolve_seconds] for each in runs]
    rates = [each.outcomes_per_second for each in runs]
    return [
        Chart(
            "resolve",
            "Resolve, as catalogue and log grow together",
            "capabilities (the log has some 17 outcomes for each)",
            "median, ms",
            (_line("Resolve", capabilities, medians),),
            log="xy",
            level=RESOLVE_MS,
        ),
        Chart(
            "outcomes",
            "RecordOutcome, as catalogue and log grow together",
            "outcomes in the log",
            "outcomes a second",
            (_line("RecordOutcome", outcomes, rates),),
            log="xy",
            level=OUTCOMES_PER_SECOND,
        ),
    ]


def _line(name: str, x: tuple[float, ...], rounds: Sequence[Sequence[float]]) -> Line:
    return Line(
        name,
        x,
        tuple(statistics.median(some) for some in rounds),
        tuple(min(some) for some in rounds),
        tuple(max(some) for some in rounds),
    )


def _half_range(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / 2
