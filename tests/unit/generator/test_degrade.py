"""Fewer steps to meet a deadline: never unasked, no fewer than needed, and always told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from services.core.caller import Caller
from services.core.engine import Stage
from services.core.errors import Overloaded
from services.core.pool import WorkerPool
from services.generator.degrade import degraded, fewer_steps, shortened
from services.generator.events import Admitted, Event, Finished, Stepped
from services.generator.request import Order, PreviewWish, Wish, resolve
from services.generator.studio import Studio, deterministic
from tests.unit.generator.fakes import FakeScribe, loaded_model
from tests.unit.generator.timed import TimedEngine

LEAST = 4
LIMITS = loaded_model().limits


def order(previews_every: int = 0) -> Order:
    wish = Wish(steps=20, preview=PreviewWish(every=previews_every))
    return resolve(wish, LIMITS, draw_seed=int)


@pytest.mark.parametrize(
    ("possible", "found"), [(3, None), (4, 4), (5, 5), (12, 12), (19, 19), (40, 19)]
)
def test_as_many_steps_as_are_in_time(possible: int, found: int | None) -> None:
    assert fewer_steps(order(), LEAST, lambda steps: steps <= possible) == found


@pytest.mark.parametrize(("least", "found"), [(19, 19), (20, None), (21, None)])
def test_never_fewer_than_the_least(least: int, found: int | None) -> None:
    assert fewer_steps(order(), least, lambda _: True) == found


def test_only_the_named_stages_are_shortened() -> None:
    stages = [
        Stage("encode", "e"),
        *(Stage("denoise", "d"), Stage("denoise_outer", "o", steps=2)) * 3,
        Stage("decode", "x"),
    ]
    plan = shortened(stages, "denoise", 0.5)
    assert [(stage.name, stage.steps) for stage in plan] == [
        ("encode", 1),
        ("denoise", 1),
        ("denoise_outer", 2),
        ("denoise", 1),
        ("denoise_outer", 1),
        ("decode", 1),
    ]
    assert [stage.steps for stage in shortened(stages, "denoise", 0.01)] == [1, 1, 1]
    assert shortened(stages, "denoise", 1.0) == stages


def test_previews_keep_their_share_of_the_way() -> None:
    made = degraded(order(previews_every=5), 8)
    assert (made.steps, made.preview_steps, made.degraded) == (8, (2, 4, 6), True)


@dataclass
class Shop:
    timed: TimedEngine = field(default_factory=TimedEngine)
    prepare: WorkerPool = field(default_factory=lambda: WorkerPool("prepare", 1, 64))
    load: WorkerPool = field(default_factory=lambda: WorkerPool("load", 1, 64))
    finish: WorkerPool = field(default_factory=lambda: WorkerPool("finish", 1, 64))
    told: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.studio = Studio(
            self.timed.model,
            self.timed.engine,
            prepare=self.prepare,
            load=self.load,
            finish=self.finish,
            scribe=FakeScribe(),
            draw_seed=int,
            least_steps=LEAST,
        )

    async def put(self, event: Event) -> None:
        self.told.append(event)

    async def paint(self, wish: Wish, within: float) -> None:
        caller = Caller(deadline=self.timed.clock.now + within)
        await self.studio.job(wish, caller).run(self.put)


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    await shop.timed.engine.start()
    yield shop
    await shop.timed.engine.close()
    shop.prepare.close()
    shop.load.close()
    shop.finish.close()


async def test_the_deadline_is_met_with_fewer_steps_and_all_of_it_is_told(shop: Shop) -> None:
    # A guided step takes 40 ms: 20 steps 0.8 s, and 50 ms around them.
    await shop.paint(Wish(steps=20, guidance_scale=3.0, allow_degrade=True), within=0.5)
    [admitted] = [event for event in shop.told if isinstance(event, Admitted)]
    [finished] = [event for event in shop.told if isinstance(event, Finished)]
    assert LEAST < admitted.steps < 20
    assert {event.steps for event in shop.told if isinstance(event, Stepped)} == {admitted.steps}
    assert finished.timing.steps == admitted.steps + 2


async def test_a_deadline_that_can_be_met_leaves_the_steps_alone(shop: Shop) -> None:
    await shop.paint(Wish(steps=20, guidance_scale=3.0, allow_degrade=True), within=2.0)
    assert [event.steps for event in shop.told if isinstance(event, Admitted)] == [20]


async def test_nobody_gets_fewer_steps_unasked(shop: Shop) -> None:
    with pytest.raises(Overloaded) as refused:
        await shop.paint(Wish(steps=20, guidance_scale=3.0), within=0.5)
    assert refused.value.reason == "DEADLINE_UNREACHABLE"


async def test_what_is_too_late_even_so_is_refused(shop: Shop) -> None:
    with pytest.raises(Overloaded) as refused:
        await shop.paint(Wish(steps=20, guidance_scale=3.0, allow_degrade=True), within=0.12)
    assert refused.value.retry_after_seconds > 0.0


def test_what_may_be_degraded_is_neither_shared_nor_kept() -> None:
    assert deterministic(Wish(seed=1))
    assert not deterministic(Wish(seed=1, allow_degrade=True))


async def test_in_time_counts_nothing_and_admits_nothing(shop: Shop) -> None:
    engine = shop.timed.engine
    plan = [Stage("denoise", "d", steps=5)]
    assert engine.in_time([plan], deadline=shop.timed.clock.now + 1.0)
    assert not engine.in_time([plan], deadline=shop.timed.clock.now)
    assert engine.report().rows == 0
    await asyncio.sleep(0)
