"""A network like CLIP from a directory in the layout of published ONNX exports::

    config.json  tokenizer.json  tokenizer_config.json  preprocessor_config.json
    onnx/text_model.onnx  onnx/vision_model.onnx

(`Radford et al., 2021 <https://arxiv.org/abs/2103.00020>`_.) Pictures are prepared with Pillow as
the configuration says; the text network's ``text_embeds`` and the vision network's ``image_embeds``
are compared by their cosine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from ranker.onnx import Network, Runtime, open_network
from ranker.pictures.judging import Pixels, Vector
from ranker.tokens import Tokenizer, open_tokenizer, read_json
from services.core.errors import FailedPrecondition, ModelFault
from services.core.images import to_rgb

TEXT_FILE: Final = "text_model.onnx"
VISION_FILE: Final = "vision_model.onnx"
CONFIG: Final = "config.json"
PREPARATION: Final = "preprocessor_config.json"
_TEXT_INPUTS: Final = ("input_ids", "attention_mask")
_STEPS: Final = ("do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize")
_CLIP_TOKENS: Final = 77


@dataclass(frozen=True, slots=True)
class Preparation:
    """From pixels of any size to what the network reads, by ``preprocessor_config.json``.

    ``size`` is (width, height), or the length of the shorter side; ``crop`` the (width, height) cut
    out of the middle, or None for all of it.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: Image.Resampling
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Pixels) -> Vector:
        """uint8 [height, width, 3] to float32 [1, 3, height, width]."""
        image = self._cropped(self._resized(to_rgb(Image.fromarray(pixels))))
        mean, std = np.array([self.mean, self.std], np.float32)
        values = (np.asarray(image, np.float32) * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.size is None:
            return image
        if isinstance(self.size, tuple):
            return image.resize(self.size, self.resample)
        shorter = min(image.size)
        # As transformers counts: the longer side is cut to whole pixels.
        width, height = (int(self.size * side / shorter) for side in image.size)
        return image.resize((width, height), self.resample)

    def _cropped(self, image: Image.Image) -> Image.Image:
        if self.crop is None:
            return image
        width, height = self.crop
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


class ClipModel:
    """Both networks, opened. Blocking; its methods may run in several threads at once."""

    def __init__(
        self,
        name: str,
        text: Network,
        vision: Network,
        tokenizer: Tokenizer,
        preparation: Preparation,
    ) -> None:
        text.need(inputs=_TEXT_INPUTS, outputs=["text_embeds"])
        vision.need(inputs=["pixel_values"], outputs=["image_embeds"])
        self.name = name
        self._text = text
        self._vision = vision
        self._tokenizer = tokenizer
        self._preparation = preparation

    def read(self, text: str, *, field: str = "text") -> Vector:
        """The text's embedding, of length 1. Raises InvalidInput on ``field`` for one that is
        longer than the network reads, ModelFault where it cannot be run."""
        inputs = self._tokenizer.encode([text], truncate=False, field=field).inputs()
        return _unit(self._text.run(inputs, ["text_embeds"])["text_embeds"][0], self.name)

    def embed(self, pixels: Pixels) -> Vector:
        """The picture's embedding, of length 1; ``pixels`` are uint8 [height, width, 3]. Raises
        ModelFault."""
        inputs = {"pixel_values": self._preparation(pixels)}
        return _unit(self._vision.run(inputs, ["image_embeds"])["image_embeds"][0], self.name)


def open_clip(directory: Path, runtime: Runtime | None = None) -> ClipModel:
    """Raises FailedPrecondition where a file is missing, broken, or asks for what is not done."""
    if not directory.is_dir():
        raise FailedPrecondition(f"There is no directory {directory.name} of a text-image model.")
    preparation = parse_preparation(read_json(directory / PREPARATION), directory.name)
    tokenizer = open_tokenizer(directory, _text_positions(read_json(directory / CONFIG)))
    return ClipModel(
        directory.name,
        open_network(_network_file(directory, TEXT_FILE), runtime),
        open_network(_network_file(directory, VISION_FILE), runtime),
        tokenizer,
        preparation,
    )


def parse_preparation(config: Mapping[str, Any], title: str) -> Preparation:
    """``config`` as transformers writes it. Raises FailedPrecondition naming ``title``."""
    unknown = [
        step for step, on in config.items() if step.startswith("do_") and on and step not in _STEPS
    ]
    if unknown:
        raise FailedPrecondition(f"{title}/{PREPARATION} asks for {unknown[0]}, not done here.")
    try:
        normal = config.get("do_normalize", True)
        rescaled = config.get("do_rescale", True)
        return Preparation(
            size=_size(config["size"]) if config.get("do_resize", True) else None,
            crop=_pair(config["crop_size"]) if config.get("do_center_crop") else None,
            resample=Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)),
            scale=float(config.get("rescale_factor", 1 / 255)) if rescaled else 1.0,
            mean=_triple(config["image_mean"]) if normal else (0.0, 0.0, 0.0),
            std=_triple(config["image_std"]) if normal else (1.0, 1.0, 1.0),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FailedPrecondition(f"{title}/{PREPARATION} cannot be used: {error!r}.") from error


def _network_file(directory: Path, name: str) -> Path:
    """In the folder ``onnx``, as it is published, or beside the configuration."""
    beside = directory / name
    return beside if beside.is_file() else directory / "onnx" / name


def _text_positions(config: Mapping[str, Any]) -> int:
    text = config.get("text_config")
    told = text.get("max_position_embeddings") if isinstance(text, dict) else None
    return int(told) if isinstance(told, int) and told > 0 else _CLIP_TOKENS


def _size(told: Any) -> tuple[int, int] | int:
    if isinstance(told, dict) and "shortest_edge" in told:
        return _whole(told["shortest_edge"])
    return _whole(told) if isinstance(told, int) else _pair(told)


def _pair(told: Any) -> tuple[int, int]:
    if isinstance(told, int):
        return _whole(told), _whole(told)
    return _whole(told["width"]), _whole(told["height"])


def _whole(told: Any) -> int:
    if int(told) < 1:
        raise ValueError(f"a side of {told} pixels")
    return int(told)


def _triple(told: Any) -> tuple[float, ...]:
    red, green, blue = told
    return float(red), float(green), float(blue)


def _unit(vector: Vector, name: str) -> Vector:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0.0:
        raise ModelFault(f"The model {name} answers no usable embedding.")
    return vector.astype(np.float64) / length
