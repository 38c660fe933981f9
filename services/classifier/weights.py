"""Whether a directory has weights that are read here: whole safetensors files, of no other kind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from services.core.errors import FailedPrecondition
from services.core.reference import manifest, sha256_of

WEIGHTS: Final = "model.safetensors"
SHARDS: Final = "model.safetensors.index.json"
PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
CONVERT: Final = "python -m services.classifier.conversion DIRECTORY"


def check_weights(directory: Path) -> None:
    """Raises ``FailedPrecondition`` where there are no safetensors, naming how to convert what
    there is, or where a file is missing or not whole, naming it and its digest.
    """
    for name in _names(directory):
        path = directory / name
        if not path.is_file():
            raise FailedPrecondition(f"The model's index names '{name}', which is missing.")
        _check_whole(path)


def network_digest(directory: Path) -> str:
    """Of the files that the network itself is made of, in hex: what is converted from a model stays
    good when its preprocessing or its calibration changes.
    """
    lines = [
        f"{digest}  {path}\n"
        for path, digest in manifest(directory)
        if path == "config.json" or path.endswith(".safetensors")
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _names(directory: Path) -> list[str]:
    if (directory / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (directory / SHARDS).is_file():
        raise FailedPrecondition(_missing(directory))
    try:
        index = json.loads((directory / SHARDS).read_text(encoding="utf-8"))
        names = {Path(shard).name for shard in index["weight_map"].values()}
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise FailedPrecondition(f"The model's {SHARDS} cannot be used: {error!r}.") from error
    return sorted(names)


def _missing(directory: Path) -> str:
    found = sorted(path.name for kind in PICKLES for path in directory.glob(kind))
    has = f" It has {', '.join(found)}." if found else ""
    return (
        f"The model has no {WEIGHTS}.{has} Other formats are not loaded: reading can run code. "
        f"A pytorch_model.bin that you trust is converted once with: {CONVERT}"
    )


def _check_whole(path: Path) -> None:
    try:
        # The header is read and compared with the file's length.
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise FailedPrecondition(
            f"'{path.name}' is not a whole safetensors file ({error}); "
            f"its digest is sha256:{sha256_of(path)}.",
            reason="CORRUPT_WEIGHTS",
        ) from error
