"""The model services as the catalogue sees them: what they tell of their models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from easel.model.v1 import model_pb2, model_pb2_grpc
from ranker.catalogue.facts import Served
from services.core.server.status import from_rpc_error


class ServedModels:
    """``facts.Source`` over a channel to a service."""

    def __init__(self, service: str, channel: grpc.aio.Channel) -> None:
        self._service = service
        self._models: Any = model_pb2_grpc.ModelServiceStub(channel)

    @property
    def service(self) -> str:
        return self._service

    async def served(self) -> Sequence[Served]:
        try:
            answer = await self._models.ListModels(model_pb2.ListModelsRequest())
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return [_served(self._service, info) for info in answer.models]


def _served(service: str, info: model_pb2.ModelInfo) -> Served:
    state = model_pb2.ModelState.Name(info.state).removeprefix("MODEL_STATE_").lower()
    return Served(
        service=service,
        name=info.name,
        version=info.version,
        state=state,
        traffic_share=info.traffic_share,
        facts=dict(_facts(info)),
    )


def _facts(info: model_pb2.ModelInfo) -> Iterator[tuple[str, str]]:
    config = info.config
    yield "digest", info.digest
    yield "licence", info.licence
    yield "architecture", info.architecture
    yield "parameters", str(info.parameters or "")
    yield "memory_bytes", str(info.bytes_in_memory or "")
    yield "backend", config.backend
    yield "device", config.device
    yield "device_name", config.device_name
    yield "precision", config.precision
    yield "threads", str(config.threads or "")
    yield from _shape(info)
    for profile in config.batches:
        yield from _measured(profile, info)
    for name, value in sorted(config.extra.items()):
        yield f"config.{name}", value


def _shape(info: model_pb2.ModelInfo) -> Iterator[tuple[str, str]]:
    if info.HasField("classifier"):
        details = info.classifier
        yield "input_size", f"{details.image_width}x{details.image_height}"
        yield "labels", str(len(details.labels))
        yield "embedding_size", str(details.hidden_size)
    if info.HasField("generator"):
        made = info.generator
        yield "layout", made.layout
        yield "modes", ", ".join(made.modes)
        yield "default_size", f"{made.default_width}x{made.default_height}"
        yield "default_steps", str(made.default_steps)


def _measured(
    profile: model_pb2.BatchProfile, info: model_pb2.ModelInfo
) -> Iterator[tuple[str, str]]:
    """What the engine has measured of one kind of step: a batch takes base + per_cost * cost.

    Rows of the classifier cost 1. Those of the generator cost 1 for a look at one text at the
    default size, so 2 with guidance. Nothing where nothing was observed.
    """
    if not profile.observations or not (profile.base_seconds or profile.seconds_per_cost):
        return
    alone = profile.base_seconds + profile.seconds_per_cost
    full = profile.base_seconds + profile.seconds_per_cost * profile.max_rows
    yield f"latency_seconds[{profile.key}]", f"{alone:.6g}"
    yield f"throughput_per_second[{profile.key}]", f"{profile.max_rows / full:.6g}"
    unit = "picture" if info.HasField("classifier") else "look at a text of the default size"
    yield (
        f"measured[{profile.key}]",
        f"per {unit}, at most {profile.max_rows} a batch, {profile.observations} observed",
    )
