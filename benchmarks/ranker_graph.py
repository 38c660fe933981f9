"""The match graph: whether its order comes to the truth, and how long it takes on large catalogues.

Truth: twelve results of equal relevance are shown to simulated people who look at place k with a
known probability, choose what they find good, and report whether it worked; the first order is the
worst. The order found is compared with the truth by Kendall's tau, where the ranker learns as it
does, where it never swaps neighbours, and where it believes raw click-through. In one world the
places fall off steeply, as 1/k^2, more than the prior of 1/k; in the other all are looked at alike,
so that raw click-through is right and nothing should be taken out of it.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks import ranker_graph_speed
from benchmarks.report import Bound, Chart, Entry, Line, quick
from ranker.graph import bias
from ranker.graph.bias import Attraction, Shown, Swaps
from ranker.graph.exploration import shown
from ranker.graph.ranking import Evidence, Means, score

COMMAND: Final = "make bench-ranker"
RESULTS: Final = 12
EPSILON: Final = 0.1
RUNS: Final = 3 if quick() else 8
REFRESH: Final = 50
"""Answers between two looks at the evidence."""

# What is chosen most does not succeed most; the truth is the order of both together.
_PEOPLE: Final = sorted(
    ((0.8 * 0.88**number, 0.9 if number % 2 else 0.7) for number in range(RESULTS)),
    key=lambda pair: -pair[0] * pair[1],
)
ATTRACTIONS: Final = tuple(chosen for chosen, _ in _PEOPLE)
SUCCESSES: Final = tuple(succeeded for _, succeeded in _PEOPLE)
CHECKPOINTS: Final = 20


@dataclass(frozen=True, slots=True)
class World:
    """Where place k is looked at with probability 1/k^``power``, and so many answers are given."""

    name: str
    title: str
    power: float
    answers: int

    @property
    def looked(self) -> tuple[float, ...]:
        return tuple(1.0 / place**self.power for place in range(1, RESULTS + 1))

    @property
    def checkpoints(self) -> list[int]:
        """Numbers of answers, evenly spread by their logarithm."""
        steps = self.answers // REFRESH
        shares = [step / (CHECKPOINTS - 1) for step in range(CHECKPOINTS)]
        return sorted({REFRESH * round(steps**share) for share in shares})


STEEP: Final = World("steep", "places looked at as 1/k²", 2.0, 4_000 if quick() else 30_000)
FLAT: Final = World("flat", "all places looked at alike", 0.0, 2_000 if quick() else 6_000)


@dataclass(slots=True)
class _Counted:
    """What was counted of the results in one run."""

    looked: Sequence[float]

    seen: list[list[int]] = field(default_factory=lambda: [[0] * RESULTS for _ in range(RESULTS)])
    chosen: list[list[int]] = field(default_factory=lambda: [[0] * RESULTS for _ in range(RESULTS)])
    ends: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in range(RESULTS)])
    upper: list[float] = field(default_factory=lambda: [0.0] * (RESULTS + 1))
    lower: list[float] = field(default_factory=lambda: [0.0] * (RESULTS + 1))

    def alphas(self) -> tuple[float, ...]:
        swaps = {k: Swaps(self.upper[k], self.lower[k]) for k in range(1, RESULTS)}
        return bias.examination(swaps, RESULTS)

    def answer(self, order: Sequence[int], epsilon: float, chance: random.Random) -> None:
        for place, result in enumerate(shown(RESULTS, epsilon, chance), 1):
            item = order[result.base - 1]
            self.seen[item][place - 1] += 1
            if chance.random() < self.looked[place - 1] * ATTRACTIONS[item]:
                self.chosen[item][place - 1] += 1
                self.ends[item][chance.random() >= SUCCESSES[item]] += 1
                told = bias.contributions(result.base, place, RESULTS, result.propensity)
                for pair, swaps in told.items():
                    self.upper[pair] += swaps.upper
                    self.lower[pair] += swaps.lower

    def order(self, alphas: Sequence[float]) -> list[int]:
        """The results by score; equal ones in the worst order, in which they began."""
        found = [self._attraction(item, alphas) for item in range(RESULTS)]
        everything = Attraction(
            sum(each.chosen for each in found), sum(each.examined for each in found)
        )
        means = Means.of(everything, *(float(sum(kind)) for kind in zip(*self.ends, strict=True)))
        scores = [
            score(1.0, Evidence(each, float(good), float(bad)), means)
            for each, (good, bad) in zip(found, self.ends, strict=True)
        ]
        return sorted(range(RESULTS), key=lambda item: (-scores[item], -item))

    def _attraction(self, item: int, alphas: Sequence[float]) -> Attraction:
        places = zip(self.seen[item], self.chosen[item], strict=True)
        return bias.attraction(
            [Shown(place, *map(float, counts)) for place, counts in enumerate(places, 1)], alphas
        )


Way = Callable[[_Counted], Sequence[float]]
DEBIASED: Final = "debiased"
RAW: Final = "raw click-through"
WAYS: Final[dict[str, tuple[Way, float]]] = {
    DEBIASED: (_Counted.alphas, EPSILON),
    "debiased, no exploration": (_Counted.alphas, 0.0),
    RAW: (lambda _: (1.0,) * RESULTS, EPSILON),
}


def tau(order: Sequence[int]) -> float:
    """Kendall's tau to the truth, which is 0, 1, 2, …"""
    pairs = list(itertools.combinations(order, 2))
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs)


def run(world: World, way: Way, epsilon: float, seed: int) -> tuple[list[float], tuple[float, ...]]:
    """Tau at each checkpoint, and what places were found to be worth at the end."""
    counted, chance = _Counted(world.looked), random.Random(seed)
    order, taus, checked = counted.order((1.0,) * RESULTS), [], set(world.checkpoints)
    for number in range(1, world.answers + 1):
        counted.answer(order, epsilon, chance)
        if number % REFRESH == 0:
            order = counted.order(way(counted))
        if number in checked:
            taus.append(tau(order))
    return taus, counted.alphas()


def truth(world: World) -> tuple[list[Entry], Chart]:
    """The taus of each way of learning, what was learned of places, and the course of it."""
    runs = {
        name: [run(world, way, epsilon, seed) for seed in range(RUNS)]
        for name, (way, epsilon) in WAYS.items()
    }
    courses = {
        name: list(zip(*(taus for taus, _ in some), strict=True)) for name, some in runs.items()
    }
    entries = [_entry(world, name, course[-1]) for name, course in courses.items()]
    entries.append(_examination(world, [alphas for _, alphas in runs[DEBIASED]]))
    chart = Chart(
        f"truth-{world.name}",
        f"The order found, against the truth: {world.title} ({RUNS} runs, mean and range)",
        "answers given",
        "Kendall's tau to the truth",
        tuple(_line(world, name, course) for name, course in courses.items()),
        log="x",
    )
    if world is STEEP:
        entries.append(_gain(world, courses[DEBIASED][-1], courses[RAW][-1]))
    return entries, chart


def _line(world: World, name: str, course: Sequence[Sequence[float]]) -> Line:
    return Line(
        name,
        tuple(map(float, world.checkpoints)),
        tuple(statistics.fmean(step) for step in course),
        tuple(map(min, course)),
        tuple(map(max, course)),
    )


def _entry(world: World, name: str, taus: Sequence[float]) -> Entry:
    bound = Bound(">=", 0.9) if name == DEBIASED and not quick() else None
    title = f"order against truth, {world.title}: {name}"
    return Entry(title, statistics.fmean(taus), "tau", COMMAND, bound, _half_range(taus))


def _examination(world: World, alphas: Sequence[Sequence[float]]) -> Entry:
    """How far off the chance of being looked at is, of the first five places."""
    factors = [
        math.exp(max(abs(math.log(found[k] / world.looked[k])) for k in range(1, 5)))
        for found in alphas
    ]
    bound = None if quick() else Bound("<=", 1.25)
    title = f"how much places 2 to 5 are looked at, {world.title}: largest factor off"
    return Entry(title, statistics.median(factors), "x", COMMAND, bound, _half_range(factors))


def _gain(world: World, ours: Sequence[float], raw: Sequence[float]) -> Entry:
    gains = [a - b for a, b in zip(ours, raw, strict=True)]
    bound = None if quick() else Bound(">", 0.0)
    title = f"order against truth, {world.title}: debiased less raw, least of the runs"
    return Entry(title, min(gains), "tau", COMMAND, bound, _half_range(gains))


def _half_range(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / 2


def measure() -> tuple[list[Entry], list[Chart]]:
    steep, steep_chart = truth(STEEP)
    flat, flat_chart = truth(FLAT)
    entries, charts = ranker_graph_speed.speed()
    return [*steep, *flat, *entries], [steep_chart, flat_chart, *charts]
