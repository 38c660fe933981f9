"""From the ranker's answer to the report."""

from __future__ import annotations

import grpc

from easel.cli.demo import report_of
from easel.client import ItemError, RankedCandidate, Ranking, Timing
from tests.unit.easel.pictures import png

TIMING = Timing(0.0, 0.0, 0.0, 0.0, 1, 1)


def candidate(index: int, rank: int, score: float, error: ItemError | None) -> RankedCandidate:
    data = None if error else png()
    return RankedCandidate(rank, index, 10 + index, score, None, None, data, TIMING, error)


def test_failed_candidates_are_ranked_after_the_others_without_a_score() -> None:
    failed = ItemError(grpc.StatusCode.INTERNAL, "It failed.")
    ranking = Ranking(
        (
            candidate(2, 1, -0.1, None),
            candidate(0, 1, -0.1, None),
            candidate(1, 0, 0.0, failed),
            candidate(3, 0, 0.0, failed),
        ),
        80, 0, 1.0, "demo", "demo",
    )  # fmt: skip

    result, pictures = report_of("a star", 4, ranking, {})

    assert [each.rank for each in result.candidates] == [1, 1, 3, 4]
    assert [each.score for each in result.candidates] == [-0.1, -0.1, None, None]
    assert [each.file for each in result.candidates] == ["01-12.png", "02-10.png", "", ""]
    assert list(pictures) == ["01-12.png", "02-10.png"]
