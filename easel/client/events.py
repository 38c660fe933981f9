"""The events of Generate and BestOf, as plain values.

A picture's life is Admitted, then Steps and Previews, then one of GeneratedImage, Stopped, Blocked
and Failed; Refused answers an action that could not be carried out. A best-of is Started, then
candidates' events in any order, then one Ranking. Steps count from 1, indices from 0. ``data`` is
a whole encoded file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from easel.client.answers import Label, Timing, item_error, top_label
from easel.client.errors import ItemError
from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2


@dataclass(frozen=True, slots=True)
class Admitted:
    """``position`` rows are ahead; the picture is predicted to be done in ``eta_seconds``."""

    index: int
    position: int
    eta_seconds: float
    seed: int
    steps: int


@dataclass(frozen=True, slots=True)
class Step:
    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Preview:
    index: int
    data: bytes
    step: int
    steps: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A finished picture; ``degraded`` where fewer steps ran to meet the deadline, as allowed;
    ``cached`` where it had been made for an earlier request."""

    index: int
    data: bytes
    seed: int
    width: int
    height: int
    steps: int
    degraded: bool
    timing: Timing
    provenance: generator_pb2.Provenance
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """The picture was cancelled after ``step`` of ``steps``."""

    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """The model's safety checker withheld the picture."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    index: int
    error: ItemError


@dataclass(frozen=True, slots=True)
class Refused:
    """An action on the request, such as a cancel, was refused; its pictures go on."""

    index: int
    error: ItemError


GenerateEvent = Admitted | Step | Preview | GeneratedImage | Stopped | Blocked | Failed | Refused


@dataclass(frozen=True, slots=True)
class Started:
    """``rounds`` is the pruning in force: (share of the steps, candidates kept)."""

    seeds: tuple[int, ...]
    steps: int
    rounds: tuple[tuple[float, int], ...]
    labels: tuple[str, ...]
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class CandidateStepped:
    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class CandidateScored:
    """``preview`` is an encoded picture, None unless previews were asked for. ``parts``: what each
    judge said, in its own unit."""

    index: int
    step: int
    score: float
    label: Label | None
    preview: bytes | None
    final: bool
    parts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidatePruned:
    """Stopped after ``step`` steps, with ``steps_saved`` never run."""

    index: int
    step: int
    steps_saved: int
    score: float


@dataclass(frozen=True, slots=True)
class CandidateFinished:
    index: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class CandidateFailed:
    index: int
    error: ItemError


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """``pruned_at_step`` is None for a finished picture; ``data`` is then the picture, else the
    last preview, and None where there is neither."""

    rank: int
    index: int
    seed: int
    score: float
    label: Label | None
    pruned_at_step: int | None
    data: bytes | None
    timing: Timing
    error: ItemError | None
    parts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """The end of a best-of: candidates best first, and what pruning saved. ``regret_bound``: the
    upper 95 % limit of the score that it is expected to have lost by it; None where that is not
    known."""

    candidates: tuple[RankedCandidate, ...]
    row_steps_spent: int
    row_steps_saved: int
    seconds: float
    generator: str
    classifier: str
    regret_bound: float | None = None


BestOfEvent = (
    Started
    | CandidateStepped
    | CandidateScored
    | CandidatePruned
    | CandidateFinished
    | CandidateFailed
    | Ranking
)


def generate_event(event: generator_pb2.GenerateEvent) -> GenerateEvent | None:
    """Return the event as a plain value; None for a kind this version does not know."""
    kind = event.WhichOneof("event")
    read = _GENERATE.get(kind) if kind else None
    return read(event.index, getattr(event, kind)) if read and kind else None


def best_of_event(event: ranker_pb2.BestOfEvent) -> BestOfEvent | None:
    """Return the event as a plain value; None for a kind this version does not know."""
    kind = event.WhichOneof("event")
    read = _BEST_OF.get(kind) if kind else None
    return read(getattr(event, kind)) if read and kind else None


def _admitted(index: int, event: generator_pb2.Admitted) -> Admitted:
    return Admitted(index, event.position, event.eta_seconds, event.seed, event.steps)


def _step(index: int, event: generator_pb2.Step) -> Step:
    return Step(index, event.step, event.steps)


def _preview(index: int, event: generator_pb2.PreviewImage) -> Preview:
    data = event.image.encoded
    return Preview(index, data, event.step, event.steps, event.width, event.height)


def _image(index: int, event: generator_pb2.GeneratedImage) -> GeneratedImage:
    return GeneratedImage(
        index,
        event.image.encoded,
        event.seed,
        event.width,
        event.height,
        event.steps,
        event.degraded,
        Timing.from_pb(event.timing),
        event.provenance,
        event.cached,
    )


def _stopped(index: int, event: generator_pb2.Stopped) -> Stopped:
    return Stopped(index, event.step, event.steps)


def _blocked(index: int, event: generator_pb2.Blocked) -> Blocked:
    return Blocked(index, event.reason)


def _failed(index: int, event: Any) -> Failed:
    return Failed(index, ItemError.from_pb(event))


def _refused(index: int, event: Any) -> Refused:
    return Refused(index, ItemError.from_pb(event))


def _started(event: ranker_pb2.BestOfStarted) -> Started:
    return Started(
        tuple(event.seeds),
        event.steps,
        tuple((pruning.at, pruning.keep) for pruning in event.pruning.rounds),
        tuple(judge.label.label for judge in event.judges if judge.HasField("label")),
        event.eta_seconds,
    )


def _stepped(event: ranker_pb2.CandidateStep) -> CandidateStepped:
    return CandidateStepped(event.index, event.step, event.steps)


def _scored(event: ranker_pb2.CandidateScore) -> CandidateScored:
    preview = event.preview.encoded or None
    label = top_label(event)
    return CandidateScored(
        event.index, event.step, event.score, label, preview, event.final, tuple(event.parts)
    )


def _pruned(event: ranker_pb2.CandidatePruned) -> CandidatePruned:
    return CandidatePruned(event.index, event.step, event.steps_saved, event.score)


def _finished(event: ranker_pb2.CandidateFinished) -> CandidateFinished:
    return CandidateFinished(event.index, Timing.from_pb(event.timing))


def _candidate_failed(event: ranker_pb2.CandidateFailed) -> CandidateFailed:
    return CandidateFailed(event.index, ItemError.from_pb(event.error))


def _ranked(candidate: ranker_pb2.RankedCandidate) -> RankedCandidate:
    pruned = candidate.HasField("pruned_at_step")
    return RankedCandidate(
        candidate.rank,
        candidate.index,
        candidate.seed,
        candidate.score,
        top_label(candidate),
        candidate.pruned_at_step if pruned else None,
        candidate.image.encoded or None,
        Timing.from_pb(candidate.timing),
        item_error(candidate),
        tuple(candidate.parts),
    )


def _ranking(event: ranker_pb2.BestOfResult) -> Ranking:
    return Ranking(
        tuple(_ranked(candidate) for candidate in event.candidates),
        event.row_steps_spent,
        event.row_steps_saved,
        event.seconds,
        event.generator.name,
        event.classifier.name,
        event.regret_bound if event.HasField("regret_bound") else None,
    )


_GENERATE: Final[dict[str, Callable[[int, Any], GenerateEvent]]] = {
    "admitted": _admitted,
    "step": _step,
    "preview": _preview,
    "image": _image,
    "stopped": _stopped,
    "blocked": _blocked,
    "failed": _failed,
    "refused": _refused,
}
_BEST_OF: Final[dict[str, Callable[[Any], BestOfEvent]]] = {
    "started": _started,
    "step": _stepped,
    "score": _scored,
    "pruned": _pruned,
    "finished": _finished,
    "failed": _candidate_failed,
    "result": _ranking,
}
