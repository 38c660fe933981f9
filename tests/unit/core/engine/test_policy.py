"""The policy: who leads, who comes along, and where each bound bites."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import pytest

from services.core.engine.cost import Fit
from services.core.engine.limits import EngineLimits
from services.core.engine.policy import (
    HOPELESS,
    MAX_FLOWS,
    Candidate,
    Lane,
    Shares,
    VirtualClock,
    choose,
    company_of,
    ripe_at,
)

LIMITS = EngineLimits(max_step_seconds=0.5, max_batch_rows=8, batch_wait_seconds=0.1)


@dataclass(frozen=True, slots=True)
class Cost:
    """A key's cost as a test wants it."""

    cap_cost: float = math.inf
    fit: Fit | None = None


def costs(cap: float = math.inf, fit: Fit | None = None) -> Callable[[Hashable], Cost]:
    return lambda _: Cost(cap, fit)


def row(
    name: str,
    arrival: int,
    *,
    cost: float = 1.0,
    latest_start: float = math.inf,
    steps_left: int = 1,
    wait_since: float = -math.inf,
    share: float = 0.0,
    opens: bool = False,
) -> Candidate[str]:
    waits = wait_since
    return Candidate(
        latest_start, arrival, latest_start, cost, steps_left, waits, share, opens, name
    )


def lane(*rows: Candidate[str], priority: int = 0, tenant: str = "", key: str = "k") -> Lane[str]:
    made: Lane[str] = Lane(priority, tenant, key)
    made.ready = sorted(rows)
    return made


def chosen(
    lanes: Sequence[Lane[str]],
    *,
    shares: Shares | None = None,
    cap: float = math.inf,
    fit: Fit | None = None,
    now: float = 0.0,
    impatient: tuple[Lane[str], Candidate[str]] | None = None,
) -> list[str]:
    choice = choose(lanes, now, shares or Shares(), costs(cap, fit), LIMITS, impatient)
    return [candidate.row for candidate in choice.rows]


def test_one_row_alone() -> None:
    assert chosen([lane(row("a", 1))]) == ["a"]


def test_arrival_decides_without_deadlines() -> None:
    assert chosen([lane(row("b", 2), row("a", 1))]) == ["a", "b"]


def test_slack_goes_before_arrival() -> None:
    rows = [row("a", 1), row("b", 2, latest_start=9.0), row("c", 3, latest_start=5.0)]
    assert chosen([lane(*rows)]) == ["c", "b", "a"]


def test_only_one_key_shares_a_batch() -> None:
    assert chosen([lane(row("a", 1), key="x"), lane(row("b", 2), key="y")]) == ["a"]


def test_higher_priority_leads() -> None:
    assert chosen([lane(row("low", 1)), lane(row("high", 2), priority=1)]) == ["high", "low"]


def test_lower_priority_only_fills_what_is_left() -> None:
    low = lane(row("low", 1))
    high = lane(row("h1", 2), row("h2", 3), priority=1)
    assert chosen([low, high], cap=2.0) == ["h1", "h2"]
    assert chosen([low, high], cap=3.0) == ["h1", "h2", "low"]


def test_the_tenant_that_had_less_leads() -> None:
    shares = Shares()
    shares.charge(0, "a", "k", 1.0)
    lanes = [lane(row("a", 1), tenant="a"), lane(row("b", 2), tenant="b")]
    assert chosen(lanes, shares=shares, cap=1.0) == ["b"]


def test_level_tenants_alternate_inside_a_batch() -> None:
    a = lane(row("a1", 1), row("a2", 2), row("a3", 3), tenant="a")
    b = lane(row("b1", 4), row("b2", 5), row("b3", 6), tenant="b")
    assert chosen([a, b], cap=4.0) == ["a1", "b1", "a2", "b2"]


def test_a_costly_row_counts_for_what_it_costs() -> None:
    a = lane(row("a1", 1, cost=3.0), row("a2", 2, cost=3.0), tenant="a")
    b = lane(*(row(f"b{i}", 2 + i) for i in range(1, 5)), tenant="b")
    assert chosen([a, b], cap=9.0) == ["a1", "b1", "b2", "b3", "a2"]


def test_keys_of_a_tenant_take_turns() -> None:
    shares = Shares()
    shares.charge(0, "", "denoise", 1.0)
    lanes = [lane(row("old", 1), key="denoise"), lane(row("new", 2), key="encode")]
    assert chosen(lanes, shares=shares) == ["new"]
    shares.charge(0, "", "encode", 2.0)
    assert chosen(lanes, shares=shares) == ["old"]


@pytest.mark.parametrize(("latest_start", "leader"), [(0.9, "due"), (1.0, "due"), (1.1, "turn")])
def test_a_row_near_its_deadline_does_not_wait_for_its_keys_turn(
    latest_start: float, leader: str
) -> None:
    shares = Shares()
    shares.charge(0, "", "x", 1.0)
    lanes = [
        lane(row("due", 1, latest_start=latest_start), key="x"),
        lane(row("turn", 2), key="y"),
    ]
    assert chosen(lanes, shares=shares)[0] == leader


def test_promises_count_one_after_another() -> None:
    """Each alone could wait for longer than two longest steps, all three could not."""
    shares = Shares()
    shares.charge(0, "", "x", 1.0)
    due = [row(str(i), i, latest_start=1.5, share=0.3) for i in (1, 2, 3)]
    turn = lane(row("turn", 4), key="y")
    assert chosen([lane(*due[:2], key="x"), turn], shares=shares) == ["turn"]
    assert chosen([lane(*due, key="x"), turn], shares=shares) == ["1", "2", "3"]


def test_promises_at_their_last_moment_go_before_fair_shares() -> None:
    shares = Shares()
    shares.charge(0, "a", "k", 9.0)
    lanes = [
        lane(row("a", 1, latest_start=0.5), tenant="a"),
        lane(row("b", 2), row("b2", 3, latest_start=0.9), tenant="b"),
    ]
    assert chosen(lanes, shares=shares, cap=2.0) == ["a", "b2"]


def test_a_row_that_has_not_begun_its_long_stage_opens_first() -> None:
    lanes = [
        lane(row("under way", 1, latest_start=0.5), key="denoise"),
        lane(row("new", 2, latest_start=0.9, opens=True), key="encode"),
    ]
    assert chosen(lanes) == ["new"]


def test_impatience_takes_no_company_with_it_while_promises_are_tight() -> None:
    others = lane(*(row(f"o{i}", i) for i in range(1, 5)), key="x")
    due = lane(row("due", 9, latest_start=0.5), key="y")
    assert chosen([others, due], impatient=(others, others.ready[0])) == ["o1"]


def test_an_impatient_row_leads_over_everything_and_is_not_taken_twice() -> None:
    low = lane(row("l1", 1, latest_start=1.0), row("l2", 2))
    high = lane(row("high", 3), priority=5)
    impatient = (low, low.ready[1])
    assert chosen([low, high], impatient=impatient) == ["l2", "high", "l1"]
    choice = choose([low, high], 0.0, Shares(), costs(), LIMITS, impatient)
    assert not choice.in_turn


@pytest.mark.parametrize(("cap", "rows"), [(0.0, 1), (1.0, 1), (1.9, 1), (2.0, 2), (2.1, 2)])
def test_the_cap_bounds_the_cost_but_one_row_always_goes(cap: float, rows: int) -> None:
    assert len(chosen([lane(row("a", 1), row("b", 2), row("c", 3))], cap=cap)) == rows


@pytest.mark.parametrize(("ready", "taken"), [(7, 7), (8, 8), (9, 8)])
def test_the_safety_bound_on_rows(ready: int, taken: int) -> None:
    assert len(chosen([lane(*(row(str(i), i) for i in range(ready)))])) == taken


def test_company_never_makes_the_leader_late() -> None:
    # 10 steps of 1 s alone and 1.5 s of slack: each may become 0.15 s longer, one row at 0.1.
    leader = row("due", 1, latest_start=1.5, steps_left=10)
    company = [row(str(i), i) for i in range(2, 9)]
    fit = Fit(0.9, 0.1, known=True)
    assert chosen([lane(leader, *company)], fit=fit) == ["due", "2"]


def test_company_as_urgent_as_the_leader_is_never_kept_out() -> None:
    leader = row("due", 1, latest_start=0.0, steps_left=10)
    urgent = [row(str(i), i, latest_start=39.0) for i in (2, 3)]
    patient = [row(str(i), i, latest_start=41.0) for i in (4, 5)]
    fit = Fit(0.9, 0.1, known=True)
    assert chosen([lane(leader, *urgent, *patient)], fit=fit) == ["due", "2", "3"]


def test_rows_that_are_due_together_go_together_when_there_is_time_for_all_only_so() -> None:
    # Each has a minute to spare for its ten steps of 1 s, one after another they have none.
    due = [row(str(i), i, latest_start=60.0, steps_left=10, share=12.0) for i in range(6)]
    others = [row("later", 6, latest_start=400.0), row("any", 7)]
    assert chosen([lane(*due, *others)], fit=Fit(0.9, 0.1, known=True)) == list("012345")


def test_what_is_due_later_takes_no_slack_of_those_before_it() -> None:
    # A second of slack for both, as the other key's row must follow: one row of 0.1 for ten steps.
    first = row("a", 1, latest_start=11.0, steps_left=10, share=10.0)
    other = lane(row("b", 2, latest_start=11.0, steps_left=10), key="l")
    later = [row(str(i), i, latest_start=400.0 + i) for i in range(3, 9)]
    fit = Fit(0.9, 0.1, known=True)
    assert chosen([lane(first, *later), other], fit=fit) == ["a", "3"]


@pytest.mark.parametrize(
    ("latest_start", "cost"),
    [(math.inf, math.inf), (2.0, 3.0), (0.0, 1.0), (-0.1, 1.0), (-HOPELESS * 20.0 - 0.1, math.inf)],
)
def test_company_cost(latest_start: float, cost: float) -> None:
    first = row("a", 1, latest_start=latest_start, steps_left=10)
    assert company_of(first, Fit(1.9, 0.1, known=True), now=0.0).cost == pytest.approx(cost)


def test_company_is_free_when_nothing_is_known_or_cost_takes_no_time() -> None:
    first = row("a", 1, latest_start=1.0)
    assert company_of(first, None, now=0.0).cost == math.inf
    assert company_of(first, Fit(1.0, 0.0, known=True), now=0.0).cost == math.inf


def test_an_unripe_key_waits_for_company_from_its_oldest_row() -> None:
    rows = [row("a", 1, wait_since=5.0), row("b", 2, wait_since=4.0)]
    assert ripe_at([lane(*rows)], costs(cap=3.0), LIMITS) == {"k": pytest.approx(4.1)}


def test_a_full_key_does_not_wait() -> None:
    rows = [row("a", 1, wait_since=5.0), row("b", 2, wait_since=4.0)]
    assert ripe_at([lane(*rows)], costs(cap=2.0), LIMITS) == {"k": -math.inf}


def test_a_key_under_way_does_not_wait() -> None:
    rows = [row("a", 1, wait_since=5.0), row("b", 2)]
    assert ripe_at([lane(*rows)], costs(cap=3.0), LIMITS) == {"k": -math.inf}


def test_rows_of_all_tenants_fill_a_key() -> None:
    lanes = [
        lane(row("a", 1, wait_since=5.0), tenant="a"),
        lane(row("b", 2, wait_since=4.0), tenant="b"),
    ]
    assert ripe_at(lanes, costs(cap=2.0), LIMITS) == {"k": -math.inf}


def test_an_idle_flow_starts_level_with_the_rest() -> None:
    clock = VirtualClock()
    clock.charge("busy", 100.0)
    clock.now = clock.start("busy")
    assert clock.start("new") == 100.0


def test_a_virtual_clock_forgets_flows_it_has_passed() -> None:
    clock = VirtualClock()
    for flow in range(MAX_FLOWS):
        clock.charge(flow, 1.0)
    clock.now = 2.0
    clock.charge("late", 1.0)
    assert clock.start("late") == 3.0
    assert clock.start(0) == 2.0


def test_shares_follow_cost_over_many_batches() -> None:
    """Two tenants of one key, one with rows three times as costly: equal seconds each."""
    shares, served = Shares(), {"a": 0.0, "b": 0.0}
    for _ in range(400):
        lanes = [
            lane(row("a", 1, cost=3.0), tenant="a"),
            lane(row("b", 2, cost=1.0), tenant="b"),
        ]
        choice = choose(lanes, 0.0, shares, costs(cap=1.0), LIMITS)
        shares.serve(choice.lane.priority, choice.lane.tenant, choice.lane.key)
        cost = choice.rows[0].cost
        shares.charge(0, choice.lane.tenant, "k", cost)
        served[choice.lane.tenant] += cost
    assert served["a"] == pytest.approx(served["b"], abs=3.0)
