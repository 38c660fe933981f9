"""The log of scores, in each kind of database: what is told is kept, and computes to itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
from sqlalchemy import update

from ranker.database import Database
from ranker.score import log
from ranker.score.components import Terms
from ranker.score.evidence import Claims, Evidence, Outcomes
from ranker.score.formula import Rules, score
from ranker.score.log import Scored
from ranker.score.record import Record, evidence_of, recomputed, recorded
from ranker.score.tables import SCORE_LOG
from ranker.score.weights import DEFAULT_WEIGHTS, Weights

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
RULES = Rules(Weights.of(DEFAULT_WEIGHTS["default"]), Terms(5, 730.0), Decimal("0.5"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database.open(database_url)
    yield database
    await database.close()


def record(model: str, **known: object) -> Record:
    evidence = Evidence(model, "classifier", date(2026, 11, 26), **known)  # type: ignore[arg-type]
    return recorded(evidence, RULES, score(evidence, RULES))


async def test_every_score_in_the_log_computes_to_itself(database: Database) -> None:
    records = [
        record("vit", claims=Claims(7, 5), outcomes=Outcomes(0.1 + 0.2, 17 / 3, 9)),
        record("sd", released=date(2022, 8, 22)),
        record("ünïcode \U0001f5bc"),
    ]
    await database.write(lambda connection: log.kept(connection, records, NOON))

    found = await database.read(
        lambda connection: log.latest(connection, ["vit", "sd", records[2].model])
    )

    assert {each.record.model: each.record for each in found.values()} == {
        each.model: each for each in records
    }
    for each in found.values():
        assert each.computed_at == NOON
        assert recomputed(each.record) == each.record
        told = Scored.of(each)
        assert recorded(evidence_of(told.record), RULES, told.score) == each.record


async def test_what_says_the_same_is_not_kept_twice(database: Database) -> None:
    first = record("vit", claims=Claims(7, 5))
    later = NOON + timedelta(days=1)
    same = replace(first, evidence=first.evidence.replace("2026-11-26", "2026-11-27"))
    other = record("vit", claims=Claims(8, 5))

    one = await database.write(lambda connection: log.kept(connection, [first], NOON))
    two = await database.write(lambda connection: log.kept(connection, [same], later))
    three = await database.write(lambda connection: log.kept(connection, [other], later))

    assert one == two
    assert three["vit"].computed_at == later
    every = await database.read(lambda connection: log.history(connection, "vit"))
    assert [each.record for each in every] == [first, other]


async def test_the_log_of_one_model_in_pages(database: Database) -> None:
    records = [record("vit", claims=Claims(7 + number, 5)) for number in range(5)]
    for each in (*records, record("sd")):
        await database.write(partial(log.kept, records=[each], now=NOON))

    first = await database.read(lambda connection: log.page(connection, "vit", None, 3))
    rest = await database.read(lambda connection: log.page(connection, "vit", first[-1].number, 3))

    assert [len(first), len(rest)] == [3, 2]
    assert [each.logged.record for each in (*first, *rest)] == records[::-1]
    none = await database.read(lambda connection: log.page(connection, "vit", rest[-1].number, 3))
    assert none == []


async def test_other_weights_are_another_score(database: Database) -> None:
    first = record("new")
    rules = replace(RULES, terms=Terms(6, 730.0))
    evidence = Evidence("new", "classifier", date(2026, 11, 26))
    second = recorded(evidence, rules, score(evidence, rules))

    await database.write(lambda connection: log.kept(connection, [first], NOON))
    await database.write(lambda connection: log.kept(connection, [second], NOON))

    every = await database.read(lambda connection: log.history(connection, "new"))
    assert len({each.record.version for each in every}) == 2


async def test_a_log_that_was_tampered_with_shows(database: Database) -> None:
    first = record("vit", claims=Claims(7, 5))
    await database.write(lambda connection: log.kept(connection, [first], NOON))
    raised = first.result.replace('"points":', '"points":1')
    await database.write(
        lambda connection: connection.execute(update(SCORE_LOG).values(result=raised))
    )

    found = await database.read(lambda connection: log.latest(connection, ["vit"]))

    assert recomputed(found["vit"].record) != found["vit"].record


async def test_many_models_at_once(database: Database) -> None:
    records = [record(f"m{number}", claims=Claims(number, 5)) for number in range(1201)]
    await database.write(lambda connection: log.kept(connection, records, NOON))

    found = await database.read(
        lambda connection: log.latest(connection, [f"m{number}" for number in range(1300)])
    )

    assert len(found) == 1201
