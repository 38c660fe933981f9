"""What may be asked of the classifier, checked without a clock, a device or a picture.

Field names in errors are those of ``easel.classifier.v1``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from PIL import Image

from services.classifier.explanation import Method
from services.classifier.network import Pooling, Reading, Traits
from services.classifier.preprocessing import Fit, Pixels
from services.core.errors import InvalidInput

MAX_ID_BYTES: Final = 128
DEFAULT_TOP_K: Final = 5
_MAX_SHOWN_CHARS: Final = 100
_TOKENS: Final = {
    Pooling.CLS: "class token",
    Pooling.MEAN: "patches to take the mean of",
    Pooling.PATCH: "patches",
}


@dataclass(slots=True)
class Picture:
    """The caller's picture. ``decode`` is blocking and raises ``InvalidInput``; it may answer with
    RGB pixels, uint8 [height, width, 3].

    ``quick_bytes`` is how many bytes its pixels take where only their number says how long
    ``decode`` needs: they come raw, or in a small file. None for others.
    """

    decode: Callable[[], Image.Image | Pixels]
    quick_bytes: int | None = None


class Dtype(Enum):
    """Of an embedding's numbers; the values are numpy's names, little-endian."""

    FLOAT32 = "<f4"
    FLOAT16 = "<f2"


class FileFormat(NamedTuple):
    """``name``: PNG, JPEG or WEBP; ``quality`` 1 to 100, None for the default."""

    name: str
    quality: int | None


@dataclass(slots=True)
class ClassifyRequest:
    """``top_k`` 1 to the number of labels, None for the default; ``threshold`` 0 to 1; empty
    ``labels`` for all.
    """

    picture: Picture
    id: str = ""
    model: str = ""
    model_version: str = ""
    top_k: int | None = None
    threshold: float = 0.0
    labels: tuple[str, ...] = ()
    logits: bool = False
    fit: Fit = Fit.MODEL


@dataclass(slots=True)
class ScoreRequest:
    """The scores of all labels, as numbers."""

    picture: Picture
    id: str = ""
    model: str = ""
    model_version: str = ""
    fit: Fit = Fit.MODEL


@dataclass(slots=True)
class EmbedRequest:
    """``layers`` from ``-(depth + 1)`` to ``depth``; empty for the last."""

    picture: Picture
    id: str = ""
    model: str = ""
    model_version: str = ""
    layers: tuple[int, ...] = ()
    pooling: Pooling = Pooling.CLS
    normalize: bool = False
    dtype: Dtype = Dtype.FLOAT32
    final_norm: bool = True
    fit: Fit = Fit.MODEL


@dataclass(slots=True)
class ExplainRequest:
    """``label`` empty for the best one. ``overlay`` is how the heat map is written, None for no
    heat map.
    """

    picture: Picture
    id: str = ""
    model: str = ""
    model_version: str = ""
    method: Method = Method.ROLLOUT
    label: str = ""
    overlay: FileFormat | None = None
    fit: Fit = Fit.MODEL


def check_id(id: str) -> None:
    size = len(id.encode())
    if size > MAX_ID_BYTES:
        raise InvalidInput("id", "The id is too long.", f"{MAX_ID_BYTES} bytes", f"{size} bytes")


def checked_top_k(top_k: int | None, labels: int) -> int:
    """How many of ``labels`` to answer with."""
    if top_k is None:
        return min(DEFAULT_TOP_K, labels)
    if not 1 <= top_k <= labels:
        raise InvalidInput("top_k", "top_k is out of range.", f"1 to {labels}", top_k)
    return top_k


def check_threshold(threshold: float) -> None:
    # Written so that NaN fails it too.
    if not 0.0 <= threshold <= 1.0:
        raise InvalidInput("threshold", "The threshold is out of range.", "0 to 1", threshold)


def unknown_label(name: str, field: str) -> InvalidInput:
    shown = name[:_MAX_SHOWN_CHARS]
    return InvalidInput(field, f"The model has no label {shown!r}.", given=shown)


def readings(request: EmbedRequest, traits: Traits) -> tuple[Reading, ...]:
    """What the pass must read out: each layer once, in the order in which they were named."""
    _check_pooling(request.pooling, traits)
    layers = dict.fromkeys(_resolved_layer(layer, traits.depth) for layer in request.layers)
    return tuple(
        Reading(layer, request.pooling, request.final_norm and layer == traits.depth)
        for layer in layers or (traits.depth,)
    )


def check_answer_size(
    request: EmbedRequest, wanted: Sequence[Reading], traits: Traits, max_bytes: int
) -> None:
    """Refuse what could not be sent back in one message."""
    item_bytes = 4 if request.dtype is Dtype.FLOAT32 else 2
    size = item_bytes * sum(_numbers(reading, traits) for reading in wanted)
    if size > max_bytes:
        raise InvalidInput(
            "layers",
            "The answer would be too large for one message; name fewer layers or ask for float16.",
            f"{max_bytes} bytes",
            f"{size} bytes",
        )


def _numbers(reading: Reading, traits: Traits) -> int:
    shape = traits.shape(reading.layer)
    tokens = shape.rows * shape.columns if reading.pooling is Pooling.PATCH else 1
    return tokens * shape.hidden


def _check_pooling(pooling: Pooling, traits: Traits) -> None:
    if pooling not in traits.poolings:
        raise InvalidInput(
            "pooling",
            f"{traits.architecture} has no {_TOKENS[pooling]}.",
            ", ".join(one.value for one in traits.poolings),
            pooling.value,
        )


def _resolved_layer(layer: int, depth: int) -> int:
    if not -(depth + 1) <= layer <= depth:
        raise InvalidInput(
            "layers", "The model has no such layer.", f"{-(depth + 1)} to {depth}", layer
        )
    return layer if layer >= 0 else layer + depth + 1
