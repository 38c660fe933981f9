"""What a score is gathered from: claims, counted accuracies, counts of use, outcomes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import insert

from ranker.catalogue import store
from ranker.catalogue.model import Capability, Claim, Model, Usage
from ranker.config import RankerSettings
from ranker.database import Database
from ranker.graph.tables import EDGE
from ranker.score import log
from ranker.score.evidence import Claims, Measurement
from ranker.score.record import evidence_of, recomputed
from ranker.score.scorer import Live, Scorer, claims, measurements, outcomes_by_intent
from services.core.config import load_settings

NOW = datetime(2026, 11, 26, 23, 59, tzinfo=UTC)
DAY = 86_400.0
SETTINGS = load_settings(
    RankerSettings, environ={}, classifier_target="a:1", generator_target="b:1"
)


def model(id: str, **values: object) -> Model:
    return Model(**{"id": id, "name": id, "type": "image-classifier", **values})  # type: ignore[arg-type]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database.open(database_url)
    yield database
    await database.close()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def test_a_measurement_that_answers_no_claim_is_none() -> None:
    capability = Capability(
        "m/c",
        "C",
        claims=(
            Claim("holds", "a", "a", "s", verified=True),
            Claim("wrong", "a", "b", "s"),
            Claim("unproven", "a"),
            Claim("measured", "", "b", "s"),
        ),
    )

    assert claims([capability]) == Claims(verified=1, contradicted=1, unmeasured=1)


@pytest.mark.parametrize(
    ("name", "measured", "found"),
    [
        ("top-1 accuracy", "42,580 of 50,000 (85.16 %)", (42_580, 50_000)),
        ("Accuracy", "3 of 4", (3, 4)),
        ("accuracy", "5 of 4", None),
        ("accuracy", "85.1 to 85.2 %", None),
        ("accuracy", "about 3 of 4", None),
        ("accuracy", "3 of 4000000x", None),
        ("channels", "3 of 4", None),
        ("accuracy", "0 of 0", None),
        ("accuracy", "1 of 9,007,199,254,740,992", (1, 2**53)),
        ("accuracy", "1 of 9,007,199,254,740,993", None),
        pytest.param("accuracy", "1 of " + "9" * 5_000, None, id="a number too long to be read"),
    ],
)
def test_accuracies_that_were_counted(
    name: str, measured: str, found: tuple[int, int] | None
) -> None:
    capability = Capability("m/c", "C", claims=(Claim(name, "", measured, "s"),))

    told = list(measurements([capability]))

    assert told == ([] if found is None else [Measurement(f"C: {name}", *found)])


async def test_outcomes_age_by_model_and_intent(database: Database) -> None:
    at = NOW.timestamp()
    rows = [
        ("vit", "c1", "label", 4, 0, 4.0, 0.0, at - 10 * DAY),
        ("vit", "c2", "label", 1, 2, 1.0, 2.0, at),
        ("vit", "c1", "embed", 0, 1, 0.0, 1.0, at - 20 * DAY),
        ("sd", "c", "paint", 7, 7, 7.0, 7.0, at),
    ]
    names = [column.name for column in EDGE.columns]
    await database.write(
        lambda c: c.execute(
            insert(EDGE),
            [dict(zip(names, (key, *row), strict=True)) for key, row in enumerate(rows)],
        )
    )

    found = await database.read(lambda c: outcomes_by_intent(c, ["vit", "deit"], at, 10 * DAY))

    assert set(found) == {("vit", "label"), ("vit", "embed")}
    label, embed = found["vit", "label"], found["vit", "embed"]
    assert (label.successes, label.failures, label.recorded) == pytest.approx((3.0, 2.0, 7))
    assert (embed.successes, embed.failures, embed.recorded) == pytest.approx((0.0, 0.25, 1))


async def test_use_is_read_again_when_the_catalogue_changes(database: Database) -> None:
    async def put(*models: Model) -> None:
        await database.write(lambda c: [store.put(c, each, NOW, 100) for each in models])

    def used(number: int) -> Model:
        return model(f"m{number}", usage=(Usage("likes", number, "hub"),))

    await put(*(used(number) for number in range(6)))
    scorer = Scorer(SETTINGS, database, Clock())
    before = (await scorer.scored([used(3)], Live()))["m3"]
    await put(used(6), model("other", type="image-generator", usage=(Usage("likes", 0, "hub"),)))
    after = (await scorer.scored([used(3)], Live()))["m3"]

    assert before.score.by_name["adoption"].valued.estimate.value == 0.6
    assert after.score.by_name["adoption"].valued.estimate.value == 0.5
    assert before.version != after.version


async def test_a_score_is_kept_until_it_is_another(database: Database) -> None:
    clock = Clock()
    scorer = Scorer(SETTINGS, database, clock)
    vit = model("vit", released=date(2020, 10, 22))
    first = (await scorer.scored([vit], Live()))["vit"]
    clock.now += timedelta(seconds=59)
    same = (await scorer.scored([vit], Live()))["vit"]
    clock.now += timedelta(seconds=1)
    next_day = (await scorer.scored([vit], Live()))["vit"]

    assert same == first
    assert next_day.computed_at == clock.now
    assert evidence_of(next_day.record).as_of == date(2026, 11, 27)
    every = await database.read(lambda c: log.history(c, "vit"))
    assert [each.record for each in every] == [first.record, next_day.record]
    assert all(recomputed(each.record) == each.record for each in every)


async def test_none_of_nothing(database: Database) -> None:
    assert await Scorer(SETTINGS, database).scored([], Live()) == {}
