"""The classifier as the engine sees it: rows of one stage and one step each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import isfinite
from typing import Final, NamedTuple

import numpy as np

from services.classifier.explanation import Explainer, Method, Question
from services.classifier.labels import Labels
from services.classifier.network import Floats, Network, Pass, Reading, Traits
from services.classifier.preprocessing import Pixels
from services.classifier.temperature import read_temperature
from services.core.engine import RowFailed, Stage
from services.core.errors import FailedPrecondition, ModelFault, NotReady
from services.core.reference import ModelFiles

STAGE: Final = "forward"
EXPLAIN_STAGE: Final = "explain"
_FLOAT32_BYTES: Final = 4
_EXPLAIN_PLANS: Final = {
    method: (Stage(EXPLAIN_STAGE, key=f"{EXPLAIN_STAGE} {method.value}"),) for method in Method
}
FEW_NUMBERS: Final = 64


class Row(NamedTuple):
    """One picture, and what is asked of it. ``pixels``: uint8 [height, width, 3].

    A row with a ``question`` asks for nothing else.
    """

    pixels: Pixels
    head: bool = False
    readings: tuple[Reading, ...] = ()
    question: Question | None = None


class Answer(NamedTuple):
    """``logits`` [labels] of a row that asked for the head, or a question; ``vectors`` in the row's
    order; ``relevance`` [rows, columns] of a row with a question.
    """

    logits: Floats | None
    vectors: tuple[Floats, ...]
    relevance: Floats | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is in memory; ``at`` in seconds since the epoch."""

    files: ModelFiles
    traits: Traits
    labels: Labels
    at: float


class ClassifierModel:
    """A core ``Model`` over a ``Network``. Rows that run equally deep share a batch.

    ``find`` gets the model's files; it may fetch them, and is called by ``load`` at the latest.
    ``explainer`` answers questions; it is loaded when the first is asked.
    """

    def __init__(
        self,
        network: Network,
        find: Callable[[], ModelFiles],
        *,
        explainer: Explainer | None = None,
        warm_up_rows: Sequence[int] = (1, 2, 4, 8),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._network = network
        self._find = find
        self._explainer = explainer
        self._explaining_bytes = 0
        self._warm_up_rows = warm_up_rows
        self._now = now
        self._files: ModelFiles | None = None
        self._loaded: Loaded | None = None
        self._plans: tuple[tuple[Stage], ...] = ()

    @property
    def loaded(self) -> Loaded:
        """Raises ``NotReady`` before ``load``."""
        if self._loaded is None:
            raise NotReady
        return self._loaded

    def find(self) -> ModelFiles:
        """The model's files, found once. Blocking; raises what finding them does."""
        if self._files is None:
            self._files = self._find()
        return self._files

    def load(self) -> None:
        files = self.find()
        traits = self._network.load(files.directory)
        labels = Labels(
            traits.labels,
            multi_label=traits.multi_label,
            temperature=read_temperature(files.directory),
        )
        self._plans = tuple((Stage(STAGE, key=layer),) for layer in range(traits.depth + 1))
        self._loaded = Loaded(files, traits, labels, self._now())

    @property
    def bytes_in_memory(self) -> int:
        """Of the weights: the network's, and once questions were asked those of what answers."""
        return self.loaded.traits.bytes_in_memory + self._explaining_bytes

    @property
    def bytes_for_questions(self) -> int:
        """What ``prepare_questions`` would take: 0 when it was called."""
        if self._explaining_bytes:
            return 0
        return _FLOAT32_BYTES * self.loaded.traits.parameters

    def check_questions(self) -> None:
        """Blocking. Raises ``FailedPrecondition`` where the model cannot be explained."""
        self._answering().check(self.loaded.files.directory)

    def prepare_questions(self) -> None:
        """Loads what answers questions; blocking, from any thread but the loop's. Raises as
        ``check_questions``.
        """
        explainer, loaded = self._answering(), self.loaded
        explainer.load(loaded.files.directory, loaded.traits.preprocessing)
        self._explaining_bytes = self.bytes_for_questions

    def _answering(self) -> Explainer:
        if self._explainer is None:
            raise FailedPrecondition(
                f"The {self.loaded.traits.backend} backend of this server cannot explain."
            )
        return self._explainer

    def warm_up(self) -> Iterable[Sequence[Row]]:
        size = self.loaded.traits.preprocessing.input
        blank = np.zeros((size.height, size.width, 3), np.uint8)
        # The first pass pays for allocations and kernel choice: its size is tried twice.
        for rows in (self._warm_up_rows[0], *self._warm_up_rows):
            yield [Row(blank, head=True)] * rows

    def plan(self, work: Row) -> Sequence[Stage]:
        if work.question is not None:
            return _EXPLAIN_PLANS[work.question.method]
        if work.head:
            return self._plans[-1]
        return self._plans[max(reading.layer for reading in work.readings)]

    def step(self, stage: Stage, works: Sequence[Row]) -> Sequence[Answer | RowFailed]:
        if stage.name == EXPLAIN_STAGE:
            return self._explained(works)
        wanted: dict[Reading, list[int]] = {}
        head = False
        for index, work in enumerate(works):
            head = head or work.head
            for reading in work.readings:
                wanted.setdefault(reading, []).append(index)
        result = self._network.run([work.pixels for work in works], head=head, readings=wanted)
        return _answers(works, wanted, result)

    def close(self) -> None:
        self._network.close()
        if self._explainer is not None:
            self._explainer.close()

    def _explained(self, works: Sequence[Row]) -> Sequence[Answer | RowFailed]:
        questions = [work.question for work in works if work.question is not None]
        result = self._answering().explain(
            [work.pixels for work in works],
            questions[0].method,
            [question.among for question in questions],
        )
        faulty = {*_not_finite(result.logits), *_not_finite(result.relevance)}
        return [
            _fault() if index in faulty else Answer(logits, (), relevance)
            for index, (logits, relevance) in enumerate(
                zip(result.logits, result.relevance, strict=True)
            )
        ]


def _answers(
    works: Sequence[Row], wanted: dict[Reading, list[int]], result: Pass
) -> Sequence[Answer | RowFailed]:
    if not wanted and result.logits is not None and not _not_finite(result.logits):
        return [Answer(row, ()) for row in result.logits]
    vectors: list[dict[Reading, Floats]] = [{} for _ in works]
    faulty: set[int] = set()
    for reading, indices in wanted.items():
        found = result.vectors[reading]
        faulty.update(indices[place] for place in _not_finite(found))
        for place, index in enumerate(indices):
            vectors[index][reading] = found[place]
    if result.logits is not None:
        faulty.update(_not_finite(result.logits))
    logits = repeat(None) if result.logits is None else result.logits
    return [
        _fault()
        if index in faulty
        else Answer(row if work.head else None, tuple([found[key] for key in work.readings]))
        for index, (work, found, row) in enumerate(zip(works, vectors, logits, strict=False))
    ]


def _fault() -> RowFailed:
    return RowFailed(ModelFault("The model's answer has numbers that are not finite."))


def _not_finite(numbers: Floats) -> Iterable[int]:
    """The rows whose numbers are not all finite."""
    # For a few numbers NumPy takes longer to begin than Python does for all of them.
    if numbers.size <= FEW_NUMBERS and all(map(isfinite, numbers.ravel().tolist())):
        return ()
    finite = np.isfinite(numbers)
    if np.logical_and.reduce(finite, axis=None):
        return ()
    rows: list[int] = np.flatnonzero(~finite.reshape(len(numbers), -1).all(axis=1)).tolist()
    return rows
