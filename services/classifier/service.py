"""The classifier on the wire: convert, delegate, convert."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import grpc
from prometheus_client import CollectorRegistry

from easel.classifier.v1 import classifier_pb2, classifier_pb2_grpc
from easel.common.v1 import common_pb2
from easel.model.v1 import model_pb2
from services.classifier.catalogue import card
from services.classifier.classifier import (
    Classification,
    Classifier,
    Embeddings,
    Explanation,
)
from services.classifier.config import ClassifierSettings
from services.classifier.embedding import Embedding
from services.classifier.explanation import Method
from services.classifier.inference import TensorClassifier
from services.classifier.model import Answer, ClassifierModel, Row
from services.classifier.network import Pooling
from services.classifier.preprocessing import Fit
from services.classifier.request import (
    MAX_ID_BYTES,
    ClassifyRequest,
    Dtype,
    EmbedRequest,
    ExplainRequest,
    FileFormat,
    Picture,
)
from services.core.caller import Caller
from services.core.card import ModelKind
from services.core.engine import Engine
from services.core.errors import InvalidInput
from services.core.fleet import Maker
from services.core.images import ImageLimits, small_size
from services.core.pool import WorkerPool
from services.core.server.call import current
from services.core.server.engine_app import FleetApplication
from services.core.server.scopes import Scopes
from services.core.server.stream import answer_each
from services.inference.service import PROBES, SERVICE, add_inference_service
from services.wire import (
    add_model_life_service,
    fill_model_ref,
    fill_timing,
    image_output_from_pb,
    image_to_pb,
    item_error_to_pb,
    known,
    model_ref_to_pb,
    rgb_from_pb,
    timing_to_pb,
)

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

# More than any model has: ImageNet-21k has 21,843 labels.
MAX_NAMED: Final = 32_768

_FITS: Final[dict[int, Fit]] = {
    classifier_pb2.FIT_UNSPECIFIED: Fit.MODEL,
    classifier_pb2.FIT_MODEL: Fit.MODEL,
    classifier_pb2.FIT_PAD: Fit.PAD,
    classifier_pb2.FIT_CENTER_CROP: Fit.CENTER_CROP,
}
_POOLINGS: Final[dict[int, Pooling]] = {
    classifier_pb2.POOLING_UNSPECIFIED: Pooling.CLS,
    classifier_pb2.POOLING_CLS: Pooling.CLS,
    classifier_pb2.POOLING_MEAN: Pooling.MEAN,
    classifier_pb2.POOLING_PATCH: Pooling.PATCH,
}
_DTYPES: Final[dict[int, Dtype]] = {
    classifier_pb2.EMBEDDING_DTYPE_UNSPECIFIED: Dtype.FLOAT32,
    classifier_pb2.EMBEDDING_DTYPE_FLOAT32: Dtype.FLOAT32,
    classifier_pb2.EMBEDDING_DTYPE_FLOAT16: Dtype.FLOAT16,
}
_METHODS: Final[dict[int, Method]] = {
    classifier_pb2.EXPLAIN_METHOD_UNSPECIFIED: Method.ROLLOUT,
    classifier_pb2.EXPLAIN_METHOD_ROLLOUT: Method.ROLLOUT,
    classifier_pb2.EXPLAIN_METHOD_GRADIENT: Method.GRADIENT,
}
_POOLINGS_TO_PB: Final = {
    Pooling.CLS: classifier_pb2.POOLING_CLS,
    Pooling.MEAN: classifier_pb2.POOLING_MEAN,
    Pooling.PATCH: classifier_pb2.POOLING_PATCH,
}
_DTYPES_TO_PB: Final = {
    Dtype.FLOAT32: classifier_pb2.EMBEDDING_DTYPE_FLOAT32,
    Dtype.FLOAT16: classifier_pb2.EMBEDDING_DTYPE_FLOAT16,
}


class ClassifierServicer(classifier_pb2_grpc.ClassifierServiceServicer):
    """``max_in_flight`` items of one stream are under way at a time."""

    def __init__(
        self, classifier: Classifier, image_limits: ImageLimits, *, max_in_flight: int
    ) -> None:
        self._classifier = classifier
        self._image_limits = image_limits
        self._max_in_flight = max_in_flight

    async def Classify(
        self, request: classifier_pb2.ClassifyRequest, context: Context
    ) -> classifier_pb2.ClassifyResponse:
        del context
        result = await self._classify(current().caller, request)
        return _classification_to_pb(request, result)

    def ClassifyStream(
        self, request_iterator: AsyncIterable[classifier_pb2.ClassifyRequest], context: Context
    ) -> AsyncIterator[classifier_pb2.ClassifyResponse]:
        del context
        return answer_each(
            request_iterator,
            partial(self._classify, current().caller),
            max_in_flight=self._max_in_flight,
            finish=_classification_to_pb,
            failed=_classify_failed,
        )

    async def Embed(
        self, request: classifier_pb2.EmbedRequest, context: Context
    ) -> classifier_pb2.EmbedResponse:
        del context
        return _embeddings_to_pb(request, await self._embed(current().caller, request))

    def EmbedStream(
        self, request_iterator: AsyncIterable[classifier_pb2.EmbedRequest], context: Context
    ) -> AsyncIterator[classifier_pb2.EmbedResponse]:
        del context
        return answer_each(
            request_iterator,
            partial(self._embed, current().caller),
            max_in_flight=self._max_in_flight,
            finish=_embeddings_to_pb,
            failed=_embed_failed,
        )

    async def Explain(
        self, request: classifier_pb2.ExplainRequest, context: Context
    ) -> classifier_pb2.ExplainResponse:
        del context
        asked = _explain_from_pb(request, self._picture(request.image))
        result = await self._classifier.explain(asked, current().caller)
        return _explanation_to_pb(request, result)

    def _classify(
        self, caller: Caller, request: classifier_pb2.ClassifyRequest
    ) -> Awaitable[Classification]:
        asked = _classify_from_pb(request, self._picture(request.image))
        return self._classifier.classify(asked, caller)

    def _embed(self, caller: Caller, request: classifier_pb2.EmbedRequest) -> Awaitable[Embeddings]:
        return self._classifier.embed(_embed_from_pb(request, self._picture(request.image)), caller)

    def _picture(self, image: common_pb2.Image) -> Picture:
        decode = partial(rgb_from_pb, image, field="image", limits=self._image_limits)
        if image.HasField("raw"):
            raw = image.raw
            return Picture(decode, raw.width * raw.height * raw.channels)
        size = small_size(image.encoded)
        return Picture(decode, None if size is None else size[0] * size[1] * 3)


class ClassifierApp(FleetApplication[ClassifierModel]):
    """The classifier's process. ``maker`` makes further models; without one none can be loaded."""

    service_names = (
        classifier_pb2.DESCRIPTOR.services_by_name["ClassifierService"].full_name,
        model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
        SERVICE,
    )
    probes = PROBES

    def __init__(
        self,
        settings: ClassifierSettings,
        model: ClassifierModel,
        maker: Maker[ClassifierModel] | None = None,
        *,
        registry: CollectorRegistry | None = None,
    ) -> None:
        super().__init__(
            lambda: (model.find(), model),
            card,
            kind=ModelKind.CLASSIFIER,
            limits=settings.engine_limits,
            registry=registry,
            maker=maker,
            budget_bytes=settings.memory_budget_bytes,
        )
        self.settings = settings
        decode = WorkerPool("decode", settings.decode_threads, settings.decode_pending)
        self.pools = (decode,)
        self._classifier = Classifier(
            self.fleet, decode, max_answer_bytes=settings.max_message_bytes // 2
        )

    @property
    def engine(self) -> Engine[Row, Answer]:
        """That of the default model."""
        return self.fleet.find("", "").engine

    def register(self, server: grpc.aio.Server) -> None:
        servicer = ClassifierServicer(
            self._classifier,
            self.settings.image_limits,
            max_in_flight=self.settings.max_in_flight,
        )
        classifier_pb2_grpc.add_ClassifierServiceServicer_to_server(servicer, server)
        settings = self.settings
        scopes = Scopes(
            administration=settings.administered, setting=settings.administration_variable()
        )
        add_model_life_service(server, self.fleet, scopes)
        add_inference_service(
            server,
            TensorClassifier(
                self._classifier, self.fleet, settings.image_limits, settings.engine_limits
            ),
            ready=lambda: self.ready,
            max_in_flight=settings.max_in_flight,
        )


def _classify_from_pb(request: classifier_pb2.ClassifyRequest, picture: Picture) -> ClassifyRequest:
    return ClassifyRequest(
        picture=picture,
        id=request.id,
        model=request.model,
        model_version=request.model_version,
        top_k=request.top_k if request.HasField("top_k") else None,
        threshold=request.threshold,
        labels=_bounded(request.labels, "labels"),
        logits=request.logits,
        fit=known(_FITS, request.fit, "fit"),
    )


def _embed_from_pb(request: classifier_pb2.EmbedRequest, picture: Picture) -> EmbedRequest:
    return EmbedRequest(
        picture=picture,
        id=request.id,
        model=request.model,
        model_version=request.model_version,
        layers=_bounded(request.layers, "layers"),
        pooling=known(_POOLINGS, request.pooling, "pooling"),
        normalize=request.normalize,
        dtype=known(_DTYPES, request.dtype, "dtype"),
        final_norm=request.final_norm if request.HasField("final_norm") else True,
        fit=known(_FITS, request.fit, "fit"),
    )


def _explain_from_pb(request: classifier_pb2.ExplainRequest, picture: Picture) -> ExplainRequest:
    overlay = FileFormat(*image_output_from_pb(request.output, field="output"))
    if request.HasField("output") and not request.overlay:
        raise InvalidInput("output", "An output is of the heat map: ask for overlay with it.")
    return ExplainRequest(
        picture=picture,
        id=request.id,
        model=request.model,
        model_version=request.model_version,
        method=known(_METHODS, request.method, "method"),
        label=request.label,
        overlay=overlay if request.overlay else None,
        fit=known(_FITS, request.fit, "fit"),
    )


def _bounded(values: Sequence[T], field: str) -> tuple[T, ...]:
    """Copying comes after counting: a request holds more numbers than the loop has time for."""
    if len(values) > MAX_NAMED:
        raise InvalidInput(field, f"Too many {field}.", MAX_NAMED, len(values))
    return tuple(values)


def _classification_to_pb(
    request: classifier_pb2.ClassifyRequest, result: Classification
) -> classifier_pb2.ClassifyResponse:
    # Filled in place: a message handed to a constructor is serialised and parsed to be copied.
    response = classifier_pb2.ClassifyResponse(id=request.id)
    add = response.labels.add
    for label in result.labels:
        add(index=label.index, name=label.name, score=label.score, logit=label.logit)
    fill_model_ref(response.model, result.model)
    fill_timing(response.timing, result.timing)
    return response


def _embeddings_to_pb(
    request: classifier_pb2.EmbedRequest, result: Embeddings
) -> classifier_pb2.EmbedResponse:
    return classifier_pb2.EmbedResponse(
        id=request.id,
        embeddings=[_embedding_to_pb(embedding) for embedding in result.embeddings],
        model=model_ref_to_pb(result.model),
        timing=timing_to_pb(result.timing),
    )


def _embedding_to_pb(embedding: Embedding) -> classifier_pb2.Embedding:
    return classifier_pb2.Embedding(
        layer=embedding.reading.layer,
        data=embedding.data,
        dtype=_DTYPES_TO_PB[embedding.dtype],
        shape=embedding.shape,
        normalized=embedding.normalized,
        final_norm=embedding.reading.final_norm,
        pooling=_POOLINGS_TO_PB[embedding.pooling],
    )


def _explanation_to_pb(
    request: classifier_pb2.ExplainRequest, result: Explanation
) -> classifier_pb2.ExplainResponse:
    rows, columns = result.relevance.shape
    label = result.label
    return classifier_pb2.ExplainResponse(
        id=request.id,
        label=common_pb2.Label(index=label.index, name=label.name, score=label.score),
        relevance=result.relevance.ravel().tolist(),
        rows=rows,
        columns=columns,
        heat_map=None if result.heat_map is None else image_to_pb(result.heat_map),
        model=model_ref_to_pb(result.model),
        timing=timing_to_pb(result.timing),
    )


def _classify_failed(
    request: classifier_pb2.ClassifyRequest, error: Exception
) -> classifier_pb2.ClassifyResponse:
    return classifier_pb2.ClassifyResponse(
        id=request.id[:MAX_ID_BYTES], error=item_error_to_pb(error)
    )


def _embed_failed(
    request: classifier_pb2.EmbedRequest, error: Exception
) -> classifier_pb2.EmbedResponse:
    return classifier_pb2.EmbedResponse(id=request.id[:MAX_ID_BYTES], error=item_error_to_pb(error))
