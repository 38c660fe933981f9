"""The counters of one upstream."""

from __future__ import annotations

import asyncio

import pytest

from gateway.upstream import Passage, Traffic


@pytest.mark.parametrize(
    ("error", "failed"),
    [(RuntimeError(), 1), (asyncio.CancelledError(), 0), (GeneratorExit(), 0)],
)
def test_given_up_is_not_failed(error: BaseException, failed: int) -> None:
    traffic = Traffic()
    passage = Passage(traffic)
    passage.__enter__()
    assert traffic.in_flight == 1
    passage.__exit__(type(error), error, None)
    assert (traffic.started, traffic.ended, traffic.failed) == (1, 1, failed)
    assert traffic.in_flight == 0


def test_mean_of_nothing_is_zero() -> None:
    assert Traffic().mean_seconds == 0.0


def test_idle_only_while_nothing_passes() -> None:
    traffic = Traffic()
    assert traffic.idle.is_set()
    with Passage(traffic), Passage(traffic):
        assert not traffic.idle.is_set()
    assert traffic.idle.is_set()
    assert traffic.mean_seconds == traffic.seconds / 2


def test_idle_although_something_passes_that_never_ends() -> None:
    traffic = Traffic()
    with Passage(traffic, endless=True):
        assert traffic.idle.is_set()
        with Passage(traffic):
            assert not traffic.idle.is_set()
        assert traffic.idle.is_set()
        assert traffic.in_flight == 1
    assert traffic.in_flight == 0
