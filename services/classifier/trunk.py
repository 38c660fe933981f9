"""What lies before a network's last norm, as one runtime or another computes it.

Every backend is such a trunk: the last norm, the head and what is read out of hidden states are
PyTorch's in float32, the same for all of them (``services.classifier.pytorch``).
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import torch

from services.classifier.families import Family
from services.classifier.network import Options
from services.classifier.preprocessing import Size

_log = logging.getLogger(__name__)

Graph = TypeVar("Graph")

FORMAT: Final = "1"
"""Of trunks that are kept as files; another one wherever ``Body`` computes anything else."""
GRAPHS_KEPT: Final = 4
"""Besides that of the whole depth, which classification runs."""


class Body(torch.nn.Module):
    """The embeddings and layers of one model; shares its weights.

    Takes what ``(pixels * scale - mean) / std`` gives, float32 [batch, 3, height, width], and
    answers the hidden states of all layers, from 0 to the depth, batch first: those of vision
    transformers are [batch, tokens, hidden], other families have their own (``families``).
    """

    def __init__(self, family: Family) -> None:
        super().__init__()
        # No module itself: the last norm and the head are none of the body's.
        self._family = family
        self._parts = torch.nn.ModuleList(family.trunk)
        self.eval()

    @property
    def depth(self) -> int:
        return self._family.depth

    @property
    def layers(self) -> Sequence[Any]:
        return self._family.layers

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.states(pixels))

    def states(self, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
        """One by one, so that who needs no more can leave."""
        hidden = self._family.embed(pixels)
        yield hidden
        for layer in range(1, self.depth + 1):
            hidden = self._family.step(layer, hidden)
            yield hidden

    def forget(self) -> None:
        """Free the weights: another runtime has its own."""
        self.to("meta")


@dataclass(frozen=True, slots=True)
class Source:
    """A model that is to run somewhere. ``size``: of its pictures; ``options``: with nothing left
    to choose but for PyTorch.
    """

    directory: Path
    model: Any
    body: Body
    size: Size
    options: Options


@dataclass(frozen=True, slots=True)
class Runtime:
    """What is in force; the fields are those of ``Traits``. ``bytes_in_memory``: of weights that
    are not PyTorch's.
    """

    backend: str
    device: str
    device_name: str
    precision: str
    threads: int
    bytes_in_memory: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)


class Trunk(Protocol):
    """Called from one thread at a time."""

    @property
    def device(self) -> torch.device:
        """Of the tensors that it takes and gives."""

    @property
    def runtime(self) -> Runtime: ...

    def __call__(self, pixels: torch.Tensor, layers: Sequence[int]) -> Mapping[int, torch.Tensor]:
        """The hidden states after ``layers`` (ascending, at least one), nothing deeper is run.

        ``pixels`` and the answer are as ``Body`` says, of any floating dtype. The answer is the
        caller's to keep. Raises ``OutOfMemory``.
        """

    def close(self) -> None: ...


OpenTrunk: TypeAlias = Callable[[Source], Trunk]
"""Raises ``FailedPrecondition`` where the runtime cannot run the model. One that has weights of its
own lets the body ``forget`` its."""


def tapped(layers: Sequence[int]) -> tuple[int, ...]:
    """Which states a graph has to give that answers ``layers``: one of a few sets, since each costs
    a graph of its own. Those of one layer give nothing more, which runs quickest.
    """
    return tuple(layers) if len(layers) == 1 else tuple(range(layers[-1] + 1))


class Graphs(Generic[Graph]):
    """Of one network, by the states that they give. ``make`` builds the graph of some states, in
    seconds and with weights of its own: the whole at once, others when the first row comes that
    needs them, and the last used of them are kept.
    """

    def __init__(self, make: Callable[[tuple[int, ...]], Graph], depth: int) -> None:
        self._make = make
        self.whole = make((depth,))
        self._others: OrderedDict[tuple[int, ...], Graph] = OrderedDict()
        self._depth = depth

    def of(self, outputs: tuple[int, ...]) -> Graph:
        """Of ``tapped`` states."""
        if outputs == (self._depth,):
            return self.whole
        if outputs not in self._others:
            began = time.monotonic()
            made = self._make(outputs)
            took = time.monotonic() - began
            _log.info("built the graph of layers up to %d in %.1f s", outputs[-1], took)
            self._others[outputs] = made
            if len(self._others) > GRAPHS_KEPT:
                self._others.popitem(last=False)
        self._others.move_to_end(outputs)
        return self._others[outputs]
