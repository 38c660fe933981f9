"""The log and the counts, in each kind of database."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, func, select

from ranker.database import Database
from ranker.database.keys import shared_key
from ranker.graph.counts import Counts, ShownResult, Tally
from ranker.graph.exploration import shown
from ranker.graph.knowledge import Knowledge, knowledge
from ranker.graph.ledger import read_all_counts
from ranker.graph.log import Answer, Recorded, Report, count_again, log_answer, record, settle
from ranker.graph.offers import Edge
from ranker.graph.outcome import Outcome
from ranker.graph.tables import ANSWER, OUTCOME
from services.core.errors import EaselError, FailedPrecondition, NotFound

HALF_LIFE = 30 * 86_400.0
START = datetime(2026, 1, 1, tzinfo=UTC)
EDGES = tuple(Edge(f"model-{n}", f"capability-{n}", "classify") for n in range(6))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database.open(database_url)
    yield opened
    await opened.close()


def answer(
    id: str,
    at: datetime = START,
    epsilon: float = 0.0,
    seed: int = 0,
    ranked: Sequence[Edge] = EDGES,
) -> Answer:
    places = shown(len(ranked), epsilon, random.Random(seed))
    edges = tuple(ranked[place.base - 1] for place in places)
    results = [
        ShownResult(edge.key, place.base, place.propensity)
        for edge, place in zip(edges, places, strict=True)
    ]
    return Answer(id, at, "classify", "", epsilon, 1, edges, tuple(results))


async def keep(database: Database, *answers: Answer) -> None:
    for each in answers:
        await database.write(partial(log_answer, answer=each, half_life=HALF_LIFE))


async def tell(database: Database, *reports: Report) -> list[Recorded | EaselError]:
    return await database.write(lambda connection: record(connection, reports, HALF_LIFE))


async def known(database: Database, now: datetime = START) -> Knowledge:
    return await database.read(
        lambda connection: knowledge(connection, EDGES, now.timestamp(), HALF_LIFE)
    )


def chosen(id: str, position: int = 1, at: datetime = START) -> Report:
    return Report(id, position, Outcome.CHOSEN, at)


async def test_an_answer_counts_as_seen(database: Database) -> None:
    await keep(database, answer("a"), answer("b"))
    found = await known(database)
    assert [found.of(edge).impressions for edge in EDGES] == [2] * 6
    assert found.of(EDGES[0]).attraction.examined == pytest.approx(2.0)
    assert found.of(Edge("model-0", "capability-0", "another intent")).impressions == 0
    assert len(found.alphas) == 6


async def test_outcomes_count_once(database: Database) -> None:
    await keep(database, answer("a"))
    succeeded = Report("a", 2, Outcome.SUCCEEDED, START, "it worked")
    (first,) = await tell(database, succeeded)
    assert first == Recorded(EDGES[1], repeated=False)
    assert await tell(database, succeeded, chosen("a", 2)) == [Recorded(EDGES[1], True)] * 2
    evidence = (await known(database)).of(EDGES[1])
    assert (evidence.chosen, evidence.succeeded, evidence.failed) == (1, 1, 0)
    assert (evidence.successes, evidence.failures) == (1.0, 0.0)
    rows = await database.read(
        lambda c: [tuple(row) for row in c.execute(select(OUTCOME.c.outcome, OUTCOME.c.comment))]
    )
    assert sorted(rows) == [("chosen", ""), ("succeeded", "it worked")]


async def test_the_same_outcome_twice_in_one_group_counts_once(database: Database) -> None:
    await keep(database, answer("a"))
    told = await tell(database, chosen("a"), chosen("a"), Report("a", 1, Outcome.FAILED, START))
    assert [each.repeated for each in told if isinstance(each, Recorded)] == [False, True, False]
    evidence = (await known(database)).of(EDGES[0])
    assert (evidence.chosen, evidence.failed) == (1, 1)


async def test_another_end_is_refused_and_no_other_report(database: Database) -> None:
    await keep(database, answer("a"))
    await tell(database, Report("a", 1, Outcome.FAILED, START))
    told = await tell(
        database,
        Report("a", 1, Outcome.SUCCEEDED, START),
        Report("nowhere", 1, Outcome.CHOSEN, START),
        chosen("a", 3),
    )
    assert isinstance(told[0], FailedPrecondition)
    assert told[0].reason == "TOKEN_USED"
    assert "position 1 already: it failed, and cannot have succeeded too" in told[0].message
    assert isinstance(told[1], NotFound)
    assert told[2] == Recorded(EDGES[2], repeated=False)
    evidence = (await known(database)).of(EDGES[0])
    assert (evidence.succeeded, evidence.failed) == (0, 1)


async def test_evidence_weighs_half_after_its_half_life(database: Database) -> None:
    await keep(database, answer("a"))
    await tell(database, Report("a", 1, Outcome.SUCCEEDED, START))
    later = (await known(database, START + timedelta(seconds=HALF_LIFE))).of(EDGES[0])
    assert later.successes == pytest.approx(0.5)
    assert later.succeeded == 1
    assert later.attraction.examined == pytest.approx(0.5)
    assert later.attraction.rate == pytest.approx(1.0)


async def test_the_log_counted_again_is_what_is_kept(database: Database) -> None:
    """Late and out of order, with swaps, ends, repetitions and refusals."""
    chance = random.Random(3)
    days = [chance.uniform(0, 200) for _ in range(60)]
    for number, day in enumerate(days):
        await keep(database, answer(f"a{number}", START + timedelta(days=day), 0.3, number))
    for _ in range(40):
        reports = []
        for _ in range(chance.randint(1, 6)):
            number = chance.randrange(60)
            at = START + timedelta(days=days[number] + chance.uniform(0, 7))
            outcome = chance.choice(list(Outcome))
            reports.append(Report(f"a{number}", chance.randint(1, 6), outcome, at))
        await tell(database, *reports)
    kept = await database.read(lambda connection: read_all_counts(connection, HALF_LIFE))
    again = await database.read(lambda connection: count_again(connection, HALF_LIFE))
    assert any(tally.numbers[1] for tally in kept.edges.values())
    assert_equal(kept, again)


async def test_another_half_life_counts_the_log_again(database: Database) -> None:
    assert not await database.write(lambda connection: settle(connection, HALF_LIFE))
    await keep(database, answer("a", epsilon=0.3), answer("b", START - timedelta(days=9)))
    await tell(database, Report("a", 2, Outcome.SUCCEEDED, START), chosen("b", 3))
    assert not await database.write(lambda connection: settle(connection, HALF_LIFE))
    assert await database.write(lambda connection: settle(connection, 86_400.0))
    kept = await database.read(lambda connection: read_all_counts(connection, 86_400.0))
    assert_equal(kept, await database.read(lambda c: count_again(c, 86_400.0)))
    oldest = kept.edge_places[EDGES[5].key, 6]
    assert oldest.weights.values[0] == pytest.approx(1 + 2**-9)


async def test_what_places_do_is_found_from_the_log() -> None:
    """Answers and choices where it is known how often each place is looked at; unlike the prior,
    and better results stand above worse ones."""
    looked, worth = (1.0, 0.7, 0.5), {EDGES[0]: 0.95, EDGES[1]: 0.8, EDGES[2]: 0.65}
    chance = random.Random(5)
    answers = [answer(f"a{n}", epsilon=0.5, seed=n, ranked=list(worth)) for n in range(900)]
    choices = [
        chosen(each.id, place)
        for each in answers
        for place, edge in enumerate(each.edges, 1)
        if chance.random() < looked[place - 1] * worth[edge]
    ]

    def keep_all(connection: Connection) -> None:
        for each in answers:
            log_answer(connection, each, HALF_LIFE)
        record(connection, choices, HALF_LIFE)

    database = Database.open()
    await database.write(keep_all)
    found = await known(database)
    await database.close()
    assert found.alphas == pytest.approx(looked, rel=0.2)
    rates = [found.of(edge).attraction.rate for edge in worth]
    assert rates == pytest.approx(list(worth.values()), rel=0.2)


async def test_an_answer_without_results_is_logged_too(database: Database) -> None:
    await keep(database, Answer("a", START, "nothing", "", 0.1, 1, (), ()))
    assert await database.read(lambda c: c.scalar(select(func.count()).select_from(ANSWER))) == 1
    assert (await known(database)).alphas == ()


async def test_all_that_share_a_database_sign_with_one_key(database: Database) -> None:
    first, second = await database.write(shared_key), await database.write(shared_key)
    assert first == second
    assert len(first) == 32


def assert_equal(kept: Counts, again: Counts) -> None:
    """Plain counts exactly, weights as nearly as sums in another order are, as of one moment."""
    for name in ("edge_places", "places"):
        assert getattr(kept, name).keys() == getattr(again, name).keys()
    for name in ("edges", "edge_places", "places"):
        own: dict[object, Tally] = getattr(kept, name)
        for key, other in getattr(again, name).items():
            assert own[key].numbers == other.numbers, (name, key)
            at = max(own[key].weights.at, other.weights.at)
            theirs = other.weights.worth(at, again.half_life)
            assert own[key].weights.worth(at, kept.half_life) == pytest.approx(theirs, rel=1e-9)
