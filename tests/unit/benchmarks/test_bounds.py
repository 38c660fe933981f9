"""What the benchmarks hold their figures to."""

from __future__ import annotations

import pytest

from benchmarks.cancel import demo_model
from benchmarks.report import Bound
from services.core.engine import Stage
from services.core.errors import NotReady


@pytest.mark.parametrize(
    ("sense", "below", "equal", "above"),
    [(">", False, False, True), (">=", False, True, True), ("<=", True, True, False)],
)
def test_a_bound_at_below_and_above_its_limit(
    sense: str, below: bool, equal: bool, above: bool
) -> None:
    bound = Bound(sense, 0.5)

    assert [bound.holds(value) for value in (0.4, 0.5, 0.6)] == [below, equal, above]


def test_the_longest_step_is_one_that_was_seen() -> None:
    model = demo_model()
    assert model.longest_step == 0.0

    with pytest.raises(NotReady):  # it takes its time to say so
        model.step(Stage("denoise", "denoise"), [])

    assert model.longest_step > 0.0
    model.forget()
    assert model.longest_step == 0.0
