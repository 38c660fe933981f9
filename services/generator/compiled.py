"""Stable Diffusion networks in PyTorch whose U-Net and decoder are compiled by ``torch.compile``.

A graph is made for one size of pictures and any batch. Graphs of every size at once were tried:
they took longer to make, and whether they fit a size hung on others that were met before, so that
a request could wait for another to be made. All are made at load; afterwards none may be.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain, count, repeat
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import torch

from services.core.errors import FailedPrecondition
from services.generator import pytorch
from services.generator.latents import LatentScale
from services.generator.network import (
    PLAIN,
    Effective,
    Feature,
    Look,
    Pixels,
    needs_of,
)
from services.generator.plain import PlainDecoder, PlainUnet
from services.generator.pytorch import TorchNetwork, decoded, levels
from services.memory import memory_faults

_log = logging.getLogger(__name__)

BACKEND: Final = "pytorch-compiled"
# A batch of one is a graph of its own: PyTorch never has a dimension of 1 stand for others.
_MADE_FOR: Final = (2, 1)
_TRIED_WITH: Final = 3
# Of a look's inputs, the third: (B, S, C).
_ANY_CONTEXT: Final = ((), (), (1,))
_REFUSED: Final = "fail_on_recompile"
_NUMBERS: Final = count()

Size = tuple[int, int]
"""(h, w) in latents."""
Inputs = tuple[torch.Tensor, ...]
Compile = Callable[[torch.nn.Module], Callable[..., torch.Tensor]]


def inductor(module: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """``module`` as whole graphs of PyTorch's own compiler."""
    # Kernels that are chosen by measuring would differ between starts, and so would pictures.
    return graphs(module, options={"deterministic": True})


def graphs(module: torch.nn.Module, **options: Any) -> Callable[..., torch.Tensor]:
    """``torch.compile`` as it is used here."""

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = module(*inputs)
        return output

    # PyTorch keeps graphs by the code that they were traced from, whatever the module. With code
    # of its own, one has nothing to do with what others were made for. ``isolate_recompiles`` would
    # say so, from PyTorch 2.13 on.
    code = run.__code__.replace(co_name=f"graphs_{next(_NUMBERS)}")
    own = FunctionType(code, run.__globals__, closure=run.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False, **options)


class Compiled:
    """A module for inputs of one size, whose first dimension is the batch. One thread at a time
    calls it; what it answers is an inference tensor.
    """

    def __init__(self, module: torch.nn.Module, compile_: Compile) -> None:
        self._graph = compile_(module)
        self._most = sys.maxsize

    def make(
        self,
        example: Callable[[int], Inputs],
        dynamic: Sequence[tuple[int, ...]] = (),
        *,
        others: Sequence[Callable[[], Inputs]] = (),
    ) -> None:
        """The graphs, and through them what none was made with: another batch, and ``others``.
        ``example``: inputs of so many; ``dynamic``: of each input, the dimensions beside the batch
        that may differ.
        """
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it passes over in diffusers, harmlessly
            for rows in _MADE_FOR:
                inputs = tuple(each.clone() for each in example(rows))
                for given, beside in zip(inputs, chain(dynamic, repeat(())), strict=False):
                    _vary(given, beside if rows == 1 else (0, *beside))
                self._graph(*inputs)
            self(*example(_TRIED_WITH))
            for other in others:
                self(*other())

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Raises ``RuntimeError`` where no graph takes the inputs; none is made now."""
        with torch.inference_mode(), torch.compiler.set_stance("fail_on_recompile"):
            # Graphs take inference tensors alone, as all are that are made while serving.
            told = (each if each.is_inference() else each.clone() for each in inputs)
            return self._together(tuple(told))

    def _together(self, inputs: Inputs) -> torch.Tensor:
        rows, most = len(inputs[0]), self._most
        if rows <= most:
            try:
                return self._graph(*inputs)
            except RuntimeError as error:
                if rows <= _TRIED_WITH or _REFUSED not in str(error):
                    raise
                # A graph ends where PyTorch has other convolutions or wider indices for larger
                # batches; those gain next to nothing, and are divided from now on.
                most = rows // 2
        pieces = -(-rows // most)
        split = zip(*(each.tensor_split(pieces) for each in inputs), strict=True)
        answer = torch.cat([self._together(part) for part in split])
        # Not before: what is refused in pieces too was not refused for its size.
        self._most = min(self._most, most)
        return answer


@dataclass(frozen=True, kw_only=True)
class CompiledNetwork(TorchNetwork):
    """Answers plain looks of a size that there are graphs for by these, and all others by the
    modules as they are, whose weights the graphs share.
    """

    looks: Mapping[Size, Compiled]
    decoders: Mapping[Size, Compiled]

    def route(self, needs: frozenset[Feature], size: Size) -> str:
        eager = super().route(needs, size)
        return BACKEND if needs <= PLAIN and size in self.looks else eager

    def in_force(self, route: str) -> Effective:
        """Of PyTorch's route too, pictures may be decoded by what was compiled."""
        if route != pytorch.BACKEND:
            return self.effective
        return replace(self.effective, backend=pytorch.BACKEND)

    def predict(self, look: Look) -> torch.Tensor:
        made = self.looks.get(_size(look.latents))
        if made is None or not needs_of(look) <= PLAIN:
            return self.eager(look)
        return made(*self.inputs(look)).float()

    def eager(self, look: Look) -> torch.Tensor:
        """``predict`` without what was compiled, whatever the look brings."""
        return super().predict(look)

    def inputs(self, look: Look) -> Inputs:
        """Of a plain look, as the graphs take them."""
        dtype = self.placement.dtype
        latents = look.latents.to(dtype, memory_format=torch.channels_last)
        given = (latents, look.timesteps, look.context.to(dtype))
        if look.pooled is None or look.time_ids is None:
            return given
        return (*given, look.pooled.to(dtype), look.time_ids)

    def decode(self, latents: torch.Tensor) -> Pixels:
        made = self.decoders.get(_size(latents))
        if made is None:
            return super().decode(latents)
        scaled = self.scaled(latents)
        return levels(self.sound(made(scaled), scaled, decoded))

    def scaled(self, latents: torch.Tensor) -> torch.Tensor:
        """As the decoder takes them."""
        scaled = LatentScale.of(self.vae.config).to_decoder(latents)
        return scaled.to(self.vae.dtype, memory_format=torch.channels_last)


def load(
    directory: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    versions: Mapping[str, str],
    compile_: Compile = inductor,
) -> CompiledNetwork:
    """Load a ``diffusers`` directory and compile it, for pictures of the model's own size.

    ``versions``: of what makes the kernels. Raises as ``pytorch.load`` does, and
    ``FailedPrecondition`` for what cannot be compiled here.
    """
    network = pytorch.load(directory, device=device, precision=precision, threads=threads)
    width, height = network.default_size
    size = height // network.vae_factor, width // network.vae_factor
    # A U-Net of its own: rows with adapters hook the layers of the other, and ones with a style
    # change what its attention does.
    with told_of_failure("model"):
        looks = {size: Compiled(PlainUnet(pytorch.twin(network.unet, directory)), compile_)}
        decoders = {size: Compiled(PlainDecoder(network.vae), compile_)}
    given = {part.name: getattr(network, part.name) for part in fields(TorchNetwork)}
    given["effective"] = _effective(network.effective, (width, height), versions)
    made = CompiledNetwork(**given, looks=looks, decoders=decoders)
    longer = [partial(_look, made, size, rows, prompts=2) for rows in (1, _TRIED_WITH)]
    look = partial(_look, made, size)
    _made("U-Net", partial(looks[size].make, look, _ANY_CONTEXT, others=longer))
    _made("decoder", partial(decoders[size].make, partial(_latents, made, size)))
    return made


@contextmanager
def told_of_failure(name: str) -> Iterator[None]:
    """While it is open, what ``torch.compile`` raises is a ``FailedPrecondition``."""
    try:
        with memory_faults():
            yield
    except torch.AcceleratorError:  # the device's, not the compiler's: another start may do
        raise
    except RuntimeError as error:  # all of its own are such
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise FailedPrecondition(f"The {name} cannot be compiled here: {told}") from error


def _made(name: str, make: Callable[[], None]) -> None:
    _log.info("compiling the %s, which takes minutes where it was not done before", name)
    began = time.monotonic()
    with told_of_failure(name):
        make()
    _log.info("compiled the %s in %.0f s", name, time.monotonic() - began)


def _look(network: CompiledNetwork, size: Size, rows: int, *, prompts: int = 1) -> Inputs:
    """Of a text that nobody wrote, as it comes from the encoders, so often in a row."""
    length = network.tokenizers[0].model_max_length
    tokens = torch.zeros(len(network.tokenizers), rows, length, dtype=torch.int64)
    told = network.encode(tokens, [0] * rows)
    width, height = network.default_size
    ids = network.layout.size_ids(width, height, guided=False)
    look = Look(
        latents=torch.zeros(rows, network.unet_channels, *size, device=network.device),
        timesteps=torch.full((rows,), 500.0, device=network.device),
        context=told.context.repeat(1, prompts, 1),
        pooled=told.pooled,
        time_ids=None if ids is None else torch.tensor(ids * rows, device=network.device),
    )
    return network.inputs(look)


def _latents(network: CompiledNetwork, size: Size, rows: int) -> Inputs:
    zeros = torch.zeros(rows, network.latent_channels, *size, device=network.device)
    return (network.scaled(zeros),)


def _vary(tensor: torch.Tensor, dimensions: Sequence[int]) -> None:
    # Not before something is compiled: it takes a second to import.
    from torch import _dynamo

    for dimension in dimensions:
        _dynamo.mark_dynamic(tensor, dimension)


def _size(latents: torch.Tensor) -> Size:
    return int(latents.shape[-2]), int(latents.shape[-1])


def _effective(
    network: Effective, picture: tuple[int, int], versions: Mapping[str, str]
) -> Effective:
    width, height = picture
    told = f"U-Net and decoder, for pictures of {width} x {height}; others run as they are"
    return replace(
        network, backend=BACKEND, notes={**network.notes, "compiled": told}, versions=versions
    )
