"""The servicer of the Open Inference Protocol over a service's models."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, Never

import grpc

import easel
from services.core.caller import Caller
from services.core.card import ModelState
from services.core.errors import InvalidInput, NotFound, NotReady
from services.core.server.call import current
from services.core.server.stream import answer_in_order
from services.inference import open_inference_pb2 as pb
from services.inference import open_inference_pb2_grpc as pb_grpc
from services.inference import wire
from services.inference.model import ModelDescription, TensorModel, caller_of
from services.inference.statistics import Statistics
from services.wire import item_error_to_pb

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE: Final[str] = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

PROBES: Final = tuple(
    f"/{SERVICE}/{method}"
    for method in ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady")
)
"""What is answered while the server does not take requests: telling so is what it is for."""

EXTENSIONS: Final = (
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)
_MAX_ID_BYTES: Final = 128
_REAL_STATUS: Final = ("triton_grpc_error", "true")


def add_inference_service(
    server: grpc.aio.Server,
    models: TensorModel,
    *,
    ready: Callable[[], bool],
    max_in_flight: int,
) -> None:
    """``ready`` tells whether the server takes requests; ``max_in_flight`` requests of one stream
    are under way at a time.
    """
    servicer = InferenceServicer(models, ready, max_in_flight)
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)


class InferenceServicer(pb_grpc.GRPCInferenceServiceServicer):
    """``inference.GRPCInferenceService``."""

    def __init__(self, models: TensorModel, ready: Callable[[], bool], max_in_flight: int) -> None:
        self._models = models
        self._ready = ready
        self._max_in_flight = max_in_flight
        self._statistics = Statistics()

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        del request, context
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        del request, context
        return pb.ServerReadyResponse(ready=self._ready())

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        del context
        return pb.ModelReadyResponse(ready=self._is_ready(request.name, request.version))

    def _is_ready(self, name: str, version: str) -> bool:
        try:
            return self._ready() and _takes_requests(self._models.describe(name, version))
        except (NotFound, NotReady):
            return False

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        del request, context
        return pb.ServerMetadataResponse(
            name="easel", version=easel.__version__, extensions=EXTENSIONS
        )

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        del context
        model = self._models.describe(request.name, request.version)
        alike = (other for other in self._models.describe_all() if other.name == model.name)
        return wire.metadata_to_pb(model, [other.version for other in alike])

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        del context
        model = self._models.describe(request.name, request.version)
        return pb.ModelConfigResponse(config=wire.config_to_pb(model))

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        del context
        return await self._infer(current().caller, request)

    def ModelStreamInfer(
        self, request_iterator: AsyncIterable[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        real = _REAL_STATUS in tuple(context.invocation_metadata() or ())
        return answer_in_order(
            request_iterator,
            partial(self._infer, current().caller),
            max_in_flight=self._max_in_flight,
            finish=_streamed,
            failed=_end_stream if real else _failed,
        )

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        del context
        return pb.ModelStatisticsResponse(
            model_stats=[
                wire.statistics_to_pb(model, self._statistics.of(model))
                for model in self._named(request.name, request.version)
            ]
        )

    def _named(self, name: str, version: str) -> Sequence[ModelDescription]:
        """All of them for no name, all its versions for no version."""
        if name:
            self._models.describe(name, version)  # or it is not found
        return [
            model
            for model in self._models.describe_all()
            if name in ("", model.name) and version in ("", model.version)
        ]

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        del context
        if request.repository_name:
            raise InvalidInput("repository_name", "The one repository here has no name.", "unset")
        models = self._models.describe_all()
        return pb.RepositoryIndexResponse(
            models=[
                wire.index_to_pb(model)
                for model in models
                if _takes_requests(model) or not request.ready
            ]
        )

    async def _infer(self, caller: Caller, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        started = time.perf_counter()
        try:
            asked = wire.request_from_pb(request)
            caller, parameters = caller_of(asked.parameters, caller)
            inference = await self._models.infer(replace(asked, parameters=parameters), caller)
        except BaseException:
            self._count_failure(request, time.perf_counter() - started)
            raise
        self._statistics.succeeded(inference, time.perf_counter() - started)
        return wire.response_to_pb(request.id, inference)

    def _count_failure(self, request: pb.ModelInferRequest, seconds: float) -> None:
        # Where the model is not there, there is nothing to count for.
        with suppress(NotFound, NotReady):
            model = self._models.describe(request.model_name, request.model_version)
            self._statistics.failed(model, seconds)


def _takes_requests(model: ModelDescription) -> bool:
    return model.state is ModelState.READY


def _streamed(
    request: pb.ModelInferRequest, response: pb.ModelInferResponse
) -> pb.ModelStreamInferResponse:
    del request
    response.parameters["triton_final_response"].bool_param = True
    return pb.ModelStreamInferResponse(infer_response=response)


def _failed(request: pb.ModelInferRequest, error: Exception) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse(
        error_message=item_error_to_pb(error).message,
        infer_response=pb.ModelInferResponse(id=request.id[:_MAX_ID_BYTES]),
    )


def _end_stream(request: pb.ModelInferRequest, error: Exception) -> Never:
    del request
    raise error
