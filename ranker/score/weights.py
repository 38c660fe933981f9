"""How much each part of a score weighs, for each type of model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ranker.score.components import (
    ADOPTION,
    COMPONENTS,
    ECOSYSTEM,
    FRESHNESS,
    MATCH_GRAPH,
    QUALITY,
)

OTHER_TYPES: Final = "default"
# A weight is told with so many digits after the point at most.
PLACES: Final = 4
DEFAULT_WEIGHTS: Final[Mapping[str, Mapping[str, float]]] = {
    OTHER_TYPES: {
        ADOPTION: 0.15,
        QUALITY: 0.30,
        ECOSYSTEM: 0.15,
        MATCH_GRAPH: 0.30,
        FRESHNESS: 0.10,
    },
}
DEFAULT_HALF_LIVES: Final[Mapping[str, float]] = {OTHER_TYPES: 730.0}


@dataclass(frozen=True, slots=True)
class Weights:
    """The parts' weights for one type, in the parts' order; they add up to exactly 1."""

    by_component: tuple[tuple[str, Decimal], ...]

    @classmethod
    def of(cls, given: Mapping[str, float]) -> Weights:
        """Raises ``ValueError`` unless every part, and nothing else, has a weight of 0 to 1 with at
        most four digits after the point, and they add up to 1."""
        _same_names(given)
        weights = {name: _weight(name, given[name]) for name in COMPONENTS}
        total = sum(weights.values())
        if total != 1:
            told = " + ".join(f"{weight}" for weight in weights.values())
            raise ValueError(f"the weights must add up to 1, and {told} = {total}")
        return cls(tuple(weights.items()))

    def __getitem__(self, component: str) -> Decimal:
        return dict(self.by_component)[component]


def check_weights(given: Mapping[str, Mapping[str, float]]) -> None:
    """Raises ``ValueError`` naming the type whose weights cannot be used, or that has none."""
    if OTHER_TYPES not in given:
        raise ValueError(f"there must be weights for {OTHER_TYPES!r}, the types that are not named")
    for type, weights in given.items():
        try:
            Weights.of(weights)
        except ValueError as error:
            raise ValueError(f"{type}: {error}") from None


def check_half_lives(given: Mapping[str, float]) -> None:
    """Raises ``ValueError`` naming the type whose half-life cannot be used, or that has none."""
    if OTHER_TYPES not in given:
        raise ValueError(
            f"there must be a half-life for {OTHER_TYPES!r}, the types that are not named"
        )
    for type, days in given.items():
        if not 1 <= days <= 36_500:
            raise ValueError(f"{type}: a half-life is 1 to 36500 days, given {days}")


def _same_names(given: Mapping[str, float]) -> None:
    unknown = sorted(set(given) - set(COMPONENTS))
    missing = [name for name in COMPONENTS if name not in given]
    if unknown:
        raise ValueError(f"there is no part {unknown[0]!r}; the parts are {', '.join(COMPONENTS)}")
    if missing:
        raise ValueError(f"{missing[0]} has no weight; 0 leaves it out")


def _weight(name: str, given: float) -> Decimal:
    # The shortest decimal that reads as the number is what was written.
    weight = Decimal(repr(float(given)))
    if not (weight.is_finite() and 0 <= weight <= 1):
        raise ValueError(f"{name}: a weight is 0 to 1, given {given}")
    if weight != round(weight, PLACES):
        raise ValueError(f"{name}: a weight has at most {PLACES} digits after the point: {given}")
    return weight.normalize() if weight else Decimal(0)
