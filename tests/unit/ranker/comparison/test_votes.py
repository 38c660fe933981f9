"""What boards of the arena say of two models."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from ranker.arena.leaderboard import leaderboard
from ranker.arena.standings import Board
from ranker.arena.store import Contender
from ranker.arena.tally import LEFT, RIGHT, tally
from ranker.comparison.votes import of_boards

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def board(names: tuple[str, ...], votes: list[tuple[int, int, int]]) -> Board:
    left, right, vote = np.array(votes, dtype=np.int64).reshape(-1, 3).T
    counted = tally(len(names), left, right, vote, np.zeros(len(votes), dtype=np.int64))
    contenders = tuple(
        Contender(id, 1, name, None, withdrawn=False, at=NOW) for id, name in enumerate(names)
    )
    return Board("b", 1, leaderboard(counted), contenders, {}, NOW, 0.0)


STARS = board(("vit", "deit"), [(0, 1, LEFT)] * 45 + [(0, 1, RIGHT)] * 15)
MOONS = board(("DeiT", "Google/ViT"), [(0, 1, LEFT)] * 30 + [(0, 1, RIGHT)] * 30)
FEW = board(("vit", "deit"), [(0, 1, LEFT)] * 4)
A, B = ("vit", "google/vit"), ("deit",)


def test_one_arena_tells_its_own() -> None:
    found = of_boards([STARS], A, B)

    assert found.estimate.value == pytest.approx(0.75, abs=0.005)
    assert found.estimate.low > 0.6
    assert (found.a_evidence, found.b_evidence) == (60, 60)
    assert found.certainty == pytest.approx(0.9999, abs=1e-4)
    assert of_boards([STARS], B, A) == found.mirrored


def test_several_arenas_count_alike_under_any_name() -> None:
    found = of_boards([STARS, MOONS, FEW], A, B)

    assert found.estimate.value == pytest.approx((0.75 + 0.5) / 2, abs=0.005)
    assert (found.a_evidence, found.b_evidence) == (124, 124)
    assert found.certainty is None


def test_few_votes_are_counted_and_say_nothing() -> None:
    found = of_boards([FEW], A, B)

    assert found.estimate.abstained
    assert (found.a_evidence, found.b_evidence, found.estimate.evidence) == (4, 4, 8)


def test_a_model_that_stands_in_no_arena() -> None:
    found = of_boards([STARS], A, ("sd",))

    assert found.estimate.abstained
    assert (found.a_evidence, found.b_evidence) == (60, 0)
    assert of_boards([], A, B).estimate.abstained
