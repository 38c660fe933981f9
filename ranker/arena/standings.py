"""Leaderboards of all arenas, computed when they are asked for and kept until votes come."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex
from typing import Final

from sqlalchemy import Connection

from ranker.arena import selection, store
from ranker.arena.ballots import Ballots
from ranker.arena.leaderboard import Leaderboard, Preference, leaderboard
from ranker.arena.selection import Belief
from ranker.arena.store import Contender
from ranker.database import Database
from services.core.background import in_thread, whole

KEPT: Final = 8
"""Leaderboards that can be paged through after newer ones have taken their place."""
BELIEF_GROWTH: Final = 0.01
"""Share of new votes at which the next pair is chosen by a new fit."""


@dataclass(frozen=True, slots=True)
class Board:
    """A leaderboard with the names of those on it. ``id`` is for paging."""

    id: str
    intent: int
    result: Leaderboard
    contenders: tuple[Contender, ...]
    judges: Mapping[int, str]
    computed_at: datetime
    seconds: float

    def preference(self, one: str, other: str) -> Preference | None:
        """Of contenders by name; None where either is not there, or has no rank."""
        place = {each.name: at for at, each in enumerate(self.contenders)}
        if one not in place or other not in place:
            return None
        return self.result.preference(place[one], place[other])

    def votes_of(self, name: str) -> int:
        """Votes that a contender took part in; 0 of one that is not there."""
        place = {each.name: at for at, each in enumerate(self.contenders)}
        found = (each for each in self.result.standings if each.contender == place.get(name))
        return sum(each.wins + each.losses + each.ties for each in found)


@dataclass(slots=True)
class _Arena:
    """What is known of one intent. Whoever changes it holds ``turn``."""

    intent: int
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    ballots: Ballots = field(default_factory=Ballots)
    contenders: tuple[Contender, ...] = ()
    board: Board | None = None
    belief: Belief | None = None


class Standings:
    """One computation an arena at a time; whoever comes meanwhile waits for it and takes what it
    gives. Only votes that are new are read."""

    def __init__(self, database: Database, min_votes: int, now: Callable[[], datetime]) -> None:
        self._database = database
        self._min_votes = min_votes
        self._now = now
        self._arenas: dict[int, _Arena] = {}
        self._kept: OrderedDict[str, Board] = OrderedDict()

    async def board(self, intent: int) -> Board:
        """Of all votes that there are when this is asked. Cancelled, it is computed all the same,
        for the next one who asks."""
        return await whole(self._board(self._arena(intent)))

    async def _board(self, arena: _Arena) -> Board:
        async with arena.turn:
            changed = await self._read(arena)
            if arena.board is None or changed:
                arena.board = await self._computed(arena)
                self._keep(arena.board)
            return arena.board

    def kept(self, id: str) -> Board | None:
        """One that was told lately."""
        return self._kept.get(id)

    async def belief(self, intent: int) -> tuple[Belief, tuple[Contender, ...]]:
        """The fit to nearly all votes that there are, and its contenders in its order."""
        return await whole(self._belief(self._arena(intent)))

    async def _belief(self, arena: _Arena) -> tuple[Belief, tuple[Contender, ...]]:
        async with arena.turn:
            await self._read(arena)
            known = arena.belief
            if known is None or _is_behind(known, len(arena.contenders), len(arena.ballots)):
                counted, start = arena.ballots.tally(), known
                known = await in_thread(lambda: selection.belief(counted, start), "arena-belief")
                arena.belief = known
            return known, arena.contenders

    async def _read(self, arena: _Arena) -> bool:
        """Whether there is anything new."""
        before = len(arena.ballots), arena.contenders

        def read(connection: Connection) -> tuple[Contender, ...]:
            found = tuple(store.contenders(connection, arena.intent))
            ids = [each.id for each in found]
            if arena.ballots.contenders != ids[: len(arena.ballots.contenders)]:
                arena.ballots, arena.belief = Ballots(), None  # one was deleted
            arena.ballots.add_contenders(ids)
            arena.ballots.add(store.votes_after(connection, arena.intent, arena.ballots.last))
            return found

        arena.contenders = await self._database.read(read)
        return before != (len(arena.ballots), arena.contenders)

    async def _computed(self, arena: _Arena) -> Board:
        started = time.monotonic()
        at, counted = self._now(), arena.ballots.tally()

        def compute() -> Leaderboard:
            return leaderboard(counted, min_votes=self._min_votes)

        result = await in_thread(compute, "arena-leaderboard")
        judges = () if result.judges is None else [int(each) for each in result.judges.judge]
        names = await self._database.read(lambda c: store.judge_names(c, list(judges)))
        seconds = time.monotonic() - started
        return Board(token_hex(8), arena.intent, result, arena.contenders, names, at, seconds)

    def _arena(self, intent: int) -> _Arena:
        return self._arenas.setdefault(intent, _Arena(intent))

    def _keep(self, board: Board) -> None:
        self._kept[board.id] = board
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def _is_behind(known: Belief, contenders: int, votes: int) -> bool:
    has_grown = votes - known.votes > BELIEF_GROWTH * known.votes
    return has_grown or votes < known.votes or len(known.fit.strengths) != contenders
