"""Low-rank adapters in a converted U-Net: beside each layer a branch whose matrices are inputs.

``y + up(down(x))``, where each row of a batch has matrices of its own, as in S-LoRA (Sheng et al.,
2024), so that rows of different adapters share every product with the model's own weights. A branch
costs its layer another addition whether or not anybody wears something there, so a U-Net has only
those within one reach.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import reduce
from typing import Any, Final

import numpy as np
import torch

from services.generator.lora import LowRank, Outfit, acting, alike, outfit_order
from services.openvino import integers, operations

UNET_LAYERS: Final = "unet."
# A product that has no bias, or one of zeros, may have the addition's name.
_NAME: Final = re.compile(r"__module\.(unet\.[^/]+)/.*")
# As conversion divides them: what a feed-forward layer keeps of one product, and its gate.
_HALVES: Final = {".value": False, ".gate": True}
# What NNCF divides outliers by, and multiplies the weights behind with.
_EVENED: Final = "/nncf_smooth_quant"
_END: Final = int(np.iinfo(np.int64).max)
# OpenVINO keeps something of each shape that it sees, and adapters come in every rank.
_LEAST_RANK: Final = 8


class Reach(IntEnum):
    """What an adapter changes of a U-Net, as most of them are trained: by ``diffusers`` and PEFT
    attention, by Kohya's scripts all of a transformer, by LoCon convolutions and the rest too.
    """

    ATTENTION = 0
    TRANSFORMERS = 1
    EVERYTHING = 2


def reach_of(outfit: Outfit) -> Reach | None:
    """The least that has all layers that it changes; None where none of the U-Net's is."""
    layers = (layer for worn in acting(outfit) for layer in worn.adapter.layers)
    return max((_reach(name) for name in layers if name.startswith(UNET_LAYERS)), default=None)


def _reach(layer: str) -> Reach:
    if ".attn1." in layer or ".attn2." in layer:
        return Reach.ATTENTION
    return Reach.TRANSFORMERS if ".attentions." in layer else Reach.EVERYTHING


@dataclass(frozen=True, slots=True)
class Branch:
    """Beside one product of a converted U-Net. Inputs ``down``: (1 or B, C, R), of convolutions
    (1 or B, kh * kw, C, R), and ``up``: (1 or B, R, O).

    ``layer``: whose change it is; ``part``: of this layer's outputs, those that are the product's.
    ``down_shape`` and ``out``: C or kh * kw, C, and O.
    """

    name: str
    layer: str
    part: slice
    down_shape: tuple[int, ...]
    out: int

    @property
    def down(self) -> str:
        return f"{self.name}.down"

    @property
    def up(self) -> str:
        return f"{self.name}.up"

    def rank(self, outfit: Outfit) -> int:
        return sum(len(change.down) for _, change in self._changes(outfit))

    def numbers(self, rank: int) -> int:
        return rank * (math.prod(self.down_shape) + self.out)

    def matrices(self, outfit: Outfit, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 ``down`` and ``up`` of one row, with zeros up to ``rank``; scales are in them."""
        down = torch.zeros((*self.down_shape, rank))
        up = torch.zeros((rank, self.out))
        end = 0
        for scale, change in self._changes(outfit):
            first, end = end, end + len(change.down)
            down[..., first:end] = self._down(change.down.float())
            up[first:end] = scale * change.up.float().flatten(1)[self.part].T
        return down, up

    def _down(self, matrix: torch.Tensor) -> torch.Tensor:
        """(r, C) or (r, C, kh, kw), with the rank last."""
        if len(self.down_shape) == 1:
            return matrix.flatten(1).T
        return matrix.flatten(2).permute(2, 1, 0)

    def _changes(self, outfit: Outfit) -> Iterator[tuple[float, LowRank]]:
        for worn in acting(outfit):
            change = worn.adapter.layers.get(self.layer)
            if change is not None:
                yield worn.scale, change


def rank_run(rank: int) -> int:
    """How large a rank is run as: none, or the next power of two."""
    return 0 if rank == 0 else max(_LEAST_RANK, 1 << (rank - 1).bit_length())


def matrices(branches: Sequence[Branch], outfits: Sequence[Outfit]) -> dict[str, torch.Tensor]:
    """The branches' inputs by name, for rows that wear these; of one row where all are alike."""
    distinct = {outfit_order(outfit): outfit for outfit in outfits}
    order = list(distinct)
    index = [order.index(outfit_order(outfit)) for outfit in outfits] if len(order) > 1 else [0]
    found: dict[str, torch.Tensor] = {}
    for branch in branches:
        rank = rank_run(max(map(branch.rank, distinct.values())))
        pairs = [branch.matrices(outfit, rank) for outfit in distinct.values()]
        for name, each in zip((branch.down, branch.up), zip(*pairs, strict=True), strict=True):
            found[name] = torch.stack([each[place] for place in index])
    return found


def together(branches: Sequence[Branch], outfits: Sequence[Outfit], most: int) -> list[slice]:
    """The rows of each call: as many as have no more than ``most`` numbers in their matrices, and
    at least all that lie side by side in one outfit.
    """
    calls: list[slice] = []
    ranks: list[int] = []
    for rows in alike(outfits):
        own = [rank_run(branch.rank(outfits[rows.start])) for branch in branches]
        if calls:
            joined = list(map(max, ranks, own))
            each = sum(map(Branch.numbers, branches, joined))
            if (rows.stop - calls[-1].start) * each <= most:
                calls[-1], ranks = slice(calls[-1].start, rows.stop), joined
                continue
        calls.append(rows)
        ranks = own
    return calls


def layers_of(model: Any) -> frozenset[str]:
    """Those of ``model`` that may have branches: all that it has and calls."""
    return frozenset(branch.layer for branch, _ in _products(model))


def added(model: Any, reach: Reach) -> tuple[Branch, ...]:
    """Give ``model``, an ``openvino.Model`` of a U-Net in any precision, its branches and their
    inputs.
    """
    found = [(branch, layer) for branch, layer in _products(model) if _reach(branch.layer) <= reach]
    inputs: list[Any] = []
    for branch, layer in found:
        down = _input(branch.down, [-1, *branch.down_shape, -1])
        up = _input(branch.up, [-1, -1, branch.out])
        _attach(layer, _OF[layer.get_type_name()](layer, down, up))
        inputs += [down, up]
    model.add_parameters(inputs)
    model.validate_nodes_and_infer_types()
    return tuple(branch for branch, _ in found)


def _products(model: Any) -> Iterator[tuple[Branch, Any]]:
    for layer in model.get_ordered_ops():
        named = _NAME.fullmatch(layer.get_friendly_name())
        # Those of an attention have no weights.
        if (
            named is not None
            and layer.get_type_name() in _OF
            and layer.input(1).get_partial_shape().is_static
        ):
            yield _branch(named[1], layer), layer


def _branch(name: str, layer: Any) -> Branch:
    shape = [int(size) for size in layer.input(1).get_partial_shape().to_shape()]
    out, channels, *kernel = shape
    down = (math.prod(kernel), channels) if kernel else (channels,)
    for suffix, last in _HALVES.items():
        if name.endswith(f".net.0{suffix}"):
            half = slice(out, 2 * out) if last else slice(0, out)
            return Branch(name, f"{name.removesuffix(suffix)}.proj", half, down, out)
    return Branch(name, name, slice(0, out), down, out)


def _input(name: str, shape: Sequence[int]) -> Any:
    made = operations.parameter(list(shape), np.float32)
    made.set_friendly_name(name)
    made.output(0).set_names({name})
    return made


def _attach(layer: Any, change: Any) -> None:
    """Add ``change`` to what ``layer`` answers, after its bias, which is computed with it."""
    end, readers = layer, _readers(layer)
    if len(readers) == 1 and _is_bias(readers[0].get_node()):
        end = readers[0].get_node()
        readers = _readers(end)
    changed = operations.add(end, change)
    for reader in readers:
        reader.replace_source_output(changed.output(0))


def _readers(layer: Any) -> list[Any]:
    return list(layer.output(0).get_target_inputs())


def _is_bias(reader: Any) -> bool:
    """Whether it adds the same to any batch."""
    static = (port.get_partial_shape().is_static for port in reader.inputs())
    return reader.get_type_name() == "Add" and any(static)


def _given(layer: Any) -> Any:
    """What ``layer`` is given, before it is evened and rounded to int8 for it."""
    source = layer.input(0).get_source_output()
    while (
        source.get_node().get_type_name() == "FakeQuantize"
        or source.get_node().get_friendly_name().endswith(_EVENED)
    ):
        source = source.get_node().input(0).get_source_output()
    return source


def _of_product(layer: Any, down: Any, up: Any) -> Any:
    given = _given(layer)
    if given.get_partial_shape().rank.get_length() > 2:
        return _twice(given, down, up)
    # (B, C), what becomes of the timestep: one place a row.
    places = operations.unsqueeze(given, integers(1))
    return operations.squeeze(_twice(places, down, up), integers(1))


def _of_convolution(layer: Any, down: Any, up: Any) -> Any:
    """OpenVINO's convolutions take no weights from inputs. Each place of the kernel is a product
    with all of the picture's, and what they answer, a rank wide, is moved and added.
    """
    told = layer.get_attributes()
    height, width = (int(size) for size in layer.input(1).get_partial_shape().to_shape()[2:])
    before, after = (integers(0, 0, *told[f"pads_{end}"]) for end in ("begin", "end"))
    padded = operations.pad(_given(layer), before, after, "constant", 0.0)
    last = operations.transpose(padded, integers(0, 2, 3, 1))
    channels = down.get_partial_shape()[2].get_length()
    places = operations.reshape(last, integers(0, 1, -1, channels), True)
    shrunk = operations.matmul(places, down, False, False)
    batch, rank = (_sizes(shrunk, axis) for axis in (0, 3))
    shape = operations.concat([batch, _sizes(last, 1, 2), rank], 0)
    moved = []
    for place in range(height * width):
        of_place = operations.gather(shrunk, integers(place), integers(1))
        whole = operations.reshape(of_place, shape, False)
        pairs = zip(divmod(place, width), (height, width), told["dilations"], strict=True)
        starts, lacks = zip(
            *((at * gap, (at - size + 1) * gap) for at, size, gap in pairs), strict=True
        )
        # Counted from the end, where not all of it is taken.
        ends = integers(*(lack or _END for lack in lacks))
        steps = integers(*told["strides"])
        moved.append(operations.slice(whole, integers(*starts), ends, steps, integers(1, 2)))
    one = operations.unsqueeze(up, integers(1))
    raised = operations.matmul(reduce(operations.add, moved), one, False, False)
    return operations.transpose(raised, integers(0, 3, 1, 2))


def _sizes(layer: Any, *axes: int) -> Any:
    return operations.gather(operations.shape_of(layer), integers(*axes), integers(0))


def _twice(given: Any, down: Any, up: Any) -> Any:
    return operations.matmul(operations.matmul(given, down, False, False), up, False, False)


_OF: Final[Mapping[str, Callable[[Any, Any, Any], Any]]] = {
    "MatMul": _of_product,
    "Convolution": _of_convolution,
}
