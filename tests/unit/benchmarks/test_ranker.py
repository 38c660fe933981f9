"""What `make bench-ranker` runs, and what its simulation is held to."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.ranker_graph import ATTRACTIONS, RESULTS, SUCCESSES, tau


def test_tau_is_one_for_the_truth_and_minus_one_for_its_reverse() -> None:
    assert tau(range(RESULTS)) == 1.0
    assert tau(list(reversed(range(RESULTS)))) == -1.0
    assert tau([1, 0, 2]) == pytest.approx(1 / 3)


def test_the_truth_is_choice_and_success_together_and_no_order_of_either() -> None:
    both = [a * b for a, b in zip(ATTRACTIONS, SUCCESSES, strict=True)]
    assert both == sorted(both, reverse=True)
    assert all(a > 1.1 * b for a, b in itertools.pairwise(both))
    assert list(ATTRACTIONS) != sorted(ATTRACTIONS, reverse=True)
    assert list(SUCCESSES) != sorted(SUCCESSES, reverse=True)
