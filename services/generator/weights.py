"""``diffusers`` networks that are read while others compute.

``from_pretrained`` builds a network with another default dtype and another
``Module.register_parameter`` for the whole process: what other threads make meanwhile is of that
dtype, and where two such loads overlap the default may stay changed. Here a network is built
without memory, which concerns the thread that builds it alone, and then takes the files' tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from services.core.errors import NotFound

_NAME: Final = "diffusion_pytorch_model"


@dataclass(frozen=True, slots=True)
class Difference:
    """Between what a network is made of and what its files have; names, sorted."""

    missing: tuple[str, ...]
    needless: tuple[str, ...]


def structure(kind: Any, directory: Path) -> Any:
    """The ``diffusers`` network of a directory's ``config.json``: its structure alone, on the meta
    device.
    """
    with torch.device("meta"):
        network = kind.from_config(kind.load_config(directory, local_files_only=True))
    return network.eval().requires_grad_(False)


def fill(network: Any, directory: Path, device: torch.device, dtype: torch.dtype) -> Difference:
    """Give a structure the weights of a directory's safetensors, which may be in several files.
    Blocking, from any thread; nobody may compute with the network before it has returned.

    Raises ``NotFound`` without safetensors, and ``OSError``, ``ValueError``, ``RuntimeError`` or
    ``SafetensorError`` for files that cannot be read or hold other shapes.
    """
    tensors = {
        name: _placed(tensor, device, dtype)
        for path in _files(directory)
        for name, tensor in load_file(path).items()
    }
    # The names that attention had in older files, as ``from_pretrained`` reads them.
    network._fix_state_dict_keys_on_load(tensors)
    told = network.load_state_dict(tensors, strict=False, assign=True)
    # What a constructor computes and no file has would be left without values.
    hollow = [name for name, buffer in network.named_buffers() if buffer.is_meta]
    missing = sorted({*told.missing_keys, *hollow})
    return Difference(tuple(missing), tuple(sorted(told.unexpected_keys)))


def variant_of(directory: Path) -> str | None:
    """``fp16`` where a part has its weights in that variant alone. Raises ``NotFound``."""
    names = [path.name for path in directory.glob("*.safetensors")]
    if not names:
        raise NotFound(f"'{directory.parent.name}/{directory.name}' has no safetensors weights.")
    # In one file it is followed by a dot, in several by a hyphen and their number.
    return None if any(".fp16" not in name for name in names) else "fp16"


def _placed(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    wanted = dtype if tensor.is_floating_point() else tensor.dtype
    if tensor.ndim != 4:
        return tensor.to(device, wanted)
    return tensor.to(device, wanted, memory_format=torch.channels_last)


def _files(directory: Path) -> list[Path]:
    variant = variant_of(directory)
    for index in _indices(variant):
        if (directory / index).is_file():
            return [directory / name for name in _shards(directory / index)]
    mark = "" if variant is None else f".{variant}"
    return [directory / f"{_NAME}{mark}.safetensors"]


def _indices(variant: str | None) -> Iterator[str]:
    """The names of what tells which file has what, as diffusers writes them and wrote them."""
    if variant is None:
        yield f"{_NAME}.safetensors.index.json"
    else:
        yield f"{_NAME}.safetensors.index.{variant}.json"
        yield f"{_NAME}.safetensors.{variant}.index.json"


def _shards(index: Path) -> list[str]:
    told = json.loads(index.read_text(encoding="utf-8"))
    found = told.get("weight_map") if isinstance(told, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"{index.name} has no weight_map")
    return sorted({str(name) for name in found.values()})
