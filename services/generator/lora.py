"""Low-rank adapters (LoRA: Hu et al., 2022) of single rows in a shared batch.

Nothing is merged into the weights. Each row's own change ``scale * up(down(x))`` is added to what
the shared layer answers, as S-LoRA (Sheng et al., 2024) and Punica (Chen et al., 2024) do for
language models; rows that wear the same adapters lie side by side and are multiplied together.
Rows that wear none are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """One layer's change. Linear: ``down`` (r, in), ``up`` (out, r). Convolution: ``down``
    (r, in, kh, kw), ``up`` (out, r, 1, 1).
    """

    down: torch.Tensor
    up: torch.Tensor

    def apply(self, layer: Any, inputs: torch.Tensor) -> torch.Tensor:
        """What ``layer`` answers to ``inputs``, without its weights and bias but with these."""
        if self.down.ndim == 2:
            return F.linear(F.linear(inputs, self.down), self.up)
        shrunk = F.conv2d(inputs, self.down, None, layer.stride, layer.padding, layer.dilation)
        return F.conv2d(shrunk, self.up)


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """``layers`` by part and name, as ``"unet.mid_block.attentions.0.proj_in"``; the trained alpha
    is in them. ``digest``: ``sha256:...`` of its weights' file.
    """

    name: str
    digest: str
    layers: Mapping[str, LowRank]

    @property
    def changes_text(self) -> bool:
        """Whether a text encoder's layers are among them."""
        return any(name.startswith("text_encoder") for name in self.layers)

    @property
    def bytes_in_memory(self) -> int:
        matrices = [m for layer in self.layers.values() for m in (layer.down, layer.up)]
        return sum(matrix.numel() * matrix.element_size() for matrix in matrices)


@dataclass(frozen=True, slots=True)
class Worn:
    """An adapter on one row, and the factor its change is added with."""

    adapter: Adapter
    scale: float

    @property
    def order(self) -> tuple[str, str, float]:
        """Sorts equal ones together."""
        return self.adapter.name, self.adapter.digest, self.scale


Outfit = tuple[Worn, ...]


def acting(outfit: Outfit) -> Outfit:
    """Those of it that change anything: a scale of 0 adds nothing."""
    return tuple(worn for worn in outfit if worn.scale != 0.0)


def outfit_order(outfit: Outfit) -> tuple[tuple[str, str, float], ...]:
    """Sorts rows so that those of equal outfits lie side by side, those without any first."""
    return tuple(worn.order for worn in outfit)


def alike(outfits: Sequence[Outfit]) -> Iterator[slice]:
    """The rows of each outfit that lie side by side, in order."""
    end = 0
    for _, group in groupby(outfits, outfit_order):
        start, end = end, end + len(list(group))
        yield slice(start, end)


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbours of one outfit in a batch."""

    rows: slice
    outfit: Outfit


@dataclass(frozen=True, slots=True)
class _Fitting:
    """Who wears what in the batch of ``rows`` that this thread is running."""

    rows: int
    runs: tuple[_Run, ...]


_FITTING: ContextVar[_Fitting | None] = ContextVar("fitting", default=None)


class AdaptableLayers:
    """The linear and convolution layers of some networks, by part and name.

    A layer is hooked when the first adapter that changes it is used. The hook reads who wears what
    from the context of the call, so nothing of a batch is ever on a module.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        self._layers = {
            # transformers has the text encoders' layers with and without this step.
            f"{part}.{name.removeprefix('text_model.')}": module
            for part, network in parts.items()
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        }
        self._hooked: set[str] = set()

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """By part and name."""
        return {name: layer.weight for name, layer in self._layers.items()}

    @contextmanager
    def wearing(self, outfits: Sequence[Outfit] | None) -> Iterator[None]:
        """While it lasts, entry i of this thread's batches wears ``outfits[i]``.

        Equal outfits side by side are cheapest.
        """
        if outfits is None:
            yield
            return
        self._hook({name for outfit in outfits for worn in outfit for name in worn.adapter.layers})
        token = _FITTING.set(_Fitting(len(outfits), tuple(_runs(outfits))))
        try:
            yield
        finally:
            _FITTING.reset(token)

    def _hook(self, names: set[str]) -> None:
        for name in names - self._hooked:
            self._layers[name].register_forward_hook(_adding(name))
        self._hooked |= names


def _runs(outfits: Sequence[Outfit]) -> Iterator[_Run]:
    for rows in alike(outfits):
        if worn := acting(outfits[rows.start]):
            yield _Run(rows, worn)


def _adding(name: str) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]:
    def add(layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        fitting = _FITTING.get()
        if fitting is None:
            return
        if len(output) != fitting.rows:
            raise ValueError(f"{name} answers {len(output)} rows, {fitting.rows} are fitted")
        for run in fitting.runs:
            for worn in run.outfit:
                change = worn.adapter.layers.get(name)
                if change is not None:
                    added = change.apply(layer, inputs[0][run.rows])
                    output[run.rows].add_(added, alpha=worn.scale)

    return add
