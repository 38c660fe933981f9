from __future__ import annotations

import pytest

from easel.evaluation.confusion import Confusion
from easel.evaluation.rate import Rate


def counted() -> Confusion:
    """Three pictures of label 3, two of label 7."""
    confusion = Confusion()
    confusion.add(3, [3, 7])
    confusion.add(3, [7, 3])
    confusion.add(3, [1, 2, 4, 5, 6, 3])  # sixth: among the answer, but not in the top 5
    confusion.add(7, [7])
    confusion.add(7, [0, 1, 2, 4, 7])  # fifth
    return confusion


def test_rates_over_all() -> None:
    confusion = counted()

    assert confusion.wanted == [3, 7]
    assert confusion.top_1 == Rate(2, 5)
    assert confusion.top_k == Rate(4, 5)
    assert confusion.mean_found == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_rates_of_each_label() -> None:
    three, seven = counted().labels()

    assert (three.index, seven.index) == (3, 7)
    assert three.found == Rate(1, 3)
    assert three.found_in_top == Rate(2, 3)
    assert three.trusted == Rate(1, 1)
    assert three.f1 == pytest.approx(0.5)  # recall 1/3, precision 1
    assert seven.found == Rate(1, 2)
    assert seven.trusted == Rate(1, 2)
    assert three.taken_for == 1  # as often as 7, and before it
    assert seven.taken_for == 0


def test_a_label_that_is_never_said_has_no_precision() -> None:
    confusion = Confusion()
    confusion.add(1, [0])
    (one,) = confusion.labels()

    assert one.trusted == Rate(0, 0)
    assert one.f1 == 0.0


def test_the_commonest_mistake_counts() -> None:
    confusion = Confusion()
    for said in (4, 2, 4, 9):
        confusion.add(9, [said])

    assert confusion.labels()[0].taken_for == 4


def test_nothing_counted() -> None:
    confusion = Confusion()

    assert confusion.labels() == []
    assert confusion.mean_found is None
    assert confusion.top_1.share is None


def test_an_answer_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="without labels"):
        Confusion().add(0, [])
