"""Conversions that both model services share: ``common.v1`` and ``model.v1`` messages to and from
the core's types, and the one ``ModelService``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar

import grpc
import numpy as np
import numpy.typing as npt
from PIL import Image

from easel.common.v1 import common_pb2
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.core.card import (
    ClassifierDetails,
    EffectiveConfig,
    GeneratorDetails,
    ModelCard,
    ModelKind,
    ModelState,
)
from services.core.engine import Timing
from services.core.errors import EaselError, InvalidInput, ModelFault, Overloaded
from services.core.fleet import LoadOrder
from services.core.images import ImageLimits, decode
from services.core.server.scopes import ADMIN, Scopes
from services.core.server.status import to_status

log = logging.getLogger("easel.wire")

T = TypeVar("T")

_STATES: Final = {
    ModelState.LOADING: model_pb2.MODEL_STATE_LOADING,
    ModelState.WARMING_UP: model_pb2.MODEL_STATE_WARMING_UP,
    ModelState.READY: model_pb2.MODEL_STATE_READY,
    ModelState.UNLOADING: model_pb2.MODEL_STATE_UNLOADING,
    ModelState.UNLOADED: model_pb2.MODEL_STATE_UNLOADED,
    ModelState.FAILED: model_pb2.MODEL_STATE_FAILED,
}
_KINDS: Final = {
    ModelKind.CLASSIFIER: model_pb2.MODEL_KIND_CLASSIFIER,
    ModelKind.GENERATOR: model_pb2.MODEL_KIND_GENERATOR,
}
_RAW_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_FORMATS: Final[dict[int, str]] = {
    common_pb2.IMAGE_FORMAT_UNSPECIFIED: "PNG",
    common_pb2.IMAGE_FORMAT_PNG: "PNG",
    common_pb2.IMAGE_FORMAT_JPEG: "JPEG",
    common_pb2.IMAGE_FORMAT_WEBP: "WEBP",
}
_RAW_DTYPES: Final[dict[int, np.dtype[Any]]] = {
    common_pb2.RAW_DTYPE_UNSPECIFIED: np.dtype(np.uint8),
    common_pb2.RAW_DTYPE_UINT8: np.dtype(np.uint8),
    common_pb2.RAW_DTYPE_FLOAT32: np.dtype("<f4"),
}


def timing_to_pb(timing: Timing) -> common_pb2.Timing:
    message = common_pb2.Timing()
    fill_timing(message, timing)
    return message


def fill_timing(message: common_pb2.Timing, timing: Timing) -> None:
    message.queue_seconds = timing.queue_seconds
    message.prepare_seconds = timing.prepare_seconds
    message.compute_seconds = timing.compute_seconds
    message.finish_seconds = timing.finish_seconds
    message.batch_rows = timing.batch_rows
    message.steps = timing.steps


class Identified(Protocol):
    """Anything that says which model it is about: a ``ModelCard``, a ``ModelFiles``."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...


def model_ref_to_pb(model: Identified) -> common_pb2.ModelRef:
    message = common_pb2.ModelRef()
    fill_model_ref(message, model)
    return message


def fill_model_ref(message: common_pb2.ModelRef, model: Identified) -> None:
    message.name = model.name
    message.version = model.version
    message.digest = model.digest


def known(values: Mapping[int, T], number: int, field: str) -> T:
    """The value that an enum's ``number`` stands for; ``InvalidInput`` for a number not in it."""
    if number not in values:
        raise InvalidInput(field, f"Unknown {field}.", f"0 to {max(values)}", number)
    return values[number]


def item_error_to_pb(error: BaseException) -> common_pb2.ItemError:
    """One item's failure, with the code, text and reason that a unary call would end with.

    What is ours to mend is logged, as the end of a unary call would be.
    """
    if isinstance(error, ModelFault) or not isinstance(error, EaselError):
        log.error("an item failed", exc_info=error)
    status = to_status(error, "")
    return common_pb2.ItemError(
        code=status.code,
        message=status.message,
        reason=error.reason if isinstance(error, EaselError) else "INTERNAL",
        field=error.field if isinstance(error, InvalidInput) else "",
        retry_after_seconds=error.retry_after_seconds if isinstance(error, Overloaded) else 0.0,
    )


def image_from_pb(message: common_pb2.Image, *, field: str, limits: ImageLimits) -> Image.Image:
    """The picture in ``message``, upright, in the mode it came in.

    Blocking: belongs in a worker pool. ``field`` is the dotted path of ``message`` in the request.
    Raises ``InvalidInput`` naming the part at fault.
    """
    content = message.WhichOneof("content")
    if content == "encoded":
        return decode(message.encoded, field=f"{field}.encoded", limits=limits)
    if content == "raw":
        pixels = _raw_pixels(message.raw, f"{field}.raw", limits)
        height, width, channels = pixels.shape
        return Image.frombytes(_RAW_MODES[channels], (width, height), pixels.tobytes())
    raise InvalidInput(field, "A picture is required: encoded or raw.")


def rgb_from_pb(
    message: common_pb2.Image, *, field: str, limits: ImageLimits
) -> Image.Image | npt.NDArray[np.uint8]:
    """As ``image_from_pb``, but raw RGB stays uint8 [height, width, 3], for whoever needs no more
    than its pixels.
    """
    if message.HasField("raw") and message.raw.channels == 3:
        return _raw_pixels(message.raw, f"{field}.raw", limits)
    return image_from_pb(message, field=field, limits=limits)


def _raw_pixels(raw: common_pb2.RawImage, field: str, limits: ImageLimits) -> npt.NDArray[np.uint8]:
    """[height, width, channels]."""
    height, width, channels, layout = raw.height, raw.width, raw.channels, raw.layout
    if channels not in _RAW_MODES:
        raise InvalidInput(
            f"{field}.channels", "Pixels have 1, 3 or 4 channels.", "1, 3 or 4", channels
        )
    _check_raw_size(width, height, field, limits)
    pixels = np.frombuffer(_raw_data(raw, field), np.uint8)
    if layout == common_pb2.RAW_LAYOUT_CHW:
        planes = pixels.reshape(channels, height, width)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    if layout not in (common_pb2.RAW_LAYOUT_UNSPECIFIED, common_pb2.RAW_LAYOUT_HWC):
        raise InvalidInput(f"{field}.layout", "Unknown layout.", "HWC or CHW", layout)
    return pixels.reshape(height, width, channels)


def _check_raw_size(width: int, height: int, field: str, limits: ImageLimits) -> None:
    for name, length in (("width", width), ("height", height)):
        if length == 0:
            raise InvalidInput(f"{field}.{name}", f"The {name} must be at least 1.", 1, 0)
        if length > limits.max_side:
            raise InvalidInput(
                f"{field}.{name}", f"The {name} is too large.", limits.max_side, length
            )
    if width * height > limits.max_pixels:
        raise InvalidInput(
            field,
            "The picture has too many pixels.",
            f"{limits.max_pixels} pixels",
            f"{width}x{height}",
        )


def _raw_data(raw: common_pb2.RawImage, field: str) -> bytes:
    """The elements of ``raw`` as uint8; floats are rounded."""
    dtype = _RAW_DTYPES.get(raw.dtype)
    if dtype is None:
        raise InvalidInput(f"{field}.dtype", "Unknown dtype.", "UINT8 or FLOAT32", raw.dtype)
    expected = raw.width * raw.height * raw.channels * dtype.itemsize
    data = raw.data  # each access copies it
    if len(data) != expected:
        raise InvalidInput(
            f"{field}.data",
            "The data does not have width * height * channels elements.",
            f"{expected} bytes",
            f"{len(data)} bytes",
        )
    if dtype.itemsize == 1:
        return data
    elements = np.frombuffer(data, dtype)
    # Written so that NaN fails it too.
    if not (elements.min() >= 0.0 and elements.max() <= 1.0):
        raise InvalidInput(f"{field}.data", "Float pixels must be from 0.0 to 1.0.", "0.0 to 1.0")
    return np.rint(elements * 255.0).astype(np.uint8).tobytes()


def image_to_pb(data: bytes) -> common_pb2.Image:
    """A picture that is already encoded, as it goes into an answer."""
    return common_pb2.Image(encoded=data)


def image_output_from_pb(message: common_pb2.ImageOutput, *, field: str) -> tuple[str, int | None]:
    """The ``format`` and ``quality`` that ``core.images.encode`` takes; PNG when unset.

    Raises ``InvalidInput`` for an unknown format, for quality outside 1 to 100 and for any
    quality with PNG.
    """
    name = _FORMATS.get(message.format)
    if name is None:
        raise InvalidInput(
            f"{field}.format", "Unknown image format.", "PNG, JPEG, WEBP", message.format
        )
    if not message.HasField("quality"):
        return name, None
    if name == "PNG":
        raise InvalidInput(
            f"{field}.quality", "PNG is lossless and has no quality.", "unset", message.quality
        )
    if not 1 <= message.quality <= 100:
        raise InvalidInput(
            f"{field}.quality", "Quality is out of range.", "1 to 100", message.quality
        )
    return name, message.quality


def model_info_to_pb(card: ModelCard) -> model_pb2.ModelInfo:
    info = model_pb2.ModelInfo(
        name=card.name,
        version=card.version,
        digest=card.digest,
        kind=_KINDS[card.kind],
        state=_STATES[card.state],
        error=card.error,
        architecture=card.architecture,
        parameters=card.parameters,
        bytes_in_memory=card.bytes_in_memory,
        config=_config_to_pb(card.config),
        traffic_share=card.traffic_share,
        licence=card.licence,
    )
    if card.loaded_at is not None:
        info.loaded_at.FromNanoseconds(int(card.loaded_at * 1e9))
    if isinstance(card.details, ClassifierDetails):
        info.classifier.CopyFrom(_classifier_to_pb(card.details))
    elif isinstance(card.details, GeneratorDetails):
        info.generator.CopyFrom(_generator_to_pb(card.details))
    return info


def _config_to_pb(config: EffectiveConfig) -> model_pb2.EffectiveConfig:
    return model_pb2.EffectiveConfig(
        backend=config.backend,
        device=config.device,
        device_name=config.device_name,
        precision=config.precision,
        threads=config.threads,
        batches=[
            model_pb2.BatchProfile(
                key=profile.key,
                max_rows=profile.max_rows,
                base_seconds=profile.base_seconds,
                seconds_per_cost=profile.seconds_per_cost,
                observations=profile.observations,
            )
            for profile in config.batches
        ],
        max_backlog_seconds=config.max_backlog_seconds,
        max_rows=config.max_rows,
        extra=config.extra,
    )


def _classifier_to_pb(details: ClassifierDetails) -> model_pb2.ClassifierDetails:
    return model_pb2.ClassifierDetails(
        labels=details.labels,
        image_width=details.image_width,
        image_height=details.image_height,
        patch_size=details.patch_size,
        layers=details.layers,
        hidden_size=details.hidden_size,
        multi_label=details.multi_label,
    )


def _generator_to_pb(details: GeneratorDetails) -> model_pb2.GeneratorDetails:
    return model_pb2.GeneratorDetails(
        samplers=details.samplers,
        default_sampler=details.default_sampler,
        default_width=details.default_width,
        default_height=details.default_height,
        size_multiple=details.size_multiple,
        max_pixels=details.max_pixels,
        max_steps=details.max_steps,
        max_count=details.max_count,
        default_steps=details.default_steps,
        default_guidance_scale=details.default_guidance_scale,
        max_prompt_tokens=details.max_prompt_tokens,
        modes=details.modes,
        adapters=details.adapters,
        step_engine=details.step_engine,
        prediction_type=details.prediction_type,
        layout=details.layout,
        safety_checker=details.safety_checker,
        embeddings=details.embeddings,
        controls=details.controls,
        max_clip_skip=details.max_clip_skip,
    )


class ModelCatalogue(Protocol):
    """The models a service has, as they are now."""

    def list_models(self) -> Sequence[ModelCard]: ...

    def get_model(self, name: str, version: str) -> ModelCard:
        """The default model for an empty name. Raises ``NotFound``."""


class ModelLife(ModelCatalogue, Protocol):
    """A catalogue that changes: ``core.fleet.Fleet``, which says what each call raises."""

    async def load_model(self, order: LoadOrder) -> ModelCard: ...
    async def unload_model(self, name: str, version: str) -> ModelCard: ...
    def set_traffic(self, name: str, shares: Mapping[str, float]) -> Sequence[ModelCard]: ...
    def watch_models(self) -> AsyncGenerator[ModelCard, None]: ...


def add_model_service(server: grpc.aio.Server, catalogue: ModelCatalogue) -> None:
    servicer = ModelServicer(catalogue)  # type: ignore[abstract]  # the rest is not served yet
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)


def add_model_life_service(server: grpc.aio.Server, life: ModelLife, scopes: Scopes) -> None:
    """As ``add_model_service``, with the calls that change models, for whom ``scopes`` let."""
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelLifeServicer(life, scopes), server)


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Reading of a catalogue; the calls that change one answer UNIMPLEMENTED."""

    def __init__(self, catalogue: ModelCatalogue) -> None:
        self._catalogue = catalogue

    async def ListModels(
        self,
        request: model_pb2.ListModelsRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> model_pb2.ListModelsResponse:
        cards = self._catalogue.list_models()
        return model_pb2.ListModelsResponse(models=[model_info_to_pb(card) for card in cards])

    async def GetModel(
        self,
        request: model_pb2.GetModelRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> model_pb2.GetModelResponse:
        card = self._catalogue.get_model(request.name, request.version)
        return model_pb2.GetModelResponse(model=model_info_to_pb(card))


class ModelLifeServicer(ModelServicer):
    """All of the service."""

    def __init__(self, life: ModelLife, scopes: Scopes) -> None:
        super().__init__(life)
        self._life = life
        self._scopes = scopes

    async def LoadModel(
        self,
        request: model_pb2.LoadModelRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> model_pb2.LoadModelResponse:
        self._scopes.require(ADMIN)
        card = await self._life.load_model(_order_from_pb(request))
        return model_pb2.LoadModelResponse(model=model_info_to_pb(card))

    async def UnloadModel(
        self,
        request: model_pb2.UnloadModelRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> model_pb2.UnloadModelResponse:
        self._scopes.require(ADMIN)
        card = await self._life.unload_model(request.name, request.version)
        return model_pb2.UnloadModelResponse(model=model_info_to_pb(card))

    async def SetTraffic(
        self,
        request: model_pb2.SetTrafficRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> model_pb2.SetTrafficResponse:
        self._scopes.require(ADMIN)
        cards = self._life.set_traffic(request.name, dict(request.shares))
        return model_pb2.SetTrafficResponse(models=[model_info_to_pb(card) for card in cards])

    async def WatchModels(
        self,
        request: model_pb2.WatchModelsRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> AsyncGenerator[model_pb2.WatchModelsResponse, None]:
        async with aclosing(self._life.watch_models()) as cards:
            async for card in cards:
                yield model_pb2.WatchModelsResponse(model=model_info_to_pb(card))


def _order_from_pb(request: model_pb2.LoadModelRequest) -> LoadOrder:
    return LoadOrder(
        reference=request.reference,
        name=request.name,
        version=request.version,
        backend=request.backend,
        device=request.device,
        precision=request.precision,
        options=dict(request.options),
        make_default=request.make_default,
    )
