"""Pictures that a model's own safety checker withholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from services.core.errors import FailedPrecondition
from services.generator.layout import INDEX_FILE, read_json
from services.generator.network import Pixels

FLAGGED: Final = "The model's safety checker found unsafe content in the picture."


class SafetyChecker(Protocol):
    @property
    def bytes_in_memory(self) -> int:
        """Of its weights."""

    def reasons(self, pixels: Pixels) -> Sequence[str | None]:
        """Of uint8 (B, H, W, 3): why each is withheld, None where it is not. Blocks."""


@dataclass(frozen=True, slots=True)
class ClipChecker:
    """Stable Diffusion's own: distances of the picture's CLIP embedding to 20 concepts (Rando et
    al., 2022, describe it), as ``StableDiffusionPipeline`` asks it.
    """

    checker: Any
    extractor: Any

    @property
    def bytes_in_memory(self) -> int:
        return sum(weight.nbytes for weight in self.checker.parameters())

    @torch.inference_mode()
    def reasons(self, pixels: Pixels) -> list[str | None]:
        read = self.extractor(list(pixels), return_tensors="pt").pixel_values
        placed = read.to(self.checker.device, self.checker.dtype)
        # What it is given as pictures it paints black.
        canvases = [np.zeros(1) for _ in pixels]
        flagged = self.checker(images=canvases, clip_input=placed)[1]
        return [FLAGGED if flag else None for flag in flagged]


def load_checker(directory: Path, device: torch.device) -> ClipChecker | None:
    """The checker that a ``diffusers`` directory brings, in float32; None where it brings none.

    Raises ``FailedPrecondition`` where it names one and lacks its safetensors weights or its
    ``feature_extractor``: such a model must not be served as if it had none.
    """
    index = directory / INDEX_FILE
    named = read_json(index).get("safety_checker") if index.is_file() else None
    if not named or named[1] is None:
        return None
    folder = directory / "safety_checker"
    preprocessor = directory / "feature_extractor" / "preprocessor_config.json"
    if not any(folder.glob("*.safetensors")) or not preprocessor.is_file():
        raise FailedPrecondition(
            f"'{directory.name}' names a safety checker, but has no safetensors weights in "
            "safety_checker or no feature_extractor; EASEL_GENERATOR_SAFETY_CHECKER=false "
            "serves it unchecked."
        )
    kind: Any = StableDiffusionSafetyChecker
    plain = any(".fp16." not in path.name for path in folder.glob("*.safetensors"))
    checker = kind.from_pretrained(
        folder,
        variant=None if plain else "fp16",
        use_safetensors=True,
        local_files_only=True,
        dtype=torch.float32,
    )
    extractor = transformers.CLIPImageProcessorPil.from_pretrained(preprocessor.parent)
    return ClipChecker(checker.eval().requires_grad_(False).to(device), extractor)
