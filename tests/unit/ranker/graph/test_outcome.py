"""The life of a match that was shown."""

from __future__ import annotations

import itertools

import pytest

from ranker.graph.outcome import ENDS, Outcome, news
from services.core.errors import FailedPrecondition

CHOSEN, SUCCEEDED, FAILED = Outcome


@pytest.mark.parametrize(
    ("outcome", "known", "added"),
    [
        (CHOSEN, (), (CHOSEN,)),
        (CHOSEN, (CHOSEN,), ()),
        (CHOSEN, (CHOSEN, FAILED), ()),
        (SUCCEEDED, (), (CHOSEN, SUCCEEDED)),
        (SUCCEEDED, (CHOSEN,), (SUCCEEDED,)),
        (FAILED, (CHOSEN, FAILED), ()),
    ],
)
def test_what_is_news(
    outcome: Outcome, known: tuple[Outcome, ...], added: tuple[Outcome, ...]
) -> None:
    assert news(outcome, known, 1) == added


@pytest.mark.parametrize(("known", "told"), [(SUCCEEDED, FAILED), (FAILED, SUCCEEDED)])
def test_there_is_one_end(known: Outcome, told: Outcome) -> None:
    with pytest.raises(FailedPrecondition, match=f"position 7 already: it {known}") as caught:
        news(told, (CHOSEN, known), 7)
    assert caught.value.reason == "TOKEN_USED"


def test_every_course_ends_chosen_with_at_most_one_end() -> None:
    for course in itertools.product(Outcome, repeat=4):
        known: set[Outcome] = set()
        for outcome in course:
            try:
                added = news(outcome, known, 1)
            except FailedPrecondition:
                continue
            assert not known.intersection(added)
            known.update(added)
        assert CHOSEN in known
        assert len(known & ENDS) <= 1
