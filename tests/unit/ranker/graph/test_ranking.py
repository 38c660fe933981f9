"""The order of an answer."""

from __future__ import annotations

import pytest

from ranker.graph.bias import Attraction
from ranker.graph.ranking import NO_EVIDENCE, Evidence, Means, score

MEANS = Means(choice=0.1, success=0.5)


def test_without_evidence_relevance_decides() -> None:
    assert score(0.7, NO_EVIDENCE, MEANS) == pytest.approx(0.7)


def test_what_is_as_good_as_all_moves_nowhere() -> None:
    usual = Evidence(Attraction(50.0, 500.0, 500.0), successes=20.0, failures=20.0)
    assert score(1.0, usual, MEANS) == pytest.approx(1.0)


def test_evidence_moves_a_result_by_how_much_there_is() -> None:
    little = Evidence(Attraction(4.0, 20.0, 20.0))
    much = Evidence(Attraction(4000.0, 20_000.0, 20_000.0))
    assert 1.0 < score(1.0, little, MEANS) < score(1.0, much, MEANS) < 2.0
    assert score(1.0, little, MEANS) == pytest.approx((4 + 2) / (40 * 0.1))


def test_failures_push_down() -> None:
    failing = Evidence(successes=0.0, failures=10.0)
    assert score(1.0, failing, MEANS) == pytest.approx(5 / (20 * 0.5))


def test_weights_that_differ_tell_less() -> None:
    uneven = Evidence(Attraction(40.0, 200.0, 20.0))
    assert score(1.0, uneven, MEANS) == score(1.0, Evidence(Attraction(4, 20.0, 20.0)), MEANS)


def test_means_start_from_a_prior() -> None:
    assert Means.of(Attraction(), 0, 0) == MEANS
    assert Means.of(Attraction(19.0, 90.0, 90.0), 7.0, 1.0) == Means(0.2, 0.8)
