"""Writers in processes of their own, killed at random: what was acknowledged is there, and every
outcome counts once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Connection, func, select

from ranker.database import Database
from ranker.graph.counts import ShownResult
from ranker.graph.ledger import read_all_counts
from ranker.graph.log import Answer, log_answer
from ranker.graph.offers import Edge
from ranker.graph.tables import OUTCOME
from tests.integration.ranker.database.writer_process import AT, HALF_LIFE

EDGE = Edge("vit", "vit/classify", "classify an image")
MODULE = "tests.integration.ranker.database.writer_process"


class Writer:
    """One writer's outcomes, told by as many processes as it takes."""

    def __init__(self, url: str, answers: list[str]) -> None:
        self._url = url
        self._answers = answers
        self.acknowledged: set[str] = set()

    def run(self, kill_after: int | None) -> None:
        """A process for what is not acknowledged yet, killed after so many acknowledgements."""
        left = [answer for answer in self._answers if answer not in self.acknowledged]
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, self._url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            process.stdin.write(" ".join(left) + "\n")
            process.stdin.flush()
            if kill_after is None:
                process.stdin.close()
            for number, line in enumerate(process.stdout, start=1):
                self.acknowledged.add(line.strip())
                if number == kill_after:
                    process.kill()  # what it said before is still to be read
        assert process.returncode == (0 if kill_after is None else -signal.SIGKILL)


@pytest.fixture(
    params=[
        pytest.param((2, 100, 1), id="2 processes"),
        pytest.param(
            (8, 1000, 3), id="8 processes", marks=[pytest.mark.slow, pytest.mark.timeout(600)]
        ),
    ]
)
def plan(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    """Writers, outcomes of each, and how often each is killed."""
    found: tuple[int, int, int] = request.param
    return found


def kills(times: int, outcomes: int, dice: random.Random) -> Iterator[int | None]:
    """After how many acknowledgements each of a writer's processes is killed; the last one is not.
    At most half of what is left is ever acknowledged before."""
    for time in range(times):
        yield dice.randint(1, outcomes // 2 ** (time + 2))
    yield None


async def test_every_outcome_counts_once(database_url: str, plan: tuple[int, int, int]) -> None:
    if database_url == "sqlite://":
        pytest.skip("what is in memory has one owner")
    processes, outcomes, times = plan
    ids = [[f"{writer}-{number}" for number in range(outcomes)] for writer in range(processes)]
    database = Database.open(database_url)
    await database.write(lambda connection: ask(connection, [id for own in ids for id in own]))
    writers = [Writer(database_url, own) for own in ids]

    def drive(writer: Writer, seed: int) -> None:
        for kill_after in kills(times, outcomes, random.Random(seed)):
            writer.run(kill_after)

    with ThreadPoolExecutor(processes) as threads:
        ended = [threads.submit(drive, writer, seed) for seed, writer in enumerate(writers)]
        for each in ended:
            each.result()

    total = processes * outcomes
    assert sum(len(writer.acknowledged) for writer in writers) == total
    kept = select(OUTCOME.c.outcome, func.count()).group_by(OUTCOME.c.outcome)
    rows = await database.read(lambda connection: connection.execute(kept).all())
    assert {row[0]: row[1] for row in rows} == {"chosen": total, "succeeded": total}
    counts = await database.read(lambda connection: read_all_counts(connection, HALF_LIFE))
    assert counts.edges[EDGE.key].numbers == [total, 0]
    assert counts.edge_places[EDGE.key, 1].numbers == [total, total]
    await database.close()


def ask(connection: Connection, ids: list[str]) -> None:
    shown = (ShownResult(EDGE.key, 1, 1.0),)
    for number, id in enumerate(ids):
        at = AT - timedelta(seconds=number)
        log_answer(connection, Answer(id, at, "classify", "", 0.0, 1, (EDGE,), shown), HALF_LIFE)
