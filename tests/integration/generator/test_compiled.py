"""A compiled model behind the service: loaded in one thread, stepped in another.

What was traced is computed by PyTorch's eager kernels here, which takes seconds instead of minutes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest
import pytest_asyncio
import torch

from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.core.config import load_settings
from services.core.reference import ModelFiles
from services.generator import compiled
from services.generator.compiled import graphs
from services.generator.config import GeneratorSettings
from services.generator.model import GeneratorModel
from services.generator.service import GeneratorApp
from tests.integration.serving import serving
from tests.parity.generator.models import SMALL, save_random_pipeline

pytestmark = pytest.mark.timeout(300)


@pytest_asyncio.fixture
async def channel(tmp_path_factory: Any) -> AsyncIterator[grpc.aio.Channel]:
    directory = save_random_pipeline(tmp_path_factory.mktemp("small"), SMALL)
    before = torch.get_num_threads()
    load = partial(
        compiled.load,
        device="cpu",
        precision="float32",
        threads=2,
        versions={"c++": "g++ 12.2.0"},
        compile_=partial(graphs, backend="eager"),
    )
    files = ModelFiles("small", "1", directory, "sha256:00")
    app = GeneratorApp(
        load_settings(GeneratorSettings, environ={}), GeneratorModel(lambda: files, load)
    )
    async with serving(app) as opened:
        yield opened
    torch.set_num_threads(before)


async def made(channel: grpc.aio.Channel, **fields: Any) -> list[pb.GeneratedImage]:
    stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
    request = pb.GenerateRequest(**{"prompt": "a red star", "seed": 5, "steps": 3, **fields})
    events = [event async for event in stub.Generate(request)]
    return [event.image for event in events if event.WhichOneof("event") == "image"]


async def test_what_is_compiled_is_told(channel: grpc.aio.Channel) -> None:
    stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
    for fields, backend in (
        ({"count": 3}, "pytorch-compiled"),
        ({"reproducibility": pb.REPRODUCIBILITY_EXACT}, "pytorch-compiled"),
        ({"width": 32, "height": 24}, "pytorch"),
        ({"cache_interval": 2}, "pytorch"),
    ):
        for image in await made(channel, **fields):
            told = image.provenance
            assert (told.backend, told.versions["c++"]) == (backend, "g++ 12.2.0")
            assert "/pytorch-compiled/2 threads" in told.device_class
            answer = await stub.Verify(pb.VerifyRequest(image=image.image))
            exact = told.reproducibility == pb.REPRODUCIBILITY_EXACT
            assert answer.verdict in (pb.VERDICT_EQUAL, *(() if exact else (pb.VERDICT_CLOSE,)))
    models: Any = model_pb2_grpc.ModelServiceStub(channel)
    config = (await models.GetModel(model_pb2.GetModelRequest())).model.config
    assert config.backend == "pytorch-compiled"
    assert config.extra["compiled"].startswith("U-Net and decoder, for pictures of 16 x 16")
    keys = {batch.key for batch in config.batches}
    assert any(key.startswith("denoise/pytorch-compiled/8/8") for key in keys), keys
