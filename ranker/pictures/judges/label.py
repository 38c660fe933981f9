"""The log-probability that the classifier gives to a wanted label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ranker.pictures import target
from ranker.pictures.judging import Sight
from services.core.errors import ModelFault

# The largest log-probability below 0 that is told apart from it.
_SURE: Final = -5e-324


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of one classifier, by index. ``multi_label``: each is a yes or no of its own."""

    names: tuple[str, ...]
    multi_label: bool = False

    def find(self, name: str, prompt: str, *, field: str) -> int:
        """The index of the label ``name``, or, where that is empty, of the one in the prompt.
        Raises InvalidInput as ``target`` does."""
        if name:
            return target.find_by_name(name, self.names, field=field)
        return target.find_in_prompt(prompt, self.names)


@dataclass(frozen=True, slots=True)
class LabelJudge:
    """Log-probability of label ``index`` of ``model``, in nats, at most 0."""

    index: int
    model: str = ""
    multi_label: bool = False

    async def score(self, sight: Sight) -> float:
        found = await sight.classified(self.model)
        return log_probability(found.logits, self.index, multi_label=self.multi_label)


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


def log_odds(log_probability: float) -> float:
    """``log(p / (1 - p))`` of a log-probability, at most 0: what pictures differ by where all of
    them are nearly certain."""
    if log_probability > _SURE:
        return -math.log(-_SURE)
    return log_probability - math.log(-math.expm1(log_probability))


def _log_sum_exp(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def _log1p_exp(value: float) -> float:
    """``log(1 + exp(value))`` without overflow, and without losing a small ``exp(value)``."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
