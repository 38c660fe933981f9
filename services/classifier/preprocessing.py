"""From a picture of any size and mode to the network's input, as the model's processor does.

The steps and their numbers come from ``preprocessor_config.json``. Results stay 8-bit pixels: the
processor resizes in 8 bits too, so nothing is lost, batches are a quarter of the size, and the
device does the rest of the arithmetic, ``(pixels * scale - mean) / std``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from services.core.errors import FailedPrecondition
from services.core.images import to_rgb

Pixels = npt.NDArray[np.uint8]

CONFIG_FILE: Final = "preprocessor_config.json"
GREY: Final = (128, 128, 128)
_WHITE: Final = (255, 255, 255)
_CONVNEXT_STRETCHES_FROM: Final = 384
_CONVNEXT_SHARE: Final = 224 / 256
_KNOWN_STEPS: Final = {
    "do_convert_rgb",
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
}


class Fit(Enum):
    """How a picture of any shape becomes the model's.

    ``MODEL`` is the model's own way (for ViT: stretched). ``PAD`` keeps all of the picture on
    grey; ``CENTER_CROP`` keeps the middle.
    """

    MODEL = "model"
    PAD = "pad"
    CENTER_CROP = "center_crop"


@dataclass(frozen=True, slots=True)
class Size:
    """In pixels."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture, in its pixels; it may reach beyond the picture."""

    left: float
    top: float
    right: float
    bottom: float

    def scaled(self, across: float, down: float) -> Window:
        """The same part of a picture that is so many times as wide and high."""
        return Window(self.left * across, self.top * down, self.right * across, self.bottom * down)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The model's own preparation of a picture.

    ``input`` is what the network takes. ``resize`` is None where the picture is not stretched to
    one size; then ``shortest_edge`` is the length that its shorter side gets, or None for no
    resizing. ``crop`` cuts the centre out after that. The network is given
    ``(pixels * scale - mean) / std``. ``whiten`` composites
    transparency onto white instead of dropping it.
    """

    input: Size
    resize: Size | None
    shortest_edge: int | None = None
    crop: bool = False
    resample: Image.Resampling = Image.Resampling.BILINEAR
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    whiten: bool = False

    def prepare(self, image: Image.Image | Pixels, fit: Fit = Fit.MODEL) -> Pixels:
        """uint8 [height, width, 3] of ``input`` size, from a picture or from RGB pixels of that
        type and any size. Blocking: belongs in a worker pool.
        """
        if isinstance(image, np.ndarray):
            if self._keeps(image):
                return image
            image = Image.fromarray(image)
        rgb = to_rgb(image, _WHITE if self.whiten else None)
        return np.asarray(self._fitted(rgb, fit))

    def at(self, side: int) -> Preprocessing:
        """The same for a network that takes squares of ``side`` pixels: it sees the same share of
        the picture.
        """
        vertical, horizontal = side / self.input.height, side / self.input.width
        resize, edge = self.resize, self.shortest_edge
        if resize is not None:
            resize = Size(round(resize.height * vertical), round(resize.width * horizontal))
        if edge is not None:
            edge = round(edge * max(vertical, horizontal))
        return replace(self, input=Size(side, side), resize=resize, shortest_edge=edge)

    def window(self, size: Size, fit: Fit = Fit.MODEL) -> Window:
        """What the network's input shows of a picture of ``size``."""
        if fit is not Fit.MODEL:
            return self._centred(size, inside=fit is Fit.CENTER_CROP)
        resized = self._resized_size(size)
        if not self.crop:
            return Window(0, 0, size.width, size.height)
        left = (resized.width - self.input.width) // 2
        top = (resized.height - self.input.height) // 2
        crop = Window(left, top, left + self.input.width, top + self.input.height)
        return crop.scaled(size.width / resized.width, size.height / resized.height)

    def _centred(self, size: Size, *, inside: bool) -> Window:
        """The smallest window of the input's shape around the picture, or the largest inside."""
        across, down = size.width / self.input.width, size.height / self.input.height
        scale = min(across, down) if inside else max(across, down)
        width, height = self.input.width * scale, self.input.height * scale
        left, top = (size.width - width) / 2, (size.height - height) / 2
        return Window(left, top, left + width, top + height)

    def _keeps(self, rgb: Pixels) -> bool:
        """Whether every ``Fit`` would leave ``rgb`` as it is."""
        size = self.input
        same = rgb.shape == (size.height, size.width, 3)
        return same and self.shortest_edge is None and self.resize in (None, size)

    def _fitted(self, rgb: Image.Image, fit: Fit) -> Image.Image:
        size = (self.input.width, self.input.height)
        if fit is Fit.PAD:
            return ImageOps.pad(rgb, size, self.resample, GREY)
        if fit is Fit.CENTER_CROP:
            return ImageOps.fit(rgb, size, self.resample)
        return self._cropped(self._resized(rgb))

    def _resized(self, rgb: Image.Image) -> Image.Image:
        if self.resize is None and self.shortest_edge is None:
            return rgb
        size = self._resized_size(Size(rgb.height, rgb.width))
        return rgb.resize((size.width, size.height), self.resample)

    def _resized_size(self, size: Size) -> Size:
        if self.resize is not None:
            return self.resize
        if self.shortest_edge is not None:
            return _shorter_side_to(size, self.shortest_edge)
        return size

    def _cropped(self, rgb: Image.Image) -> Image.Image:
        if not self.crop:
            return rgb
        left = (rgb.width - self.input.width) // 2
        top = (rgb.height - self.input.height) // 2
        # Pillow fills what lies outside with black, as the processors do.
        return rgb.crop((left, top, left + self.input.width, top + self.input.height))


def read_preprocessing(directory: Path) -> Preprocessing:
    """Read the model's ``preprocessor_config.json``.

    Raises ``FailedPrecondition`` where it is missing, broken, or asks for what is not done here.
    """
    path = directory / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return parse_preprocessing(config)
    except OSError as error:
        raise FailedPrecondition(f"The model has no readable {CONFIG_FILE}.") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FailedPrecondition(f"The model's {CONFIG_FILE} cannot be used: {error!r}.") from error


def parse_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """``config`` as transformers writes it. Raises ``FailedPrecondition`` or ``ValueError``."""
    _check_steps(config)
    if _is_convnext(config):
        config = {**config, **_convnext_steps(config)}
    size = _size(config["size"]) if config.get("do_resize", True) else None
    crop = _size(config["crop_size"]) if config.get("do_center_crop") else None
    stretch = size if isinstance(size, Size) else None
    target = crop or size
    if not isinstance(target, Size):
        raise FailedPrecondition("The model's pictures have no one size.")
    normal = config.get("do_normalize", True)
    return Preprocessing(
        input=target,
        resize=stretch,
        shortest_edge=size if isinstance(size, int) else None,
        crop=crop is not None,
        resample=Image.Resampling(config.get("resample", Image.Resampling.BILINEAR)),
        scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1,
        mean=_triple(config.get("image_mean", 0.5)) if normal else (0.0, 0.0, 0.0),
        std=_triple(config.get("image_std", 0.5)) if normal else (1.0, 1.0, 1.0),
        whiten=bool(config.get("do_convert_rgb")),
    )


def _check_steps(config: Mapping[str, Any]) -> None:
    for step, on in config.items():
        if step.startswith("do_") and on and step not in _KNOWN_STEPS:
            raise FailedPrecondition(f"The model's preprocessing needs {step}, not supported here.")


def _is_convnext(config: Mapping[str, Any]) -> bool:
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    return str(kind).startswith("ConvNext") and bool(config.get("do_resize", True))


def _convnext_steps(config: Mapping[str, Any]) -> dict[str, Any]:
    """ConvNeXt's processor does by its size what others are told: below 384 pixels it keeps the
    shape and cuts the centre out, from there on it stretches.
    """
    size = config["size"]
    side = int(size if isinstance(size, int) else size["shortest_edge"])
    if side >= _CONVNEXT_STRETCHES_FROM:
        return {"size": side}
    share = float(config.get("crop_pct") or _CONVNEXT_SHARE)
    return {"size": {"shortest_edge": int(side / share)}, "do_center_crop": True, "crop_size": side}


def _size(value: Any) -> Size | int:
    """A height and width, or the length of the shorter side."""
    if isinstance(value, int):
        return Size(value, value)
    if "shortest_edge" in value and "longest_edge" not in value:
        return int(value["shortest_edge"])
    return Size(int(value["height"]), int(value["width"]))


def _triple(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, list | tuple) else (value, value, value)
    return float(red), float(green), float(blue)


def _shorter_side_to(size: Size, length: int) -> Size:
    if size.width <= size.height:
        return Size(int(length * size.height / size.width), length)
    return Size(length, int(length * size.width / size.height))
