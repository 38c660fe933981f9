"""A model as the service sees it, whichever way it paints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from services.core.engine import Stage
from services.core.errors import NotReady
from services.core.reference import ModelFiles
from services.generator.diffusion import Answer
from services.generator.model import Loaded
from services.generator.network import Effective
from services.generator.parameters import ModelName
from services.generator.pipelines import LoadedPipeline
from services.generator.request import Order, RequestLimits


class Work(Protocol):
    """One picture on its way."""

    @property
    def order(self) -> Order: ...

    @property
    def seed(self) -> int: ...

    @property
    def steps_done(self) -> int: ...


class Painter(Protocol):
    """A core ``Model`` of pictures, and what is told and asked of it beside the engine."""

    @property
    def loaded(self) -> Loaded | LoadedPipeline:
        """Raises ``NotReady`` before ``load`` and after ``close``."""

    @property
    def name(self) -> ModelName: ...

    @property
    def limits(self) -> RequestLimits: ...

    def versions(self, texts: Sequence[str], *, styled: bool, backend: str) -> Mapping[str, str]:
        """What a picture of these prompts depends on beside the model, its adapters and its
        ControlNets, as records tell it; ``styled`` by a picture too. ``backend``: whose denoiser
        paints it.
        """

    def in_force(self, work: Any) -> Effective:
        """``loaded.effective`` as it is for this row, which may take a route of its own."""

    def pinned(self, order: Order) -> Order:
        """``order`` with the digests of what it uses beside the model; blocking."""

    def works(self, order: Order) -> Sequence[Work]:
        """The rows of ``order``, one a picture; blocking. Raises ``InvalidInput``."""

    def load(self) -> None: ...

    def warm_up(self) -> Iterable[Sequence[Any]]: ...

    def plan(self, work: Any) -> Sequence[Stage]: ...

    def step(self, stage: Stage, works: Sequence[Any]) -> Sequence[Answer]: ...

    def close(self) -> None: ...


class FoundPainter:
    """What ``make`` makes of the files that ``find`` finds, once they are there."""

    def __init__(
        self, find: Callable[[], ModelFiles], make: Callable[[ModelFiles], Painter]
    ) -> None:
        self._find = find
        self._make = make
        self._found: Painter | None = None

    @property
    def loaded(self) -> Loaded | LoadedPipeline:
        return self._painter.loaded

    @property
    def name(self) -> ModelName:
        return self._painter.name

    @property
    def limits(self) -> RequestLimits:
        return self._painter.limits

    def versions(self, texts: Sequence[str], *, styled: bool, backend: str) -> Mapping[str, str]:
        return self._painter.versions(texts, styled=styled, backend=backend)

    def in_force(self, work: Any) -> Effective:
        return self._painter.in_force(work)

    def pinned(self, order: Order) -> Order:
        return self._painter.pinned(order)

    def works(self, order: Order) -> Sequence[Work]:
        return self._painter.works(order)

    def load(self) -> None:
        painter = self._make(self._find())
        painter.load()
        self._found = painter

    def warm_up(self) -> Iterable[Sequence[Any]]:
        return self._painter.warm_up()

    def plan(self, work: Any) -> Sequence[Stage]:
        return self._painter.plan(work)

    def step(self, stage: Stage, works: Sequence[Any]) -> Sequence[Answer]:
        return self._painter.step(stage, works)

    def close(self) -> None:
        if self._found is not None:
            self._found.close()

    @property
    def _painter(self) -> Painter:
        if self._found is None:
            raise NotReady()
        return self._found
