"""The classifier as the Open Inference Protocol sees it: pictures in tensors, scores in tensors.

The one input, ``image``, is told by its datatype:

=========  =====================  ================================================================
``UINT8``  [batch, height, width, 3]  RGB pixels
``FP32``   [batch, 3, height, width]  RGB pixels, 0.0 to 1.0; rounded to 8 bits
``BYTES``  [batch] or [batch, 1]      JPEG, PNG or WebP files
=========  =====================  ================================================================

Pixels are a picture of any size, not the network's input: the model's own preprocessing follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

import numpy as np
from PIL import Image

from services.classifier.classifier import Classifier, Scores
from services.classifier.labels import Labels
from services.classifier.preprocessing import Fit, Pixels
from services.classifier.request import Picture, ScoreRequest
from services.core.caller import Caller
from services.core.card import ClassifierDetails, ModelCard
from services.core.engine import EngineLimits
from services.core.errors import InvalidInput
from services.core.images import ImageLimits, decode
from services.inference.model import (
    Inference,
    InferRequest,
    ModelDescription,
    OutputRequest,
    Value,
    unknown_parameter,
)
from services.inference.tensors import (
    ANY,
    BYTES,
    FP32,
    UINT8,
    OutputTensor,
    Tensor,
    TensorSpec,
    check_batch,
    check_shape,
    classes,
    numbers,
    shortened,
    shown,
)

IMAGE: Final = "image"
PROBABILITIES: Final = "probabilities"
LOGITS: Final = "logits"
OUTPUTS: Final = (PROBABILITIES, LOGITS)

_FITS: Final = {fit.value: fit for fit in Fit}


class Cards(Protocol):
    """The models as they are now."""

    def list_models(self) -> Sequence[ModelCard]: ...

    def get_model(self, name: str, version: str) -> ModelCard:
        """Raises ``NotFound``."""


class TensorClassifier:
    """A ``TensorModel`` over the classifier: each picture of a batch is a row of its engine."""

    def __init__(
        self,
        classifier: Classifier,
        cards: Cards,
        image_limits: ImageLimits,
        limits: EngineLimits,
    ) -> None:
        self._classifier = classifier
        self._cards = cards
        self._image_limits = image_limits
        self._limits = limits

    def describe_all(self) -> Sequence[ModelDescription]:
        return [self._described(card) for card in self._cards.list_models()]

    def describe(self, name: str, version: str) -> ModelDescription:
        return self._described(self._cards.get_model(name, version))

    async def infer(self, request: InferRequest, caller: Caller) -> Inference:
        # Once for all pictures: a request without a version may be for one or another.
        chosen = self._classifier.choose(request.model, request.version)
        model = chosen.files
        outputs = wanted(request.outputs)
        fit = fit_of(request.parameters)
        images = pictures(
            request.inputs, limits=self._image_limits, max_batch=self._limits.max_batch_rows
        )
        asked = [
            ScoreRequest(picture, request.id, model.name, model.version, fit) for picture in images
        ]
        found = await _all(partial(self._classifier.score, each, caller) for each in asked)
        return Inference(
            model=model.name,
            version=model.version,
            outputs=[answer(output, found, chosen.labels) for output in outputs],
            timings=[each.timing for each in found],
        )

    def _described(self, card: ModelCard) -> ModelDescription:
        config = card.config
        inputs, outputs = _tensors(card)
        return ModelDescription(
            name=card.name,
            version=card.version,
            state=card.state,
            reason=card.error,
            backend=config.backend,
            max_batch=self._limits.max_batch_rows,
            inputs=inputs,
            outputs=outputs,
            device=config.device,
            bytes_in_memory=card.bytes_in_memory,
            queue_delay_seconds=self._limits.batch_wait_seconds,
            parameters={
                "digest": card.digest,
                "architecture": card.architecture,
                "device": config.device,
                "precision": config.precision,
                "image": "UINT8 [batch, height, width, 3]; FP32 [batch, 3, height, width], 0 to 1; "
                "BYTES [batch] of JPEG, PNG or WebP; pixels of any size",
            },
        )


def pictures(inputs: Sequence[Tensor], *, limits: ImageLimits, max_batch: int) -> list[Picture]:
    """The pictures in a request's tensors, none of them decoded yet.

    Raises ``InvalidInput`` naming what is wrong with the names, the datatype, the shape, or the
    number of pictures or elements.
    """
    tensor = _image(inputs)
    read = _READERS.get(tensor.datatype)
    if read is None:
        known = ", ".join(_READERS)
        raise InvalidInput(
            f"{tensor.field}.datatype",
            f"{IMAGE!r} is {known}, not {shortened(tensor.datatype)!r}.",
            known,
            shortened(tensor.datatype),
        )
    return read(tensor, limits, max_batch)


def _image(inputs: Sequence[Tensor]) -> Tensor:
    for tensor in inputs:
        if tensor.name != IMAGE:
            given = shortened(tensor.name)
            message = f"There is no input {given!r}; the model has {IMAGE!r}."
            raise InvalidInput(f"{tensor.field}.name", message, IMAGE, given)
    if len(inputs) != 1:
        message = f"1 input is taken, {IMAGE!r}, not {len(inputs)}."
        raise InvalidInput("inputs", message, 1, len(inputs))
    return inputs[0]


def _from_uint8(tensor: Tensor, limits: ImageLimits, max_batch: int) -> list[Picture]:
    check_shape(tensor, (ANY, ANY, ANY, 3))
    _, height, width, _ = tensor.shape
    return _from_numbers(tensor, height, width, limits, max_batch, tensor.item)


def _from_fp32(tensor: Tensor, limits: ImageLimits, max_batch: int) -> list[Picture]:
    check_shape(tensor, (ANY, 3, ANY, ANY))
    _, _, height, width = tensor.shape
    return _from_numbers(tensor, height, width, limits, max_batch, partial(_rounded, tensor))


def _from_numbers(
    tensor: Tensor,
    height: int,
    width: int,
    limits: ImageLimits,
    max_batch: int,
    item: Callable[[int], Pixels],
) -> list[Picture]:
    count = check_batch(tensor, max_batch)
    if max(height, width) > limits.max_side or height * width > limits.max_pixels:
        limit = f"{limits.max_side} a side and {limits.max_pixels} pixels"
        raise InvalidInput(
            f"{tensor.field}.shape",
            f"{IMAGE!r} {shown(tensor.shape)} has pictures of {width}x{height}; at most {limit}.",
            limit,
            f"{width}x{height}",
        )
    tensor.check_values()
    # Lists of Python's numbers take longer to read than to hand to another thread.
    quick_bytes = None if tensor.typed else height * width * 3
    return [Picture(partial(item, index), quick_bytes) for index in range(count)]


def _rounded(tensor: Tensor, index: int) -> Pixels:
    planes = tensor.item(index)
    # Written so that NaN fails it too.
    if not (planes.min() >= 0.0 and planes.max() <= 1.0):
        raise InvalidInput(
            tensor.values_field,
            f"Picture {index} of {IMAGE!r} has numbers beyond 0.0 to 1.0, which FP32 pixels are.",
            "0.0 to 1.0",
        )
    pixels: Pixels = np.rint(planes.transpose(1, 2, 0) * 255.0).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _from_bytes(tensor: Tensor, limits: ImageLimits, max_batch: int) -> list[Picture]:
    check_shape(tensor, (ANY,), (ANY, 1))
    check_batch(tensor, max_batch)
    return [
        Picture(partial(_decoded, tensor.values_field, index, element, limits))
        for index, element in enumerate(tensor.elements())
    ]


def _decoded(field: str, index: int, data: bytes, limits: ImageLimits) -> Image.Image:
    try:
        return decode(data, field=field, limits=limits)
    except InvalidInput as error:
        message = f"Picture {index} of {IMAGE!r}: {error.message}"
        raise InvalidInput(field, message, error.limit, error.given) from error


_READERS: Final[Mapping[str, Callable[[Tensor, ImageLimits, int], list[Picture]]]] = {
    UINT8: _from_uint8,
    FP32: _from_fp32,
    BYTES: _from_bytes,
}


def wanted(outputs: Sequence[OutputRequest]) -> Sequence[OutputRequest]:
    """The outputs to answer with. Raises ``InvalidInput`` for an unknown one and for twins."""
    seen: set[str] = set()
    for output in outputs:
        given = shortened(output.name)
        if output.name not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            message = f"There is no output {given!r}; the model has {known}."
            raise InvalidInput(f"{output.field}.name", message, known, given)
        if output.name in seen:
            raise InvalidInput(f"{output.field}.name", f"The output {given!r} is there twice.")
        seen.add(output.name)
    return outputs or [OutputRequest(name) for name in OUTPUTS]


def fit_of(parameters: Mapping[str, Value]) -> Fit:
    """Raises ``InvalidInput`` for a ``fit`` that is none, and for any other parameter."""
    for name in parameters:
        if name != "fit":
            raise unknown_parameter(name, "parameters", "fit", "priority", "timeout")
    given = parameters.get("fit", Fit.MODEL.value)
    if not isinstance(given, str) or given not in _FITS:
        known = ", ".join(_FITS)
        text = shortened(repr(given))
        raise InvalidInput("parameters.fit", f"'fit' is {known}, not {text}.", known, text)
    return _FITS[given]


def answer(output: OutputRequest, found: Sequence[Scores], labels: Labels) -> OutputTensor:
    """``found`` has the scores of each picture of the batch."""
    has_logits = output.name == LOGITS
    rows = [each.logits if has_logits else each.probabilities for each in found]
    if not output.classes:
        return numbers(output.name, np.stack(rows))
    most = min(output.classes, len(labels))
    best = [labels.best(each.logits, top_k=most) for each in found]
    return classes(
        output.name,
        [
            [(float(row[label.index]), label.index, label.name) for label in chosen]
            for row, chosen in zip(rows, best, strict=True)
        ],
    )


def _tensors(card: ModelCard) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
    """Inputs and outputs; none for a model that is not loaded, since nothing is known of it."""
    details = card.details
    if not isinstance(details, ClassifierDetails):
        return (), ()
    shape = (ANY, details.image_height, details.image_width, 3)
    outputs = [TensorSpec(name, FP32, (ANY, len(details.labels))) for name in OUTPUTS]
    return (TensorSpec(IMAGE, UINT8, shape, "NHWC"),), outputs


async def _all(begin: Iterable[Callable[[], Awaitable[Scores]]]) -> list[Scores]:
    """All of them or none: where one fails, the others are given up."""
    begun: list[asyncio.Future[Scores]] = []
    try:
        for each in begin:
            begun.append(asyncio.ensure_future(each()))
        return await asyncio.gather(*begun)
    except BaseException:
        for future in begun:
            future.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        raise
