"""The adapters of one folder: told by name, loaded when first asked for, a few of them kept."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch

from services.core.errors import FailedPrecondition, NotFound
from services.generator.lora import Adapter, LowRank
from services.generator.lora_file import (
    PICKLES,
    SUFFIX,
    Matrices,
    UnfitAdapterError,
    read,
    weights_file,
)
from services.generator.network import Network
from services.memory import memory_faults

REASON: Final = "ADAPTER_UNFIT"
_TOLD_NAMES: Final = 32


@dataclass(frozen=True, slots=True)
class _Edition:
    """A file as it was when it was read; another one of the same name is loaded anew."""

    path: Path
    inode: int
    changed_ns: int
    modified_ns: int
    size: int


class AdapterShelf:
    """Adapters for one network; safe to call from any thread.

    Every file of weights and every folder in ``folder`` is one, under its name without the suffix.
    The ``kept`` last used stay in memory; a picture under way holds on to its own. A new file is
    found when it is first asked for. No name from a caller becomes a path.
    """

    def __init__(self, folder: Path | None, network: Network, *, kept: int = 16) -> None:
        self._folder = folder
        self._network = network
        self._kept = kept
        self._lock = threading.Lock()
        self._paths = self._find()
        self._loaded: OrderedDict[_Edition, Adapter] = OrderedDict()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._paths)

    def take(self, name: str) -> Adapter:
        """Blocking. Raises ``NotFound`` for a name that is not here, ``FailedPrecondition`` for an
        adapter that does not fit the model, and ``OutOfMemory``.
        """
        with self._lock:
            path = self._path(name)
            try:
                return self._adapter(name, weights_file(path))
            except UnfitAdapterError as error:
                raise FailedPrecondition(
                    f"Adapter '{name}' cannot be used: {error}.", reason=REASON
                ) from error

    def _path(self, name: str) -> Path:
        if name not in self._paths or not self._paths[name].exists():
            self._paths = self._find()
        if name in self._paths:
            return self._paths[name]
        told = ", ".join(list(self._paths)[:_TOLD_NAMES]) or "none"
        raise NotFound(f"There is no adapter '{name}' here. There are: {told}.")

    def _find(self) -> dict[str, Path]:
        if self._folder is None:
            return {}
        entries = sorted(self._folder.iterdir(), reverse=True)
        # A pickle is listed, so that asking for it tells why it cannot be used; where a name is
        # there twice, safetensors come last and win.
        entries.sort(key=lambda path: path.suffix == SUFFIX)
        found = {
            path.name if path.is_dir() else path.stem: path
            for path in entries
            if path.is_dir() or path.suffix in (SUFFIX, *PICKLES)
        }
        return dict(sorted(found.items()))

    def _adapter(self, name: str, path: Path) -> Adapter:
        stat = path.stat()
        edition = _Edition(path, stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size)
        adapter = self._loaded.pop(edition, None)
        if adapter is None:
            with memory_faults():
                adapter = fit(name, path, self._network)
        self._loaded[edition] = adapter
        while len(self._loaded) > self._kept:
            self._loaded.popitem(last=False)
        return adapter


def fit(name: str, path: Path, network: Network) -> Adapter:
    """Read an adapter and place it beside the network's own weights.

    Raises ``UnfitAdapterError`` where it is not one for this network.
    """
    weights = network.adaptable
    layers = read(path, network.unet_config)
    placed = {layer: _placed(layer, found, weights, network) for layer, found in layers.items()}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Adapter(name, f"sha256:{digest}", placed)


def _placed(
    layer: str, found: Matrices, weights: Mapping[str, torch.Tensor], network: Network
) -> LowRank:
    if layer not in weights:
        raise UnfitAdapterError(f"it changes '{layer}', which this model does not have")
    weight = weights[layer]
    expected = (len(weight), *weight.shape[1:])
    given = (len(found.up), *found.down.shape[1:])
    if given != expected or found.up.shape[2:].numel() != 1:
        raise UnfitAdapterError(
            f"it is for another architecture: '{layer}' is {given} in it and {expected} here"
        )
    up = found.up.float() * found.factor
    there = partial(torch.Tensor.to, device=network.device, dtype=network.dtype)
    return LowRank(there(found.down), there(up))
