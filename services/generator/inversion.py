"""Textual inversions (Gal et al., 2022): words that a server learned, as vectors of their own.

In a prompt ``<name>`` stands for the vectors of that name. A name is ASCII: a letter, digit or
underscore, then letters, digits and ``_ . -``; anything else in angle brackets is plain text, as is
what follows ``\\<``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from services.core.errors import FailedPrecondition, InvalidInput, NotFound
from services.generator.network import Network

MAX_VECTORS: Final = 75
INVERSION_VERSION: Final = "embedding "
"""What stands before an inversion's name among the versions of a record."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SPELLED: Final = re.compile(rf"\\<|<(?P<name>{_NAME.pattern})>")
_PICKLES: Final = {".pt", ".bin", ".pth", ".ckpt", ".pkl"}
# How the tools in use key the vectors for each text encoder: AUTOMATIC1111's files have one
# tensor of this name; diffusers' have the placeholder itself; SDXL's have one a text encoder.
_PLAIN_KEY: Final = "emb_params"
_ENCODER_KEYS: Final = ("clip_l", "clip_g")
_TOLD: Final = 20


@dataclass(frozen=True, slots=True)
class Inversion:
    """``vectors``: float32 (V, D), one tensor a text encoder, all of one V."""

    name: str
    vectors: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        return len(self.vectors[0])

    @property
    def sha256(self) -> str:
        """Of the numbers, in the order of the text encoders."""
        digest = hashlib.sha256()
        for part in self.vectors:
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


def load_inversions(directory: Path | None, widths: Sequence[int]) -> tuple[Inversion, ...]:
    """Every ``.safetensors`` file of ``directory``, by name; none when it is None. ``widths`` are
    those of the model's text encoders.

    Raises ``NotFound`` when there is no such directory, ``FailedPrecondition`` naming the file for
    one that is not safetensors, belongs to another architecture or repeats a name.
    """
    if directory is None:
        return ()
    if not directory.is_dir():
        raise NotFound(f"There is no directory of embeddings '{directory.name}'.")
    found: dict[str, Inversion] = {}
    for path in sorted(directory.iterdir()):
        if path.suffix in _PICKLES:
            raise FailedPrecondition(f"The embedding '{path.name}' is not safetensors.")
        if path.suffix == ".safetensors":
            inversion = _read(path, widths)
            if inversion.name in found:
                raise FailedPrecondition(
                    f"The embedding '{path.name}' repeats the name <{inversion.name}>."
                )
            found[inversion.name] = inversion
    return tuple(found.values())


def _read(path: Path, widths: Sequence[int]) -> Inversion:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise FailedPrecondition(f"The embedding '{path.name}' is not safetensors.") from error
    name, vectors = _named(path, tensors)
    if [part.shape[-1] for part in vectors] != list(widths):
        has = " and ".join(str(part.shape[-1]) for part in vectors)
        takes = " and ".join(str(width) for width in widths)
        raise FailedPrecondition(
            f"The embedding '{path.name}' is of another architecture: "
            f"its vectors have {has} numbers, the model's {takes}."
        )
    lengths = {len(part) for part in vectors}
    if len(lengths) != 1 or not 1 <= lengths.pop() <= MAX_VECTORS:
        raise FailedPrecondition(
            f"The embedding '{path.name}' must have 1 to {MAX_VECTORS} vectors, "
            "as many for each text encoder."
        )
    if not all(part.isfinite().all() for part in vectors):
        raise FailedPrecondition(f"The embedding '{path.name}' has values that are no numbers.")
    return Inversion(name, tuple(vectors))


def _named(path: Path, tensors: Mapping[str, torch.Tensor]) -> tuple[str, list[torch.Tensor]]:
    """The name, and the vectors a text encoder; diffusers' files bring their own name."""
    name = path.stem
    if tensors.keys() == set(_ENCODER_KEYS):
        parts = [tensors[key] for key in _ENCODER_KEYS]
    elif len(tensors) == 1:
        key, parts = next(iter(tensors)), list(tensors.values())
        own = key.removeprefix("<").removesuffix(">")
        if key != _PLAIN_KEY and _NAME.fullmatch(own):
            name = own
    else:
        raise FailedPrecondition(
            f"The embedding '{path.name}' has {len(tensors)} tensors: neither one, "
            f"nor {' and '.join(_ENCODER_KEYS)}."
        )
    if not _NAME.fullmatch(name):
        raise FailedPrecondition(f"The embedding '{path.name}' has no name that a prompt can say.")
    if any(part.ndim not in (1, 2) for part in parts):
        raise FailedPrecondition(f"The embedding '{path.name}' has no vectors.")
    return name, [part.float().reshape(-1, part.shape[-1]) for part in parts]


class Vocabulary:
    """The token ids that inversions have, from ``first_id`` on."""

    def __init__(self, inversions: Sequence[Inversion] = (), first_id: int = 0) -> None:
        self._ids: dict[str, tuple[int, ...]] = {}
        self._digests: dict[str, str] = {}
        for inversion in inversions:
            self._digests[inversion.name] = inversion.sha256
            self._ids[inversion.name] = tuple(range(first_id, first_id + inversion.length))
            first_id += inversion.length

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._ids)

    def split(self, text: str, prompt_field: str) -> list[str | tuple[int, ...]]:
        """``text`` as plain parts and the token ids of the inversions named between them.

        Raises ``InvalidInput`` on ``prompt_field`` for a name that is not there.
        """
        parts: list[str | tuple[int, ...]] = []
        plain, end = "", 0
        for found in _SPELLED.finditer(text):
            plain, end = plain + text[end : found.start()], found.end()
            if found["name"] is None:
                plain += "<"
                continue
            if found["name"] not in self._ids:
                raise self._unknown(found["name"], prompt_field)
            parts += [plain, self._ids[found["name"]]]
            plain = ""
        return [*parts, plain + text[end:]]

    def versions(self, texts: Iterable[str]) -> dict[str, str]:
        """The digest of each inversion that ``texts`` name, as records tell it."""
        named = {found["name"] for text in texts for found in _SPELLED.finditer(text)}
        return {
            INVERSION_VERSION + name: digest
            for name, digest in self._digests.items()
            if name in named
        }

    def _unknown(self, name: str, prompt_field: str) -> InvalidInput:
        there = ", ".join(f"<{known}>" for known in self.names[:_TOLD])
        more = f" and {len(self.names) - _TOLD} more" if len(self.names) > _TOLD else ""
        return InvalidInput(
            prompt_field,
            f"There is no embedding <{name[:64]}>; \\< is the character itself.",
            f"{there}{more}" if there else "none: this server has no embeddings",
            f"<{name[:64]}>",
        )


def taught(network: Network, inversions: Sequence[Inversion]) -> tuple[Vocabulary, ...]:
    """Give the network's text encoders the vectors; answers the ids that each knows them by."""
    if not inversions:
        return (Vocabulary(),) * len(network.text_widths)
    parts = zip(*(inversion.vectors for inversion in inversions), strict=True)
    first_ids = network.learn([torch.cat(vectors) for vectors in parts])
    return tuple(Vocabulary(inversions, first_id) for first_id in first_ids)
