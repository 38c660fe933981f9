"""The classifier as the index sees it: what a picture's vector is, and what it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import grpc
import numpy as np

from easel.classifier.v1 import classifier_pb2, classifier_pb2_grpc
from easel.common.v1 import common_pb2
from ranker.index.collection import Origin
from ranker.index.entry import Label, Vector, unit
from ranker.pictures.upstream import CLASSIFIER, MAX_RETRY_SECONDS, Sleep, naming
from services.core.errors import InvalidInput, ModelFault, Overloaded

R = TypeVar("R")

POOLINGS: Final[dict[int, str]] = {
    classifier_pb2.POOLING_UNSPECIFIED: "cls",
    classifier_pb2.POOLING_CLS: "cls",
    classifier_pb2.POOLING_MEAN: "mean",
}
FITS: Final[dict[int, str]] = {
    classifier_pb2.FIT_UNSPECIFIED: "model",
    classifier_pb2.FIT_MODEL: "model",
    classifier_pb2.FIT_PAD: "pad",
    classifier_pb2.FIT_CENTER_CROP: "center_crop",
}
POOLINGS_TO_PB: Final = {
    "cls": classifier_pb2.POOLING_CLS,
    "mean": classifier_pb2.POOLING_MEAN,
}
FITS_TO_PB: Final = {
    "model": classifier_pb2.FIT_MODEL,
    "pad": classifier_pb2.FIT_PAD,
    "center_crop": classifier_pb2.FIT_CENTER_CROP,
}
_GREY: Final = common_pb2.Image(
    raw=common_pb2.RawImage(data=b"\x80\x80\x80", width=1, height=1, channels=3)
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which vectors are wanted: of the classifier's default model and its last layer, unless it is
    said. ``layer`` counts from the last where it is negative."""

    model: str = ""
    version: str = ""
    layer: int = -1
    pooling: str = "cls"
    fit: str = "model"

    @classmethod
    def like(cls, origin: Origin) -> Self:
        return cls(origin.model, origin.version, origin.layer, origin.pooling, origin.fit)


@dataclass(frozen=True, slots=True)
class IndexClassifier:
    """Embed and Classify; each asks once more where the classifier is busy. Errors are those of the
    tree, naming it; those of a picture are about ``image``."""

    channel: grpc.aio.Channel
    sleep: Sleep = asyncio.sleep

    @property
    def _stub(self) -> Any:
        return classifier_pb2_grpc.ClassifierServiceStub(self.channel)

    async def embed(self, image: common_pb2.Image, asked: Asked) -> tuple[Origin, Vector]:
        """The picture's vector, of length 1, and what it was made by."""
        request = classifier_pb2.EmbedRequest(
            image=image,
            model=asked.model,
            model_version=asked.version,
            layers=[asked.layer],
            pooling=POOLINGS_TO_PB[asked.pooling],
            normalize=True,
            fit=FITS_TO_PB[asked.fit],
        )
        answer = await self._asking(lambda: self._stub.Embed(request))
        return _origin(answer, asked), _vector(answer)

    async def origin(self, asked: Asked) -> Origin:
        """What vectors are made by that are asked for so. Raises ``InvalidInput`` on a field of
        CreateCollectionRequest, and ``NotFound`` for a model."""
        try:
            return (await self.embed(_GREY, asked))[0]
        except InvalidInput as error:
            field = "layer" if error.field.startswith("layers") else error.field
            raise InvalidInput(
                field, error.message, error.limit, error.given, reason=error.reason
            ) from error

    async def labels(self, image: common_pb2.Image, origin: Origin) -> tuple[Label, ...]:
        """The best few, best first."""
        request = classifier_pb2.ClassifyRequest(
            image=image,
            model=origin.model,
            model_version=origin.version,
            fit=FITS_TO_PB[origin.fit],
        )
        answer = await self._asking(lambda: self._stub.Classify(request))
        return tuple(Label(label.index, label.name, label.score) for label in answer.labels)

    async def _asking(self, ask: Callable[[], Awaitable[R]]) -> R:
        try:
            return await _asked(ask)
        except Overloaded as busy:
            await self.sleep(min(busy.retry_after_seconds, MAX_RETRY_SECONDS))
            return await _asked(ask)


async def _asked(ask: Callable[[], Awaitable[R]]) -> R:
    with naming(CLASSIFIER):
        return await ask()


def _origin(answer: classifier_pb2.EmbedResponse, asked: Asked) -> Origin:
    (made,) = _single(answer)
    return Origin(
        model=answer.model.name,
        version=answer.model.version,
        digest=answer.model.digest,
        layer=made.layer,
        pooling=asked.pooling,
        fit=asked.fit,
        dimensions=made.shape[0],
    )


def _vector(answer: classifier_pb2.EmbedResponse) -> Vector:
    (made,) = _single(answer)
    try:
        return unit(np.frombuffer(made.data, "<f4"), field="image")
    except InvalidInput as error:
        raise ModelFault("The classifier's vector of a picture points nowhere.") from error


def _single(answer: classifier_pb2.EmbedResponse) -> tuple[classifier_pb2.Embedding]:
    if len(answer.embeddings) == 1:
        (made,) = answer.embeddings
        is_float = made.dtype == classifier_pb2.EMBEDDING_DTYPE_FLOAT32
        if is_float and len(made.shape) == 1 and len(made.data) == 4 * made.shape[0] > 0:
            return (made,)
    raise ModelFault("The classifier answered other embeddings than it was asked for.")
