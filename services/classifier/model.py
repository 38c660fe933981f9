"""The classifier as the engine sees it: rows of one stage and one step each."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.classifier.labels import Labels
from services.classifier.network import Floats, Network, Pass, Reading, Traits
from services.classifier.preprocessing import Pixels
from services.core.engine import RowFailed, Stage
from services.core.errors import ModelFault, NotReady
from services.core.reference import ModelFiles

STAGE: Final = "forward"


@dataclass(frozen=True, slots=True)
class Row:
    """One picture, and what is asked of it. ``pixels``: uint8 [height, width, 3]."""

    pixels: Pixels
    head: bool = False
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """``logits`` [labels] of a row that asked for the head; ``vectors`` in the row's order."""

    logits: Floats | None
    vectors: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is in memory; ``at`` in seconds since the epoch."""

    files: ModelFiles
    traits: Traits
    labels: Labels
    at: float


class ClassifierModel:
    """A core ``Model`` over a ``Network``. Rows that run equally deep share a batch.

    ``find`` gets the model's files; it may fetch them, and is called by ``load``.
    """

    def __init__(
        self,
        network: Network,
        find: Callable[[], ModelFiles],
        *,
        warm_up_rows: Sequence[int] = (1, 2, 4, 8),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._network = network
        self._find = find
        self._warm_up_rows = warm_up_rows
        self._now = now
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        """Raises ``NotReady`` before ``load``."""
        if self._loaded is None:
            raise NotReady
        return self._loaded

    def load(self) -> None:
        files = self._find()
        traits = self._network.load(files.directory)
        labels = Labels(traits.labels, multi_label=traits.multi_label)
        self._loaded = Loaded(files, traits, labels, self._now())

    def warm_up(self) -> Iterable[Sequence[Row]]:
        size = self.loaded.traits.preprocessing.input
        blank = np.zeros((size.height, size.width, 3), np.uint8)
        # The first pass pays for allocations and kernel choice: its size is tried twice.
        for rows in (self._warm_up_rows[0], *self._warm_up_rows):
            yield [Row(blank, head=True)] * rows

    def plan(self, work: Row) -> Sequence[Stage]:
        depth = self.loaded.traits.depth
        deepest = depth if work.head else max(reading.layer for reading in work.readings)
        return (Stage(STAGE, key=deepest),)

    def step(self, stage: Stage, works: Sequence[Row]) -> Sequence[Answer | RowFailed]:
        del stage
        wanted: defaultdict[Reading, list[int]] = defaultdict(list)
        for index, work in enumerate(works):
            for reading in work.readings:
                wanted[reading].append(index)
        result = self._network.run(
            [work.pixels for work in works],
            head=any(work.head for work in works),
            readings=wanted,
        )
        return _answers(works, wanted, result)

    def close(self) -> None:
        self._network.close()


def _answers(
    works: Sequence[Row], wanted: dict[Reading, list[int]], result: Pass
) -> Sequence[Answer | RowFailed]:
    vectors: list[dict[Reading, Floats]] = [{} for _ in works]
    sound = np.full(len(works), True)
    for reading, indices in wanted.items():
        found = result.vectors[reading]
        sound[indices] &= _finite(found)
        for place, index in enumerate(indices):
            vectors[index][reading] = found[place]
    logits = result.logits
    if logits is not None:
        sound &= _finite(logits)
    return [
        Answer(
            logits[index] if work.head and logits is not None else None,
            tuple(vectors[index][reading] for reading in work.readings),
        )
        if fine
        else RowFailed(ModelFault("The model's answer has numbers that are not finite."))
        for index, (work, fine) in enumerate(zip(works, sound.tolist(), strict=True))
    ]


def _finite(numbers: Floats) -> npt.NDArray[np.bool_]:
    """[rows]: whether all of a row's numbers are."""
    finite: npt.NDArray[np.bool_] = np.isfinite(numbers)
    return np.logical_and.reduce(finite.reshape(len(numbers), -1), axis=1)
