"""What a best-of-N hears from the generator, and what it tells its caller."""

from __future__ import annotations

from dataclasses import dataclass

from ranker.pictures.judging import Score
from ranker.pictures.schedule import Round
from services.core.errors import EaselError

# ---- news of the generator; `index` is the candidate's, steps are denoising steps ----


@dataclass(frozen=True, slots=True)
class Admitted:
    """``steps`` it will take; ``eta_seconds`` to its finished picture."""

    index: int
    seed: int
    steps: int
    eta_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stepped:
    index: int
    step: int


@dataclass(frozen=True, slots=True)
class Previewed:
    """``image``: an encoded picture of what it would become, as seen after ``step``."""

    index: int
    step: int
    image: bytes


@dataclass(frozen=True, slots=True)
class Made:
    """``image``: the finished picture, encoded. ``origin`` is passed on and never read."""

    index: int
    steps: int
    image: bytes
    origin: object = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """Its compute is free; it had taken ``step`` steps."""

    index: int
    step: int


@dataclass(frozen=True, slots=True)
class Broken:
    index: int
    error: EaselError


News = Admitted | Stepped | Previewed | Made | Stopped | Broken

# ---- events for the caller ----


@dataclass(frozen=True, slots=True)
class Started:
    """``seeds`` by candidate; ``rounds`` are those that are really held."""

    seeds: tuple[int, ...]
    steps: int
    rounds: tuple[Round, ...]
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Scored:
    """``image`` is the one that was scored: a preview, or the finished picture if ``final``."""

    index: int
    step: int
    score: Score
    image: bytes
    final: bool


@dataclass(frozen=True, slots=True)
class Pruned:
    index: int
    step: int
    steps_saved: int
    score: Score


@dataclass(frozen=True, slots=True)
class Finished:
    index: int
    origin: object


@dataclass(frozen=True, slots=True)
class Failed:
    index: int
    error: EaselError


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate's end. ``rank`` is 0 and ``error`` set when it failed; ``image`` is the finished
    picture, or the last preview, if there was one; ``pruned_at_step`` None unless it was pruned."""

    rank: int
    index: int
    seed: int
    score: Score | None
    pruned_at_step: int | None
    image: bytes | None
    origin: object
    error: EaselError | None


@dataclass(frozen=True, slots=True)
class Result:
    """Best first. Spent and saved add up to the candidates' planned steps; what a failed one did
    not take is among the saved."""

    candidates: tuple[Ranked, ...]
    row_steps_spent: int
    row_steps_saved: int


Event = Started | Step | Scored | Pruned | Finished | Failed | Result
