"""Scores of pictures: weighted sums of the log-probabilities of wanted labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ranker.pictures import target
from services.core.errors import InvalidInput, ModelFault

MAX_WEIGHT = 1000.0


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """A judge as asked for. An empty label is to be found in the prompt; an empty model is the
    classifier's default."""

    label: str = ""
    model: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of one classifier, by index. ``multi_label``: each is a yes or no of its own."""

    names: tuple[str, ...]
    multi_label: bool = False


@dataclass(frozen=True, slots=True)
class LabelJudge:
    """A resolved judge: ``weight`` times the log-probability of label ``index`` of ``model``."""

    weight: float
    label: str
    index: int
    model: str
    multi_label: bool = False


@dataclass(frozen=True, slots=True)
class TopLabel:
    """The classifier's best label. ``probability`` is 0 to 1."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Score:
    """``value``: larger is better, finite; comparable within one ranking only."""

    value: float
    top: TopLabel


def check_specs(specs: Sequence[JudgeSpec]) -> None:
    """Raises InvalidInput on a weight that is no usable number."""
    for position, spec in enumerate(specs):
        if not abs(spec.weight) <= MAX_WEIGHT:
            raise InvalidInput(
                f"judges[{position}].weight",
                "A weight must be a number within the limits.",
                limit=f"-{MAX_WEIGHT:g} to {MAX_WEIGHT:g}",
                given=f"{spec.weight:g}",
            )


def resolve(spec: JudgeSpec, position: int, labels: LabelSet, prompt: str) -> LabelJudge:
    """The judge with its label found, by name or in the prompt.

    ``position`` is its place among the request's judges. Raises InvalidInput as ``target`` does.
    """
    if spec.label:
        field = f"judges[{position}].label.label"
        index = target.find_by_name(spec.label, labels.names, field=field)
    else:
        index = target.find_in_prompt(prompt, labels.names)
    return LabelJudge(spec.weight, labels.names[index], index, spec.model, labels.multi_label)


def log_probability(logits: Sequence[float], index: int, *, multi_label: bool = False) -> float:
    """Log of the probability of label ``index``, at most 0, from the logits of all labels.

    Taken from logits because float32 probabilities saturate: of two pictures at .9999999 and
    .99999999 both would read 1, and a tie would be told where there is none.
    Raises ModelFault unless all logits are finite.
    """
    if not all(map(math.isfinite, logits)):
        raise ModelFault("The classifier's answer holds numbers that are not finite.")
    own = logits[index]
    if multi_label:
        return -_log1p_exp(-own)
    others = [value - own for place, value in enumerate(logits) if place != index]
    return -_log1p_exp(_log_sum_exp(others)) if others else 0.0


def _log_sum_exp(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def _log1p_exp(value: float) -> float:
    """``log(1 + exp(value))`` without overflow, and without losing a small ``exp(value)``."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
