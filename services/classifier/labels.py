"""From logits to the labels of an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, tanh
from typing import Final

import numpy as np
import numpy.typing as npt

from services.classifier.network import Floats
from services.classifier.request import unknown_label

FEW_LABELS: Final = 64
"""Up to here plain numbers are quicker than the dozen calls of numpy that an answer takes."""


@dataclass(slots=True)
class Label:
    """``score`` is the probability, 0 to 1; ``logit`` is None unless asked for."""

    index: int
    name: str
    score: float
    logit: float | None = None


class Labels:
    """The labels of one model. Different outputs may share a name (ImageNet has two "crane").

    Logits are divided by ``temperature`` on their way to probabilities.
    """

    def __init__(
        self, names: Sequence[str], *, multi_label: bool = False, temperature: float = 1.0
    ) -> None:
        self.names = tuple(names)
        self.temperature = temperature
        self._multi_label = multi_label
        self._indices: defaultdict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(names):
            self._indices[name].append(index)

    def __len__(self) -> int:
        return len(self.names)

    def indices(
        self, names: Sequence[str], *, field: str = "labels"
    ) -> npt.NDArray[np.intp] | None:
        """The outputs called ``names``, each once, ascending; None for no names, which means all.

        Raises ``InvalidInput`` on ``field``, naming the first unknown one.
        """
        if not names:
            return None
        for name in names:
            if name not in self._indices:
                raise unknown_label(name, field)
        return np.array(sorted(index for name in set(names) for index in self._indices[name]))

    def probabilities(self, logits: Floats) -> Floats:
        """Of every output, by index, as ``best`` has them."""
        return np.array(self._scores(logits, logits.tolist()), np.float32)

    def best(
        self,
        logits: Floats,
        *,
        top_k: int,
        threshold: float = 0.0,
        among: npt.NDArray[np.intp] | None = None,
        with_logits: bool = False,
    ) -> tuple[Label, ...]:
        """The ``top_k`` most probable labels ``among`` those, best first, ties by index.

        Probabilities are of the full set: softmax, or one sigmoid a label for multi-label models,
        of the logits over the temperature. The logits of the answer are the network's own.
        """
        numbers: list[float] = logits.tolist()
        scores = self._scores(logits, numbers)
        return tuple(
            [
                Label(
                    index,
                    self.names[index],
                    scores[index],
                    numbers[index] if with_logits else None,
                )
                for index in _order(logits, numbers, among)[:top_k]
                if scores[index] >= threshold
            ]
        )

    def _scores(self, logits: Floats, numbers: list[float]) -> list[float]:
        if len(numbers) <= FEW_LABELS:
            if self.temperature != 1.0:
                numbers = [number / self.temperature for number in numbers]
            return _few_scores(numbers, self._multi_label)
        exact = logits.astype(np.float64) / self.temperature
        scores: list[float] = (_sigmoid(exact) if self._multi_label else _softmax(exact)).tolist()
        return scores


def _order(
    logits: Floats, numbers: list[float], among: npt.NDArray[np.intp] | None
) -> Sequence[int]:
    """Best first, ties by index; by logit, for probabilities that round to the same number still
    have an order.
    """
    if len(numbers) <= FEW_LABELS:
        indices = range(len(numbers)) if among is None else among.tolist()
        return sorted(indices, key=numbers.__getitem__, reverse=True)
    if among is None:
        order = np.argsort(-logits, kind="stable")
    else:
        order = among[np.argsort(-logits[among], kind="stable")]
    found: list[int] = order.tolist()
    return found


def _few_scores(logits: list[float], multi_label: bool) -> list[float]:
    if multi_label:
        return [0.5 * (1.0 + tanh(0.5 * logit)) for logit in logits]
    largest = max(logits)
    powers = [exp(logit - largest) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers]


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers: npt.NDArray[np.float64] = np.exp(logits - logits.max())
    scores: npt.NDArray[np.float64] = powers / powers.sum()
    return scores


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # tanh does not overflow, whatever the logit.
    scores: npt.NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return scores
