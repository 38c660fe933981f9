"""Pictures of different sizes, steps, tenants, priorities and deadlines in one queue.

Real rows on a clock that only their network moves: one call takes 20 ms, and 10 ms more for each
32 x 32 picture or quarter of a 64 x 64 one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
import torch

from services.core.engine import EngineLimits
from services.core.errors import Cancelled, Overloaded
from services.generator.diffusion import Picture, PictureWork
from services.generator.modes import ImageToImage
from services.generator.network import Posterior
from services.generator.request import Reproducibility, Wish, resolve
from tests.unit.generator.drive import drive
from tests.unit.generator.pictures import given, picture
from tests.unit.generator.timed import TimedEngine, TimedNetwork

SMALL, LARGE = 32, 64
ROWS = 6


def wish(name: str, side: int = SMALL, steps: int = 10) -> Wish:
    return Wish(id=name, width=side, height=side, steps=steps, guidance_scale=1.0, seed=1)


def seconds(side: int, steps: int) -> float:
    """Of a picture that is alone."""
    area = (side / SMALL) ** 2
    return 0.02 + (steps + 1) * (0.02 + 0.01 * area)


@pytest.mark.parametrize(("many", "one"), [(SMALL, LARGE), (LARGE, SMALL)])
async def test_sizes_do_not_starve_each_other(many: int, one: int) -> None:
    """However many of one size come, the picture of the other has half of the device."""
    timed = TimedEngine(EngineLimits(patience_seconds=1e9))
    came = ROWS
    for number in range(ROWS):
        timed.submit(wish(f"many {number}", many))
    alone = timed.submit(wish("one", one))
    began = timed.clock.now
    while not alone.done:
        await timed.tick()
        while came < ROWS + len(timed.ended) - ("one" in timed.ended):
            timed.submit(wish(f"many {came}", many))
            came += 1
    # One step of the others' full batch may be under way when it comes.
    assert timed.clock.now - began <= 2.0 * seconds(one, 10) + 0.5
    assert all(ticket.steps_done > 0 for ticket in timed.tickets.values())
    await timed.run()


async def test_a_picture_of_higher_priority_goes_before_those_under_way() -> None:
    timed = TimedEngine(EngineLimits(max_batch_rows=1))
    timed.submit(wish("low", steps=20))
    for _ in range(5):
        await timed.tick()
    timed.submit(wish("normal", LARGE), priority=1)
    timed.submit(wish("high"), priority=2)
    await timed.run()
    assert timed.ended == ["high", "normal", "low"]


async def test_a_tenant_with_many_pictures_does_not_hold_up_one_with_few() -> None:
    timed = TimedEngine(EngineLimits(max_batch_rows=1, patience_seconds=1e9))
    for number in range(8):
        timed.submit(wish(f"heavy {number}", (SMALL, LARGE)[number % 2]), tenant="heavy")
    light = timed.submit(wish("light"), tenant="light")
    began = timed.clock.now
    while not light.done:
        await timed.tick()
    assert timed.clock.now - began <= 2.0 * seconds(SMALL, 10) + 0.1
    await timed.run()


async def test_slack_decides_over_sizes_and_steps() -> None:
    """Not who has the earliest deadline, but who must start first to meet it."""
    timed = TimedEngine(EngineLimits(max_batch_rows=1, max_step_seconds=60.0))
    chance, due = random.Random(3), {}
    for number in range(12):
        side, steps = chance.choice((SMALL, LARGE)), chance.randint(3, 25)
        slack = 10.0 + chance.random()
        name = f"{side} {steps} {number}"
        timed.submit(wish(name, side, steps), within=slack + seconds(side, steps))
        due[name] = slack
    await timed.run()
    assert timed.ended == sorted(due, key=due.__getitem__)


async def test_in_overload_the_pictures_that_were_accepted_are_in_time() -> None:
    timed = TimedEngine(EngineLimits(max_batch_rows=8))
    chance, refused = random.Random(5), 0
    for number in range(60):
        side, steps = chance.choice((SMALL, LARGE)), chance.randint(5, 15)
        try:
            timed.submit(wish(str(number), side, steps), within=chance.uniform(0.5, 4.0))
        except Overloaded:
            refused += 1
        for _ in range(4):
            await timed.tick()
    await timed.run()
    for ticket in timed.tickets.values():
        await ticket.result()
    assert refused > 10
    assert len(timed.tickets) > 10


READING_SECONDS = 1.5
PAINTED = Wish(
    mode=ImageToImage(given(picture()), 0.5), steps=4, guidance_scale=1.0, seed=1, count=8
)


@dataclass
class FarSighted(TimedNetwork):
    """Reads a given picture in 1.5 s: longer than a batch of several should take."""

    read: list[int] = field(default_factory=list)

    def posterior(self, images: torch.Tensor) -> Posterior:
        self.read.append(len(images))
        self.clock.now += READING_SECONDS * len(images)
        return super().posterior(images)


def all_works(timed: TimedEngine, wish: Wish) -> list[PictureWork]:
    return timed.model.works(resolve(wish, timed.model.limits, draw_seed=int))


@pytest.mark.parametrize("reproducibility", list(Reproducibility))
async def test_what_a_request_shares_is_charged_and_learned_once(
    reproducibility: Reproducibility,
) -> None:
    """Eight pictures take 1.5 s to read the one they are painted on, and 0.3 s; exact ones, each
    by itself, 0.9 s.
    """
    network = FarSighted()
    timed, wish = TimedEngine(network=network), replace(PAINTED, reproducibility=reproducibility)
    network.read.clear()
    for _ in range(5):
        until = timed.clock.now + 3.0
        tickets = timed.engine.submit_all(all_works(timed, wish), deadline=until)
        await timed.run()
        for ticket in tickets:
            assert isinstance(await ticket.result(), Picture)
    assert network.read == [1] * 5
    for key in timed.engine.report().keys:
        if "canvas" in str(key.key):
            assert key.fixed_seconds is not None
            assert key.seconds_per_cost is not None
            learned = key.fixed_seconds + key.seconds_per_cost
            assert learned == pytest.approx(READING_SECONDS, rel=0.01)


@pytest.mark.parametrize("ticks", [0, 1, 2])
async def test_a_request_is_painted_whoever_of_it_is_cancelled_first(ticks: int) -> None:
    timed = TimedEngine(network=FarSighted())
    expected = drive(timed.model, all_works(timed, PAINTED))
    tickets = timed.engine.submit_all(all_works(timed, PAINTED))
    for _ in range(ticks):
        await timed.tick()
    tickets[0].cancel()
    await timed.run()
    with pytest.raises(Cancelled):
        await tickets[0].result()
    for ticket, [picture_] in zip(tickets[1:], expected[1:], strict=True):
        made = await ticket.result()
        assert isinstance(made, Picture)
        assert made.pixels.tobytes() == picture_.pixels.tobytes()
