"""What a model tells the engine: stages, and the steps that advance rows through them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

W = TypeVar("W")
O_co = TypeVar("O_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Stage:
    """One leg of a row's way. Rows whose current stages have equal keys may share a step.

    ``name`` labels metrics and progress; equal keys imply equal names. ``cost`` (> 0) is the work
    of one step of one row, in any unit that is constant for the key. ``steps`` (>= 1) is how many
    steps the row spends here.

    ``shared`` names what the steps make where it is not the row's alone. Rows that are submitted
    together and whose plans begin with equal shared stages go through those as one: a single row
    takes the steps for all of them, and another one should that one be given up or fail: a step
    that fails leaves what is shared fit to go on with. Nothing is put out there. A row's last
    stage is always its own.
    """

    name: str
    key: Hashable
    cost: float = 1.0
    steps: int = 1
    shared: Hashable | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"stage {self.name!r}: steps must be at least 1, got {self.steps}")
        if not self.cost > 0.0:
            raise ValueError(f"stage {self.name!r}: cost must be positive, got {self.cost}")


@dataclass(frozen=True, slots=True)
class RowFailed:
    """An entry of a step's answer: this row failed, its neighbours did not.

    The row's ticket raises ``cause`` itself if it is an ``EaselError``, else a ``ModelFault``.
    """

    cause: Exception


class DeviceLost(BaseException):
    """The device answers nothing any more, and will not while this process lives.

    No error of a request's. A model that raises it from ``step`` ends its engine, and with it the
    process, which whoever keeps that running starts anew.
    """


class Model(Protocol[W, O_co]):
    """What the engine runs. Knows no transport; keeps nothing of a request on itself.

    ``W`` is the work object: it owns all the state of its row. ``O`` is what a step may put out.
    ``plan`` runs on the event loop and must be quick; all else runs outside of it.
    """

    def load(self) -> None:
        """Blocking; called once, before anything else."""

    def warm_up(self) -> Iterable[Sequence[W]]:
        """Sample batches; the engine steps each to its end, timing it into the cost model.

        Batches of different sizes teach it the fixed and the per-row part of a step.
        """

    def plan(self, work: W) -> Sequence[Stage]:
        """The stages of this row, in order, at least one. Raises ``InvalidInput``."""

    def step(self, stage: Stage, works: Sequence[W]) -> Sequence[O_co | RowFailed | None]:
        """Blocking, on the device thread; on the loop's for a key whose steps are very short.

        Advances each work by one step; in a shared stage, what all who share it wait for.

        ``stage`` is the first work's; all of them have its key. Answers one entry per work, in
        order: an output, None, or ``RowFailed``. The last step of a row must put out something.
        Raises ``OutOfMemory`` (or ``MemoryError``) only with every work's state as it was before
        the call; the engine then steps the same rows again in smaller batches. Any other
        exception fails every row of the batch, and ``DeviceLost`` those that are to come too.
        """

    def close(self) -> None:
        """Frees what ``load`` took. Called once, after the last step."""
