"""Back-off and giving up: pure decisions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from easel.supervisor.restarts import (
    GiveUp,
    History,
    Restart,
    RestartLimits,
    became_ready,
    delay_seconds,
    describe_exit,
    exited,
)

LIMITS = RestartLimits()


def crash(history: History, now: float, code: int = -9) -> tuple[History, Restart]:
    after, decision = exited(history, now, code, LIMITS)
    assert isinstance(decision, Restart)
    return after, decision


def test_delays_double_up_to_the_last() -> None:
    delays = [delay_seconds(exits, LIMITS) for exits in range(1, 9)]

    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@given(st.integers(1, 10**9))
def test_a_delay_is_always_within_its_bounds(exits: int) -> None:
    assert LIMITS.first_delay_seconds <= delay_seconds(exits, LIMITS) <= LIMITS.last_delay_seconds


def test_a_healthy_time_forgets_earlier_crashes() -> None:
    history = History()
    for now in (0.0, 10.0, 20.0):
        history, decision = crash(became_ready(history, now), now + 5)
    assert decision.delay_seconds == 2.0

    _, decision = crash(became_ready(history, 100.0), 160.0)

    assert decision.delay_seconds == 0.5


def test_crash_after_crash_is_tried_for_ever_once_it_was_ready() -> None:
    history = History()
    for now in range(100):
        history, decision = crash(became_ready(history, float(now)), now + 0.5)
    assert decision.delay_seconds == 30.0


def test_a_service_that_never_gets_ready_is_given_up() -> None:
    history = History()
    for _ in range(LIMITS.failed_starts - 1):
        history, _decision = crash(history, 0.0, 1)

    _, decision = exited(history, 0.0, 1, LIMITS)

    assert decision == GiveUp("exited with code 1 before it was ready, 3 times in a row")


def test_getting_ready_in_between_starts_the_count_again() -> None:
    history = History()
    for _ in range(10):
        history, _decision = crash(history, 0.0, 1)
        history, _decision = crash(became_ready(history, 0.0), 1.0, 1)


def test_bad_settings_are_not_tried_twice() -> None:
    _, decision = exited(History(), 0.0, 2, LIMITS)

    assert decision == GiveUp("exited with code 2 before it was ready")


def test_exits_are_told_in_words() -> None:
    assert describe_exit(-9) == "killed by SIGKILL"
    assert describe_exit(3) == "exited with code 3"
    assert describe_exit(-999) == "killed by signal 999"
