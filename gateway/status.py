"""Asks every service at once how it is; one that is down costs its own line, not the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from easel.gateway.v1 import gateway_pb2 as pb
from easel.model.v1 import model_pb2, model_pb2_grpc
from gateway.routing import MODEL_UPSTREAMS, SERVICE_OF
from gateway.upstream import Traffic, Upstream
from services.core.errors import InvalidInput
from services.core.server import call as calls

# What is left of the caller's time is for the answer's way back.
_SHARE_OF_DEADLINE: Final = 0.8
_MAX_ERROR_CHARS: Final = 300
_UNREACHABLE_CODES: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
)


@dataclass(frozen=True, slots=True)
class StatusBoard:
    """The state of every upstream, asked anew each time.

    ``timeout_seconds`` bounds the answer of one service; a caller's shorter deadline bounds it
    further, so that the partial answer still arrives.
    """

    upstreams: Mapping[str, Upstream]
    timeout_seconds: float

    async def ask(self, names: Sequence[str]) -> list[pb.ServiceStatus]:
        """Return one status for each of ``names``, or for all; ``InvalidInput`` for others, or more
        names than there are services."""
        if len(names) > len(self.upstreams):
            raise InvalidInput(
                "services", "Too many services.", limit=len(self.upstreams), given=len(names)
            )
        asked = list(dict.fromkeys(names)) or list(self.upstreams)
        for name in asked:
            if name not in self.upstreams:
                raise InvalidInput(
                    "services", "No such service.", limit=", ".join(self.upstreams), given=name
                )
        seconds = self._seconds()
        return await asyncio.gather(*(_ask(self.upstreams[name], seconds) for name in asked))

    def _seconds(self) -> float:
        remaining = calls.current().remaining_seconds()
        if remaining is None:
            return self.timeout_seconds
        return min(self.timeout_seconds, max(0.0, remaining * _SHARE_OF_DEADLINE))


@dataclass(frozen=True, slots=True)
class _Health:
    state: pb.ServiceState.ValueType
    error: str
    latency_seconds: float


async def _ask(upstream: Upstream, seconds: float) -> pb.ServiceStatus:
    load = _load(upstream.traffic)
    health, (models, models_error) = await asyncio.gather(
        _health(upstream, seconds), _models(upstream, seconds)
    )
    return pb.ServiceStatus(
        name=upstream.name,
        target=upstream.target,
        state=health.state,
        error=health.error or models_error,
        latency_seconds=health.latency_seconds,
        models=models,
        load=load,
    )


async def _health(upstream: Upstream, seconds: float) -> _Health:
    request = health_pb2.HealthCheckRequest(service=SERVICE_OF[upstream.name])
    started = time.perf_counter()
    try:
        answer = await health_pb2_grpc.HealthStub(upstream.channel).Check(request, timeout=seconds)
        state, error = _state_of(answer.status)
    except grpc.aio.AioRpcError as failure:
        reached = failure.code() not in _UNREACHABLE_CODES
        state = pb.SERVICE_STATE_NOT_SERVING if reached else pb.SERVICE_STATE_UNREACHABLE
        error = _why(failure)
    return _Health(state, error, time.perf_counter() - started)


def _state_of(health: int) -> tuple[pb.ServiceState.ValueType, str]:
    if health == health_pb2.HealthCheckResponse.SERVING:
        return pb.SERVICE_STATE_SERVING, ""
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(health)
    return pb.SERVICE_STATE_NOT_SERVING, f"its health is {name}"


async def _models(upstream: Upstream, seconds: float) -> tuple[Sequence[model_pb2.ModelInfo], str]:
    if upstream.name not in MODEL_UPSTREAMS:
        return (), ""
    stub = model_pb2_grpc.ModelServiceStub(upstream.channel)
    try:
        answer = await stub.ListModels(model_pb2.ListModelsRequest(), timeout=seconds)
    except grpc.aio.AioRpcError as error:
        return (), f"its models are not known: {_why(error)}"
    return answer.models, ""


def _why(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"[:_MAX_ERROR_CHARS]


def _load(traffic: Traffic) -> pb.Load:
    return pb.Load(
        calls_started=traffic.started,
        calls_failed=traffic.failed,
        calls_in_flight=traffic.in_flight,
        mean_seconds=traffic.mean_seconds,
    )
