"""Learned reward models as plug-ins: packages that name one in the entry points ``easel.judges``.

An entry point is called without arguments, once, when its judge is first asked for, and answers a
``PointwisePlugin`` or a ``PairwisePlugin``. Its methods are called in threads, one call at a time::

    [project.entry-points."easel.judges"]
    aesthetics = "my_package.aesthetics:open_model"
"""

from __future__ import annotations

import difflib
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from ranker.pictures.judging import Pixels, Sight
from services.core.errors import FailedPrecondition, InvalidInput, ModelFault

log = logging.getLogger("easel.ranker")

GROUP: Final = "easel.judges"
T = TypeVar("T")


@runtime_checkable
class PointwisePlugin(Protocol):
    """``spread``: the standard deviation that its scores typically have between pictures of one
    prompt, above 0; it is what a weight of 1 counts in."""

    spread: float

    def score(self, pixels: Pixels, prompt: str) -> float:
        """How good the picture, uint8 RGB [height, width, 3], is for the prompt; more is better."""
        ...


@runtime_checkable
class PairwisePlugin(Protocol):
    def prefer(self, a: Pixels, b: Pixels, prompt: str) -> float:
        """The probability that ``a`` is better for the prompt than ``b``, 0 to 1."""
        ...


Run = Callable[..., Awaitable[float]]
"""Runs a blocking call in a thread of the ranker's."""


class Plugin:
    """A plug-in that was loaded; what it answers is checked."""

    def __init__(self, name: str, model: PointwisePlugin | PairwisePlugin) -> None:
        self.name = name
        self.pairwise = isinstance(model, PairwisePlugin)
        self.spread = 1.0 if isinstance(model, PairwisePlugin) else _spread(name, model)
        self._model: Any = model
        self._lock = threading.Lock()

    def score(self, pixels: Pixels, prompt: str) -> float:
        """Blocking. Raises ModelFault."""
        return self._asked("score", math.isfinite, pixels, prompt)

    def prefer(self, a: Pixels, b: Pixels, prompt: str) -> float:
        """Blocking. Raises ModelFault."""
        return self._asked("prefer", lambda value: 0.0 <= value <= 1.0, a, b, prompt)

    def _asked(self, method: str, is_sound: Callable[[float], bool], *given: Any) -> float:
        try:
            with self._lock:
                value = float(getattr(self._model, method)(*given))
        except Exception as error:  # whatever a stranger's code raises
            log.exception("the judge plug-in %s failed", self.name)
            raise ModelFault(
                f"The judge plug-in {self.name!r} failed: {type(error).__name__}."
            ) from error
        if not is_sound(value):
            raise ModelFault(f"The judge plug-in {self.name!r} answered {value}.")
        return value


@dataclass(slots=True)
class Plugins:
    """The plug-ins that are installed, loaded when first asked for; what failed is tried again.

    ``find`` lists the entry points; by default those of the environment.
    """

    find: Callable[[], Iterable[EntryPoint]] = lambda: entry_points(group=GROUP)
    _loaded: dict[str, Plugin] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, name: str, *, at: str) -> Plugin:
        """Blocking. Raises InvalidInput on the field ``at`` for a name that is not installed, or
        twice, and FailedPrecondition for a plug-in that cannot be loaded."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = _opened(self._installed(name, at))
            return self._loaded[name]

    def _installed(self, name: str, at: str) -> EntryPoint:
        found = list(self.find())
        named = [point for point in found if point.name == name]
        if len(named) == 1:
            return named[0]
        if named:
            owners = ", ".join(sorted(map(_owner, named)))
            raise InvalidInput(
                at, f"Several packages bring a judge of that name: {owners}.", given=name
            )
        names = sorted({point.name for point in found})
        near = difflib.get_close_matches(name, names, cutoff=0.5) or names
        limit = ", ".join(near) if near else "none is installed"
        raise InvalidInput(at, "No judge plug-in of that name is installed.", limit, name[:100])


@dataclass(frozen=True, slots=True)
class RewardJudge:
    """A pointwise plug-in's score for the prompt, in its own unit."""

    plugin: Plugin
    prompt: str
    run: Run

    async def score(self, sight: Sight) -> float:
        return await self.run(self.plugin.score, await sight.pixels(), self.prompt)


@dataclass(frozen=True, slots=True)
class RewardComparison:
    """A pairwise plug-in's preference for the prompt. It is asked in both orders, so that a liking
    for the first or the second place has no say."""

    plugin: Plugin
    prompt: str
    run: Run

    async def prefer(self, a: Sight, b: Sight) -> float:
        one, other = await a.pixels(), await b.pixels()
        forth = await self.run(self.plugin.prefer, one, other, self.prompt)
        back = await self.run(self.plugin.prefer, other, one, self.prompt)
        return (forth + 1.0 - back) / 2.0


def _opened(point: EntryPoint) -> Plugin:
    try:
        model = point.load()()
    except Exception as error:  # whatever a stranger's code raises
        log.exception("the judge plug-in %s of %s could not be loaded", point.name, _owner(point))
        raise FailedPrecondition(
            f"The judge plug-in {point.name!r} of {_owner(point)} could not be loaded: "
            f"{type(error).__name__}."
        ) from error
    if isinstance(model, PointwisePlugin) == isinstance(model, PairwisePlugin):
        raise FailedPrecondition(
            f"The judge plug-in {point.name!r} of {_owner(point)} must have either `score` and "
            "`spread`, or `prefer`."
        )
    return Plugin(point.name, model)


def _spread(name: str, model: PointwisePlugin) -> float:
    if not (isinstance(model.spread, int | float) and 0.0 < model.spread < math.inf):
        raise FailedPrecondition(
            f"The judge plug-in {name!r} has a spread of {model.spread!r}; it must be above 0."
        )
    return float(model.spread)


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
