"""What the arena's votes say of two models."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, select

from ranker.arena.leaderboard import Preference
from ranker.arena.standings import Board, Standings
from ranker.arena.tables import INTENT
from ranker.comparison.better import Better, certainty
from ranker.comparison.side import compared
from ranker.database import Database
from ranker.score.estimate import Interval, abstained, weighted_sum

_NO_VOTES: Final = 0


class ArenaVotes:
    """Models stand in arenas under any of their names. The arenas of the intents that both serve
    are asked; where several of them rank both, the mean counts, each arena as much as another."""

    def __init__(self, database: Database, standings: Standings) -> None:
        self._database = database
        self._standings = standings

    async def better(
        self, a: Collection[str], b: Collection[str], intents: Collection[str]
    ) -> Better:
        """Of the model with the names ``a`` against that with ``b``; ``intents`` as compared."""
        asked = set(intents)
        arenas = await self._database.read(lambda connection: _arenas(connection, asked))
        boards = [await self._standings.board(arena) for arena in arenas]
        return of_boards(boards, a, b)


def of_boards(boards: Iterable[Board], a: Collection[str], b: Collection[str]) -> Better:
    """Votes of both are counted where they rank neither, too."""
    a_votes, b_votes = 0, 0
    found: list[Preference] = []
    for board in boards:
        one, other = _contender(board, a), _contender(board, b)
        mine, theirs = (board.votes_of(name) if name else _NO_VOTES for name in (one, other))
        a_votes += mine
        b_votes += theirs
        preference = board.preference(one, other) if one and other else None
        if preference is not None:
            found.append(preference)
    if not found:
        return Better(abstained(a_votes + b_votes), a_votes, b_votes)
    share = weighted_sum(
        (1 / len(found), Interval(each.share.value, each.share.low, each.share.high))
        for each in found
    )
    sure = certainty(found[0].certainty) if len(found) == 1 else None
    return Better(share.told(a_votes + b_votes), a_votes, b_votes, sure)


def _contender(board: Board, names: Collection[str]) -> str:
    """The contender that is the model: the one with the most votes where there are several."""
    known = {compared(name) for name in names}
    own = [each.name for each in board.contenders if compared(each.name) in known]
    return max(own, key=board.votes_of, default="")


def _arenas(connection: Connection, intents: Collection[str]) -> Sequence[int]:
    rows = connection.execute(select(INTENT.c.id, INTENT.c.name).order_by(INTENT.c.id))
    return [int(id) for id, name in rows if compared(name) in intents]
