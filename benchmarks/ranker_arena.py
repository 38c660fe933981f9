"""How long a leaderboard takes as votes and contenders grow, and whether its intervals hold.

Leaderboards are computed from a SQLite file by a ranker that has read nothing of it yet: votes read
and counted, strengths, intervals, ranks, judges, and the votes that hold the leader up. Strengths
are normal with standard deviation 1; judges are 10,000 of equal discernment.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from sqlalchemy import Connection, insert

from benchmarks.report import Bound, Chart, Entry, Line, quick
from ranker.arena import store
from ranker.arena.davidson import chances
from ranker.arena.leaderboard import Leaderboard, leaderboard
from ranker.arena.matchmaker import Matchmaker
from ranker.arena.standings import Board, Standings
from ranker.arena.tables import CONTENDER, JUDGE, VOTE
from ranker.arena.tally import LEFT, RIGHT, TIE, Floats, Ints, tally
from ranker.database import Database

COMMAND: Final = "make bench-ranker"
VOTES: Final = (1_000, 10_000) if quick() else (10_000, 100_000, 1_000_000)
CONTENDERS: Final = (10, 50) if quick() else (100, 1_000)
JUDGES: Final = 10_000
TIES: Final = 0.5
ROUNDS: Final = 1 if quick() else 3
PAIRS: Final = 20 if quick() else 100
SIMULATIONS: Final = 100 if quick() else 1_500
LEADERBOARD_SECONDS: Final = 10.0
COVERAGE: Final = (0.93, 0.97)
MIN_VOTES: Final = 30

_ROWS: Final = 20_000
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Run:
    """What one size took: leaderboards from the file, with new votes, and drawing a pair."""

    contenders: int
    votes: int
    seconds: list[float]
    again_seconds: float
    pair_ms: list[float]
    board: Board


def measure() -> tuple[list[Entry], list[Chart]]:
    runs = [run(contenders, votes) for contenders in CONTENDERS for votes in VOTES]
    return [*_entries(runs[-1]), *coverage()], [_chart(runs)]


def run(contenders: int, votes: int) -> Run:
    with tempfile.TemporaryDirectory() as scratch:
        return asyncio.run(_run(Path(scratch) / "easel.db", contenders, votes))


async def _run(file: Path, contenders: int, votes: int) -> Run:
    database = Database.open(f"sqlite:///{file}")
    rng = np.random.default_rng(votes)
    intent = await database.write(lambda c: _filled(c, rng, contenders, votes))
    seconds: list[float] = []
    for _ in range(ROUNDS):
        standings = Standings(database, MIN_VOTES, lambda: _NOW)
        started = time.perf_counter()
        board = await standings.board(intent)
        seconds.append(time.perf_counter() - started)
    await database.write(lambda c: _more(c, rng, intent, 1_000))
    started = time.perf_counter()
    board = await standings.board(intent)
    again = time.perf_counter() - started
    pair_ms = await _pairs(database, standings, intent, rng)
    await database.close()
    return Run(contenders, votes, seconds, again, pair_ms, board)


async def _pairs(
    database: Database, standings: Standings, intent: int, rng: np.random.Generator
) -> list[float]:
    """Milliseconds of drawing each pair, after the first."""
    matchmaker = Matchmaker(database, standings, 0.1, rng)
    await matchmaker.meeting(intent, "")
    taken = []
    for _ in range(PAIRS):
        started = time.perf_counter()
        await matchmaker.meeting(intent, "")
        taken.append(1e3 * (time.perf_counter() - started))
    return taken


def _filled(connection: Connection, rng: np.random.Generator, contenders: int, votes: int) -> int:
    """An intent with all of it; its number."""
    intent = store.intent_to_write(connection, "bench")
    names = [f"contender {number}" for number in range(contenders)]
    rows = [
        {"intent": intent, "name": name, "settings": b"", "withdrawn": False, "at": _NOW}
        for name in names
    ]
    connection.execute(insert(CONTENDER), rows)
    limits = store.Limits(contenders, 10, 2**30)
    store.put_prompts(connection, intent, ["a red star"], limits)
    connection.execute(insert(JUDGE), [{"name": f"judge {each}"} for each in range(JUDGES)])
    _more(connection, rng, intent, votes)
    return intent


def _more(connection: Connection, rng: np.random.Generator, intent: int, votes: int) -> None:
    ids = np.array([each.id for each in store.contenders(connection, intent)])
    strengths = np.random.default_rng(1).normal(0.0, 1.0, ids.size)
    for begin in range(0, votes, _ROWS):
        size = min(_ROWS, votes - begin)
        left, right, vote = _cast(rng, strengths, size)
        judges = rng.integers(1, JUDGES + 1, size)
        columns = (ids[left].tolist(), ids[right].tolist(), vote.tolist(), judges.tolist())
        rows = [
            {"intent": intent, "left": a, "right": b, "vote": v, "judge": j, "at": _NOW}
            for a, b, v, j in zip(*columns, strict=True)
        ]
        connection.execute(insert(VOTE), rows)


def _cast(rng: np.random.Generator, strengths: Floats, votes: int) -> tuple[Ints, Ints, Ints]:
    """Random pairs, and votes on them."""
    left = rng.integers(len(strengths), size=votes)
    right = (left + rng.integers(1, len(strengths), size=votes)) % len(strengths)
    return left, right, _outcomes(rng, strengths[left] - strengths[right])


def _outcomes(rng: np.random.Generator, difference: Floats) -> Ints:
    odds = chances(difference, float(np.log(TIES)))
    drawn = rng.random(difference.shape)
    decided = np.where(drawn < odds.first, LEFT, RIGHT)
    votes: Ints = np.where(drawn < odds.first + odds.second, decided, TIE)
    return votes


def coverage() -> list[Entry]:
    """How often 95 % intervals hold the strengths that votes were drawn from, and all ranks do."""
    rng = np.random.default_rng(7)
    true = np.linspace(-1.0, 1.0, 8)
    order = 1 + np.argsort(np.argsort(-true))
    inside, ranked = [], []
    for _ in range(SIMULATIONS):
        left, right, vote = _cast(rng, true, 1_000)
        board = leaderboard(tally(8, left, right, vote, 0 * left), robust=False)
        inside.append(_held(board, true))
        rows = board.standings
        ranked.append(all(r.rank_low <= order[r.contender] <= r.rank_high for r in rows))
    low, high = COVERAGE
    share, spread = float(np.mean(inside)), float(2 * np.std(inside) / np.sqrt(len(inside)))
    together = float(np.mean(ranked))
    return [
        Entry("95 % intervals that hold the truth, at least", share, "share", COMMAND,
              Bound(">=", low), spread),
        Entry("95 % intervals that hold the truth, at most", share, "share", COMMAND,
              Bound("<=", high), spread),
        Entry("rank intervals that all hold together", together, "share", COMMAND,
              Bound(">=", low)),
    ]  # fmt: skip


def _held(board: Leaderboard, true: Floats) -> float:
    """The share of intervals that hold."""
    told = [
        each.strength.low <= true[each.contender] <= each.strength.high
        for each in board.standings
        if each.strength is not None
    ]
    return float(np.mean(told))


def _entries(last: Run) -> list[Entry]:
    size = f"{last.contenders:,} contenders, {last.votes:,} votes"
    spread = (max(last.seconds) - min(last.seconds)) / 2
    bound = None if quick() else Bound("<=", LEADERBOARD_SECONDS)
    hold = last.board.result.hold
    entries = [
        Entry(f"leaderboard from the database: {size}", statistics.median(last.seconds), "s",
              COMMAND, bound, spread),
        Entry(f"leaderboard with 1,000 new votes: {size}", last.again_seconds, "s", COMMAND),
        Entry(f"drawing the next pair: {size}", statistics.median(last.pair_ms), "ms", COMMAND),
    ]  # fmt: skip
    if hold is not None:
        name = f"votes without which another leads: {size}"
        entries.append(Entry(name, float(hold.votes), "votes", COMMAND))
    return entries


def _chart(runs: list[Run]) -> Chart:
    lines = tuple(
        Line(
            f"{contenders:,} contenders",
            tuple(float(each.votes) for each in runs if each.contenders == contenders),
            tuple(
                statistics.median(each.seconds) for each in runs if each.contenders == contenders
            ),
        )
        for contenders in CONTENDERS
    )
    return Chart(
        "arena",
        "A leaderboard with intervals, ranks, judges and dropped votes, from the database",
        "votes",
        "seconds",
        lines,
        log="xy",
        level=LEADERBOARD_SECONDS,
    )
