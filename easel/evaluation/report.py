"""An evaluation as one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from easel.evaluation.confusion import TOP_K, Confusion, LabelRates
from easel.evaluation.rate import Rate


@dataclass(frozen=True, slots=True)
class Mistake:
    """A picture that was said to be something else, and with what probability."""

    file: str
    label: str
    said: str
    score: float


@dataclass
class Pace:
    """How fast it went: seconds of the wall clock, and sums over the pictures answered."""

    seconds: float = 0.0
    pictures: int = 0
    picture_bytes: int = 0
    queue_seconds: float = 0.0
    prepare_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_rows: int = 0

    @property
    def pictures_per_second(self) -> float:
        return self.pictures / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        count = self.pictures or 1
        return {
            "seconds": self.seconds,
            "pictures_per_second": self.pictures_per_second,
            "mean_queue_seconds": self.queue_seconds / count,
            "mean_prepare_seconds": self.prepare_seconds / count,
            "mean_compute_seconds": self.compute_seconds / count,
            "mean_batch_rows": self.batch_rows / count,
        }


@dataclass
class Evaluation:
    """What was found out about ``model`` (plain JSON values) on the pictures of ``directory``.

    ``failed`` are the pictures that were not evaluated, with the reason; they count in no rate.
    ``ignored`` are files that are no pictures by their suffix.
    """

    directory: str
    fit: str
    model: dict[str, Any]
    labels: Sequence[str]
    confusion: Confusion = field(default_factory=Confusion)
    mistakes: list[Mistake] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    ignored: Sequence[str] = ()
    pace: Pace = field(default_factory=Pace)

    def as_json(self) -> dict[str, Any]:
        counted = self.confusion
        return {
            "directory": self.directory,
            "fit": self.fit,
            "model": self.model,
            "pictures": counted.cells.total() + len(self.failed),
            "evaluated": counted.cells.total(),
            "failed": [{"file": file, "error": error} for file, error in self.failed.items()],
            "ignored": list(self.ignored),
            "top_1": rate_json(counted.top_1),
            f"top_{TOP_K}": rate_json(counted.top_k),
            "mean_recall": counted.mean_found,
            "labels": [self._label_json(each) for each in counted.labels()],
            "confusion": [
                {"label": self.labels[wanted], "said": self.labels[said], "pictures": count}
                for (wanted, said), count in sorted(counted.cells.items())
            ],
            "mistakes": [
                {"file": each.file, "label": each.label, "said": each.said, "score": each.score}
                for each in sorted(self.mistakes, key=lambda each: (-each.score, each.file))
            ],
            "throughput": self.pace.as_json(),
        }

    def _label_json(self, rates: LabelRates) -> dict[str, Any]:
        taken_for = rates.taken_for
        return {
            "label": self.labels[rates.index],
            "index": rates.index,
            "recall": rate_json(rates.found),
            f"top_{TOP_K}": rate_json(rates.found_in_top),
            "precision": rate_json(rates.trusted),
            "f1": rates.f1,
            "taken_for": None if taken_for is None else self.labels[taken_for],
        }


def rate_json(rate: Rate) -> dict[str, Any]:
    """The counts, the share (null of none) and its 95 % interval after Wilson."""
    return {
        "correct": rate.correct,
        "of": rate.total,
        "share": rate.share,
        "interval": list(rate.interval),
    }
