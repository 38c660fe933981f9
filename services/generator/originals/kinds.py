"""Which architecture a file in the original layout holds, and the configurations it leaves out."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from services.core.errors import FailedPrecondition

UNET: Final = "model.diffusion_model."
VAE: Final = "first_stage_model."
CLIP: Final = "cond_stage_model.transformer."
OPEN_CLIP: Final = "cond_stage_model.model."
XL_CLIP: Final = "conditioner.embedders.0.transformer."
XL_OPEN_CLIP: Final = "conditioner.embedders.1.model."
REFINER_OPEN_CLIP: Final = "conditioner.embedders.0.model."

_HERE = Path(__file__).parent
_FIRST_WEIGHT = f"{UNET}input_blocks.0.0.weight"
_INPAINT_CHANNELS = 9
_PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction"}


@dataclass(frozen=True, slots=True)
class Kind:
    """``texts``: the prefix of each text encoder's weights by its folder; ``configurations``: a
    section for each folder of a ``diffusers`` directory, and one for its index.
    """

    name: str
    texts: Mapping[str, str]
    configurations: Mapping[str, Any]


_TEXTS: Mapping[str, Mapping[str, str]] = {
    "xl_base": {"text_encoder": XL_CLIP, "text_encoder_2": XL_OPEN_CLIP},
    "xl_refiner": {"text_encoder_2": REFINER_OPEN_CLIP},
    "v2": {"text_encoder": OPEN_CLIP},
    "v1": {"text_encoder": CLIP},
}
_INPAINTING = {"xl_base": "xl_inpaint", "v2": "inpainting_v2", "v1": "inpainting"}


def kind_of(file: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> Kind:
    """The kind of a file, from its weights' names and shapes and its ``modelspec`` metadata.

    A file of Stable Diffusion 2.x does not say what its U-Net predicts; v-prediction, as 2.1 at
    768 pixels, unless ``modelspec.prediction_type`` says otherwise. Raises ``FailedPrecondition``
    for a file that lacks a part, or holds another architecture.
    """
    name = _name(file, shapes)
    _check_parts(file, shapes)
    channels = shapes[_FIRST_WEIGHT][1]
    if channels == _INPAINT_CHANNELS and name in _INPAINTING:
        configurations = _configurations(_INPAINTING[name])
    elif channels == _configurations(name)["unet"]["in_channels"]:
        configurations = _configurations(name)
    else:
        raise FailedPrecondition(
            f"'{file.name}' has a U-Net of {channels} channels: no known kind."
        )
    return Kind(name, _TEXTS[name], _with_schedule(configurations, shapes, metadata))


@lru_cache(maxsize=1)
def clip_vocabulary() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """CLIP's 49,408 tokens and 48,894 merges (Radford et al., 2021, section 2.4), as shipped."""
    text = gzip.decompress((_HERE / "clip_merges.txt.gz").read_bytes()).decode()
    pairs = (line.split() for line in text.splitlines())
    merges = tuple((first, second) for first, second in pairs)
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [first + second for first, second in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def clip_tokenizer(*, pad_token: str) -> Any:
    """OpenAI's towers were trained with ``<|endoftext|>`` for padding, OpenCLIP's with ``!``."""
    vocabulary, merges = clip_vocabulary()
    return transformers.CLIPTokenizer(
        vocab=dict(vocabulary), merges=list(merges), model_max_length=77, pad_token=pad_token
    )


def _name(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    for name, texts in _TEXTS.items():
        if all(any(key.startswith(prefix) for key in shapes) for prefix in texts.values()):
            return name
    parts = sorted({key.partition(".")[0] for key in shapes})
    raise FailedPrecondition(
        f"'{file.name}' has no text encoder of Stable Diffusion 1.x, 2.x or XL (it has "
        f"{', '.join(parts[:8])}); serve its diffusers directory instead."
    )


def _check_parts(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for part, key in (("U-Net", _FIRST_WEIGHT), ("autoencoder", f"{VAE}decoder.conv_in.weight")):
        if key not in shapes:
            raise FailedPrecondition(
                f"'{file.name}' has no {part} ({key}); a whole model is needed, in one file "
                "or as a diffusers directory."
            )


def _with_schedule(
    configurations: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str],
) -> dict[str, Any]:
    """What a file itself says of its noise schedule, put into its scheduler's section.

    ``v_pred`` and ``ztsnr`` are empty weights by which files mark v-prediction and a zero terminal
    signal-to-noise ratio (Lin et al., 2024).
    """
    scheduler = dict(configurations["scheduler"])
    told = metadata.get("modelspec.prediction_type", "").lower()
    if told in _PREDICTIONS:
        scheduler["prediction_type"] = _PREDICTIONS[told]
    if "v_pred" in shapes:
        scheduler["prediction_type"] = "v_prediction"
    if "ztsnr" in shapes:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return {**configurations, "scheduler": scheduler}


@lru_cache(maxsize=8)
def _configurations(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_HERE / f"{name}.json").read_text(encoding="utf-8"))
    return found
