"""U-Nets with branches for adapters: made when they are first needed, and who runs in which."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch

from services.generator import branches, conversion
from services.generator.branches import Branch, Reach, reach_of
from services.generator.lora import Outfit, outfit_order
from services.generator.network import Look

# Of all rows of a call together, 256 MiB.
MOST_NUMBERS: Final = 2**26
Unet = Callable[..., torch.Tensor]
"""Inputs by name to the answer; all have their rows first, or a single one for all of them."""


class Adapted:
    """A U-Net with the branches ``beside`` it. One thread at a time calls it.

    ``most``: numbers of the matrices of all rows of one call, unless they wear the same.
    """

    def __init__(self, unet: Unet, beside: Sequence[Branch], most: int = MOST_NUMBERS) -> None:
        self._unet = unet
        self._branches = beside
        self._most = most
        self._worn: tuple[object, ...] = ()
        self._calls: Sequence[slice] = ()
        self._matrices: Mapping[str, torch.Tensor] | None = None

    def __call__(self, look: Look) -> torch.Tensor:
        """Of a look with adapters whose other inputs are plain."""
        outfits = look.adapters
        assert outfits is not None, "nobody wears anything"
        self._see(outfits)
        inputs = conversion.inputs_of(look)
        if len(self._calls) == 1:
            if self._matrices is None:
                self._matrices = branches.matrices(self._branches, outfits)
            return self._unet(**inputs, **self._matrices)
        # What so many matrices are of is not kept.
        return torch.cat(
            [
                self._unet(
                    **{name: each[rows] for name, each in inputs.items()},
                    **branches.matrices(self._branches, outfits[rows]),
                )
                for rows in self._calls
            ]
        )

    def _see(self, outfits: Sequence[Outfit]) -> None:
        """Most steps are of the same rows as the step before. Adapters are not held on to."""
        worn = tuple(map(outfit_order, outfits))
        if worn != self._worn:
            self._matrices = None
            self._calls = branches.together(self._branches, outfits, self._most)
            self._worn = worn


class Wardrobe:
    """A model's U-Nets: ``plain``, and one of each reach that adapters have had so far.

    A row runs in the one of its own reach, whoever else is in its batch: each rounds in other
    places. ``nbytes``: of the weights of one; ``layers``: those that branches can be beside.
    """

    def __init__(
        self, plain: Unet, make: Callable[[Reach], Adapted], nbytes: int, layers: frozenset[str]
    ) -> None:
        self.layers = layers
        self._plain = plain
        self._make = make
        self._nbytes = nbytes
        self._lock = threading.Lock()
        self._made: dict[Reach, Adapted] = {}

    @property
    def bytes_in_memory(self) -> int:
        """Of the weights of those that were made."""
        return len(self._made) * self._nbytes

    def prepare(self, outfit: Outfit) -> None:
        """Blocking where what runs it is not there yet. From any thread."""
        reach = reach_of(outfit)
        if reach is not None:
            self._take(reach)

    def predict(self, look: Look) -> torch.Tensor:
        """Of a look with adapters or none whose other inputs are plain."""
        outfits = look.adapters or ()
        distinct = {outfit_order(outfit): outfit for outfit in outfits}
        reaches = {order: reach_of(outfit) for order, outfit in distinct.items()}
        rows: dict[Reach | None, list[int]] = {}
        for place, outfit in enumerate(outfits):
            rows.setdefault(reaches[outfit_order(outfit)], []).append(place)
        if len(rows) <= 1:
            return self._run(next(iter(rows), None), look)
        answers = []
        for reach, places in rows.items():
            part = look.entries(torch.tensor(places))
            worn = tuple(outfits[place] for place in places)
            answers.append(self._run(reach, replace(part, adapters=worn)))
        order = [place for places in rows.values() for place in places]
        return torch.cat(answers)[torch.tensor(order).argsort()]

    def _run(self, reach: Reach | None, look: Look) -> torch.Tensor:
        if reach is None:
            return self._plain(**conversion.inputs_of(look))
        return self._take(reach)(look)

    def _take(self, reach: Reach) -> Adapted:
        if reach not in self._made:
            with self._lock:
                if reach not in self._made:
                    self._made[reach] = self._make(reach)
        return self._made[reach]
