"""Deadlines that were accepted are kept, whatever is asked for on top of them."""

from __future__ import annotations

import pytest

from services.core.engine import EngineLimits
from services.core.errors import Overloaded
from tests.unit.core.engine.fake_model import bench, work
from tests.unit.core.engine.overload import Arrival, arrivals, overload

LIMITS = EngineLimits(
    max_rows=256, max_backlog_seconds=1e9, max_batch_rows=32, max_step_seconds=1.0
)
SIZES = (0.5, 1.0, 2.0)
PROCESSOR = (0.004, 0.005)
GPU = (0.03, 0.002)


def mixed(*parts: list[Arrival]) -> list[Arrival]:
    return [arrival for part in parts for arrival in part]


CASES = {
    "one size": (PROCESSOR, arrivals(0, count=300, per_second=20)),
    "three sizes": (PROCESSOR, arrivals(0, count=300, per_second=15, sizes=SIZES)),
    "steps that cost much, rows little": (GPU, arrivals(0, count=400, per_second=40, sizes=SIZES)),
    "slow steps": ((0.05, 0.1), arrivals(0, count=300, per_second=2, patience=(4.0, 30.0))),
    "three tenants": (
        PROCESSOR,
        arrivals(0, count=300, per_second=15, sizes=SIZES, tenants=("a", "b", "c")),
    ),
    "rows without deadlines": (
        PROCESSOR,
        mixed(
            arrivals(0, count=150, per_second=10, sizes=SIZES, tenants=("a", "b")),
            arrivals(1, count=150, per_second=10, sizes=SIZES, tenants=("b", "c"), patience=None),
        ),
    ),
}
# (missed, in time, work in time a second) when a row only had to be in time itself.
UNPROTECTED = {
    "one size": (53, 131, 117.1),
    "three sizes": (100, 111, 82.3),
    "steps that cost much, rows little": (201, 35, 40.1),
    "slow steps": (85, 19, 1.54),
    "three tenants": (112, 131, 87.7),
    "rows without deadlines": (87, 190, 129.4),
}


@pytest.mark.parametrize("name", CASES)
async def test_in_overload_what_was_accepted_is_in_time(name: str) -> None:
    (fixed, per_cost), asked = CASES[name]
    outcome = await overload(asked, fixed=fixed, per_cost=per_cost, limits=LIMITS)
    _, in_time, rate = UNPROTECTED[name]
    assert outcome.refused > 0
    assert outcome.missed <= outcome.accepted // 50
    assert outcome.in_time > in_time
    assert outcome.work / outcome.seconds > rate


async def test_a_row_with_less_slack_never_makes_an_admitted_one_late() -> None:
    made = bench(EngineLimits(max_batch_rows=1), known=["k"], fixed=0.1)
    admitted = made.engine.submit(work("admitted", 8), deadline=made.clock.now + 1.0)
    with pytest.raises(Overloaded) as refused:
        made.engine.submit(work("sooner", 3), deadline=made.clock.now + 0.5)
    assert refused.value.reason == "DEADLINE_UNREACHABLE"
    await made.run()
    assert await admitted.result() == "admitted:8"


async def test_a_row_with_less_slack_goes_before_where_there_is_time_for_both() -> None:
    made = bench(EngineLimits(max_batch_rows=1), known=["k"], fixed=0.1)
    later = made.engine.submit(work("later", 5), deadline=made.clock.now + 1.0)
    sooner = made.engine.submit(work("sooner", 3), deadline=made.clock.now + 0.45)
    await made.run()
    assert [await ticket.result() for ticket in (later, sooner)] == ["later:5", "sooner:3"]
    assert made.model.batches[:3] == [["sooner"]] * 3


async def test_a_higher_priority_is_the_one_thing_that_breaks_a_promise() -> None:
    made = bench(EngineLimits(max_batch_rows=1), known=["k"], fixed=0.1)
    made.engine.submit(work("admitted", 8), deadline=made.clock.now + 1.0)
    made.engine.submit(work("urgent", 3), priority=1, deadline=made.clock.now + 0.5)
    await made.run()
    assert made.model.batches[:3] == [["urgent"]] * 3
    assert made.value("easel_rows_finished_total", outcome="deadline") == 1.0


async def test_a_promise_is_kept_against_other_keys_and_tenants_without_deadlines() -> None:
    made = bench(EngineLimits(max_batch_rows=1), known=["k", "l"], fixed=0.1)
    promised = [
        made.engine.submit(work(f"p{i}", 5), tenant="a", deadline=made.clock.now + 4.0)
        for i in range(5)
    ]
    for i in range(40):
        made.engine.submit(work(f"o{i}", 5, key="l"), tenant=f"other{i % 4}")
    await made.run()
    assert [await ticket.result() for ticket in promised] == [f"p{i}:5" for i in range(5)]


@pytest.mark.parametrize("patience", [0.5, 0.9, 1.5])
async def test_the_time_to_try_again_is_honest(patience: float) -> None:
    """Nothing else comes, the time told is waited for: then it is taken."""
    made = bench(EngineLimits(max_batch_rows=1), known=["k"], fixed=0.1)
    for seconds in (1.0, 2.0, 3.0):
        made.engine.submit(work("admitted", 8), deadline=made.clock.now + seconds)
    with pytest.raises(Overloaded) as refused:
        made.engine.submit(work("again", 4), deadline=made.clock.now + patience)
    until = made.clock.now + refused.value.retry_after_seconds
    while made.clock.now < until:
        if not await made.engine.tick():
            made.clock.now = until
    made.engine.submit(work("again", 4), deadline=made.clock.now + patience)
    await made.run()
    assert made.value("easel_rows_finished_total", outcome="ok") == 4.0
