"""GatewayService.Status and health, with services up, down and odd."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import easel
from easel.gateway.v1 import gateway_pb2 as pb
from easel.gateway.v1 import gateway_pb2_grpc
from easel.model.v1 import model_pb2
from gateway.routing import SERVICE_OF
from tests.integration.gateway.fakes import (
    CLASSIFY,
    LIST_MODELS,
    Door,
    FakeService,
    failure,
    gateway,
)


def listing(*names: str) -> Any:
    async def behavior(request: bytes, context: Any) -> bytes:
        models = [model_pb2.ModelInfo(name=name) for name in names]
        return model_pb2.ListModelsResponse(models=models).SerializeToString()

    return behavior


async def never(request: bytes, context: Any) -> bytes:
    await asyncio.get_running_loop().create_future()
    return b""


async def status_of(door: Door, *services: str, seconds: float | None = None) -> pb.StatusResponse:
    stub: Any = gateway_pb2_grpc.GatewayServiceStub(door.channel)
    answer: pb.StatusResponse = await stub.Status(
        pb.StatusRequest(services=services), timeout=seconds
    )
    return answer


class TestStatus:
    async def test_partial_answer(
        self, door: Door, classifier: FakeService, generator: FakeService
    ) -> None:
        classifier.behaviors[LIST_MODELS] = listing("vit", "vit-large")
        generator.behaviors[LIST_MODELS] = listing("sd")
        await generator.tell_health("NOT_SERVING")
        answer = await status_of(door)
        by_name = {service.name: service for service in answer.services}
        assert list(by_name) == ["classifier", "generator", "ranker"]
        assert not answer.ready
        assert answer.version == easel.__version__
        assert answer.uptime_seconds > 0
        good, loading, down = by_name.values()
        assert good.state == pb.SERVICE_STATE_SERVING
        assert [model.name for model in good.models] == ["vit", "vit-large"]
        assert (good.error, good.target) == ("", classifier.target)
        assert good.latency_seconds > 0
        assert loading.state == pb.SERVICE_STATE_NOT_SERVING
        assert "NOT_SERVING" in loading.error
        assert [model.name for model in loading.models] == ["sd"]
        assert down.state == pb.SERVICE_STATE_UNREACHABLE
        assert "UNAVAILABLE" in down.error

    async def test_ready_when_all_that_are_asked_serve(
        self, door: Door, classifier: FakeService
    ) -> None:
        classifier.behaviors[LIST_MODELS] = listing("vit")
        answer = await status_of(door, "classifier")
        assert [service.name for service in answer.services] == ["classifier"]
        assert answer.ready

    async def test_load_is_what_passed(self, door: Door) -> None:
        await door.method(CLASSIFY)(b"")
        (service,) = (await status_of(door, "classifier")).services
        assert (service.load.calls_started, service.load.calls_failed) == (1, 0)
        assert service.load.calls_in_flight == 0
        assert service.load.mean_seconds > 0

    async def test_models_that_do_not_answer_cost_only_themselves(
        self, classifier: FakeService
    ) -> None:
        classifier.behaviors[LIST_MODELS] = never
        async with gateway(classifier_target=classifier.target, status_timeout_seconds=0.2) as door:
            (service,) = (await status_of(door, "classifier")).services
        assert service.state == pb.SERVICE_STATE_SERVING
        assert "models are not known: DEADLINE_EXCEEDED" in service.error

    async def test_fits_the_callers_deadline(self, classifier: FakeService) -> None:
        classifier.behaviors[LIST_MODELS] = never
        async with gateway(classifier_target=classifier.target, status_timeout_seconds=60) as door:
            (service,) = (await status_of(door, "classifier", seconds=3)).services
        assert service.state == pb.SERVICE_STATE_SERVING

    async def test_foreign_server_behind_a_target(self, classifier: FakeService) -> None:
        async with gateway(ranker_target=classifier.target) as door:
            (service,) = (await status_of(door, "ranker")).services
        assert service.state == pb.SERVICE_STATE_NOT_SERVING
        assert "NOT_FOUND" in service.error

    @pytest.mark.parametrize("name", ["", "trainer", "nonsense"])
    async def test_unknown_service(self, name: str, door: Door) -> None:
        error = await failure(status_of(door, name))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    async def test_more_names_than_services(self, door: Door) -> None:
        error = await failure(status_of(door, *["classifier"] * 4))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "Too many services."


class TestHealth:
    async def test_own_names_serve_with_everything_down(self) -> None:
        async with gateway() as door:
            for service in ("", "easel.gateway.v1.GatewayService"):
                request = health_pb2.HealthCheckRequest(service=service)
                answer = await health_pb2_grpc.HealthStub(door.channel).Check(request)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING

    @pytest.mark.parametrize("name", SERVICE_OF)
    async def test_health_of_others_is_not_guessed(self, name: str, door: Door) -> None:
        request = health_pb2.HealthCheckRequest(service=SERVICE_OF[name])
        error = await failure(health_pb2_grpc.HealthStub(door.channel).Check(request))
        assert error.code() is grpc.StatusCode.NOT_FOUND
