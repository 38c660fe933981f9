"""Judges as they are asked for, checked before anybody is asked anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TypeAlias

from ranker.pictures.judges.preference import Matrix, Strengths, bradley_terry, win_rate
from services.core.errors import InvalidInput

MAX_WEIGHT = 1000.0
MAX_SPREAD = 1e6
MAX_LAYER = 10_000


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """An empty label is to be found in the prompt; an empty model is the classifier's default."""

    label: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class SimilaritySpec:
    """``references``: pictures as they came. ``layer``: negative ones count from the last."""

    references: tuple[object, ...] = field(repr=False)
    model: str = ""
    layer: int = -1


@dataclass(frozen=True, slots=True)
class TextImageSpec:
    """An empty text is the prompt; an empty model the first that is configured."""

    text: str = ""
    model: str = ""


class Strength(Enum):
    """How preferences become scores."""

    BRADLEY_TERRY = "bradley_terry"
    WIN_RATE = "win_rate"

    @property
    def of(self) -> Callable[[Matrix], Strengths]:
        return partial(bradley_terry) if self is Strength.BRADLEY_TERRY else win_rate


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """``name``: of a plug-in. An empty text is the prompt."""

    name: str
    text: str = ""
    strength: Strength | None = None


Kind: TypeAlias = LabelSpec | SimilaritySpec | TextImageSpec | RewardSpec


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """One judge of a request. ``spread``: None for the judge's own."""

    kind: Kind = LabelSpec()
    weight: float = 1.0
    spread: float | None = None

    def divisor(self, own: float, *, alone: bool) -> float:
        """What its score is divided by: a judge that is ``alone`` tells it in its own unit."""
        if self.spread is not None:
            return self.spread
        return 1.0 if alone else own


def check_specs(specs: Sequence[JudgeSpec], *, max_references: int) -> None:
    """Raises InvalidInput on the first field that cannot be used."""
    for position, spec in enumerate(specs):
        at = f"judges[{position}]"
        # Written so that NaN fails it too.
        if not abs(spec.weight) <= MAX_WEIGHT:
            raise InvalidInput(
                f"{at}.weight",
                "A weight must be a number within the limits.",
                limit=f"-{MAX_WEIGHT:g} to {MAX_WEIGHT:g}",
                given=f"{spec.weight:g}",
            )
        if spec.spread is not None and not 0.0 < spec.spread <= MAX_SPREAD:
            raise InvalidInput(
                f"{at}.spread",
                "A spread must be a number above 0, within the limit.",
                limit=f"above 0, to {MAX_SPREAD:g}",
                given=f"{spec.spread:g}",
            )
        if isinstance(spec.kind, SimilaritySpec):
            _check_similarity(spec.kind, f"{at}.similarity", max_references)
        if isinstance(spec.kind, RewardSpec) and not spec.kind.name:
            raise InvalidInput(f"{at}.reward.name", "A reward judge is a plug-in: name it.")
    if specs and not any(abs(spec.weight) > 0.0 for spec in specs):
        raise InvalidInput("judges", "All weights are 0: nothing would be judged.")


def _check_similarity(spec: SimilaritySpec, at: str, max_references: int) -> None:
    if not 1 <= len(spec.references) <= max_references:
        raise InvalidInput(
            f"{at}.references",
            "A similarity judge needs pictures to compare with.",
            limit=f"1 to {max_references}",
            given=len(spec.references),
        )
    if not abs(spec.layer) <= MAX_LAYER:
        raise InvalidInput(
            f"{at}.layer",
            "There is no such layer.",
            limit=f"-{MAX_LAYER} to {MAX_LAYER}",
            given=spec.layer,
        )
