"""The cost model: what it learns, and what it does while it knows little."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.engine.backlog import RECOVER_AFTER, Backlog, KeyLoad
from services.core.engine.cost import DOUBT_EVERY, Fit, StepCost
from services.core.engine.limits import EngineLimits
from services.core.engine.stage import Stage


def _learned(*samples: tuple[float, float]) -> StepCost:
    cost = StepCost()
    for units, seconds in samples:
        cost.observe(units, seconds)
    return cost


def _fit(*samples: tuple[float, float]) -> Fit:
    fit = _learned(*samples).fit
    assert fit is not None
    return fit


def test_nothing_is_known_before_the_first_step() -> None:
    assert StepCost().fit is None


def test_one_sample_is_taken_as_proportional() -> None:
    fit = _fit((4.0, 0.2))
    assert not fit.known
    assert fit.seconds(4.0) == pytest.approx(0.2)
    assert fit.seconds(8.0) == pytest.approx(0.4)


def test_two_sizes_give_both_parts() -> None:
    fit = _fit((1.0, 0.03), (4.0, 0.06))
    assert fit.known
    assert fit.fixed == pytest.approx(0.02)
    assert fit.per_cost == pytest.approx(0.01)


def test_constant_cost_keeps_the_last_line_through_the_new_mean() -> None:
    cost = _learned((1.0, 0.03), (4.0, 0.06), *[(4.0, 0.06)] * 600, *[(4.0, 0.12)] * 600)
    fit = cost.fit
    assert fit is not None
    assert fit.seconds(4.0) == pytest.approx(0.12, rel=1e-3)
    assert fit.fixed == pytest.approx(2.0 * fit.per_cost, rel=1e-3)


def test_constant_cost_is_doubted_now_and_then() -> None:
    cost = _learned((1.0, 0.03), (4.0, 0.06), *[(4.0, 0.06)] * 600)
    known = []
    for _ in range(DOUBT_EVERY):
        cost.observe(4.0, 0.06)
        assert cost.fit is not None
        known.append(cost.fit.known)
    assert known.count(False) == 1


def test_the_first_step_is_forgotten_when_it_was_compilation() -> None:
    assert _fit((1.0, 20.0), (1.0, 0.01)).seconds(1.0) == pytest.approx(0.01)


def test_the_first_step_counts_when_it_is_like_the_second() -> None:
    assert _fit((1.0, 0.02), (1.0, 0.01)).seconds(1.0) == pytest.approx(0.015, rel=0.02)


def test_a_pause_moves_the_fit_little() -> None:
    assert _fit(*[(1.0, 0.01)] * 50, (1.0, 60.0)).seconds(1.0) < 0.011


def test_a_lasting_slowdown_is_learned() -> None:
    fit = _fit(*[(1.0, 0.01)] * 50, *[(1.0, 0.1)] * 300)
    assert fit.seconds(1.0) == pytest.approx(0.1, rel=0.1)


def test_larger_batches_that_seem_faster_leave_no_negative_slope() -> None:
    fit = _fit((1.0, 0.05), (4.0, 0.03))
    assert fit.per_cost == 0.0
    # By relative errors the smaller batch counts 16 times as much.
    assert fit.fixed == pytest.approx((16 * 0.05 + 0.03) / 17, rel=0.02)


def test_slow_steps_of_large_batches_hide_no_fixed_part() -> None:
    chance = random.Random(0)
    cost, found = StepCost(), []
    for _ in range(1000):
        units = chance.choice((2.0, 4.0, 8.0, 16.0, 32.0, 64.0))
        slowed = 3.0 if chance.random() < 0.05 else 1.0
        cost.observe(units, (0.010 + 0.003 * units) * slowed)
        assert cost.fit is not None
        found.append(cost.fit.fixed)
    settled = found[50:]
    # A fit to absolute errors has as much of it three times in four, and none at all at times.
    assert sum(0.005 < fixed < 0.02 for fixed in settled) > 0.98 * len(settled)


def test_a_negative_fixed_part_becomes_zero() -> None:
    fit = _fit((1.0, 0.01), (4.0, 0.09))
    assert fit.fixed == 0.0
    assert fit.per_cost > 0.0


def test_steps_that_take_no_time_are_learned_too() -> None:
    assert _fit((1.0, 0.0), (2.0, 0.0), (1.0, 0.0)).seconds(9.0) == 0.0


@given(st.lists(st.tuples(st.floats(0.01, 100.0), st.floats(0.0, 10.0)), min_size=1, max_size=40))
def test_both_parts_are_finite_and_never_negative(samples: list[tuple[float, float]]) -> None:
    fit = _fit(*samples)
    assert 0.0 <= fit.fixed < math.inf
    assert 0.0 <= fit.per_cost < math.inf


@given(st.floats(1e-5, 1.0), st.floats(1e-5, 1.0))
def test_an_exact_line_is_found(fixed: float, per_cost: float) -> None:
    fit = _fit(*[(units, fixed + per_cost * units) for units in (1.0, 2.0, 3.0, 5.0, 8.0)])
    assert fit.seconds(4.0) == pytest.approx(fixed + per_cost * 4.0, rel=1e-3)


def test_cost_within_seconds() -> None:
    fit = Fit(0.02, 0.01, known=True)
    assert fit.cost_within(0.05) == pytest.approx(3.0)
    assert fit.cost_within(0.01) == 0.0
    assert Fit(0.02, 0.0, known=True).cost_within(0.05) == math.inf


def test_cost_for_share() -> None:
    fit = Fit(0.02, 0.01, known=True)
    cost = fit.cost_for_share(0.1)
    assert fit.fixed / fit.seconds(cost) == pytest.approx(0.1)
    assert Fit(0.0, 0.01, known=True).cost_for_share(0.1) == 0.0
    assert Fit(0.02, 0.0, known=True).cost_for_share(0.1) == math.inf


def _load(*samples: tuple[float, float], limits: EngineLimits | None = None) -> KeyLoad:
    load = KeyLoad("key", limits or EngineLimits())
    for units, seconds in samples:
        load.observe(units, seconds)
    return load


def test_a_key_never_timed_takes_one_row() -> None:
    assert _load().cap_cost == 0.0


def test_a_key_timed_at_one_size_may_double_it() -> None:
    assert _load((1.0, 0.01)).cap_cost == 2.0


def test_the_cap_is_where_the_fixed_part_is_small_enough() -> None:
    load = _load((1.0, 0.02), (16.0, 0.17))
    assert load.cap_cost == pytest.approx(9.0)


def test_the_cap_keeps_a_step_short_enough() -> None:
    limits = EngineLimits(max_step_seconds=0.05)
    assert _load((1.0, 0.02), (16.0, 0.17), limits=limits).cap_cost == pytest.approx(4.0)


def test_the_cap_never_leaves_what_was_timed_far_behind() -> None:
    assert _load((1.0, 0.020), (2.0, 0.0201)).cap_cost == 4.0


def test_out_of_memory_halves_the_cap_and_time_heals() -> None:
    load = _load((1.0, 0.10), (16.0, 0.101))
    load.out_of_memory(16.0)
    assert load.cap_cost == 8.0
    load.out_of_memory(8.0)
    assert load.cap_cost == 4.0
    for _ in range(RECOVER_AFTER):
        load.observe(4.0, 0.1)
    assert load.cap_cost == 5.0


def test_small_batches_do_not_prove_that_large_ones_fit() -> None:
    load = _load((1.0, 0.10), (16.0, 0.101))
    load.out_of_memory(16.0)
    for _ in range(2 * RECOVER_AFTER):
        load.observe(1.0, 0.1)
    assert load.memory_cost == 8.0


def test_backlog_adds_up_and_returns_to_exactly_zero() -> None:
    backlog = Backlog(EngineLimits())
    stage = Stage("s", "key", cost=0.1, steps=3)
    load = backlog.load("key")
    load.observe(0.1, 0.01)
    for _ in range(7):
        backlog.enter(load, stage)
    assert backlog.seconds == pytest.approx(7 * 3 * 0.01)
    for _ in range(7):
        backlog.leave(load, stage, 3)
    assert backlog.seconds == 0.0
    assert (load.remaining, load.width, load.rows) == (0.0, 0.0, 0)


def test_backlog_counts_batching() -> None:
    backlog = Backlog(EngineLimits(overhead_share=0.5))
    load = backlog.load("key")
    load.observe(1.0, 0.2)
    load.observe(4.0, 0.5)
    assert load.cap_cost == pytest.approx(1.0)
    for _ in range(4):
        backlog.enter(load, Stage("s", "key"))
    assert backlog.seconds == pytest.approx(4 * 0.2)


def test_keys_with_work_are_never_forgotten() -> None:
    backlog = Backlog(EngineLimits())
    busy = backlog.load("busy")
    backlog.enter(busy, Stage("s", "busy"))
    for key in range(5000):
        backlog.load(key)
    assert backlog.load("busy") is busy
    assert len(list(backlog)) <= 1024
