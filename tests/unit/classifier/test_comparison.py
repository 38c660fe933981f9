"""Two models' logits on the same pictures."""

from __future__ import annotations

import numpy as np
import pytest

from services.classifier.comparison import compare
from services.core.errors import ModelFault

REFERENCE = np.array([[1.0, 3.0, 2.0], [5.0, 0.0, -8.0], [0.0, 1.0, 0.5]], np.float32)


def test_what_is_equal() -> None:
    found = compare(REFERENCE, REFERENCE.copy())
    assert (found.pictures, found.agreeing, found.agreement) == (3, 3, 1.0)
    assert (found.max_difference, found.relative_difference) == (0.0, 0.0)
    assert found.largest_logit == 8.0


def test_a_best_label_that_changed() -> None:
    other = REFERENCE.copy()
    other[2] = [0.0, 0.5, 1.0]
    found = compare(REFERENCE, other)
    assert (found.agreeing, found.agreement) == (2, 2 / 3)
    assert found.max_difference == 0.5
    assert found.relative_difference == 0.5 / 8.0


def test_a_difference_that_changes_no_label_is_told_all_the_same() -> None:
    found = compare(REFERENCE, REFERENCE + np.float32(0.25))
    assert (found.agreement, found.max_difference) == (1.0, 0.25)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(bad: float) -> None:
    other = REFERENCE.copy()
    other[1, 1] = bad
    with pytest.raises(ModelFault, match="not finite"):
        compare(REFERENCE, other)


def test_another_number_of_labels() -> None:
    with pytest.raises(ModelFault, match=r"\[3, 2\] logits, not \[3, 3\]"):
        compare(REFERENCE, REFERENCE[:, :2])
