"""What was taken for what, and the rates that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from easel.evaluation.rate import Rate

TOP_K: Final = 5


@dataclass(frozen=True, slots=True)
class LabelRates:
    """One label: ``found`` of its pictures (recall), ``found_in_top`` of them among the best
    `TOP_K` answers, ``trusted``: of the pictures it was said of, those that are (precision)."""

    index: int
    found: Rate
    found_in_top: Rate
    trusted: Rate
    taken_for: int | None
    """The label it was mistaken for most often; None without a mistake."""

    @property
    def f1(self) -> float:
        """The harmonic mean of recall and precision, 0 to 1."""
        return 2 * self.found.correct / (self.found.total + self.trusted.total)


class Confusion:
    """Counts of (wanted, said) label indices, one picture at a time."""

    def __init__(self) -> None:
        self.cells: Counter[tuple[int, int]] = Counter()
        self._in_top: Counter[int] = Counter()

    def add(self, wanted: int, ranked: Sequence[int]) -> None:
        """Count a picture; ``ranked`` are the labels it was answered with, best first.

        Raises ``ValueError`` when there is none.
        """
        if not ranked:
            raise ValueError("an answer without labels")
        self.cells[wanted, ranked[0]] += 1
        self._in_top[wanted] += wanted in ranked[:TOP_K]

    @property
    def wanted(self) -> list[int]:
        """The labels that pictures had, in the model's order."""
        return sorted({wanted for wanted, _ in self.cells})

    @property
    def top_1(self) -> Rate:
        right = sum(count for (wanted, said), count in self.cells.items() if wanted == said)
        return Rate(right, self.cells.total())

    @property
    def top_k(self) -> Rate:
        """The wanted label is among the best `TOP_K`."""
        return Rate(self._in_top.total(), self.cells.total())

    @property
    def mean_found(self) -> float | None:
        """The mean of the labels' recalls, each label counting the same; None of no pictures."""
        shares = [found for each in self.labels() if (found := each.found.share) is not None]
        return sum(shares) / len(shares) if shares else None

    def labels(self) -> list[LabelRates]:
        """Every label that pictures had, in the model's order."""
        pictures: Counter[int] = Counter()
        said_of: Counter[int] = Counter()
        mistakes: dict[int, Counter[int]] = {}
        for (wanted, said), count in self.cells.items():
            pictures[wanted] += count
            said_of[said] += count
            if wanted != said:
                mistakes.setdefault(wanted, Counter())[said] += count
        return [
            LabelRates(
                index=label,
                found=Rate(self.cells[label, label], pictures[label]),
                found_in_top=Rate(self._in_top[label], pictures[label]),
                trusted=Rate(self.cells[label, label], said_of[label]),
                taken_for=_most_common(mistakes.get(label)),
            )
            for label in sorted(pictures)
        ]


def _most_common(counts: Counter[int] | None) -> int | None:
    """The first in the model's order of those that tie."""
    return min(counts, key=lambda label: (-counts[label], label)) if counts else None
