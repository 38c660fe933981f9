"""Who meets next, and on which prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from sqlalchemy import Connection

from ranker.arena import selection, store
from ranker.arena.selection import Belief, Entrant
from ranker.arena.standings import Standings
from ranker.arena.store import Roster
from ranker.arena.tally import Floats, Ints
from ranker.database import Database
from services.core.background import in_thread
from services.core.errors import FailedPrecondition, NotReady

# A contender that is deleted between two readings is gone at the next.
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Meeting:
    """``prompt`` is None for one that is not kept yet."""

    left: Entrant
    right: Entrant
    prompt: int | None
    propensity: float


@dataclass(frozen=True, slots=True)
class _Known:
    """``places`` are those of the roster's entrants among the belief's contenders."""

    roster: Roster
    belief: Belief
    places: Ints


@dataclass(frozen=True, slots=True)
class _Odds:
    """The pairs that can meet on any standing prompt, with their chances by one belief."""

    roster: Roster
    belief: Belief
    first: Ints
    second: Ints
    chance: Floats


class Matchmaker:
    """Draws meetings; what it takes to draw is kept until the arena or the belief changes."""

    def __init__(
        self,
        database: Database,
        standings: Standings,
        exploration: float,
        rng: np.random.Generator,
    ) -> None:
        self._database = database
        self._standings = standings
        self._exploration = exploration
        self._rng = rng
        self._odds: dict[int, _Odds] = {}

    async def meeting(self, intent: int, prompt: str) -> Meeting:
        """The next one, on the prompt or, where it is empty, on one of the arena's own.

        Raises ``FailedPrecondition`` where no two can meet.
        """
        known = await self._known(intent)
        if prompt:
            number = await self._database.read(lambda c: store.find_prompt(c, intent, prompt))
            return self._on_prompt(known, number)
        odds = self._odds.get(intent)
        if odds is None or odds.roster is not known.roster or odds.belief is not known.belief:
            odds = await in_thread(lambda: self._computed(known), "arena-matchmaker")
            self._odds[intent] = odds
        _check_any(odds.first)
        drawn = selection.draw(self._rng, odds.first, odds.second, odds.chance)
        left, right = known.roster.entrants[drawn.left], known.roster.entrants[drawn.right]
        prompts = selection.common_prompts(left, right, known.roster.standing)
        chosen = prompts[int(self._rng.integers(len(prompts)))]
        return Meeting(left, right, chosen, drawn.propensity)

    async def _known(self, intent: int) -> _Known:
        for _ in range(_TRIES):
            roster = await self._roster(intent)
            belief, contenders = await self._standings.belief(intent)
            place = {each.id: at for at, each in enumerate(contenders)}
            if all(each.contender in place for each in roster.entrants):
                places = [place[each.contender] for each in roster.entrants]
                return _Known(roster, belief, np.array(places, dtype=np.int64))
        raise NotReady("Contenders come and go; ask again.")

    async def _roster(self, intent: int) -> Roster:
        """Read again only where it changed."""
        odds = self._odds.get(intent)
        known = None if odds is None else odds.roster

        def read(connection: Connection) -> Roster:
            if known is not None and store.revision(connection, intent) == known.revision:
                return known
            return store.roster(connection, intent)

        return await self._database.read(read)

    def _on_prompt(self, known: _Known, prompt: int | None) -> Meeting:
        entrants = known.roster.entrants
        first, second = selection.possible_for(entrants, prompt)
        _check_any(first)
        chance = self._chances(known, first, second)
        drawn = selection.draw(self._rng, first, second, chance)
        return Meeting(entrants[drawn.left], entrants[drawn.right], prompt, drawn.propensity)

    def _computed(self, known: _Known) -> _Odds:
        roster = known.roster
        first, second = selection.possible(roster.entrants, standing=bool(roster.standing))
        return _Odds(roster, known.belief, first, second, self._chances(known, first, second))

    def _chances(self, known: _Known, first: Ints, second: Ints) -> Floats:
        places = known.places
        return selection.weights(known.belief, places[first], places[second], self._exploration)


def _check_any(first: Ints) -> None:
    if not first.size:
        raise FailedPrecondition(
            "No two contenders can show the same prompt: add contenders, prompts or pictures.",
            reason="NO_PAIR",
        )
