"""What a calibration of pruning tells: its progress, then how early scores say who wins."""

from __future__ import annotations

from dataclasses import dataclass

from easel.ranker.v1 import ranker_pb2


@dataclass(frozen=True, slots=True)
class CalibrationProgress:
    """``done`` of ``prompts`` were made and judged; ``left_out`` of them could not be."""

    done: int
    prompts: int
    left_out: int


@dataclass(frozen=True, slots=True)
class CalibratedStep:
    """After ``step``, the share ``at``: the rank correlation with the final scores, with its 95 %
    interval, and how often the better half still has the best candidate."""

    step: int
    at: float
    correlation: float
    low: float
    high: float
    best_in_half: float


@dataclass(frozen=True, slots=True)
class CalibratedSchedule:
    """``rounds``: (share of the steps, candidates kept at most, margin or None). ``work``: the
    mean share of the steps that it takes. ``regret``: the mean loss of score; ``regret_bound``:
    its upper 95 % limit. ``best_kept``: how often it keeps the best candidate."""

    rounds: tuple[tuple[float, int, float | None], ...]
    work: float
    regret: float
    regret_bound: float
    best_kept: float


@dataclass(frozen=True, slots=True)
class PruningCalibration:
    """``json`` is what the ranker's setting CALIBRATIONS reads from a file. ``chosen`` is told by
    cross-validation, ``schedules`` as they do on the prompts they were found on."""

    json: str
    steps: tuple[CalibratedStep, ...]
    chosen: CalibratedSchedule
    schedules: tuple[CalibratedSchedule, ...]
    prompts: int
    candidates: int


CalibrationEvent = CalibrationProgress | PruningCalibration


def calibration_event(event: ranker_pb2.CalibratePruningEvent) -> CalibrationEvent | None:
    """Return the event as a plain value; None for a kind this version does not know."""
    match event.WhichOneof("event"):
        case "progress":
            told = event.progress
            return CalibrationProgress(told.done, told.prompts, told.left_out)
        case "calibration":
            return _calibration(event.calibration)
        case _:
            return None


def rounds_of(
    pruning: ranker_pb2.Pruning,
) -> tuple[tuple[float, int, float | None], ...]:
    return tuple(
        (each.at, each.keep, each.margin if each.HasField("margin") else None)
        for each in pruning.rounds
    )


def _calibration(told: ranker_pb2.PruningCalibration) -> PruningCalibration:
    return PruningCalibration(
        told.json,
        tuple(
            CalibratedStep(
                each.step, each.at, each.correlation, each.low, each.high, each.best_in_half
            )
            for each in told.steps
        ),
        _schedule(told.chosen),
        tuple(map(_schedule, told.schedules)),
        told.prompts,
        told.candidates,
    )


def _schedule(told: ranker_pb2.CalibratedSchedule) -> CalibratedSchedule:
    return CalibratedSchedule(
        rounds_of(told.pruning), told.work, told.regret, told.regret_bound, told.best_kept
    )
