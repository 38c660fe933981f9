"""Several judges as one: what each says, over its spread, times its weight, added up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ranker.pictures.judges.preference import Matrix, Strengths
from ranker.pictures.judging import PairwiseJudge, PointwiseJudge, Score, Sight, TopLabel
from ranker.together import together
from services.core.errors import EaselError, ModelFault


@dataclass(frozen=True, slots=True)
class Seat:
    """A pointwise judge at its place. ``spread``: the standard deviation that its scores have
    between pictures of one prompt, above 0: a weight of 1 counts in it. ``evidence`` brings its
    score to a scale without a ceiling, in the same order; None where it has none."""

    judge: PointwiseJudge
    weight: float = 1.0
    spread: float = 1.0
    evidence: Callable[[float], float] | None = None


@dataclass(frozen=True, slots=True)
class PairwiseSeat:
    """A pairwise judge at its place; ``strengths`` makes scores of its preferences."""

    judge: PairwiseJudge
    strengths: Callable[[Matrix], Strengths]
    weight: float = 1.0
    spread: float = 1.0


class Panel:
    """The judges of one request, in its order. ``top_model``: the classifier's model whose best
    label is told with every score, "" for its default; None where nobody asks the classifier."""

    def __init__(self, seats: Sequence[Seat | PairwiseSeat], top_model: str | None) -> None:
        self._seats = tuple(seats)
        self._top_model = top_model
        self.pairwise = any(isinstance(seat, PairwiseSeat) for seat in seats)

    async def score(self, sight: Sight) -> Score:
        """Of one picture by itself; of pairwise judges there must be none. Raises EaselError."""
        assert not self.pairwise, "they need others to compare with"
        parts = [await self._part(seat, sight) for seat in self._seats if isinstance(seat, Seat)]
        return self._summed(parts, await self._top(sight))

    async def compare(
        self, sights: Sequence[Sight], room: asyncio.Semaphore
    ) -> list[Score | EaselError]:
        """Of pictures that are ranked against each other: a score each, comparable among them
        alone. ``room`` bounds what is asked at a time."""
        told: list[list[float] | EaselError] = list(
            await asyncio.gather(*(self._looked(sight, room) for sight in sights))
        )
        sound = [index for index, parts in enumerate(told) if not isinstance(parts, EaselError)]
        try:
            strengths = [
                await self._strengths(seat, [sights[index] for index in sound], room)
                for seat in self._seats
                if isinstance(seat, PairwiseSeat)
            ]
        except EaselError as error:
            return [parts if isinstance(parts, EaselError) else error for parts in told]
        place = {index: position for position, index in enumerate(sound)}
        return [
            parts
            if isinstance(parts, EaselError)
            else self._summed(
                self._in_order(parts, [float(each[place[index]]) for each in strengths]),
                await self._top(sights[index]),
            )
            for index, parts in enumerate(told)
        ]

    async def _looked(self, sight: Sight, room: asyncio.Semaphore) -> list[float] | EaselError:
        """The pointwise parts. A picture that cannot be read, or named, fails here by itself."""
        try:
            async with room:
                if self.pairwise:
                    await sight.pixels()
                parts = [
                    await self._part(seat, sight) for seat in self._seats if isinstance(seat, Seat)
                ]
                await self._top(sight)
                return parts
        except EaselError as error:
            return error

    async def _part(self, seat: Seat, sight: Sight) -> float:
        value = await seat.judge.score(sight)
        if not math.isfinite(value):
            raise ModelFault("A judge answered a number that is not finite.")
        return value

    async def _strengths(
        self, seat: PairwiseSeat, sights: Sequence[Sight], room: asyncio.Semaphore
    ) -> Strengths:
        beats = np.full((len(sights), len(sights)), 0.5)

        async def compare(a: int, b: int) -> None:
            async with room:
                beats[a, b] = await seat.judge.prefer(sights[a], sights[b])
            beats[b, a] = 1.0 - beats[a, b]

        async with together() as every:
            for a, b in combinations(range(len(sights)), 2):
                every.create_task(compare(a, b))
        return seat.strengths(beats)

    def _in_order(self, pointwise: Sequence[float], pairwise: Sequence[float]) -> list[float]:
        points, pairs = iter(pointwise), iter(pairwise)
        return [next(points if isinstance(seat, Seat) else pairs) for seat in self._seats]

    def _summed(self, parts: Sequence[float], top: TopLabel | None) -> Score:
        value = math.fsum(
            seat.weight * part / seat.spread for seat, part in zip(self._seats, parts, strict=True)
        )
        return Score(value, top, tuple(parts), self._evidence(parts))

    def _evidence(self, parts: Sequence[float]) -> float | None:
        """Of a judge that is alone: a sum would come in another order on another scale."""
        seat = self._seats[0]
        if len(self._seats) > 1 or isinstance(seat, PairwiseSeat) or seat.evidence is None:
            return None
        return seat.weight * seat.evidence(parts[0]) / seat.spread

    async def _top(self, sight: Sight) -> TopLabel | None:
        return None if self._top_model is None else (await sight.classified(self._top_model)).top
