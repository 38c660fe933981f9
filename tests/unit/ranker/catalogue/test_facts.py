"""Facts are fresh, told with time and source, and absent where a service is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from ranker.catalogue.facts import LiveFacts, Reading, Served, facts_of
from services.core.errors import DeadlineExceeded, NotReady
from tests.unit.ranker.catalogue.models import NOW


class FakeSource:
    def __init__(self, service: str, *served: Served) -> None:
        self.service = service
        self.models = served
        self.asked = 0
        self.is_away = False
        self.has_time = True
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def served(self) -> Sequence[Served]:
        self.asked += 1
        await self.may_answer.wait()
        if not self.has_time:
            raise DeadlineExceeded()
        if self.is_away:
            raise NotReady
        return self.models


class FakeTime:
    def __init__(self) -> None:
        self.seconds = 100.0

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)


def served(version: str = "1", share: float = 1.0, state: str = "ready", **facts: str) -> Served:
    return Served("classifier", "vit", version, state, share, facts)


def live(time: FakeTime, *sources: FakeSource, patience: float = 60.0) -> LiveFacts:
    return LiveFacts(
        sources, kept_seconds=5.0, patience_seconds=patience, clock=time.clock, now=time.now
    )


async def test_an_answer_is_kept_shortly() -> None:
    time, source = FakeTime(), FakeSource("classifier", served())
    facts = live(time, source)
    (first,) = await facts.read()
    time.seconds += 4.9
    assert await facts.read() == [first]
    assert source.asked == 1
    time.seconds += 0.1
    (second,) = await facts.read()
    assert source.asked == 2
    assert second.at - first.at == timedelta(seconds=5.0)


async def test_who_asks_meanwhile_waits_for_the_same_answer() -> None:
    source = FakeSource("classifier", served())
    source.may_answer.clear()
    facts = live(FakeTime(), source)
    asking = [asyncio.create_task(facts.read()) for _ in range(5)]
    await asyncio.sleep(0)
    source.may_answer.set()
    readings = await asyncio.gather(*asking)
    assert source.asked == 1
    assert all(each == readings[0] for each in readings)


async def test_a_service_that_is_away_tells_nothing_and_hides_no_other() -> None:
    time = FakeTime()
    away, there = FakeSource("classifier", served()), FakeSource("generator")
    facts = live(time, away, there)
    await facts.read()
    away.is_away = True
    time.seconds += 5
    assert await facts.read() == [
        Reading("classifier", time.now(), is_away=True),
        Reading("generator", time.now()),
    ]
    away.is_away = False
    time.seconds += 5
    assert (await facts.read())[0].served == (served(),)


async def test_a_caller_without_time_makes_no_service_away_for_others() -> None:
    source = FakeSource("classifier", served())
    facts = live(FakeTime(), source)
    source.has_time = False
    with pytest.raises(DeadlineExceeded):
        await facts.read()
    source.has_time = True
    (reading,) = await facts.read()
    assert not reading.is_away


async def test_a_service_that_does_not_answer_counts_as_away() -> None:
    silent = FakeSource("classifier", served())
    silent.may_answer.clear()
    (reading,) = await live(FakeTime(), silent, patience=0.0).read()
    assert reading.is_away


async def test_what_is_a_fault_of_ours_is_not_hidden() -> None:
    class Broken(FakeSource):
        async def served(self) -> Sequence[Served]:
            raise LookupError

    with pytest.raises(LookupError):
        await live(FakeTime(), Broken("classifier")).read()


def test_facts_say_by_whom_and_when() -> None:
    told = facts_of([(served(backend="openvino", licence=""), Reading("classifier", NOW))])
    assert told == {
        "source": "ModelService.ListModels of the classifier",
        "read_at": "2026-11-26T12:00:00.000Z",
        "served_as": "vit",
        "version": "1",
        "state": "ready",
        "backend": "openvino",
    }


def test_the_version_with_most_of_the_traffic_comes_first() -> None:
    reading = Reading("classifier", NOW)
    versions = (
        served("1", 0.2, backend="pytorch"),
        served("2", 0.8, backend="openvino"),
        served("3", 1.0, "loading", backend="keras"),
    )
    told = facts_of([(each, reading) for each in versions])
    assert (told["version"], told["backend"]) == ("2", "openvino")
    assert told["backend@classifier/1"] == "pytorch"
    assert told["state@classifier/3"] == "loading"
    assert list(told) == [
        *(name for name in told if "@" not in name),
        *(name for name in told if name.endswith("/1")),
        *(name for name in told if name.endswith("/3")),
    ]


def test_nothing_served_has_no_facts() -> None:
    assert facts_of([]) == {}
