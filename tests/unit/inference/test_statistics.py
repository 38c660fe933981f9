"""Counting by request, by execution and by picture."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.core.card import ModelState
from services.core.engine import Timing
from services.inference.model import Inference, ModelDescription
from services.inference.statistics import MAX_MODELS, Statistics, whole

MODEL = ModelDescription("m", "1", ModelState.READY, "fake", 8, (), ())


def timing(batch_rows: int, seconds: float = 1.0) -> Timing:
    return Timing(0.1 * seconds, 0.2 * seconds, 0.3 * seconds, 0.4 * seconds, batch_rows, 1)


def inference(*timings: Timing, version: str = "1") -> Inference:
    return Inference("m", version, (), timings)


def test_nothing_yet() -> None:
    counts = Statistics().of(MODEL)
    assert (counts.items, counts.executions, counts.last_at) == (0, 0, 0.0)


def test_a_request_takes_as_long_as_its_slowest_picture() -> None:
    statistics = Statistics(now=lambda: 7.0)
    statistics.succeeded(inference(timing(2), timing(2, 2.0)), 5.0)
    counts = statistics.of(MODEL)
    assert (counts.items, counts.last_at) == (2, 7.0)
    assert (counts.success.count, counts.success.seconds) == (1, 5.0)
    assert counts.queue.seconds == pytest.approx(0.2)
    assert counts.steps.prepare.seconds == pytest.approx(0.4)
    assert counts.steps.compute.seconds == pytest.approx(0.6)
    assert counts.steps.finish.seconds == pytest.approx(0.8)


def test_of_many_models_those_not_asked_for_longest_are_forgotten() -> None:
    times = iter(range(MAX_MODELS + 2))
    statistics = Statistics(now=lambda: next(times))
    for version in (*map(str, range(MAX_MODELS)), "0", "one-more"):
        statistics.succeeded(inference(timing(1), version=version), 1.0)
    counts = [statistics.of(replace(MODEL, version=version)) for version in ("0", "1", "one-more")]
    assert [each.items for each in counts] == [2, 0, 1]


def test_executions_are_counted_once_for_all_who_shared_them() -> None:
    statistics = Statistics()
    # One batch of three rows, from two requests, and one of one.
    statistics.succeeded(inference(timing(3), timing(3)), 1.0)
    statistics.succeeded(inference(timing(3)), 1.0)
    statistics.succeeded(inference(timing(1)), 1.0)
    counts = statistics.of(MODEL)
    assert (counts.items, counts.executions) == (4, 2)
    assert {rows: whole(steps.compute.count) for rows, steps in counts.by_batch.items()} == {
        3: 1,
        1: 1,
    }
    assert counts.by_batch[3].compute.seconds == pytest.approx(0.3)


def test_an_execution_shared_with_others_is_one() -> None:
    statistics = Statistics()
    statistics.succeeded(inference(timing(8)), 1.0)
    assert statistics.of(MODEL).executions == 1


def test_failures_and_versions_are_apart() -> None:
    statistics = Statistics()
    statistics.failed(MODEL, 2.0)
    statistics.succeeded(inference(timing(1), version="2"), 1.0)
    counts = statistics.of(MODEL)
    assert (counts.fail.count, counts.fail.seconds, counts.success.count) == (1, 2.0, 0)


@pytest.mark.parametrize(("count", "expected"), [(0.0, 0), (1 / 3, 1), (0.1 * 3 + 0.7, 1), (2, 2)])
def test_whole(count: float, expected: int) -> None:
    assert whole(count) == expected
