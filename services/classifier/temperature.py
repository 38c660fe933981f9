"""Probabilities that mean what they say: one temperature that every logit is divided by.

A network trained to be right is mostly too sure of itself. Dividing its logits by the temperature
that makes the true labels of held-out pictures most probable changes no order and no prediction,
only how sure the probabilities are (Guo et al., "On Calibration of Modern Neural Networks", 2017).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.classifier.network import Floats
from services.core.errors import FailedPrecondition

CALIBRATION_FILE: Final = "calibration.json"
LOWEST: Final = 0.01
HIGHEST: Final = 100.0
_HALVINGS: Final = 60
_BINS: Final = 15

Doubles = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature and what it was found on.

    ``nll``: mean negative log-likelihood of the true labels, in nats, a picture (a label, for
    multi-label networks); ``ece``: expected calibration error, 0 to 1. Each before and after.
    """

    temperature: float
    pictures: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


def calibrated(logits: Floats, targets: Targets, *, multi_label: bool = False) -> Calibration:
    """Fit a temperature to ``logits`` [pictures, labels].

    ``targets``: the true label of each picture [pictures]; for multi-label networks 0 or 1 a label
    [pictures, labels]. The likelihood has one maximum, for it is concave in 1 / temperature; its
    slope is bisected. Raises ``FailedPrecondition`` where there are no pictures, or none bounds the
    temperature (all are classified right, say).
    """
    numbers = logits.astype(np.float64)
    if not len(numbers):
        raise FailedPrecondition("There are no labelled pictures to calibrate on.")
    score = _Sigmoids(numbers, targets) if multi_label else _Softmax(numbers, targets)
    sharpness = _root(score)
    return Calibration(
        temperature=1 / sharpness,
        pictures=len(numbers),
        nll_before=score.loss(1.0),
        nll_after=score.loss(sharpness),
        ece_before=score.error(1.0),
        ece_after=score.error(sharpness),
    )


def read_temperature(directory: Path) -> float:
    """Of the model in ``directory``; 1 where it has no calibration.

    Raises ``FailedPrecondition`` where its file is broken.
    """
    path = directory / CALIBRATION_FILE
    if not path.is_file():
        return 1.0
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        temperature = float(content["temperature"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise FailedPrecondition(f"The model's {CALIBRATION_FILE} names no temperature.") from error
    if not (isfinite(temperature) and LOWEST <= temperature <= HIGHEST):
        raise FailedPrecondition(
            f"The temperature in the model's {CALIBRATION_FILE} is out of range: "
            f"{LOWEST:g} to {HIGHEST:g}, not {temperature:g}."
        )
    return temperature


def write_calibration(directory: Path, found: Calibration) -> None:
    """Beside the model's other files; it is part of the model's digest from then on."""
    text = json.dumps(asdict(found), indent=2) + "\n"
    (directory / CALIBRATION_FILE).write_text(text, encoding="utf-8")


class _Softmax:
    """Loss of a network with one true label a picture, by sharpness, which is 1 / temperature."""

    def __init__(self, logits: Doubles, targets: Targets) -> None:
        # The largest at 0: no power overflows.
        self._logits = logits - logits.max(axis=1, keepdims=True)
        self._targets = targets
        self._true = np.take_along_axis(self._logits, targets[:, None], axis=1)[:, 0]

    def probabilities(self, sharpness: float) -> Doubles:
        powers: Doubles = np.exp(sharpness * self._logits)
        found: Doubles = powers / powers.sum(axis=1, keepdims=True)
        return found

    def loss(self, sharpness: float) -> float:
        totals = np.exp(sharpness * self._logits).sum(axis=1)
        return float(np.mean(np.log(totals) - sharpness * self._true))

    def slope(self, sharpness: float) -> float:
        expected = (self.probabilities(sharpness) * self._logits).sum(axis=1)
        return float(np.mean(expected - self._true))

    def error(self, sharpness: float) -> float:
        found = self.probabilities(sharpness)
        right = found.argmax(axis=1) == self._targets
        return _calibration_error(found.max(axis=1), right)


class _Sigmoids:
    """As ``_Softmax``, of a network that scores each label by itself."""

    def __init__(self, logits: Doubles, targets: Targets) -> None:
        self._logits = logits
        self._targets = targets

    def probabilities(self, sharpness: float) -> Doubles:
        found: Doubles = 0.5 * (1.0 + np.tanh(0.5 * sharpness * self._logits))
        return found

    def loss(self, sharpness: float) -> float:
        scaled = sharpness * self._logits
        return float(np.mean(np.logaddexp(0.0, scaled) - self._targets * scaled))

    def slope(self, sharpness: float) -> float:
        return float(np.mean((self.probabilities(sharpness) - self._targets) * self._logits))

    def error(self, sharpness: float) -> float:
        found = self.probabilities(sharpness)
        return _calibration_error(found.ravel(), self._targets.ravel() == 1)


def _root(score: _Softmax | _Sigmoids) -> float:
    """The sharpness at which the loss is lowest."""
    low, high = 1 / HIGHEST, 1 / LOWEST
    if score.slope(low) >= 0 or score.slope(high) <= 0:
        raise FailedPrecondition(
            "These pictures bound no temperature: calibrate on more pictures, of which the model "
            "gets most right and some wrong."
        )
    for _ in range(_HALVINGS):
        middle = sqrt(low * high)
        low, high = (middle, high) if score.slope(middle) < 0 else (low, middle)
    return sqrt(low * high)


def _calibration_error(confidence: Doubles, right: npt.NDArray[np.bool_]) -> float:
    """Mean distance of confidence and accuracy over 15 equal bins (Guo et al., 2017)."""
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(confidence))
