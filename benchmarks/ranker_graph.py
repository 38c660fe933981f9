"""The match graph: whether its order comes to the truth, and how long it takes on large catalogues.

Truth: twelve results of equal relevance are shown to simulated people who look at place k with
probability 1/k^1.5, choose what they find good, and report whether it worked; the first order is
the worst. The order found is compared with the truth by Kendall's tau, where the ranker learns as
it does and where it believes raw click-through, over the same people and with the same exploration.
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
ANSWERS: Final = 4_000 if quick() else 30_000
RUNS: Final = 3 if quick() else 8
REFRESH: Final = 50
"""Answers between two looks at the evidence."""

LOOKED: Final = tuple(1 / place**1.5 for place in range(1, RESULTS + 1))
# What is chosen most does not succeed most; the truth is the order of both together.
_PEOPLE: Final = sorted(
    ((0.8 * 0.88**number, 0.9 if number % 2 else 0.7) for number in range(RESULTS)),
    key=lambda pair: -pair[0] * pair[1],
)
ATTRACTIONS: Final = tuple(chosen for chosen, _ in _PEOPLE)
SUCCESSES: Final = tuple(succeeded for _, succeeded in _PEOPLE)
CHECKPOINTS: Final = 20


@dataclass(slots=True)
class _World:
    """What was counted of the results in one run."""

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
            if chance.random() < LOOKED[place - 1] * ATTRACTIONS[item]:
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


Way = Callable[[_World], Sequence[float]]
WAYS: Final[dict[str, tuple[Way, float]]] = {
    "debiased": (_World.alphas, EPSILON),
    "debiased, no exploration": (_World.alphas, 0.0),
    "raw click-through": (lambda _: (1.0,) * RESULTS, EPSILON),
}


def tau(order: Sequence[int]) -> float:
    """Kendall's tau to the truth, which is 0, 1, 2, …"""
    pairs = list(itertools.combinations(order, 2))
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs)


def run(way: Way, epsilon: float, seed: int) -> tuple[list[float], tuple[float, ...]]:
    """Tau at each checkpoint, and what places were found to be worth at the end."""
    world, chance = _World(), random.Random(seed)
    order, taus = world.order((1.0,) * RESULTS), []
    for number in range(1, ANSWERS + 1):
        world.answer(order, epsilon, chance)
        if number % REFRESH == 0:
            order = world.order(way(world))
        if number in _CHECKED:
            taus.append(tau(order))
    return taus, world.alphas()


_CHECKED: Final = tuple(
    sorted(
        {
            round(REFRESH * (ANSWERS / REFRESH) ** (step / (CHECKPOINTS - 1)) / REFRESH) * REFRESH
            for step in range(CHECKPOINTS)
        }
    )
)


def truth() -> tuple[list[Entry], list[Chart]]:
    entries, lines, last = [], [], {}
    for name, (way, epsilon) in WAYS.items():
        runs = [run(way, epsilon, seed) for seed in range(RUNS)]
        by_step = list(zip(*(taus for taus, _ in runs), strict=True))
        last[name] = by_step[-1]
        entries.append(_entry(f"match graph, tau to the truth, {name}", by_step[-1], name))
        lines.append(
            Line(
                name,
                tuple(map(float, _CHECKED)),
                tuple(statistics.fmean(step) for step in by_step),
                tuple(map(min, by_step)),
                tuple(map(max, by_step)),
            )
        )
        if name == "debiased":
            entries.append(_examination([alphas for _, alphas in runs]))
    entries.append(_gain(last["debiased"], last["raw click-through"]))
    chart = Chart(
        "truth",
        f"The order found, against the truth ({RUNS} runs: mean and range)",
        "answers given",
        "Kendall's tau to the truth",
        tuple(lines),
        log="x",
    )
    return entries, [chart]


def _entry(title: str, taus: Sequence[float], name: str) -> Entry:
    bound = Bound(">=", 0.9) if name == "debiased" and not quick() else None
    return Entry(title, statistics.fmean(taus), "tau", COMMAND, bound, _half_range(taus))


def _examination(alphas: Sequence[Sequence[float]]) -> Entry:
    """How far off the chance of being looked at is, of the first five places."""
    errors = [
        max(abs(math.log(found[place] / LOOKED[place])) for place in range(1, 5))
        for found in alphas
    ]
    factors = [math.exp(error) for error in errors]
    bound = None if quick() else Bound("<=", 1.25)
    title = "match graph, examination of places 2 to 5, largest factor off"
    return Entry(title, statistics.median(factors), "x", COMMAND, bound, _half_range(factors))


def _gain(ours: Sequence[float], raw: Sequence[float]) -> Entry:
    gains = [a - b for a, b in zip(ours, raw, strict=True)]
    bound = None if quick() else Bound(">", 0.0)
    title = "match graph, tau, debiased less raw, least of the runs"
    return Entry(title, min(gains), "tau", COMMAND, bound, _half_range(gains))


def _half_range(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / 2


def measure() -> tuple[list[Entry], list[Chart]]:
    entries, charts = truth()
    more_entries, more_charts = ranker_graph_speed.speed()
    return [*entries, *more_entries], [*charts, *more_charts]
