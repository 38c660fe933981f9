"""The counts of the match graph: what an event of the log adds to them.

An answer adds an impression to each result's edge at its place. A choice counts at the time of its
answer, so that it ages with its impression; an end counts at its own time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ranker.graph import bias
from ranker.graph.decay import Decayed
from ranker.graph.outcome import Outcome


@dataclass(frozen=True, slots=True)
class ShownResult:
    """A result as the log has it: its edge's key, the place that the ranking gave it, and how
    likely it was to be shown where it was."""

    edge: int
    base: int
    propensity: float


@dataclass(slots=True)
class Tally:
    """Plain counts, and the same weighted by age with whatever else is."""

    numbers: list[int]
    weights: Decayed

    @classmethod
    def zero(cls, numbers: int, weights: int) -> Tally:
        return cls([0] * numbers, Decayed.zero(weights))

    def add(self, amounts: Sequence[float], at: float, half_life: float) -> None:
        """One amount a weight; the first of them are the plain counts'."""
        self.weights.add(amounts, at, half_life)
        for place, number in enumerate(self.numbers):
            self.numbers[place] = number + int(amounts[place])


EdgePlace = tuple[int, int]


@dataclass(slots=True)
class Counts:
    """Tallies that begin where they are put, or at nothing.

    ``edges``: succeeded, failed. ``edge_places``: seen, chosen. ``places``: seen, chosen, and as
    weights the swaps' upper and lower; place 0 has all that ended, and of those what succeeded.
    """

    half_life: float
    edges: dict[int, Tally] = field(default_factory=dict)
    edge_places: dict[EdgePlace, Tally] = field(default_factory=dict)
    places: dict[int, Tally] = field(default_factory=dict)

    def answered(self, shown: Sequence[ShownResult], at: float) -> None:
        for place, result in enumerate(shown, 1):
            self._edge_place(result.edge, place).add((1, 0), at, self.half_life)
            self._place(place).add((1, 0, 0, 0), at, self.half_life)

    def happened(
        self,
        outcome: Outcome,
        position: int,
        shown: Sequence[ShownResult],
        answered_at: float,
        at: float,
    ) -> None:
        result = shown[position - 1]
        if outcome is Outcome.CHOSEN:
            self._chosen(result, position, len(shown), answered_at)
            return
        good = int(outcome is Outcome.SUCCEEDED)
        self._edge(result.edge).add((good, 1 - good), at, self.half_life)
        self._place(0).add((1, good, 0, 0), at, self.half_life)

    def _chosen(self, result: ShownResult, place: int, count: int, at: float) -> None:
        self._edge_place(result.edge, place).add((0, 1), at, self.half_life)
        self._place(place).add((0, 1, 0, 0), at, self.half_life)
        told = bias.contributions(result.base, place, count, result.propensity)
        for upper, swaps in told.items():
            self._place(upper).add((0, 0, swaps.upper, swaps.lower), at, self.half_life)

    def _edge(self, key: int) -> Tally:
        if key not in self.edges:
            self.edges[key] = Tally.zero(2, 2)
        return self.edges[key]

    def _edge_place(self, edge: int, place: int) -> Tally:
        key = edge, place
        if key not in self.edge_places:
            self.edge_places[key] = Tally.zero(2, 2)
        return self.edge_places[key]

    def _place(self, place: int) -> Tally:
        if place not in self.places:
            self.places[place] = Tally.zero(2, 4)
        return self.places[place]


def touched(results: Sequence[tuple[int, ShownResult, int]]) -> tuple[set[EdgePlace], set[int]]:
    """The edges' places and the places that choosing any of ``results`` (place, result, how many
    were shown) may change."""
    places = {0}
    for place, result, count in results:
        places |= {place, *bias.contributions(result.base, place, count, result.propensity)}
    return {(result.edge, place) for place, result, _ in results}, places
