"""An arena's numbers as messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2
from ranker.arena.leaderboard import Interval, Standing, Unranked
from ranker.arena.reliability import Reliability
from ranker.arena.standings import Board
from ranker.arena.store import Contender

_UNRANKED: Final = {
    Unranked.NO: ranker_pb2.UNRANKED_UNSPECIFIED,
    Unranked.FEW_VOTES: ranker_pb2.UNRANKED_FEW_VOTES,
    Unranked.NOT_CONNECTED: ranker_pb2.UNRANKED_NOT_CONNECTED,
}


def contender(kept: Contender, pictures: int = 0) -> ranker_pb2.Contender:
    at = Timestamp()
    at.FromDatetime(kept.at)
    made = ranker_pb2.Contender(
        name=kept.name, withdrawn=kept.withdrawn, pictures=pictures, created_at=at
    )
    if kept.settings is not None:
        made.generate.CopyFrom(generator_pb2.GenerateRequest.FromString(kept.settings))
    return made


def leaderboard(board: Board, rows: Sequence[Standing]) -> ranker_pb2.ListLeaderboardResponse:
    """The answer with these rows of the board."""
    result = board.result
    at = Timestamp()
    at.FromDatetime(board.computed_at)
    hold = result.hold
    return ranker_pb2.ListLeaderboardResponse(
        rows=[_row(board, each) for each in rows],
        votes_to_change_leader=None if hold is None else hold.votes,
        rival="" if hold is None else board.contenders[hold.rival].name,
        computed_at=at,
        votes=result.votes,
        tie=None if result.tie is None else _estimate(result.tie, result.votes),
        groups=result.components,
        rank_draws=result.draws,
        rank_seed=result.seed,
        clustered_by_judge=result.by_judge,
        effective_judges=result.effective_judges,
        seconds=board.seconds,
    )


def judges(board: Board, places: Sequence[int]) -> ranker_pb2.ListJudgesResponse:
    """The answer with the judges at these places of the board's."""
    at = Timestamp()
    at.FromDatetime(board.computed_at)
    found = board.result.judges
    rows = [] if found is None else [_judge(board, found, place) for place in places]
    return ranker_pb2.ListJudgesResponse(judges=rows, computed_at=at)


def _row(board: Board, standing: Standing) -> ranker_pb2.LeaderboardRow:
    own = board.contenders[standing.contender]
    votes = standing.wins + standing.losses + standing.ties
    return ranker_pb2.LeaderboardRow(
        model=own.name,
        strength=_estimate(standing.strength, votes),
        rank_low=standing.rank_low,
        rank_high=standing.rank_high,
        wins=standing.wins,
        losses=standing.losses,
        ties=standing.ties,
        unranked=_UNRANKED[standing.unranked],
        withdrawn=own.withdrawn,
    )


def _judge(board: Board, found: Reliability, place: int) -> ranker_pb2.JudgeRow:
    told = None
    if found.told[place]:
        values = found.discrimination[place], found.low[place], found.high[place]
        told = Interval(*map(float, values))
    return ranker_pb2.JudgeRow(
        judge=board.judges[int(found.judge[place])],
        votes=int(found.votes[place]),
        discrimination=_estimate(told, int(found.decided[place])),
        doubtful=bool(found.doubtful[place]),
    )


def _estimate(told: Interval | None, evidence: int) -> ranker_pb2.Estimate:
    if told is None:
        return ranker_pb2.Estimate(evidence=evidence, abstained=True)
    return ranker_pb2.Estimate(value=told.value, low=told.low, high=told.high, evidence=evidence)
