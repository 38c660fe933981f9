"""Places, ties and tiers."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ranker.pictures.ranking import FINISHED, Entry, Place, rank

_SCORES = st.none() | st.floats(allow_nan=False) | st.sampled_from([-1.0, 0.0, -0.0, 0.5])
_ENTRIES = st.lists(st.tuples(_SCORES, st.sampled_from([0, 1, FINISHED])), max_size=20).map(
    lambda pairs: [Entry(index, score, tier) for index, (score, tier) in enumerate(pairs)]
)


def test_equal_scores_share_a_rank_and_the_next_is_skipped() -> None:
    entries = [Entry(0, -2.0), Entry(1, -1.0), Entry(2, -2.0), Entry(3, -3.0)]
    assert rank(entries) == [
        Place(1, 1),
        Place(0, 2, tied=True),
        Place(2, 2, tied=True),
        Place(3, 4),
    ]


def test_almost_equal_is_not_tied() -> None:
    assert rank([Entry(0, -1e-17), Entry(1, 0.0)]) == [Place(1, 1), Place(0, 2)]


def test_finished_before_late_pruned_before_early_pruned_before_failed() -> None:
    entries = [Entry(0, None), Entry(1, -0.1, 0), Entry(2, -5.0, 1), Entry(3, -9.0)]
    assert [(each.index, each.rank) for each in rank(entries)] == [(3, 1), (2, 2), (1, 3), (0, 0)]


def test_scores_of_different_tiers_never_tie() -> None:
    assert not any(each.tied for each in rank([Entry(0, -1.0, 0), Entry(1, -1.0, 1)]))


def test_nothing() -> None:
    assert rank([]) == []


@given(_ENTRIES)
def test_every_entry_has_one_place(entries: list[Entry]) -> None:
    assert sorted(place.index for place in rank(entries)) == [each.index for each in entries]


@given(_ENTRIES)
def test_rank_is_one_more_than_the_number_of_better_ones(entries: list[Entry]) -> None:
    for place in rank(entries):
        entry = entries[place.index]
        if entry.score is None:
            assert place == Place(entry.index, 0)
            continue
        own = (entry.tier, entry.score)
        others = [(each.tier, each.score) for each in entries if each.score is not None]
        assert place.rank == 1 + sum(other > own for other in others)
        assert place.tied == (others.count(own) > 1)


@given(_ENTRIES, st.randoms())
def test_order_of_the_entries_does_not_matter(entries: list[Entry], random: Random) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)
    assert rank(shuffled) == rank(entries)
