"""A family outside the step engine, through the same service."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest
import pytest_asyncio
from PIL import Image

from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.core.config import load_settings
from services.core.reference import resolve
from services.generator.config import GeneratorSettings
from services.generator.painter import FoundPainter
from services.generator.pipelines import PipelineModel, load_pipeline
from services.generator.service import GeneratorApp
from tests.integration.generator.server import until
from tests.integration.serving import serving
from tests.parity.generator.families import save_sd3


class Service:
    def __init__(self, app: GeneratorApp, channel: grpc.aio.Channel) -> None:
        self.app = app
        self.stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(channel)

    async def generate(self, **fields: Any) -> list[pb.GenerateEvent]:
        request = pb.GenerateRequest(**{"prompt": "a red star", "seed": 5, **fields})
        return [event async for event in self.stub.Generate(request)]


@pytest_asyncio.fixture
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    directory = save_sd3(tmp_path_factory.mktemp("sd3"))
    load = partial(load_pipeline, device="cpu", precision="float32")
    painter = FoundPainter(
        partial(resolve, str(directory), name="sd3"),
        lambda files: PipelineModel(lambda: files, load),
    )
    app = GeneratorApp(load_settings(GeneratorSettings, environ={}), painter)
    async with serving(app) as channel:
        yield Service(app, channel)
        await until(lambda: app.engine.report().rows == 0)


async def test_a_pictures_life_is_the_same(service: Service) -> None:
    events = await service.generate(steps=3, count=2)
    for index in (0, 1):
        told = [event for event in events if event.index == index]
        kinds = [event.WhichOneof("event") for event in told]
        assert kinds == ["admitted", "step", "step", "step", "image"]
        assert [event.step.step for event in told[1:4]] == [1, 2, 3]
        image = told[-1].image
        assert (image.provenance.backend, image.seed) == ("diffusers", 5 + index)
        assert image.provenance.request.sampler == pb.SAMPLER_UNSPECIFIED
        parameters = Image.open(io.BytesIO(image.image.encoded)).info["parameters"]
        assert "Sampler: FlowMatchEulerDiscreteScheduler" in parameters
    answer = await service.stub.Verify(pb.VerifyRequest(provenance=events[-1].image.provenance))
    assert answer.verdict == pb.VERDICT_EQUAL


async def test_the_model_says_what_it_is(service: Service) -> None:
    info = await service.models.GetModel(model_pb2.GetModelRequest())
    details = info.model.generator
    assert not details.step_engine
    assert (details.layout, list(details.modes)) == ("StableDiffusion3Pipeline", ["text_to_image"])
    assert (details.default_steps, details.default_width, details.max_prompt_tokens) == (
        28,
        32,
        256,
    )
    assert list(details.samplers) == []
    assert info.model.config.extra["scheduler"] == "FlowMatchEulerDiscreteScheduler"


async def test_a_cancel_ends_a_call_between_two_steps(service: Service) -> None:
    call = service.stub.GenerateStream()
    await call.write(
        pb.GenerateStreamRequest(submit=pb.GenerateRequest(id="a", prompt="x", steps=150, seed=1))
    )
    ends: list[pb.GenerateEvent] = []

    async def read() -> None:
        while (event := await call.read()) is not grpc.aio.EOF:
            if event.WhichOneof("event") == "step" and event.step.step == 2:
                await call.write(pb.GenerateStreamRequest(cancel=pb.Cancel(id="a")))
                await call.done_writing()
            if event.WhichOneof("event") not in ("admitted", "step"):
                ends.append(event)

    await asyncio.wait_for(read(), 60)
    assert [event.WhichOneof("event") for event in ends] == ["stopped"]
    assert 2 <= ends[0].stopped.step < 150


async def test_what_it_does_not_serve_is_refused_by_name(service: Service) -> None:
    for fields, named in (
        ({"sampler": pb.SAMPLER_DDIM}, "FlowMatchEulerDiscreteScheduler"),
        ({"preview": pb.Preview(every=1)}, "preview"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.generate(**fields)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert named in str(caught.value.details())
