"""What kind of model a ``diffusers`` directory holds, as its own index and configurations say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from services.core.errors import FailedPrecondition, NotFound

INDEX_FILE = "model_index.json"

_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
_FIRST_TEXT: Mapping[str, tuple[str, ...]] = {
    "tokenizer": _TOKENIZERS,
    "text_encoder": ("CLIPTextModel",),
}
_SECOND_TEXT: Mapping[str, tuple[str, ...]] = {
    "tokenizer_2": _TOKENIZERS,
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}
_IMAGE: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
}


class Family(Enum):
    """The value is the name that GetModel tells."""

    SD1 = "stable-diffusion-1"
    SD2 = "stable-diffusion-2"
    SDXL = "stable-diffusion-xl"
    SDXL_REFINER = "stable-diffusion-xl-refiner"


@dataclass(frozen=True, slots=True)
class Layout:
    """A model that the step engine runs.

    texts: its (tokenizer, text encoder) folders, in the order their states are joined.
    zeros_for_empty: whether an empty negative prompt is all zeros, not an encoded empty text.
    aesthetic: whether the added conditions have an aesthetic score in the target size's place.
    """

    family: Family
    texts: tuple[tuple[str, str], ...]
    zeros_for_empty: bool = False
    aesthetic: bool = False

    @property
    def xl(self) -> bool:
        """Penultimate states, pooled text and size conditions (Podell et al., 2023)."""
        return self.family in (Family.SDXL, Family.SDXL_REFINER)

    def size_ids(self, width: int, height: int, *, guided: bool) -> list[list[float]] | None:
        """The added conditions of a picture in pixels, one list a copy, the negative one's first.

        Original size, crop at the top left corner, target size, each as (height, width); the
        refiner has an aesthetic score for the target size, with diffusers' defaults.
        """
        if not self.xl:
            return None
        given = [float(height), float(width), 0.0, 0.0]
        if self.aesthetic:
            scores = (2.5, 6.0) if guided else (6.0,)
            return [[*given, score] for score in scores]
        return [[*given, float(height), float(width)]] * (2 if guided else 1)


def read_layout(directory: Path) -> Layout:
    """Raises ``NotFound`` where it is no ``diffusers`` directory, and ``FailedPrecondition`` where
    it holds a model that the step engine does not run.
    """
    path = directory / INDEX_FILE
    if not path.is_file():
        raise NotFound(f"'{directory.name}' has no {INDEX_FILE}: not a diffusers directory.")
    index = read_json(path)
    unet = _config(directory, index, "unet")
    if unet.get("addition_embed_type") == "text_time":
        return _xl(directory, index)
    _check(directory, index, "Stable Diffusion 1.x or 2.x", {**_FIRST_TEXT, **_IMAGE})
    _check_plain(directory, unet)
    text = _config(directory, index, "text_encoder")
    # OpenCLIP's towers, as 2.x has them, have the plain GELU; OpenAI's, of 1.x, its approximation.
    second = text.get("hidden_act", "quick_gelu") == "gelu"
    return Layout(Family.SD2 if second else Family.SD1, (("tokenizer", "text_encoder"),))


def read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _xl(directory: Path, index: Mapping[str, Any]) -> Layout:
    second = ("tokenizer_2", "text_encoder_2")
    kind = "Stable Diffusion XL"
    aesthetic = bool(index.get("requires_aesthetics_score", False))
    zeros = bool(index.get("force_zeros_for_empty_prompt", True))
    if _class(index, "text_encoder") is None:
        _check(directory, index, f"{kind} refiner", {**_SECOND_TEXT, **_IMAGE})
        return Layout(Family.SDXL_REFINER, (second,), zeros, aesthetic)
    _check(directory, index, kind, {**_FIRST_TEXT, **_SECOND_TEXT, **_IMAGE})
    return Layout(Family.SDXL, (("tokenizer", "text_encoder"), second), zeros, aesthetic)


def _check(
    directory: Path, index: Mapping[str, Any], kind: str, parts: Mapping[str, tuple[str, ...]]
) -> None:
    for part, classes in parts.items():
        found = _class(index, part)
        if found not in classes:
            raise FailedPrecondition(
                f"'{directory.name}' is not a {kind} model: "
                f"its {part} is {found}, not {classes[0]}."
            )


def _check_plain(directory: Path, unet: Mapping[str, Any]) -> None:
    for option in ("addition_embed_type", "class_embed_type", "time_cond_proj_dim"):
        if unet.get(option) is not None:
            raise FailedPrecondition(
                f"'{directory.name}' has a U-Net with {option} {unet[option]}, "
                "which the step engine has no input for."
            )


def _class(index: Mapping[str, Any], part: str) -> str | None:
    found: str | None = (index.get(part) or (None, None))[1]
    return found


def _config(directory: Path, index: Mapping[str, Any], part: str) -> dict[str, Any]:
    path = directory / part / "config.json"
    return read_json(path) if _class(index, part) and path.is_file() else {}
